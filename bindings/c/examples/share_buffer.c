/* Vulkan writes a buffer that OpenGL reads, then OpenGL writes it and Vulkan reads: one piece of
 * memory, no copy in between. Exits with 0 if every byte was right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contexts.h"

#define BYTES 65536

static uint32_t word(uint32_t seed, uint32_t i) { return (i ^ seed << 16) * 0x9e3779b9u; }

static size_t count_right(const uint32_t *words, uint32_t seed) {
    size_t right = 0;
    uint32_t i;
    for (i = 0; i < BYTES / 4; i++) right += words[i] == word(seed, i);
    return right;
}

int main(void) {
    contexts gpu;
    uint32_t *words = (uint32_t *)malloc(BYTES), i;
    size_t to_gl_right, to_vulkan_right;
    if (!words) return 1;
    contexts_open(&gpu);

    /* One buffer with a view in each API, and a handoff in each direction. */
    gi_buffer *buffer, *in_gl;
    gi_payload *payload;
    gi_releaser *vulkan_release, *gl_release;
    gi_acquirer *gl_acquire, *vulkan_acquire;
    gi_ticket *ticket;
    gi_sync *sync;
    OPTIONS(gi_buffer_desc, desc);
    desc.size = BYTES;
    GI(gi_buffer_create(gpu.vulkan, &desc, NULL, &buffer));
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_buffer_import(gpu.gl, &payload, &in_gl));
    GI(gi_handoff_open(gpu.vulkan, gpu.vulkan, gpu.gl, NULL, &vulkan_release, &gl_acquire));
    GI(gi_handoff_open(gpu.vulkan, gpu.gl, gpu.vulkan, NULL, &gl_release, &vulkan_acquire));
    printf("%s\n", gi_releaser_plan(vulkan_release));

    /* Vulkan writes, and releases in the same command buffer. */
    VkCommandBuffer commands = commands_begin(&gpu);
    for (i = 0; i < BYTES / 4; i++) words[i] = word(1, i);
    vkCmdUpdateBuffer(commands, (VkBuffer)gi_buffer_handle(buffer), 0, BYTES, words);
    ZEROED(gi_access, vulkan_access);
    vulkan_access.buffer = buffer;
    vulkan_access.stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
    vulkan_access.access = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    OPTIONS(gi_commands, in_vulkan);
    in_vulkan.command_buffer = commands;
    in_vulkan.queue_family = gpu.queue_family;
    in_vulkan.used = &vulkan_access;
    in_vulkan.used_count = 1;
    GI(gi_release(vulkan_release, &in_vulkan, &ticket, &sync));
    VK(vkEndCommandBuffer(commands));
    GI(gi_sync_submit(&sync, gpu.vulkan, gpu.queue, (void **)&commands, 1));

    /* OpenGL acquires and reads, then writes and releases. */
    ZEROED(gi_access, gl_access);
    gl_access.buffer = in_gl;
    OPTIONS(gi_commands, in_opengl);
    in_opengl.used = &gl_access;
    in_opengl.used_count = 1;
    GI(gi_acquire(gl_acquire, &ticket, &in_opengl, NULL));
    glBindBuffer(GL_COPY_READ_BUFFER, (GLuint)gi_buffer_handle(in_gl));
    glGetBufferSubData(GL_COPY_READ_BUFFER, 0, BYTES, words);
    to_gl_right = count_right(words, 1);
    for (i = 0; i < BYTES / 4; i++) words[i] = word(2, i);
    GLuint staging;
    glGenBuffers(1, &staging);
    glBindBuffer(GL_COPY_WRITE_BUFFER, staging);
    glBufferData(GL_COPY_WRITE_BUFFER, BYTES, words, GL_STREAM_COPY);
    glCopyBufferSubData(GL_COPY_WRITE_BUFFER, GL_COPY_READ_BUFFER, 0, 0, BYTES);
    glDeleteBuffers(1, &staging);
    GI(gi_release(gl_release, &in_opengl, &ticket, NULL));

    /* Vulkan acquires, and copies the buffer to memory that the host maps. */
    gi_buffer *on_host;
    gi_mapping *mapping;
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
    to_vulkan_right = count_right((const uint32_t *)gi_mapping_data(mapping), 2);

    printf("Vulkan to OpenGL: %zu of %d words right\n", to_gl_right, BYTES / 4);
    printf("OpenGL to Vulkan: %zu of %d words right\n", to_vulkan_right, BYTES / 4);
    gi_mapping_destroy(mapping);
    gi_buffer_destroy(on_host);
    gi_releaser_destroy(vulkan_release);
    gi_acquirer_destroy(gl_acquire);
    gi_releaser_destroy(gl_release);
    gi_acquirer_destroy(vulkan_acquire);
    gi_buffer_destroy(in_gl);
    gi_buffer_destroy(buffer);
    contexts_close(&gpu);
    free(words);
    return to_gl_right == BYTES / 4 && to_vulkan_right == BYTES / 4 ? 0 : 1;
}
