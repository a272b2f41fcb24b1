/* What calls that fail leave to the caller, and that handles can be destroyed in any order. Exits
 * with 0 if all checks hold. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../examples/contexts.h"

static int failures;

#define EXPECT(condition)                                                             \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "line %d: not true: %s (last error: %s)\n", __LINE__,     \
                    #condition, gi_last_error());                                     \
            failures++;                                                               \
        }                                                                             \
    } while (0)

static int is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

static int open_descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(folder)) count++;
    closedir(folder);
    return count;
}

/* An import of the wrong kind leaves the payload, which can be imported rightly afterwards. */
static void imports(const contexts *gpu, const gi_buffer *buffer) {
    gi_payload *payload, *second;
    gi_image *image = NULL;
    gi_buffer *in_gl = NULL, *other = NULL;
    int fd;
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_payload_clone(payload, &second));
    fd = gi_payload_fd(payload);
    EXPECT(fd != gi_payload_fd(second) && is_open(fd) && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    EXPECT(gi_payload_get_kind(payload) == GI_PAYLOAD_KIND_BUFFER);
    EXPECT(gi_image_import(gpu->gl, &payload, &image) == GI_RESULT_MISMATCH);
    EXPECT(payload && !image && gi_payload_fd(payload) == fd && is_open(fd));
    EXPECT(gi_buffer_import(gpu->gl, &payload, &in_gl) == GI_RESULT_OK && !payload && in_gl);
    EXPECT(gi_buffer_size(in_gl) == gi_buffer_size(buffer));
    EXPECT(gi_buffer_import(gpu->gl, &payload, &other) == GI_RESULT_INVALID && !other);
    EXPECT(strstr(gi_last_error(), "null handle"));
    EXPECT(gi_buffer_import(NULL, &second, &other) == GI_RESULT_INVALID && second);
    fd = gi_payload_fd(second);
    gi_payload_destroy(second);
    EXPECT(!is_open(fd));
    EXPECT(gi_buffer_export(in_gl, &payload) == GI_RESULT_INVALID && !payload);
    gi_buffer_destroy(in_gl);
}

static void options(const contexts *gpu) {
    gi_buffer *buffer = NULL;
    ZEROED(gi_buffer_desc, desc);
    desc.size = 64;
    EXPECT(gi_buffer_create(gpu->vulkan, &desc, NULL, &buffer) == GI_RESULT_INVALID);
    EXPECT(strstr(gi_last_error(), "sizeof(gi_buffer_desc)"));
    desc.struct_size = sizeof desc;
    EXPECT(gi_buffer_create(gpu->gl, &desc, NULL, &buffer) == GI_RESULT_INVALID);
    OPTIONS(gi_memory_options, memory);
    memory.location = 7;
    EXPECT(gi_buffer_create(gpu->vulkan, &desc, &memory, &buffer) == GI_RESULT_INVALID);
    EXPECT(strstr(gi_last_error(), "7 is not a gi_memory_location"));
    desc.size = 0;
    EXPECT(gi_buffer_create(gpu->vulkan, &desc, NULL, &buffer) == GI_RESULT_INVALID && !buffer);
    OPTIONS(gi_image_desc, image_desc);
    gi_image *image = NULL;
    image_desc.format = 999999;
    image_desc.width = 4;
    EXPECT(gi_image_create(gpu->vulkan, &image_desc, NULL, &image) != GI_RESULT_OK && !image);
    gi_endpoint *cuda = NULL;
    EXPECT(gi_endpoint_cuda(NULL, &cuda) != GI_RESULT_OK && !cuda);
}

/* A ticket of another handoff is refused and stays; a lost one can be acquired; a release that is
 * not submitted is cancelled. */
static void tickets(const contexts *gpu, gi_buffer *buffer) {
    gi_releaser *release, *other_release;
    gi_acquirer *acquire, *other_acquire;
    gi_ticket *ticket, *lost = NULL;
    gi_sync *sync;
    gi_buffer *in_gl;
    gi_payload *payload;
    VkCommandBuffer commands = commands_begin(gpu);
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_buffer_import(gpu->gl, &payload, &in_gl));
    GI(gi_handoff_open(gpu->vulkan, gpu->vulkan, gpu->gl, NULL, &release, &acquire));
    EXPECT(gi_releaser_method(release) != GI_SYNC_METHOD_AUTO);
    GI(gi_handoff_open(gpu->vulkan, gpu->vulkan, gpu->gl, NULL, &other_release, &other_acquire));
    ZEROED(gi_access, access);
    access.buffer = buffer;
    OPTIONS(gi_commands, released);
    released.command_buffer = commands;
    released.queue_family = gpu->queue_family;
    released.used = &access;
    released.used_count = 1;

    GI(gi_release(release, &released, &ticket, &sync));
    gi_sync_destroy(sync);
    gi_ticket_destroy(ticket);
    VK(vkEndCommandBuffer(commands)); /* dropped with its barrier */

    released.command_buffer = NULL;
    released.queue = gpu->queue;
    GI(gi_release(release, &released, &ticket, &sync));
    EXPECT(!sync && gi_ticket_sequence(ticket) > 0);
    ZEROED(gi_access, gl_access);
    gl_access.buffer = in_gl;
    OPTIONS(gi_commands, acquired);
    acquired.used = &gl_access;
    acquired.used_count = 1;
    EXPECT(gi_acquire(other_acquire, &ticket, &acquired, NULL) != GI_RESULT_OK && ticket);
    gl_access.buffer = buffer;
    EXPECT(gi_acquire(acquire, &ticket, &acquired, NULL) == GI_RESULT_INVALID && ticket);
    gl_access.buffer = NULL;
    EXPECT(gi_acquire(acquire, &ticket, &acquired, NULL) == GI_RESULT_INVALID && ticket);
    gl_access.buffer = in_gl;
    gi_ticket_destroy(ticket);
    EXPECT(gi_releaser_lost_ticket(release, &lost) == GI_RESULT_OK && lost);
    EXPECT(gi_acquire(acquire, &lost, &acquired, NULL) == GI_RESULT_OK && !lost);
    EXPECT(gi_releaser_lost_ticket(release, &lost) == GI_RESULT_INVALID && !lost);
    GI(gi_endpoint_wait_idle(gpu->vulkan));

    /* Vulkan has released the buffer and doesn't get it back: a second release is refused. */
    EXPECT(gi_release(release, &released, &lost, &sync) == GI_RESULT_INVALID && !lost);
    EXPECT(strstr(gi_last_error(), "reclaim"));
    GI(gi_buffer_reclaim(buffer));
    gi_buffer_destroy(in_gl);
    gi_releaser_destroy(release);
    gi_acquirer_destroy(acquire);
    gi_acquirer_destroy(other_acquire);
    gi_releaser_destroy(other_release);
}

/* A second context that shares objects uses the first one's buffers. What is destroyed while no
 * context is current is freed later. */
static void shared_contexts(const contexts *gpu, const gi_buffer *buffer) {
    const EGLint attributes[] = {EGL_CONTEXT_MAJOR_VERSION, 4, EGL_CONTEXT_MINOR_VERSION, 5,
                                 EGL_NONE};
    gi_endpoint *second = NULL;
    gi_payload *payload;
    gi_buffer *in_gl;
    const EGLContext context =
        eglCreateContext(gpu->display, EGL_NO_CONFIG_KHR, gpu->context, attributes);
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_buffer_import(gpu->gl, &payload, &in_gl));
    const GLuint name = (GLuint)gi_buffer_handle(in_gl);
    eglMakeCurrent(gpu->display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    EXPECT(gi_endpoint_gl_shared(gpu->gl, eglGetProcAddress, &second) != GI_RESULT_OK && !second);
    EXPECT(gi_endpoint_collect(gpu->gl) == GI_RESULT_INVALID);
    eglMakeCurrent(gpu->display, EGL_NO_SURFACE, EGL_NO_SURFACE, context);
    EXPECT(gi_endpoint_gl_shared(gpu->vulkan, eglGetProcAddress, &second) == GI_RESULT_INVALID);
    GI(gi_endpoint_gl_shared(gpu->gl, eglGetProcAddress, &second));
    EXPECT(gi_endpoint_api(second) == GI_API_GL && glIsBuffer(name));
    eglMakeCurrent(gpu->display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    gi_buffer_destroy(in_gl);
    eglMakeCurrent(gpu->display, EGL_NO_SURFACE, EGL_NO_SURFACE, context);
    GI(gi_endpoint_collect(second));
    EXPECT(!glIsBuffer(name));
    gi_endpoint_destroy(second);
    eglMakeCurrent(gpu->display, EGL_NO_SURFACE, EGL_NO_SURFACE, gpu->context);
    eglDestroyContext(gpu->display, context);
}

/* Images, mappings and rings: what the examples don't call. */
static void others(const contexts *gpu) {
    gi_image *image, *in_gl;
    gi_payload *payload;
    gi_buffer *buffer;
    gi_mapping *mapping;
    gi_stage *first, *second;
    gi_batch *batch;
    gi_sync *sync;
    uint32_t extent[3], is_new = 0;
    size_t slot = 9;
    int fd, kept;
    in_gl = NULL;
    OPTIONS(gi_image_desc, desc);
    desc.format = VK_FORMAT_R8G8B8A8_UNORM;
    desc.width = 7;
    desc.height = 5;
    desc.usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT | VK_IMAGE_USAGE_SAMPLED_BIT;
    GI(gi_image_desc_for_gl(gpu->vulkan, &desc));
    EXPECT(desc.flags & VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT);
    GI(gi_image_create(gpu->vulkan, &desc, NULL, &image));
    GI(gi_image_extent(image, &extent));
    EXPECT(extent[0] == 7 && extent[1] == 5 && extent[2] == 1);
    GI(gi_image_reclaim(image));
    /* The payload as a descriptor and its description, and back. */
    OPTIONS(gi_memory_info, info);
    GI(gi_image_export(image, &payload));
    GI(gi_payload_get_memory_info(payload, &info));
    GI(gi_payload_take_fd(&payload, &fd));
    info.device_uuid[0] ^= 1;
    GI(gi_payload_new_image(&fd, &info, &desc, &payload));
    EXPECT(fd == -1);
    EXPECT(gi_image_import(gpu->gl, &payload, &in_gl) == GI_RESULT_MISMATCH && payload);
    EXPECT(strstr(gi_last_error(), "device UUID"));
    EXPECT(!in_gl);
    GI(gi_payload_take_fd(&payload, &fd));
    info.device_uuid[0] ^= 1;
    info.allocation_size = 0;
    kept = fd;
    EXPECT(gi_payload_new_image(&fd, &info, &desc, &payload) == GI_RESULT_INVALID);
    EXPECT(fd == kept && is_open(fd) && !payload);
    OPTIONS(gi_semaphore_info, semaphore_info);
    semaphore_info.kind = 9;
    EXPECT(gi_payload_new_semaphore(&fd, &semaphore_info, &payload) == GI_RESULT_INVALID);
    semaphore_info.kind = GI_SEMAPHORE_KIND_TIMELINE;
    GI(gi_payload_new_semaphore(&fd, &semaphore_info, &payload));
    EXPECT(gi_payload_get_kind(payload) == GI_PAYLOAD_KIND_SEMAPHORE && fd == -1);
    EXPECT(gi_payload_get_memory_info(payload, &info) == GI_RESULT_INVALID);
    gi_payload_destroy(payload);
    gi_image_destroy(image);

    OPTIONS(gi_buffer_desc, bytes);
    bytes.size = 256;
    OPTIONS(gi_memory_options, host);
    host.location = GI_MEMORY_LOCATION_HOST_VISIBLE;
    GI(gi_buffer_create(gpu->vulkan, &bytes, &host, &buffer));
    GI(gi_buffer_map(buffer, &mapping));
    gi_buffer_destroy(buffer);
    EXPECT(gi_mapping_size(mapping) == 256);
    memset(gi_mapping_data(mapping), 1, 256);
    GI(gi_mapping_flush(mapping));
    GI(gi_mapping_invalidate(mapping));
    gi_mapping_destroy(mapping);

    uint64_t address = 0;
    EXPECT(gi_buffer_create(gpu->vulkan, &bytes, NULL, &buffer) == GI_RESULT_OK);
    EXPECT(gi_buffer_device_address(buffer, &address) == GI_RESULT_INVALID && !address);
    /* A descriptor that is no socket: the kernel's code. */
    GI(gi_buffer_export(buffer, &payload));
    fd = open("/dev/null", O_RDWR);
    EXPECT(gi_ipc_send(fd, payload) == GI_RESULT_DRIVER && gi_last_driver_code() == ENOTSOCK);
    EXPECT(gi_ipc_send(-1, payload) == GI_RESULT_INVALID && gi_last_driver_code() == 0);
    close(fd);
    gi_payload_destroy(payload);
    gi_buffer_destroy(buffer);
    if (gpu->buffer_device_address) {
        bytes.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT;
        GI(gi_buffer_create(gpu->vulkan, &bytes, NULL, &buffer));
        EXPECT(gi_buffer_device_address(buffer, &address) == GI_RESULT_OK && address);
        gi_buffer_destroy(buffer);
        bytes.usage = 0;
    }

    /* A batch that is destroyed returns to its stage. */
    OPTIONS(gi_commands, commands);
    GI(gi_ring_pair(gpu->vulkan, gpu->vulkan, gpu->gl, &bytes, NULL, &first, &second));
    EXPECT(gi_stage_arrived(first) == 4 && gi_stage_arrived(second) == 0);
    GI(gi_stage_take(first, 0, 1, 1, &commands, &batch, &sync));
    GI(gi_batch_slot(batch, 0, &slot, &is_new));
    EXPECT(is_new && gi_stage_buffer_handle(first, slot) && !gi_stage_buffer_handle(first, 4));
    EXPECT(gi_batch_slot(batch, 1, &slot, NULL) == GI_RESULT_INVALID);
    gi_sync_destroy(sync);
    gi_batch_destroy(batch);
    EXPECT(gi_stage_arrived(first) == 4);
    batch = NULL;
    EXPECT(gi_stage_take(second, 1, 1, 1, NULL, &batch, NULL) == GI_RESULT_TIMEOUT && !batch);
    commands.queue = gpu->queue;
    EXPECT(gi_stage_take(first, 0, 1, 1, &commands, &batch, &sync) == GI_RESULT_INVALID && !batch);
    gi_stage_destroy(first);
    gi_stage_destroy(second);
}

/* An image that the application created itself. */
static void own_image(const contexts *gpu) {
    VkImage vk_image;
    VkDeviceMemory memory;
    VkMemoryRequirements needs;
    gi_image *image = NULL, *in_gl;
    gi_payload *payload;
    OPTIONS(gi_image_desc, desc);
    desc.format = VK_FORMAT_R8G8B8A8_UNORM;
    desc.width = 7;
    desc.height = 5;
    desc.usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT | VK_IMAGE_USAGE_SAMPLED_BIT;
    GI(gi_image_desc_for_gl(gpu->vulkan, &desc));
    ZEROED(VkExternalMemoryImageCreateInfo, external);
    external.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO;
    external.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
    ZEROED(VkImageCreateInfo, create);
    create.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO;
    create.pNext = &external;
    create.flags = desc.flags;
    create.imageType = VK_IMAGE_TYPE_2D;
    create.format = VK_FORMAT_R8G8B8A8_UNORM;
    create.extent.width = desc.width;
    create.extent.height = desc.height;
    create.extent.depth = create.mipLevels = create.arrayLayers = 1;
    create.samples = VK_SAMPLE_COUNT_1_BIT;
    create.usage = desc.usage;
    VK(vkCreateImage(gpu->device, &create, NULL, &vk_image));
    vkGetImageMemoryRequirements(gpu->device, vk_image, &needs);
    ZEROED(VkMemoryDedicatedAllocateInfo, dedicated);
    dedicated.sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO;
    dedicated.image = vk_image;
    ZEROED(VkExportMemoryAllocateInfo, exported);
    exported.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO;
    exported.pNext = &dedicated;
    exported.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
    ZEROED(VkMemoryAllocateInfo, allocate);
    allocate.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
    allocate.pNext = &exported;
    allocate.allocationSize = needs.size;
    while (!(needs.memoryTypeBits & 1u << allocate.memoryTypeIndex)) allocate.memoryTypeIndex++;
    VK(vkAllocateMemory(gpu->device, &allocate, NULL, &memory));
    VK(vkBindImageMemory(gpu->device, vk_image, memory, 0));

    OPTIONS(gi_adopted_memory, adopted);
    adopted.memory = (uint64_t)memory;
    adopted.allocation_size = allocate.allocationSize;
    adopted.memory_type_index = allocate.memoryTypeIndex;
    adopted.dedicated = 1;
    EXPECT(gi_image_adopt(gpu->vulkan, 0, &desc, &adopted, &image) == GI_RESULT_INVALID && !image);
    GI(gi_image_adopt(gpu->vulkan, (uint64_t)vk_image, &desc, &adopted, &image));
    EXPECT((VkImage)gi_image_handle(image) == vk_image);
    GI(gi_image_export(image, &payload));
    GI(gi_image_import(gpu->gl, &payload, &in_gl));
    EXPECT(glIsTexture((GLuint)gi_image_handle(in_gl)));
    EXPECT(gi_image_gl_target(in_gl) == GL_TEXTURE_2D && gi_image_gl_target(image) == 0);
    gi_image_destroy(in_gl);
    gi_image_destroy(image);
    vkDestroyImage(gpu->device, vk_image, NULL);
    vkFreeMemory(gpu->device, memory, NULL);
}

static void sessions(const gi_buffer *buffer) {
    char path[256];
    gi_payload *slots[2], *none[1] = {NULL};
    gi_producer *producer = NULL;
    gi_consumer *consumer = NULL;
    gi_session_ring *ring = NULL;
    GI(gi_buffer_export(buffer, &slots[0]));
    GI(gi_buffer_export(buffer, &slots[1]));
    memset(path, 'x', sizeof path);
    path[0] = '/';
    path[sizeof path - 1] = 0;
    EXPECT(gi_producer_bind(path, "a", "b", slots, 2, NULL, 0, NULL, &producer) ==
           GI_RESULT_INVALID);
    EXPECT(slots[0] && slots[1] && is_open(gi_payload_fd(slots[0])) && !producer);
    EXPECT(gi_producer_bind("/tmp/x", "a", "b", none, 1, NULL, 0, NULL, &producer) ==
           GI_RESULT_INVALID);
    gi_payload_destroy(slots[0]);
    gi_payload_destroy(slots[1]);
    OPTIONS(gi_join_options, join);
    join.no_wait = 1;
    EXPECT(gi_consumer_join("/nonexistent/session", &join, &consumer, &ring) == GI_RESULT_MISSING);
    EXPECT(!consumer && !ring);
}

int main(void) {
    contexts gpu;
    gi_buffer *buffer;
    int before, round;
    contexts_open(&gpu);
    EXPECT(gi_version()[0] == '0');
    OPTIONS(gi_buffer_desc, desc);
    desc.size = 4096;
    GI(gi_buffer_create(gpu.vulkan, &desc, NULL, &buffer));
    imports(&gpu, buffer); /* what drivers open once is open now */
    before = open_descriptors();
    for (round = 0; round < 3; round++) {
        imports(&gpu, buffer);
        options(&gpu);
        tickets(&gpu, buffer);
        others(&gpu);
        own_image(&gpu);
        sessions(buffer);
        shared_contexts(&gpu, buffer);
    }
    EXPECT(open_descriptors() == before);

    /* The endpoints before what was created from them. */
    gi_endpoint_destroy(gpu.vulkan);
    gi_endpoint_destroy(gpu.gl);
    gpu.vulkan = gpu.gl = NULL;
    EXPECT(gi_buffer_size(buffer) == 4096);
    gi_buffer_destroy(buffer);
    contexts_close(&gpu);
    printf("%d checks failed\n", failures);
    return failures != 0;
}
