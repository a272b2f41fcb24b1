/* What a producer learns of its consumers, and how a session ends for them. Exits with 0 if all
 * checks hold. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../examples/contexts.h"

#define SECOND_NS 1000000000ull

static int failures;

#define EXPECT(condition)                                                             \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "line %d: not true: %s (last error: %s)\n", __LINE__,     \
                    #condition, gi_last_error());                                     \
            failures++;                                                               \
        }                                                                             \
    } while (0)

typedef struct session {
    char path[64];
    gi_producer *producer;
    pthread_t thread;
    int has_frame[2]; /* a pipe: a byte once the consumer has a frame */
} session;

/* A consumer that reads one frame, releases it and leaves. */
static void *reads_one(void *argument) {
    const session *with = (const session *)argument;
    gi_consumer *consumer;
    gi_session_ring *ring;
    gi_payload *payload = NULL;
    gi_frame *frame;
    OPTIONS(gi_join_options, options);
    options.name = "reads one";
    GI(gi_consumer_join(with->path, &options, &consumer, &ring));
    EXPECT(strcmp(gi_session_ring_name(ring), "events") == 0);
    EXPECT(strcmp(gi_session_ring_format(ring), "nothing") == 0);
    EXPECT(gi_session_ring_slots(ring) == 2 && gi_session_ring_semaphores(ring) == 0);
    GI(gi_session_ring_take_slot(ring, 1, &payload));
    gi_payload_destroy(payload);
    payload = NULL;
    EXPECT(gi_session_ring_take_slot(ring, 1, &payload) == GI_RESULT_INVALID && !payload);
    EXPECT(gi_session_ring_take_semaphore(ring, 0, &payload) == GI_RESULT_INVALID && !payload);
    gi_session_ring_destroy(ring);
    GI(gi_consumer_ready(consumer));
    struct pollfd readable = {gi_consumer_fd(consumer), POLLIN, 0};
    /* The descriptor doesn't reflect a frame that a call has received already. */
    if (gi_consumer_next_frame(consumer, 0, &frame) != GI_RESULT_OK) {
        EXPECT(poll(&readable, 1, 10000) == 1);
        GI(gi_consumer_next_frame(consumer, 10 * SECOND_NS, &frame));
    }
    OPTIONS(gi_frame_info, info);
    GI(gi_frame_get_info(frame, &info));
    EXPECT(info.tag == 77 && info.sequence == 1 && info.slot < 2 && !info.has_point);
    EXPECT(info.has_layouts && info.old_layout == VK_IMAGE_LAYOUT_GENERAL &&
           info.new_layout == VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
    EXPECT(info.age_ns < 60 * SECOND_NS);
    EXPECT(gi_frame_check(frame) == GI_RESULT_OK);
    GI(gi_frame_release(&frame));
    EXPECT(!frame && gi_consumer_missed(consumer) == 0);
    EXPECT(gi_consumer_end(consumer) == GI_SESSION_END_NONE);
    gi_consumer_destroy(consumer);
    return NULL;
}

/* A consumer that is evicted while it holds a frame. */
static void *is_evicted(void *argument) {
    const session *with = (const session *)argument;
    gi_consumer *consumer;
    gi_session_ring *ring;
    gi_frame *frame, *second = NULL;
    GI(gi_consumer_join(with->path, NULL, &consumer, &ring));
    gi_session_ring_destroy(ring);
    GI(gi_consumer_ready(consumer));
    GI(gi_consumer_next_frame(consumer, 10 * SECOND_NS, &frame));
    EXPECT(write(with->has_frame[1], "", 1) == 1);
    EXPECT(gi_consumer_next_frame(consumer, 10 * SECOND_NS, &second) == GI_RESULT_CLOSED);
    EXPECT(!second && gi_consumer_end(consumer) == GI_SESSION_END_EVICTED);
    EXPECT(gi_frame_check(frame) == GI_RESULT_CLOSED);
    gi_frame_destroy(frame);
    gi_consumer_destroy(consumer);
    return NULL;
}

/* The next event, which must be of this kind. */
static gi_event next_event(gi_producer *producer, uint32_t kind) {
    OPTIONS(gi_event, event);
    GI(gi_producer_poll(producer, 10 * SECOND_NS, &event));
    if (event.kind != kind) {
        fprintf(stderr, "event %u instead of %u: %s\n", event.kind, kind, event.text);
        failures++;
    }
    return event;
}

static void publish(gi_producer *producer) {
    gi_writable_slot *slot, *unused;
    OPTIONS(gi_frame_info, frame);
    frame.tag = 77;
    frame.has_layouts = 1;
    frame.old_layout = VK_IMAGE_LAYOUT_GENERAL;
    frame.new_layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    OPTIONS(gi_published, published);
    GI(gi_producer_free_slot(producer, SECOND_NS, &unused));
    GI(gi_producer_free_slot(producer, SECOND_NS, &slot));
    gi_writable_slot_destroy(unused);
    GI(gi_producer_publish(producer, &slot, &frame, &published));
    EXPECT(!slot && published.sent == 1 && published.dropped == 0);
}

int main(void) {
    contexts gpu;
    gi_buffer *buffer;
    gi_payload *slots[2];
    session with;
    char folder[] = "/tmp/gpu-interop-XXXXXX";
    char byte;
    if (!mkdtemp(folder) || pipe(with.has_frame)) return 1;
    snprintf(with.path, sizeof with.path, "%s/session", folder);
    contexts_open(&gpu);
    OPTIONS(gi_buffer_desc, desc);
    desc.size = 64;
    GI(gi_buffer_create(gpu.vulkan, &desc, NULL, &buffer));
    GI(gi_buffer_export(buffer, &slots[0]));
    GI(gi_buffer_export(buffer, &slots[1]));
    OPTIONS(gi_producer_options, options);
    options.evict_after_ns = 60 * SECOND_NS;
    GI(gi_producer_bind(with.path, "events", "nothing", slots, 2, NULL, 0, &options,
                        &with.producer));
    EXPECT(!slots[0] && !slots[1] && gi_producer_fd(with.producer) >= 0);
    OPTIONS(gi_event, none);
    GI(gi_producer_poll(with.producer, 0, &none));
    EXPECT(none.kind == GI_EVENT_KIND_NONE && gi_producer_consumers(with.producer) == 0);
    EXPECT(gi_producer_wait_for_consumers(with.producer, 1, 1) == GI_RESULT_TIMEOUT);

    if (pthread_create(&with.thread, NULL, reads_one, &with)) return 1;
    gi_event event = next_event(with.producer, GI_EVENT_KIND_JOINED);
    EXPECT(event.consumer == 1 && strcmp(event.text, "reads one") == 0);
    EXPECT(event.pid == (uint32_t)getpid() && event.uid == (uint32_t)geteuid());
    EXPECT(gi_producer_consumers(with.producer) == 1);
    publish(with.producer);
    event = next_event(with.producer, GI_EVENT_KIND_LEFT);
    EXPECT(event.consumer == 1 && event.held == 0);
    pthread_join(with.thread, NULL);
    EXPECT(gi_producer_evict(with.producer, 1) == GI_RESULT_INVALID);

    if (pthread_create(&with.thread, NULL, is_evicted, &with)) return 1;
    event = next_event(with.producer, GI_EVENT_KIND_JOINED);
    publish(with.producer);
    EXPECT(read(with.has_frame[0], &byte, 1) == 1);
    GI(gi_producer_evict(with.producer, event.consumer));
    event = next_event(with.producer, GI_EVENT_KIND_EVICTED);
    EXPECT(event.consumer == 2 && event.held == 1);
    pthread_join(with.thread, NULL);

    gi_producer_destroy(with.producer);
    EXPECT(access(with.path, F_OK) != 0);
    rmdir(folder);
    gi_buffer_destroy(buffer);
    contexts_close(&gpu);
    printf("%d checks failed\n", failures);
    return failures != 0;
}
