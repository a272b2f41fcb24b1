//! Frames: their order, slots, points, and the work on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::desc::ImageLayout;

#[test]
fn frames_arrive_in_order_and_their_slots_are_reused() {
    let mut producer = producer(2);
    let mut consumer = join(&mut producer);
    assert!(is_timeout(consumer.next_frame(Duration::ZERO)));
    for sequence in 1..=10 {
        let slot = producer.free_slot(Duration::ZERO).unwrap();
        let index = slot.index();
        let layouts =
            Some(Layouts { old: ImageLayout::GENERAL, new: ImageLayout::TRANSFER_DST_OPTIMAL });
        let frame = FrameInfo { point: None, layouts, tag: 100 + sequence };
        let published = producer.publish(slot, frame).unwrap();
        assert_eq!(published, Published { sequence, sent: 1, dropped: 0 });
        let frame = consumer.next_frame(LONG).unwrap();
        assert_eq!((frame.slot(), frame.sequence()), (index, sequence));
        assert_eq!((frame.tag(), frame.layouts(), frame.point()), (100 + sequence, layouts, None));
        assert!(frame.age() < LONG);
        frame.check().unwrap();
        frame.release().unwrap();
    }
    assert_eq!((consumer.missed(), consumer.end()), (0, None));
}

#[test]
fn a_ring_arrives_unchanged() {
    let semaphore = || semaphore(SemaphoreKind::Timeline);
    let memory = MemoryPayload::new(memfd(8192), memory_info()).unwrap();
    let ring = ring(3).slot(memory).semaphore(semaphore()).semaphore(semaphore());
    let mut producer = Producer::unbound(ring, ProducerOptions::default()).unwrap();
    let (consumer, ring) = try_join(&mut producer).unwrap();
    assert_eq!((&*ring.name, &*ring.format), ("test", "bytes"));
    assert_eq!((ring.semaphores.len(), consumer.slots()), (2, 4));
    let mut slots = ring.slots.into_iter();
    for size in 1..=3 {
        assert_eq!(slots.next().unwrap().into_buffer().unwrap().desc().size, size);
    }
    assert_eq!(slots.next().unwrap().into_memory().unwrap().info(), &memory_info());
}

#[test]
fn a_slot_is_free_when_all_consumers_have_released_it() {
    let mut producer = producer(1);
    let (mut one, mut other) = (join(&mut producer), join(&mut producer));
    assert_eq!(publish(&mut producer).sent, 2);
    let held = one.next_frame(LONG).unwrap();
    other.next_frame(LONG).unwrap().release().unwrap();
    assert!(is_timeout(producer.free_slot(Duration::ZERO)));
    assert!(is_timeout(producer.free_slot(SHORT)));
    held.release().unwrap();
    let _slot = producer.free_slot(LONG).unwrap();
}

#[test]
fn a_producer_that_waits_for_a_slot_gets_it_when_it_is_released() {
    let mut producer = producer(2);
    let mut consumer = join(&mut producer);
    let consuming = thread::spawn(move || {
        for sequence in 1..=200 {
            let frame = consumer.next_frame(LONG).unwrap();
            assert_eq!(frame.sequence(), sequence);
            frame.release().unwrap();
        }
        consumer
    });
    for _ in 0..200 {
        publish(&mut producer);
    }
    let consumer = consuming.join().unwrap();
    assert_eq!(consumer.missed(), 0);
}

#[test]
fn frames_can_be_released_in_any_order_and_by_dropping_them() {
    let mut producer = producer(3);
    let mut consumer = join(&mut producer);
    for _ in 0..3 {
        publish(&mut producer);
    }
    let mut frames: Vec<_> = (0..3).map(|_| consumer.next_frame(LONG).unwrap()).collect();
    let (third, second) = (frames.pop().unwrap(), frames.pop().unwrap());
    let order = [third.slot(), second.slot()];
    third.release().unwrap();
    drop(second);
    let slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
    assert_eq!(slots.each_ref().map(WritableSlot::index), order);
    assert!(is_timeout(producer.free_slot(Duration::ZERO)));
}

#[test]
fn without_consumers_slots_stay_free() {
    let mut producer = producer(1);
    for sequence in 1..=3 {
        assert_eq!(publish(&mut producer), Published { sequence, sent: 0, dropped: 0 });
    }
    let mut late = join(&mut producer);
    publish(&mut producer);
    assert_eq!(late.next_frame(LONG).unwrap().sequence(), 4);
    assert_eq!(late.missed(), 0, "frames before it joined are not missed");
}

#[test]
fn a_dropped_slot_is_free_again_and_one_of_another_producer_is_refused() {
    let (mut one, mut other) = (producer(1), producer(1));
    drop(one.free_slot(Duration::ZERO).unwrap());
    let slot = one.free_slot(Duration::ZERO).unwrap();
    assert!(is_timeout(one.free_slot(Duration::ZERO)));
    let _own = other.free_slot(Duration::ZERO).unwrap();
    let error = other.publish(slot, FrameInfo::default()).unwrap_err();
    assert!(matches!(error, Error::Mismatch(_)), "{error:?}");
    publish(&mut one);
}

#[test]
fn a_slow_consumer_misses_frames_if_the_producer_drops_them() {
    let slow_consumer = SlowConsumer::DropFrames { max_held: 1 };
    let mut producer = producer_with(2, ProducerOptions { slow_consumer, ..Default::default() });
    let mut consumer = join(&mut producer);
    assert!(consumer.drops_frames());
    publish(&mut producer);
    let held = consumer.next_frame(LONG).unwrap();
    for sequence in 2..=5 {
        assert_eq!(publish(&mut producer), Published { sequence, sent: 0, dropped: 1 });
    }
    held.release().unwrap();
    while publish(&mut producer).sent == 0 {}
    let frame = consumer.next_frame(LONG).unwrap();
    assert_eq!(consumer.missed(), frame.sequence() - 2);
    assert!(frame.sequence() >= 6);
}

#[test]
fn the_semaphore_of_a_point_is_one_of_the_rings_and_its_value_increases() {
    let ring = ring(2).semaphore(semaphore(SemaphoreKind::Timeline));
    let mut producer = Producer::unbound(ring, ProducerOptions::default()).unwrap();
    let (mut consumer, _ring) = try_join(&mut producer).unwrap();
    let mut publish = |semaphore, value| {
        let slot = producer.free_slot(LONG)?;
        let point = Some(TimelinePoint { semaphore, value });
        producer.publish(slot, FrameInfo { point, ..FrameInfo::default() })
    };
    publish(0, 5).unwrap();
    publish(0, 5).unwrap();
    let frame = consumer.next_frame(LONG).unwrap();
    assert_eq!(frame.point(), Some(TimelinePoint { semaphore: 0, value: 5 }));
    frame.release().unwrap();
    assert_eq!(field_of(&publish(1, 6).unwrap_err()), "frame.point.semaphore");
    // The refused slot is free again.
    assert_eq!(field_of(&publish(0, 4).unwrap_err()), "frame.point.value");
    assert_eq!(publish(0, 6).unwrap().sequence, 3);
}

#[test]
fn a_wait_for_a_point_ends_with_its_timeout_or_the_session() {
    let ring = ring(2).semaphore(semaphore(SemaphoreKind::Timeline));
    let mut producer = Producer::unbound(ring, ProducerOptions::default()).unwrap();
    let (mut consumer, _ring) = try_join(&mut producer).unwrap();
    let point = Some(TimelinePoint { semaphore: 0, value: 1 });
    let slot = producer.free_slot(LONG).unwrap();
    producer.publish(slot, FrameInfo { point, ..FrameInfo::default() }).unwrap();
    let frame = consumer.next_frame(LONG).unwrap();
    let never = |_, step: Duration| {
        thread::sleep(step);
        Err(Error::Timeout { what: "a value".into(), waited: step })
    };
    assert!(is_timeout(frame.wait(3 * SHORT, never)));
    let mut steps = 0;
    let reached = frame.wait(LONG, |at, step| {
        assert_eq!(Some(at), point);
        steps += 1;
        if steps < 3 { never(at, step) } else { Ok(()) }
    });
    assert_eq!((reached, steps), (Ok(()), 3));
    // The producer evicts the consumer and never signals.
    let evicting = thread::spawn(move || {
        thread::sleep(SHORT);
        producer.evict(ConsumerId(1));
    });
    let started = Instant::now();
    assert!(is_closed(frame.wait(LONG, never)));
    assert!(started.elapsed() < LONG / 2);
    evicting.join().unwrap();
}

#[test]
fn the_producers_descriptor_is_readable_when_there_is_something_to_do() {
    let mut producer = producer(1);
    let mut consumer = join(&mut producer);
    let readable = |producer: &Producer| {
        let fd = producer.as_fd();
        let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec::try_from(SHORT).unwrap();
        rustix::event::poll(&mut polled, Some(&limit)).unwrap() != 0
    };
    publish(&mut producer);
    assert!(!readable(&producer));
    consumer.next_frame(LONG).unwrap().release().unwrap();
    assert!(readable(&producer));
    assert_eq!(producer.poll(Duration::ZERO).unwrap(), None);
    assert!(!readable(&producer));
}

/// Work that ends when the flag is set, and what it uses.
fn work(used: &Arc<AtomicBool>) -> impl FnMut(Duration) -> Result<()> + Send + use<> {
    let used = used.clone();
    move |waited| {
        let started = Instant::now();
        while !used.load(Ordering::Relaxed) {
            if started.elapsed() >= waited {
                return Err(Error::Timeout { what: "a fence".into(), waited });
            }
            thread::yield_now();
        }
        Ok(())
    }
}

fn flag() -> Arc<AtomicBool> {
    Arc::default()
}

#[test]
fn a_slot_is_not_reused_before_the_producers_work_on_it_is_done() {
    let mut producer = producer(2);
    let mut consumer = join(&mut producer);
    publish(&mut producer);
    let _held = consumer.next_frame(LONG).unwrap();
    for publish in [false, true] {
        let used = flag();
        let mut slot = producer.free_slot(LONG).unwrap();
        let index = slot.index();
        slot.add_work(work(&used));
        if publish {
            // Without a point the frame must be complete. The refused slot is free after the work.
            let error = producer.publish(slot, FrameInfo::default()).unwrap_err();
            assert_eq!(field_of(&error), "frame.point");
        } else {
            drop(slot);
        }
        let error = producer.free_slot(ProducerOptions::default().evict_after * 2).unwrap_err();
        assert!(error.to_string().contains("own work"), "{error}");
        assert_eq!(producer.consumers(), 1, "the consumer is not evicted for it");
        used.store(true, Ordering::Relaxed);
        assert_eq!(producer.free_slot(LONG).unwrap().index(), index);
        assert_eq!(Arc::strong_count(&used), 1, "what the work used is dropped");
    }
}

#[test]
fn a_published_slot_keeps_what_its_work_uses_without_consumers_or_a_producer() {
    let ring = ring(1).semaphore(semaphore(SemaphoreKind::Timeline));
    let mut producer = Producer::unbound(ring, ProducerOptions::default()).unwrap();
    let used = flag();
    let mut slot = producer.free_slot(LONG).unwrap();
    slot.add_work(work(&used));
    let point = Some(TimelinePoint { semaphore: 0, value: 1 });
    let frame = FrameInfo { point, ..FrameInfo::default() };
    assert_eq!(producer.publish(slot, frame).unwrap().sent, 0);
    assert!(is_timeout(producer.free_slot(SHORT)), "no consumer has it, but the GPU");
    let ending = used.clone();
    let gpu = thread::spawn(move || {
        thread::sleep(SHORT);
        ending.store(true, Ordering::Relaxed);
    });
    drop(producer);
    assert!(used.load(Ordering::Relaxed), "the drop waits for the work");
    gpu.join().unwrap();
    assert_eq!(Arc::strong_count(&used), 1);
}

#[test]
fn a_frame_is_not_released_before_the_consumers_work_on_it_is_done() {
    let mut producer = producer(1);
    let mut consumer = join(&mut producer);
    let used = flag();
    publish(&mut producer);
    let mut frame = consumer.next_frame(LONG).unwrap();
    frame.add_work(work(&used));
    drop(frame);
    assert!(is_timeout(consumer.next_frame(SHORT)));
    assert!(is_timeout(producer.free_slot(SHORT)), "the GPU still reads it");
    used.store(true, Ordering::Relaxed);
    assert!(is_timeout(consumer.next_frame(SHORT)));
    assert_eq!(Arc::strong_count(&used), 1);
    publish(&mut producer);

    // A release waits for the work; so does the end of the consumer.
    for leave in [false, true] {
        let used = flag();
        let mut frame = consumer.next_frame(LONG).unwrap();
        frame.add_work(work(&used));
        let ending = used.clone();
        let gpu = thread::spawn(move || {
            thread::sleep(SHORT);
            ending.store(true, Ordering::Relaxed);
        });
        if leave {
            consumer.leave();
            assert!(used.load(Ordering::Relaxed));
            assert!(is_closed(frame.release()));
            assert!(matches!(next_event(&mut producer), Event::Left { .. }));
            return gpu.join().unwrap();
        }
        frame.release().unwrap();
        assert!(used.load(Ordering::Relaxed));
        gpu.join().unwrap();
        publish(&mut producer);
    }
}
