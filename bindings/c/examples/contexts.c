#include "contexts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEVICES 16

static void fail(const char *what, const char *why, int status) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(status);
}

void check_gi(gi_result result, const char *call) {
    if (result != GI_RESULT_OK) fail(call, gi_last_error(), result == GI_RESULT_MISSING ? 2 : 1);
}

void check_vk(VkResult result, const char *call) {
    if (result < 0) fail(call, "failed", 1);
}

/* Opens the context of one EGL device. Returns whether OpenGL is on the Vulkan device's GPU. */
static int open_gl(contexts *made, EGLDeviceEXT egl_device) {
    const EGLint attributes[] = {EGL_CONTEXT_MAJOR_VERSION, 4, EGL_CONTEXT_MINOR_VERSION, 5,
                                 EGL_NONE};
    EGLint major, minor;
    unsigned char vulkan[16], gl[16];
    made->display = eglGetPlatformDisplay(EGL_PLATFORM_DEVICE_EXT, egl_device, NULL);
    if (!eglInitialize(made->display, &major, &minor)) return 0;
    eglBindAPI(EGL_OPENGL_API);
    made->context =
        eglCreateContext(made->display, EGL_NO_CONFIG_KHR, EGL_NO_CONTEXT, attributes);
    eglMakeCurrent(made->display, EGL_NO_SURFACE, EGL_NO_SURFACE, made->context);
    made->gl = NULL;
    /* The interop lines: the endpoint over the current context, and the GPU that it is on. */
    if (gi_endpoint_gl(eglGetProcAddress, &made->gl) == GI_RESULT_OK) {
        GI(gi_endpoint_uuid(made->vulkan, &vulkan));
        GI(gi_endpoint_uuid(made->gl, &gl));
        if (memcmp(vulkan, gl, sizeof gl) == 0) return 1;
    }
    gi_endpoint_destroy(made->gl);
    eglMakeCurrent(made->display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    eglDestroyContext(made->display, made->context);
    eglTerminate(made->display);
    return 0;
}

static void open_vulkan(contexts *made, VkPhysicalDevice physical_device) {
    const float priority = 1.0f;
    VkQueueFamilyProperties families[MAX_DEVICES];
    uint32_t family_count = MAX_DEVICES;

    /* The interop lines: what to enable when the device is created. */
    OPTIONS(gi_vulkan_info, info);
    info.get_instance_proc_addr = (gi_function)vkGetInstanceProcAddr;
    info.instance = made->instance;
    info.physical_device = physical_device;
    info.api_version = VK_API_VERSION_1_2;
    made->extension_count = MAX_EXTENSIONS;
    GI(gi_vulkan_wanted_extensions(&info, made->extensions, &made->extension_count));
    GI(gi_vulkan_wanted_features(&info));
    made->timeline_semaphore = info.timeline_semaphore;
    made->buffer_device_address = info.buffer_device_address;

    vkGetPhysicalDeviceQueueFamilyProperties(physical_device, &family_count, families);
    made->queue_family = 0;
    while (made->queue_family + 1 < family_count &&
           !(families[made->queue_family].queueFlags & VK_QUEUE_GRAPHICS_BIT))
        made->queue_family++;
    ZEROED(VkDeviceQueueCreateInfo, queue);
    queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    queue.queueFamilyIndex = made->queue_family;
    queue.queueCount = 1;
    queue.pQueuePriorities = &priority;
    ZEROED(VkPhysicalDeviceVulkan12Features, features);
    features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    features.timelineSemaphore = made->timeline_semaphore;
    features.bufferDeviceAddress = made->buffer_device_address;
    info.storage_image_multisample = 0; /* not enabled here */
    ZEROED(VkDeviceCreateInfo, create);
    create.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    create.pNext = &features;
    create.queueCreateInfoCount = 1;
    create.pQueueCreateInfos = &queue;
    create.enabledExtensionCount = made->extension_count;
    create.ppEnabledExtensionNames = made->extensions;
    VK(vkCreateDevice(physical_device, &create, NULL, &made->device));
    vkGetDeviceQueue(made->device, made->queue_family, 0, &made->queue);

    /* The interop lines: the endpoint over the device. */
    made->physical_device = physical_device;
    info.device = made->device;
    info.enabled_extension_count = made->extension_count;
    info.enabled_extensions = made->extensions;
    GI(gi_endpoint_vulkan(&info, &made->vulkan));
}

void contexts_open(contexts *made) {
    VkPhysicalDevice physical_devices[MAX_DEVICES];
    EGLDeviceEXT egl_devices[MAX_DEVICES];
    uint32_t count = MAX_DEVICES, i;
    EGLint egl_count = 0, j;
    PFNEGLQUERYDEVICESEXTPROC query_devices =
        (PFNEGLQUERYDEVICESEXTPROC)eglGetProcAddress("eglQueryDevicesEXT");

    memset(made, 0, sizeof *made);
    ZEROED(VkApplicationInfo, application);
    application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    application.apiVersion = VK_API_VERSION_1_2;
    ZEROED(VkInstanceCreateInfo, create);
    create.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    create.pApplicationInfo = &application;
    VK(vkCreateInstance(&create, NULL, &made->instance));
    VK(vkEnumeratePhysicalDevices(made->instance, &count, physical_devices));
    if (!query_devices || !query_devices(MAX_DEVICES, egl_devices, &egl_count)) egl_count = 0;

    for (i = 0; i < count; i++) {
        open_vulkan(made, physical_devices[i]);
        for (j = 0; j < egl_count; j++) {
            if (!open_gl(made, egl_devices[j])) continue;
            ZEROED(VkCommandPoolCreateInfo, pool);
            pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
            pool.queueFamilyIndex = made->queue_family;
            VK(vkCreateCommandPool(made->device, &pool, NULL, &made->pool));
            return;
        }
        gi_endpoint_destroy(made->vulkan);
        vkDestroyDevice(made->device, NULL);
    }
    fail("contexts_open", "no GPU that Vulkan and OpenGL share", 2);
}

void contexts_close(contexts *made) {
    /* The endpoints first: the contexts outlive them. */
    gi_endpoint_destroy(made->gl);
    gi_endpoint_destroy(made->vulkan);
    eglMakeCurrent(made->display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    eglDestroyContext(made->display, made->context);
    eglTerminate(made->display);
    vkDestroyCommandPool(made->device, made->pool, NULL);
    vkDestroyDevice(made->device, NULL);
    vkDestroyInstance(made->instance, NULL);
}

VkCommandBuffer commands_begin(const contexts *with) {
    VkCommandBuffer commands;
    ZEROED(VkCommandBufferAllocateInfo, allocate);
    allocate.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
    allocate.commandPool = with->pool;
    allocate.commandBufferCount = 1;
    VK(vkAllocateCommandBuffers(with->device, &allocate, &commands));
    ZEROED(VkCommandBufferBeginInfo, begin);
    begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
    begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
    VK(vkBeginCommandBuffer(commands, &begin));
    return commands;
}
