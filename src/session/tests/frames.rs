//! Frames, and how consumers and producers leave a session.

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

fn left(event: Event) -> (LeaveKind, usize) {
    match event {
        Event::Left { kind, held, .. } => (kind, held),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_consumer_that_leaves_releases_its_slots() {
    let mut producer = producer(2);
    let mut consumer = join(&mut producer);
    for _ in 0..2 {
        publish(&mut producer);
    }
    let frame = consumer.next_frame(LONG).unwrap();
    consumer.leave();
    assert_eq!(left(next_event(&mut producer)), (LeaveKind::Leave, 2));
    assert!(is_closed(frame.release()), "the consumer holds it no longer");
    let _slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
    assert_eq!(producer.consumers(), 0);
}

#[test]
fn a_consumer_that_dies_releases_its_slots() {
    for bytes in [0, 1, 15, 31] {
        let mut producer = producer(1);
        let (here, there) = UnixStream::pair().unwrap();
        producer.admit(here).unwrap();
        send_message(&there, &Message::Join { name: "x".into() });
        while producer.poll(SHORT).unwrap().is_some() {}
        send_message(&there, &Message::Ready);
        producer.wait_for_consumers(1, LONG).unwrap();
        assert_eq!(publish(&mut producer).sent, 1);
        let release = crate::ipc::wire::ReleaseToken { slot: 0, sequence: 1 };
        if bytes > 0 {
            send_bytes(&there, &Message::Release(release).encode()[..bytes]);
        }
        assert!(is_timeout(producer.free_slot(Duration::ZERO)));
        drop(there);
        let _slot = producer.free_slot(LONG).unwrap();
        assert!(matches!(next_event(&mut producer), Event::Joined { .. }));
        assert_eq!(left(next_event(&mut producer)), (LeaveKind::Died, 1), "after {bytes} bytes");
    }
}

#[test]
fn a_consumer_that_dies_leaves_the_slots_of_the_others_alone() {
    let mut producer = producer(2);
    let (mut one, other) = (join(&mut producer), join(&mut producer));
    publish(&mut producer);
    publish(&mut producer);
    drop(other);
    assert_eq!(left(next_event(&mut producer)).1, 2);
    assert!(is_timeout(producer.free_slot(Duration::ZERO)), "the other consumer holds them");
    one.next_frame(LONG).unwrap().release().unwrap();
    one.next_frame(LONG).unwrap().release().unwrap();
    let _slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
}

#[test]
fn a_silent_consumer_is_evicted_when_the_producer_waits_and_not_before() {
    let evict_after = Duration::from_millis(100);
    let mut producer = producer_with(2, ProducerOptions { evict_after, ..Default::default() });
    let (mut silent, mut good) = (join(&mut producer), join(&mut producer));
    publish(&mut producer);
    let (held, mine) = (silent.next_frame(LONG).unwrap(), good.next_frame(LONG).unwrap());
    mine.release().unwrap();
    thread::sleep(2 * evict_after);
    publish(&mut producer);
    assert_eq!(producer.poll(Duration::ZERO).unwrap(), None, "there was a free slot");
    good.next_frame(LONG).unwrap().release().unwrap();
    let _slot = producer.free_slot(LONG).unwrap();
    let (kind, count) = left(next_event(&mut producer));
    assert!(matches!(kind, LeaveKind::Evicted { silent } if silent >= evict_after), "{kind:?}");
    assert_eq!(count, 2);
    assert!(is_closed(held.check()), "it may be written to from now on");
    assert!(is_closed(held.release()));
    assert!(is_closed(silent.next_frame(LONG)), "the frame that had arrived is not valid either");
    assert_eq!(silent.end(), Some(SessionEnd::Evicted));
    assert_eq!(good.end(), None);
}

#[test]
fn a_slow_consumer_that_releases_slots_is_not_evicted() {
    let evict_after = Duration::from_millis(600);
    let mut producer = producer_with(4, ProducerOptions { evict_after, ..Default::default() });
    let mut consumer = join(&mut producer);
    let slow = thread::spawn(move || {
        for _ in 0..8 {
            let frame = consumer.next_frame(LONG).unwrap();
            thread::sleep(Duration::from_millis(200));
            frame.release().unwrap();
        }
        consumer
    });
    // The last of four frames is released after more than `evict_after`.
    for _ in 0..8 {
        publish(&mut producer);
    }
    slow.join().unwrap();
}

#[test]
fn a_consumer_can_be_evicted_once() {
    let mut producer = producer(1);
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    let joining = thread::spawn(move || {
        let (mut consumer, _ring) = Consumer::join_socket(there, JoinOptions::default()).unwrap();
        consumer.ready().unwrap();
        consumer
    });
    let Event::Joined { consumer: id, pid, .. } = next_event(&mut producer) else { panic!() };
    assert_eq!(pid, std::process::id());
    let mut consumer = joining.join().unwrap();
    assert!(producer.evict(id) && !producer.evict(id));
    assert!(is_closed(consumer.next_frame(LONG)));
    assert_eq!(consumer.end(), Some(SessionEnd::Evicted));
}

#[test]
fn a_producer_that_is_done_loses_no_frame() {
    let mut producer = producer(3);
    let mut consumer = join(&mut producer);
    for _ in 0..3 {
        publish(&mut producer);
    }
    drop(producer);
    for sequence in 1..=3 {
        let frame = consumer.next_frame(LONG).unwrap();
        assert_eq!(frame.sequence(), sequence);
        frame.release().unwrap();
    }
    assert!(is_closed(consumer.next_frame(LONG)));
    assert_eq!(consumer.end(), Some(SessionEnd::Done));
}

#[test]
fn finish_waits_for_the_consumers_until_its_timeout() {
    let mut one = producer(1);
    let mut consumer = join(&mut one);
    publish(&mut one);
    let consuming = thread::spawn(move || {
        let frame = consumer.next_frame(LONG).unwrap();
        thread::sleep(SHORT);
        frame.release().unwrap();
        assert!(is_closed(consumer.next_frame(LONG)));
        consumer.end()
    });
    one.finish(LONG).unwrap();
    assert_eq!(consuming.join().unwrap(), Some(SessionEnd::Done));
    let mut other = producer(1);
    let _consumer = join(&mut other);
    publish(&mut other);
    assert!(is_timeout(other.finish(SHORT)));
}

#[test]
fn a_producer_that_dies_ends_the_session_at_once() {
    let (here, there) = UnixStream::pair().unwrap();
    let mut producer = producer(2);
    let theirs = here.try_clone().unwrap();
    producer.admit(here).unwrap();
    let joining = thread::spawn(move || {
        let (mut consumer, _ring) = Consumer::join_socket(there, JoinOptions::default()).unwrap();
        consumer.ready().unwrap();
        let held = consumer.next_frame(LONG).unwrap();
        // These timeouts are never reached.
        let started = Instant::now();
        while let Ok(frame) = consumer.next_frame(LONG) {
            drop(frame);
        }
        assert!(started.elapsed() < LONG / 2);
        assert_eq!(consumer.end(), Some(SessionEnd::Lost));
        assert!(is_closed(held.release()));
    });
    producer.wait_for_consumers(1, LONG).unwrap();
    publish(&mut producer);
    thread::sleep(SHORT);
    // This happens when a process is killed.
    theirs.shutdown(std::net::Shutdown::Both).unwrap();
    joining.join().unwrap();
    while !matches!(next_event(&mut producer), Event::Left { .. }) {}
}
