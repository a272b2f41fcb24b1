/* Two processes: the parent sends a buffer over a socket, then publishes frames of a session; the
 * child verifies every byte with contexts of its own. Exits with 0 if all was right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "contexts.h"

#define FRAMES 100
#define SLOTS 3
#define WORDS 1024
#define BYTES (WORDS * 4)
#define SECOND_NS 1000000000u

static uint32_t word(uint32_t frame, uint32_t i) { return (i ^ frame << 16) * 0x9e3779b9u; }

static void submit(const contexts *gpu, VkCommandBuffer commands) {
    ZEROED(VkSubmitInfo, info);
    info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
    info.commandBufferCount = 1;
    info.pCommandBuffers = &commands;
    VK(vkEndCommandBuffer(commands));
    VK(vkQueueSubmit(gpu->queue, 1, &info, VK_NULL_HANDLE));
    GI(gi_endpoint_wait_idle(gpu->vulkan));
    vkFreeCommandBuffers(gpu->device, gpu->pool, 1, &commands);
}

/* Writes a frame, and waits until it is complete. */
static void write_frame(const contexts *gpu, const gi_buffer *buffer, uint32_t frame) {
    uint32_t words[WORDS], i;
    VkCommandBuffer commands = commands_begin(gpu);
    for (i = 0; i < WORDS; i++) words[i] = word(frame, i);
    vkCmdUpdateBuffer(commands, (VkBuffer)gi_buffer_handle(buffer), 0, BYTES, words);
    submit(gpu, commands);
}

/* Copies a buffer to mapped memory. Returns whether it holds the frame. */
static int is_right(const contexts *gpu, const gi_buffer *buffer, const gi_buffer *staging,
                    const gi_mapping *mapping, uint32_t frame) {
    const uint32_t *words = (const uint32_t *)gi_mapping_data(mapping);
    uint32_t i;
    VkCommandBuffer commands = commands_begin(gpu);
    ZEROED(VkBufferCopy, whole);
    whole.size = BYTES;
    vkCmdCopyBuffer(commands, (VkBuffer)gi_buffer_handle(buffer),
                    (VkBuffer)gi_buffer_handle(staging), 1, &whole);
    submit(gpu, commands);
    for (i = 0; i < WORDS; i++)
        if (words[i] != word(frame, i)) return 0;
    return 1;
}

static int consume(int socket, const char *path) {
    contexts gpu;
    gi_payload *payload;
    gi_buffer *sent, *staging, *slots[SLOTS];
    gi_mapping *mapping;
    gi_consumer *consumer;
    gi_session_ring *ring;
    gi_frame *frame;
    gi_result result;
    uint32_t frames = 0, right = 0;
    size_t i;
    int sent_right;
    contexts_open(&gpu);
    OPTIONS(gi_buffer_desc, desc);
    desc.size = BYTES;
    OPTIONS(gi_memory_options, host);
    host.location = GI_MEMORY_LOCATION_HOST_VISIBLE;
    GI(gi_buffer_create(gpu.vulkan, &desc, &host, &staging));
    GI(gi_buffer_map(staging, &mapping));

    /* The buffer that arrives over the socket. */
    GI(gi_ipc_receive(socket, &payload));
    GI(gi_buffer_import(gpu.vulkan, &payload, &sent));
    sent_right = is_right(&gpu, sent, staging, mapping, 1234);
    gi_buffer_destroy(sent);

    /* The session. */
    OPTIONS(gi_join_options, options);
    options.name = "example";
    GI(gi_consumer_join(path, &options, &consumer, &ring));
    if (gi_session_ring_slots(ring) != SLOTS) return 1;
    for (i = 0; i < SLOTS; i++) {
        GI(gi_session_ring_take_slot(ring, i, &payload));
        GI(gi_buffer_import(gpu.vulkan, &payload, &slots[i]));
    }
    gi_session_ring_destroy(ring);
    GI(gi_consumer_ready(consumer));
    while ((result = gi_consumer_next_frame(consumer, 10ull * SECOND_NS, &frame)) == GI_RESULT_OK) {
        OPTIONS(gi_frame_info, info);
        GI(gi_frame_get_info(frame, &info));
        GI(gi_frame_wait(frame, NULL, 0, SECOND_NS));
        right += (uint32_t)is_right(&gpu, slots[info.slot], staging, mapping, (uint32_t)info.tag);
        frames += info.sequence == frames + 1;
        GI(gi_frame_release(&frame));
    }
    printf("sent buffer right: %d; %u of %u frames right\n", sent_right, right, frames);
    if (result != GI_RESULT_CLOSED || gi_consumer_end(consumer) != GI_SESSION_END_DONE) {
        fprintf(stderr, "the session ended early: %s\n", gi_last_error());
        right = 0;
    }
    gi_consumer_destroy(consumer);
    for (i = 0; i < SLOTS; i++) gi_buffer_destroy(slots[i]);
    gi_mapping_destroy(mapping);
    gi_buffer_destroy(staging);
    contexts_close(&gpu);
    return sent_right && right == FRAMES && frames == FRAMES ? 0 : 1;
}

static void produce(int socket, const char *path) {
    contexts gpu;
    gi_payload *payloads[SLOTS], *payload;
    gi_buffer *slots[SLOTS];
    gi_producer *producer;
    gi_writable_slot *slot;
    uint32_t i;
    contexts_open(&gpu);
    OPTIONS(gi_buffer_desc, desc);
    desc.size = BYTES;
    for (i = 0; i < SLOTS; i++) GI(gi_buffer_create(gpu.vulkan, &desc, NULL, &slots[i]));

    /* A buffer over the socket. The payload stays ours. */
    write_frame(&gpu, slots[0], 1234);
    GI(gi_buffer_export(slots[0], &payload));
    GI(gi_ipc_send(socket, payload));
    gi_payload_destroy(payload);

    /* The session, once the child has read the buffer: it joins afterwards. */
    for (i = 0; i < SLOTS; i++) GI(gi_buffer_export(slots[i], &payloads[i]));
    GI(gi_producer_bind(path, "example", "a hash of the frame's number", payloads, SLOTS, NULL, 0,
                        NULL, &producer));
    GI(gi_producer_wait_for_consumers(producer, 1, 60ull * SECOND_NS));
    for (i = 0; i < FRAMES; i++) {
        GI(gi_producer_free_slot(producer, 10ull * SECOND_NS, &slot));
        write_frame(&gpu, slots[gi_writable_slot_index(slot)], i);
        OPTIONS(gi_frame_info, frame);
        frame.tag = i;
        OPTIONS(gi_published, published);
        GI(gi_producer_publish(producer, &slot, &frame, &published));
        if (published.sent != 1) fprintf(stderr, "frame %u was not sent\n", i);
    }
    GI(gi_producer_finish(&producer, 10ull * SECOND_NS));
    for (i = 0; i < SLOTS; i++) gi_buffer_destroy(slots[i]);
    contexts_close(&gpu);
}

int main(void) {
    char folder[] = "/tmp/gpu-interop-XXXXXX", path[64];
    int sockets[2], status = 1;
    pid_t child;
    if (!mkdtemp(folder) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) return 1;
    snprintf(path, sizeof path, "%s/session", folder);
    /* Before any driver starts threads, which a child doesn't inherit. */
    child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        close(sockets[0]);
        exit(consume(sockets[1], path));
    }
    close(sockets[1]);
    produce(sockets[0], path);
    waitpid(child, &status, 0);
    rmdir(folder);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
