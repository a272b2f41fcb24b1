/* A Vulkan device and an OpenGL context of the application's own, made with plain C calls and
 * without a display, on the first GPU that both APIs share. */
#ifndef CONTEXTS_H
#define CONTEXTS_H

#include <EGL/egl.h>
#include <EGL/eglext.h>
#define GL_GLEXT_PROTOTYPES
#include <GL/gl.h>
#include <GL/glext.h>
#include <gpu_interop.h>
#include <vulkan/vulkan.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Declares a structure whose bytes are all 0. */
#define ZEROED(type, name) \
    type name;             \
    memset(&name, 0, sizeof name)

/* Declares a structure of gpu-interop: all defaults. */
#define OPTIONS(type, name) \
    ZEROED(type, name);     \
    name.struct_size = sizeof name

/* Ends the program if a call fails: with 2 if the machine lacks something, otherwise with 1. */
#define GI(call) check_gi((call), #call)
#define VK(call) check_vk((call), #call)

#define MAX_EXTENSIONS 64

void check_gi(gi_result result, const char *call);
void check_vk(VkResult result, const char *call);

typedef struct contexts {
    VkInstance instance;
    VkPhysicalDevice physical_device;
    VkDevice device;
    const char *extensions[MAX_EXTENSIONS]; /* those that are enabled */
    uint32_t extension_count;
    uint32_t timeline_semaphore; /* features: 1 if enabled */
    uint32_t buffer_device_address;
    VkQueue queue;
    uint32_t queue_family;
    VkCommandPool pool;
    EGLDisplay display;
    EGLContext context;
    gi_endpoint *vulkan;
    gi_endpoint *gl;
} contexts;

void contexts_open(contexts *made);
void contexts_close(contexts *made);

/* Begins a command buffer that is submitted once. */
VkCommandBuffer commands_begin(const contexts *with);

#ifdef __cplusplus
}
#endif
#endif
