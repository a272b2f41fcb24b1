//! Consumers that violate the protocol.

use super::*;
use crate::fd::set_pass_rights;
use crate::ipc::send;
use crate::ipc::wire::LeaveReason;

fn join_message() -> Message {
    Message::Join { name: "hostile".into() }
}

/// The socket of a hostile consumer that is ready.
fn hostile(producer: &mut Producer) -> UnixStream {
    let (here, there) = UnixStream::pair().unwrap();
    let same = here.try_clone().unwrap();
    producer.admit(here).unwrap();
    // As with an older kernel.
    set_pass_rights(same.as_fd(), true);
    let count = producer.consumers() + 1;
    send_message(&there, &join_message());
    assert_eq!(producer.poll(SHORT).unwrap(), None);
    send_message(&there, &Message::Ready);
    producer.wait_for_consumers(count, LONG).unwrap();
    assert!(matches!(next_event(producer), Event::Joined { .. }));
    there
}

/// Returns the error for a consumer that is ready, holds frame 1 in slot 0 and then sends `bytes`
/// with `count` descriptors.
fn error_for(bytes: &[u8], count: usize, flags: SendFlags) -> Error {
    let mut producer = producer(2);
    let mut good = join(&mut producer);
    let hostile = hostile(&mut producer);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    let memory = memfd(64);
    send_raw(&hostile, bytes, &vec![memory.as_fd(); count], flags);
    let error = match next_event(&mut producer) {
        Event::Left { kind: LeaveKind::ProtocolError(error), held, .. } => {
            assert!(held <= 1);
            error
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(open_here(&memory), 1);
    // Its slots are free, and the other consumer is not affected.
    let slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
    drop(slots);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    assert_eq!(producer.consumers(), 1);
    error
}

#[test]
fn a_consumer_that_violates_the_protocol_is_refused_alone() {
    let changed = |at: usize, value: u8| {
        let mut bytes = release(0, 1).encode();
        bytes[at] = value;
        bytes
    };
    let twice = [release(0, 1), release(0, 1)].iter().flat_map(Message::encode).collect();
    for (bytes, field, problem) in [
        // Slots that it does not hold.
        (release(1, 1).encode(), "release", "slot 1 is not held by the consumer"),
        (release(1, 2).encode(), "release", "slot 1 is not held by the consumer"),
        (release(5, 1).encode(), "release", "the ring has no slot 5"),
        (release(0, 2).encode(), "release", "slot 0 holds frame 1, not 2"),
        (twice, "release", "slot 0 is not held by the consumer"),
        // Messages at the wrong time, and those of a producer.
        (join_message().encode(), "message kind", "is ready"),
        (Message::Ready.encode(), "message kind", "is ready"),
        (info(1, 0).encode(), "message kind", "a ring from a consumer"),
        (frame(0, 1).encode(), "message kind", "a frame from a consumer"),
        // Malformed messages.
        (changed(0, b'g'), "header.magic", ""),
        (changed(4, 9), "header.version", ""),
        (changed(6, 60), "header.kind", ""),
        (changed(9, 0xff), "header.body_length", ""),
        (changed(12, 1), "header.descriptors", ""),
        (changed(16, 64), "body.slot", ""),
        (changed(20, 1), "body.reserved", ""),
        (changed(24, 0), "body.sequence", ""),
        (vec![0; 64], "header.magic", ""),
    ] {
        let error = error_for(&bytes, 0, SendFlags::empty());
        assert_eq!(field_of(&error), field);
        assert!(error.to_string().contains(problem), "{error}");
    }
    for count in [1, 3, 250] {
        let error = error_for(&release(0, 1).encode(), count, SendFlags::empty());
        assert_eq!(field_of(&error), "descriptors");
    }
    assert_eq!(field_of(&error_for(b"!", 0, SendFlags::OOB)), "socket");
}

/// As with an older kernel, which does not refuse the descriptors: sockets whose close(2) waits.
#[test]
fn descriptors_whose_close_blocks_delay_no_call_of_a_producer() {
    let time = Duration::from_secs(3);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let lingering = || {
        let mut socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        while std::io::Write::write(&mut socket, &[0; 1 << 16]).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        rustix::net::sockopt::set_socket_linger(&socket, Some(time)).unwrap();
        (socket, other)
    };
    let mut producer = producer(2);
    let mut good = join(&mut producer);
    let (refused, unread) = (hostile(&mut producer), hostile(&mut producer));
    let mut others = Vec::new();
    for hostile in [&refused, &unread] {
        let (socket, other) = lingering();
        let bytes = release(0, 1).encode();
        // The first message ends the connection; the second one is never read.
        send_bytes(hostile, &bytes);
        send_raw(hostile, &bytes, &[socket.as_fd(); 200], SendFlags::empty());
        others.push(other);
    }
    let started = Instant::now();
    for _ in 0..2 {
        let event = next_event(&mut producer);
        assert!(
            matches!(event, Event::Left { kind: LeaveKind::ProtocolError(_), .. }),
            "{event:?}"
        );
    }
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    producer.finish(LONG).unwrap();
    assert!(started.elapsed() < time / 2, "{:?}", started.elapsed());
    crate::ipc::foreign::settle();
    assert!(started.elapsed() > time / 2, "the closes did block, elsewhere");
}

#[test]
fn a_consumer_that_joins_in_the_wrong_order_is_refused() {
    let cases: [(&[Message], &str); 4] = [
        (&[Message::Ready], "message kind"),
        (&[release(0, 1)], "message kind"),
        // A consumer joins once.
        (&[join_message(), join_message()], "message kind"),
        (&[join_message(), release(0, 1)], "message kind"),
    ];
    for (messages, field) in cases {
        let mut producer = producer(1);
        let (here, there) = UnixStream::pair().unwrap();
        producer.admit(here).unwrap();
        let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        send_bytes(&there, &bytes);
        let event = next_event(&mut producer);
        let Event::NotJoined { error, pid, .. } = event else { panic!("{event:?}") };
        assert_eq!((field_of(&error), pid), (field, std::process::id()));
        let mut last = Vec::new();
        std::io::Read::read_to_end(&mut &there, &mut last).unwrap();
        assert!(last.ends_with(&Message::Leave(LeaveReason::ProtocolError).encode()));
    }
}

#[test]
fn a_connection_without_a_join_is_dropped_or_times_out() {
    let join_timeout = Duration::from_millis(100);
    let options = ProducerOptions { join_timeout, max_consumers: 2, ..Default::default() };
    let mut producer = producer_with(1, options);
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    drop(there);
    assert_eq!(producer.poll(SHORT).unwrap(), None);
    // Parts of a join message, and the whole.
    let mut slow = Vec::new();
    for bytes in [0, 10, 11, join_message().encode().len()] {
        let (here, there) = UnixStream::pair().unwrap();
        producer.admit(here).unwrap();
        send_bytes(&there, &join_message().encode()[..bytes]);
        slow.push(there);
    }
    for _ in &slow {
        let event = next_event(&mut producer);
        let Event::NotJoined { error: Error::Timeout { .. }, .. } = event else {
            panic!("{event:?}")
        };
    }
    let _consumer = join(&mut producer);
}

#[test]
fn a_flood_of_messages_or_connections_costs_neither_memory_nor_time() {
    let mut producer = producer(1);
    let mut good = join(&mut producer);
    let hostile = hostile(&mut producer);
    // As many as fit into the socket. The first one ends the connection.
    hostile.set_nonblocking(true).unwrap();
    let flood = Message::Ready.encode().repeat(4096);
    while std::io::Write::write(&mut &hostile, &flood).is_ok_and(|count| count > 0) {}
    let started = Instant::now();
    let event = next_event(&mut producer);
    assert!(matches!(event, Event::Left { kind: LeaveKind::ProtocolError(_), .. }), "{event:?}");
    for _ in 0..3000 {
        let (here, there) = UnixStream::pair().unwrap();
        producer.admit(here).unwrap();
        send_bytes(&there, b"GET / HTTP/1.1\r\n\r\n");
        producer.wait_for_consumers(1, LONG).unwrap();
    }
    assert!(started.elapsed() < LONG);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    let mut events = 0;
    while producer.poll(Duration::ZERO).unwrap().is_some() {
        events += 1;
    }
    assert_eq!(events, 1024, "no more are kept");
}

#[test]
fn a_consumer_for_which_there_is_no_place_is_refused() {
    let options = ProducerOptions { max_consumers: 1, ..Default::default() };
    let mut producer = producer_with(1, options);
    let mut good = join(&mut producer);
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    send_message(&there, &join_message());
    let event = next_event(&mut producer);
    let Event::NotJoined { error, .. } = event else { panic!("{event:?}") };
    assert_eq!(field_of(&error), "options.max_consumers");
    let (message, _) = crate::ipc::Receiver::new().message(&there).unwrap();
    assert_eq!(message, Message::Leave(LeaveReason::Full));
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
}

#[test]
fn a_consumer_that_no_longer_reads_or_never_releases_makes_room_for_another() {
    let slow_consumer = SlowConsumer::DropFrames { max_held: 1 };
    let evict_after = Duration::from_millis(50);
    let options =
        ProducerOptions { max_consumers: 1, slow_consumer, evict_after, ..Default::default() };
    let mut producer = producer_with(2, options);
    let deaf = hostile(&mut producer);
    deaf.shutdown(std::net::Shutdown::Read).unwrap();
    let silent = hostile_in_place_of_another(&mut producer);
    publish(&mut producer);
    thread::sleep(2 * evict_after);
    let mut good = join_after_an_eviction(&mut producer);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    drop((deaf, silent));
}

/// The socket of a hostile consumer that is ready, after another one was ended to make room for it.
fn hostile_in_place_of_another(producer: &mut Producer) -> UnixStream {
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    send_message(&there, &join_message());
    let event = next_event(producer);
    assert!(matches!(event, Event::Left { kind: LeaveKind::Died, .. }), "{event:?}");
    send_message(&there, &Message::Ready);
    assert!(matches!(next_event(producer), Event::Joined { .. }));
    there
}

fn join_after_an_eviction(producer: &mut Producer) -> Consumer {
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    let joining = thread::spawn(move || {
        let (mut consumer, _ring) = Consumer::join_socket(there, JoinOptions::default()).unwrap();
        consumer.ready().unwrap();
        consumer
    });
    let event = next_event(producer);
    assert!(matches!(event, Event::Left { kind: LeaveKind::Evicted { .. }, .. }), "{event:?}");
    assert!(matches!(next_event(producer), Event::Joined { .. }));
    joining.join().unwrap()
}

#[test]
fn a_consumer_that_reads_no_more_is_gone_at_the_next_frame() {
    let mut producer = producer(2);
    let deaf = hostile(&mut producer);
    deaf.shutdown(std::net::Shutdown::Read).unwrap();
    assert_eq!(publish(&mut producer).sent, 0);
    let event = next_event(&mut producer);
    assert!(matches!(event, Event::Left { kind: LeaveKind::Died, held: 0, .. }), "{event:?}");
    assert_eq!(producer.consumers(), 0);
}

#[test]
fn a_silent_consumer_does_not_keep_another_from_its_last_frames() {
    let evict_after = Duration::from_millis(100);
    let mut producer = producer_with(2, ProducerOptions { evict_after, ..Default::default() });
    let (mut good, _silent) = (join(&mut producer), hostile(&mut producer));
    publish(&mut producer);
    publish(&mut producer);
    let consuming = thread::spawn(move || {
        for _ in 0..2 {
            good.next_frame(LONG).unwrap().release().unwrap();
        }
        assert!(is_closed(good.next_frame(LONG)));
        good.end()
    });
    producer.finish(LONG).unwrap();
    assert_eq!(consuming.join().unwrap(), Some(SessionEnd::Done));
}

#[test]
fn polling_ends_although_processes_connect_all_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let mut producer = bind(&path).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok(socket) = UnixStream::connect(&path) else { continue };
                let _ = std::io::Write::write(&mut &socket, b"GET / HTTP/1.1\r\n\r\n");
            }
        });
        let (started, mut events, mut longest) = (Instant::now(), 0, 0);
        while started.elapsed() < Duration::from_millis(500) {
            let mut drained = 0;
            while producer.poll(Duration::ZERO).unwrap().is_some() {
                drained += 1;
            }
            events += drained;
            longest = longest.max(drained);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(events > 0 && events <= 500, "{events}");
        assert!(longest <= 100, "{longest}");
        // Ends the waits of what still connects.
        drop(producer);
    });
}

#[test]
fn hostile_sequence_numbers_are_no_missed_frames() {
    for (drops_frames, missed) in [(false, 0), (true, u64::MAX - 3)] {
        let (here, there) = UnixStream::pair().unwrap();
        let (name, format) = (String::new(), String::new());
        let ring = RingInfo { slots: 3, semaphores: 0, drops_frames, name, format };
        send_message(&here, &Message::Ring(ring));
        (1..=3).for_each(|size| send(&here, &buffer(size).into()).unwrap());
        let (mut consumer, _ring) = Consumer::join_socket(there, JoinOptions::default()).unwrap();
        consumer.ready().unwrap();
        for (slot, sequence) in [(0, 1), (1, u64::MAX - 1), (2, u64::MAX)] {
            send_message(&here, &frame(slot, sequence));
            consumer.next_frame(LONG).unwrap().release().unwrap();
        }
        assert_eq!(consumer.missed(), missed);
    }
}

#[test]
fn a_ring_is_sent_in_parts_if_the_socket_is_full() {
    let (mut producer, slots) = (producer(64), 64);
    let (here, there) = UnixStream::pair().unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&here, 2304).unwrap();
    producer.admit(here).unwrap();
    send_message(&there, &join_message());
    assert_eq!(producer.poll(SHORT).unwrap(), None);
    // It reads now, and gets all payloads.
    let reading = thread::spawn(move || {
        let mut receiver = crate::ipc::Receiver::new();
        there.set_read_timeout(Some(LONG)).unwrap();
        let (first, _) = receiver.message(&there).unwrap();
        assert!(matches!(first, Message::Ring(ring) if ring.slots == slots));
        for size in 1..=u64::from(slots) {
            let payload = receiver.receive(&there).unwrap().into_buffer().unwrap();
            assert_eq!(payload.desc().size, size);
        }
        send_message(&there, &Message::Ready);
        there
    });
    producer.wait_for_consumers(1, LONG).unwrap();
    reading.join().unwrap();
}
