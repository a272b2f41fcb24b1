/* Keeps four buffers in flight between Vulkan, which fills them, and OpenGL, which reads them.
 * Exits with 0 if every frame was right. */
#include <stdio.h>
#include <string.h>

#include "contexts.h"

#define FRAMES 64
#define BYTES 4096
#define TIMEOUT_NS 10000000000u

static uint32_t word(uint32_t frame, uint32_t i) { return (i ^ frame << 16) * 0x9e3779b9u; }

/* Takes a slot, fills it and releases it, all in one submit. */
static void fill(const contexts *gpu, gi_stage *stage, uint32_t frame) {
    uint32_t words[BYTES / 4], i;
    VkCommandBuffer command_buffer = commands_begin(gpu);
    gi_batch *batch;
    gi_sync *sync, *release_sync;
    size_t slot;
    OPTIONS(gi_commands, commands);
    commands.command_buffer = command_buffer;
    commands.queue_family = gpu->queue_family;
    commands.slot_use = GI_SLOT_USE_TRANSFER;
    GI(gi_stage_take(stage, TIMEOUT_NS, 1, 1, &commands, &batch, &sync));
    GI(gi_batch_slot(batch, 0, &slot, NULL));
    for (i = 0; i < BYTES / 4; i++) words[i] = word(frame, i);
    vkCmdUpdateBuffer(command_buffer, (VkBuffer)gi_stage_buffer_handle(stage, slot), 0, BYTES,
                      words);
    GI(gi_stage_release(stage, &batch, &commands, &release_sync));
    GI(gi_sync_merge(sync, &release_sync));
    VK(vkEndCommandBuffer(command_buffer));
    GI(gi_sync_submit(&sync, gpu->vulkan, gpu->queue, (void **)&command_buffer, 1));
}

/* Reads a buffer through a private one, because NVIDIA's driver caches what it reads from an
 * import. Returns whether it holds the frame. */
static int is_right(GLuint buffer, uint32_t frame) {
    uint32_t words[BYTES / 4], i;
    GLuint copy;
    glGenBuffers(1, &copy);
    glBindBuffer(GL_COPY_READ_BUFFER, buffer);
    glBindBuffer(GL_COPY_WRITE_BUFFER, copy);
    glBufferData(GL_COPY_WRITE_BUFFER, BYTES, NULL, GL_STREAM_READ);
    glCopyBufferSubData(GL_COPY_READ_BUFFER, GL_COPY_WRITE_BUFFER, 0, 0, BYTES);
    glGetBufferSubData(GL_COPY_WRITE_BUFFER, 0, BYTES, words);
    glDeleteBuffers(1, &copy);
    for (i = 0; i < BYTES / 4; i++)
        if (words[i] != word(frame, i)) return 0;
    return 1;
}

int main(void) {
    contexts gpu;
    uint32_t filled = 0, seen = 0, right = 0;
    contexts_open(&gpu);

    /* The ring creates the buffers, imports them, and opens the handoffs in both directions. */
    gi_stage *vulkan, *gl;
    gi_batch *batch;
    OPTIONS(gi_buffer_desc, desc);
    desc.size = BYTES;
    OPTIONS(gi_ring_options, options);
    options.depth = 4;
    GI(gi_ring_pair(gpu.vulkan, gpu.vulkan, gpu.gl, &desc, &options, &vulkan, &gl));

    while (seen < FRAMES) {
        size_t i, slot;
        while (filled < FRAMES && gi_stage_arrived(vulkan) > 0) fill(&gpu, vulkan, filled++);
        GI(gi_stage_take(gl, TIMEOUT_NS, 1, 4, NULL, &batch, NULL));
        for (i = 0; i < gi_batch_count(batch); i++, seen++) {
            GI(gi_batch_slot(batch, i, &slot, NULL));
            right += (uint32_t)is_right((GLuint)gi_stage_buffer_handle(gl, slot), seen);
        }
        GI(gi_stage_release(gl, &batch, NULL, NULL));
    }
    printf("%u of %d frames right, %zu slots\n", right, FRAMES, gi_stage_depth(vulkan));
    gi_stage_destroy(gl);
    gi_stage_destroy(vulkan);
    contexts_close(&gpu);
    return right == FRAMES ? 0 : 1;
}
