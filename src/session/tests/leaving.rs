use super::*;

fn left(event: Event) -> (Left, usize) {
    match event {
        Event::Left { how, held, .. } => (how, held),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_consumer_that_leaves_gives_back_all_it_has() {
    let mut producer = producer(2);
    let mut consumer = join(&mut producer);
    for _ in 0..2 {
        publish(&mut producer);
    }
    let frame = consumer.next_frame(LONG).unwrap();
    consumer.leave();
    assert_eq!(left(next_event(&mut producer)), (Left::Leave, 2));
    assert!(is_closed(frame.release()), "it is not the consumer's any more");
    let _slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
    assert_eq!(producer.consumers(), 0);
}

#[test]
fn a_consumer_that_dies_gives_back_all_it_has() {
    for bytes in [0, 1, 15, 31] {
        let mut producer = producer(1);
        let (here, there) = UnixStream::pair().unwrap();
        producer.admit(here).unwrap();
        send_raw(&there, &Message::Join { name: "x".into() }.encode(), &[], 0);
        while producer.poll(SHORT).unwrap().is_some() {}
        send_raw(&there, &Message::Ready.encode(), &[], 0);
        producer.wait_for_consumers(1, LONG).unwrap();
        assert_eq!(publish(&mut producer).sent, 1);
        let release = crate::ipc::wire::ReleaseToken { slot: 0, sequence: 1 };
        if bytes > 0 {
            send_raw(&there, &Message::Release(release).encode()[..bytes], &[], 0);
        }
        assert!(is_timeout(producer.free_slot(Duration::ZERO)));
        drop(there);
        let _slot = producer.free_slot(LONG).unwrap();
        assert!(matches!(next_event(&mut producer), Event::Joined { .. }));
        assert_eq!(left(next_event(&mut producer)), (Left::Died, 1), "after {bytes} bytes");
    }
}

#[test]
fn one_that_dies_holds_nobody_up_and_the_others_keep_their_slots() {
    let mut producer = producer(2);
    let (mut one, other) = (join(&mut producer), join(&mut producer));
    publish(&mut producer);
    publish(&mut producer);
    drop(other);
    assert_eq!(left(next_event(&mut producer)).1, 2);
    assert!(is_timeout(producer.free_slot(Duration::ZERO)), "the other one has them");
    one.next_frame(LONG).unwrap().release().unwrap();
    one.next_frame(LONG).unwrap().release().unwrap();
    let _slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
}

#[test]
fn a_silent_consumer_is_evicted_when_a_slot_is_wanted_and_not_before() {
    let patience = Duration::from_millis(100);
    let mut producer = producer_with(2, ProducerOptions { patience, ..Default::default() });
    let (mut silent, mut good) = (join(&mut producer), join(&mut producer));
    publish(&mut producer);
    let (held, mine) = (silent.next_frame(LONG).unwrap(), good.next_frame(LONG).unwrap());
    mine.release().unwrap();
    thread::sleep(2 * patience);
    publish(&mut producer);
    assert_eq!(producer.poll(Duration::ZERO).unwrap(), None, "there was a free slot");
    good.next_frame(LONG).unwrap().release().unwrap();
    let _slot = producer.free_slot(LONG).unwrap();
    let (how, count) = left(next_event(&mut producer));
    assert!(matches!(how, Left::Evicted { silent } if silent >= patience), "{how:?}");
    assert_eq!(count, 2);
    assert!(is_closed(held.check()), "it may be written to from now on");
    assert!(is_closed(held.release()));
    assert!(is_closed(silent.next_frame(LONG)), "nor is the frame that had arrived");
    assert_eq!(silent.end(), Some(End::Evicted));
    assert_eq!(good.end(), None);
}

#[test]
fn a_slow_consumer_that_goes_on_is_not_evicted() {
    let patience = Duration::from_millis(600);
    let mut producer = producer_with(4, ProducerOptions { patience, ..Default::default() });
    let mut consumer = join(&mut producer);
    let slow = thread::spawn(move || {
        for _ in 0..8 {
            let frame = consumer.next_frame(LONG).unwrap();
            thread::sleep(Duration::from_millis(200));
            frame.release().unwrap();
        }
        consumer
    });
    // The last of four waits longer than the patience for its turn.
    for _ in 0..8 {
        publish(&mut producer);
    }
    slow.join().unwrap();
}

#[test]
fn the_app_can_evict_and_does_so_once() {
    let mut producer = producer(1);
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    let joining = thread::spawn(move || {
        let (mut consumer, _ring) = Consumer::over(there, JoinOptions::default()).unwrap();
        consumer.ready().unwrap();
        consumer
    });
    let Event::Joined { consumer: id, pid, .. } = next_event(&mut producer) else { panic!() };
    assert_eq!(pid, std::process::id());
    let mut consumer = joining.join().unwrap();
    assert!(producer.evict(id) && !producer.evict(id));
    assert!(is_closed(consumer.next_frame(LONG)));
    assert_eq!(consumer.end(), Some(End::Evicted));
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
    assert_eq!(consumer.end(), Some(End::Done));
}

#[test]
fn finish_waits_for_the_consumers_and_not_for_ever() {
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
    assert_eq!(consuming.join().unwrap(), Some(End::Done));
    let mut other = producer(1);
    let _consumer = join(&mut other);
    publish(&mut other);
    assert!(is_timeout(other.finish(SHORT)));
}

#[test]
fn a_producer_that_dies_is_an_end_and_no_hang() {
    let (here, there) = UnixStream::pair().unwrap();
    let mut producer = producer(2);
    let theirs = here.try_clone().unwrap();
    producer.admit(here).unwrap();
    let joining = thread::spawn(move || {
        let (mut consumer, _ring) = Consumer::over(there, JoinOptions::default()).unwrap();
        consumer.ready().unwrap();
        let held = consumer.next_frame(LONG).unwrap();
        // From here on without a timeout that would matter.
        let started = Instant::now();
        while let Ok(frame) = consumer.next_frame(LONG) {
            drop(frame);
        }
        assert!(started.elapsed() < LONG / 2);
        assert_eq!(consumer.end(), Some(End::Lost));
        assert!(is_closed(held.release()));
    });
    producer.wait_for_consumers(1, LONG).unwrap();
    publish(&mut producer);
    thread::sleep(SHORT);
    // What a process that is killed does.
    theirs.shutdown(std::net::Shutdown::Both).unwrap();
    joining.join().unwrap();
    while !matches!(next_event(&mut producer), Event::Left { .. }) {}
}
