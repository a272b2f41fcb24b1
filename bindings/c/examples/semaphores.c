/* Vulkan signals a semaphore on the GPU, and OpenGL waits for it: synchronisation without handoffs,
 * by a binary semaphore and, if OpenGL has them, a timeline semaphore. Exits with 0 if every byte
 * was right, 2 if the driver can't share semaphores. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contexts.h"

#define WORDS 1024
#define BYTES (WORDS * 4)

static int share(const contexts *gpu, uint32_t kind, uint32_t seed) {
    uint32_t words[WORDS], seen[WORDS], i;
    gi_buffer *buffer, *in_gl;
    gi_payload *payload;
    gi_semaphore *semaphore, *gl_semaphore;
    VkCommandBuffer commands = commands_begin(gpu);
    const uint64_t value = 1;
    OPTIONS(gi_buffer_desc, desc);
    desc.size = BYTES;
    GI(gi_buffer_create(gpu->vulkan, &desc, NULL, &buffer));
    GI(gi_buffer_export(buffer, &payload));
    GI(gi_buffer_import(gpu->gl, &payload, &in_gl));
    GI(gi_semaphore_create(gpu->vulkan, kind, &semaphore));
    GI(gi_semaphore_export(semaphore, &payload));
    GI(gi_semaphore_import(gpu->gl, &payload, &gl_semaphore));

    for (i = 0; i < WORDS; i++) words[i] = (i ^ seed << 16) * 0x9e3779b9u;
    vkCmdUpdateBuffer(commands, (VkBuffer)gi_buffer_handle(buffer), 0, BYTES, words);
    VK(vkEndCommandBuffer(commands));
    const VkSemaphore vk_semaphore = (VkSemaphore)gi_semaphore_handle(semaphore);
    ZEROED(VkTimelineSemaphoreSubmitInfo, values);
    values.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
    values.signalSemaphoreValueCount = 1;
    values.pSignalSemaphoreValues = &value;
    ZEROED(VkSubmitInfo, submit);
    submit.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    submit.pNext = kind == GI_SEMAPHORE_KIND_TIMELINE ? &values : NULL;
    submit.commandBufferCount = 1;
    submit.pCommandBuffers = &commands;
    submit.signalSemaphoreCount = 1;
    submit.pSignalSemaphores = &vk_semaphore;
    VK(vkQueueSubmit(gpu->queue, 1, &submit, VK_NULL_HANDLE));

    ZEROED(gi_access, access);
    access.buffer = in_gl;
    OPTIONS(gi_commands, in_opengl);
    in_opengl.used = &access;
    in_opengl.used_count = 1;
    GI(gi_semaphore_enqueue_wait(gpu->gl, gl_semaphore, value, &in_opengl));
    glBindBuffer(GL_COPY_READ_BUFFER, (GLuint)gi_buffer_handle(in_gl));
    glGetBufferSubData(GL_COPY_READ_BUFFER, 0, BYTES, seen);
    if (kind == GI_SEMAPHORE_KIND_TIMELINE) {
        /* OpenGL signals, and the host waits. */
        GI(gi_semaphore_enqueue_signal(gpu->gl, gl_semaphore, value + 1, &in_opengl));
        glFlush();
        GI(gi_semaphore_wait(semaphore, value + 1, 10000000000u));
    }
    GI(gi_endpoint_wait_idle(gpu->vulkan));
    gi_semaphore_destroy(gl_semaphore);
    gi_semaphore_destroy(semaphore);
    gi_buffer_destroy(in_gl);
    gi_buffer_destroy(buffer);
    return memcmp(words, seen, BYTES) == 0;
}

int main(void) {
    contexts gpu;
    int binary, timeline = -1;
    contexts_open(&gpu);
    binary = share(&gpu, GI_SEMAPHORE_KIND_BINARY, 1);
    if (strstr((const char *)glGetString(GL_VENDOR), "NVIDIA"))
        timeline = share(&gpu, GI_SEMAPHORE_KIND_TIMELINE, 2);
    printf("binary semaphore: %s; timeline semaphore: %s\n", binary ? "right" : "wrong",
           timeline < 0 ? "not with this OpenGL" : timeline ? "right" : "wrong");
    contexts_close(&gpu);
    return binary && timeline ? 0 : 1;
}
