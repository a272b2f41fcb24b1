//! How consumers and producers leave a session.

use super::*;

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
