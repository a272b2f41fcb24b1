/* Vulkan writes a buffer, CUDA reads it and writes it again, and Vulkan reads that: one piece of
 * memory, no copy in between. Loads libcuda when it runs, so that it builds without CUDA. Exits
 * with 0 if every byte was right, 2 without CUDA. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contexts.h"

#define WORDS 1024
#define BYTES (WORDS * 4)

/* The functions of cuda.h that this example calls. Each returns a CUresult. */
static int (*cu_init)(unsigned flags);
static int (*cu_device_get_count)(int *count);
static int (*cu_device_get)(int *device, int ordinal);
static int (*cu_context_retain)(void **context, int device);
static int (*cu_context_release)(int device);
static int (*cu_context_set)(void *context);
static int (*cu_copy_to_host)(void *to, unsigned long long from, size_t bytes);
static int (*cu_copy_from_host)(unsigned long long to, const void *from, size_t bytes);

static void missing(const char *what) {
    fprintf(stderr, "CUDA: %s\n", what);
    exit(2);
}

static void CU(int result) {
    if (result != 0) {
        fprintf(stderr, "CUDA: a call returned %d\n", result);
        exit(1);
    }
}

static void load(void *library, const char *name, void *function) {
    void *address = dlsym(library, name);
    if (!address) missing(name);
    memcpy(function, &address, sizeof address);
}

static void load_cuda(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) missing("libcuda.so.1 is not installed");
    load(library, "cuInit", &cu_init);
    load(library, "cuDeviceGetCount", &cu_device_get_count);
    load(library, "cuDeviceGet", &cu_device_get);
    load(library, "cuDevicePrimaryCtxRetain", &cu_context_retain);
    load(library, "cuDevicePrimaryCtxRelease_v2", &cu_context_release);
    load(library, "cuCtxSetCurrent", &cu_context_set);
    load(library, "cuMemcpyDtoH_v2", &cu_copy_to_host);
    load(library, "cuMemcpyHtoD_v2", &cu_copy_from_host);
    if (cu_init(0) != 0) missing("no usable GPU");
}

/* An endpoint over the primary context of the device that is Vulkan's GPU. */
static gi_endpoint *open_cuda(const contexts *gpu, int *device) {
    unsigned char vulkan[16], cuda[16];
    int count, i;
    GI(gi_endpoint_uuid(gpu->vulkan, &vulkan));
    CU(cu_device_get_count(&count));
    for (i = 0; i < count; i++) {
        void *context;
        gi_endpoint *endpoint;
        CU(cu_device_get(device, i));
        CU(cu_context_retain(&context, *device));
        GI(gi_endpoint_cuda(context, &endpoint));
        GI(gi_endpoint_uuid(endpoint, &cuda));
        CU(cu_context_set(context));
        if (memcmp(vulkan, cuda, sizeof cuda) == 0) return endpoint;
        gi_endpoint_destroy(endpoint);
        CU(cu_context_release(*device));
    }
    missing("no device is Vulkan's GPU");
    return NULL;
}

int main(void) {
    contexts gpu;
    uint32_t words[WORDS], seen[WORDS], i;
    int device, there, back;
    load_cuda();
    contexts_open(&gpu);
    gi_endpoint *cuda = open_cuda(&gpu, &device);

    gi_buffer *buffer, *in_cuda, *on_host;
    gi_payload *payload;
    gi_releaser *vulkan_release, *cuda_release;
    gi_acquirer *cuda_acquire, *vulkan_acquire;
    gi_ticket *ticket;
    gi_sync *sync;
    gi_mapping *mapping;
    OPTIONS(gi_buffer_desc, desc);
    desc.size = BYTES;
    GI(gi_buffer_create(gpu.vulkan, &desc, NULL, &buffer));
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_buffer_import(cuda, &payload, &in_cuda));
    GI(gi_handoff_open(gpu.vulkan, gpu.vulkan, cuda, NULL, &vulkan_release, &cuda_acquire));
    GI(gi_handoff_open(gpu.vulkan, cuda, gpu.vulkan, NULL, &cuda_release, &vulkan_acquire));
    printf("%s\n", gi_releaser_plan(vulkan_release));

    /* Vulkan writes and releases. */
    VkCommandBuffer commands = commands_begin(&gpu);
    for (i = 0; i < WORDS; i++) words[i] = i * 0x9e3779b9u;
    vkCmdUpdateBuffer(commands, (VkBuffer)gi_buffer_handle(buffer), 0, BYTES, words);
    ZEROED(gi_access, access);
    access.buffer = buffer;
    OPTIONS(gi_commands, in_vulkan);
    in_vulkan.command_buffer = commands;
    in_vulkan.queue_family = gpu.queue_family;
    in_vulkan.used = &access;
    in_vulkan.used_count = 1;
    GI(gi_release(vulkan_release, &in_vulkan, &ticket, &sync));
    VK(vkEndCommandBuffer(commands));
    GI(gi_sync_submit(&sync, gpu.vulkan, gpu.queue, (void **)&commands, 1));

    /* CUDA acquires on its default stream, reads, writes and releases. */
    GI(gi_acquire(cuda_acquire, &ticket, NULL, NULL));
    CU(cu_copy_to_host(seen, gi_buffer_handle(in_cuda), BYTES));
    there = memcmp(words, seen, BYTES) == 0;
    for (i = 0; i < WORDS; i++) words[i] = i * 0x85ebca6bu;
    CU(cu_copy_from_host(gi_buffer_handle(in_cuda), words, BYTES));
    GI(gi_release(cuda_release, NULL, &ticket, NULL));

    /* Vulkan acquires, and copies to memory that the host maps. */
    OPTIONS(gi_memory_options, host);
    host.location = GI_MEMORY_LOCATION_HOST_VISIBLE;
    GI(gi_buffer_create(gpu.vulkan, &desc, &host, &on_host));
    in_vulkan.command_buffer = commands = commands_begin(&gpu);
    GI(gi_acquire(vulkan_acquire, &ticket, &in_vulkan, &sync));
    ZEROED(VkBufferCopy, whole);
    whole.size = BYTES;
    vkCmdCopyBuffer(commands, (VkBuffer)gi_buffer_handle(buffer),
                    (VkBuffer)gi_buffer_handle(on_host), 1, &whole);
    VK(vkEndCommandBuffer(commands));
    GI(gi_sync_submit(&sync, gpu.vulkan, gpu.queue, (void **)&commands, 1));
    GI(gi_endpoint_wait_idle(gpu.vulkan));
    GI(gi_buffer_map(on_host, &mapping));
    back = memcmp(words, gi_mapping_data(mapping), BYTES) == 0;

    printf("Vulkan to CUDA: %s; CUDA to Vulkan: %s\n", there ? "right" : "wrong",
           back ? "right" : "wrong");
    gi_mapping_destroy(mapping);
    gi_buffer_destroy(on_host);
    gi_releaser_destroy(vulkan_release);
    gi_acquirer_destroy(cuda_acquire);
    gi_releaser_destroy(cuda_release);
    gi_acquirer_destroy(vulkan_acquire);
    gi_buffer_destroy(in_cuda);
    gi_buffer_destroy(buffer);
    gi_endpoint_destroy(cuda);
    CU(cu_context_release(device));
    contexts_close(&gpu);
    return there && back ? 0 : 1;
}
