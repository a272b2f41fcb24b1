//! Consumers that violate the protocol.

use super::*;
use crate::ipc::wire::{FrameToken, LeaveReason, ReleaseToken, RingInfo};

fn join_message() -> Message {
    Message::Join { name: "hostile".into() }
}

fn release(slot: u32, sequence: u64) -> Message {
    Message::Release(ReleaseToken { slot, sequence })
}

/// The socket of a hostile consumer that is ready.
fn hostile(producer: &mut Producer) -> UnixStream {
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    let count = producer.consumers() + 1;
    send_message(&there, &join_message());
    assert_eq!(producer.poll(SHORT).unwrap(), None);
    send_message(&there, &Message::Ready);
    producer.wait_for_consumers(count, LONG).unwrap();
    assert!(matches!(next_event(producer), Event::Joined { .. }));
    there
}

/// Returns the error for a consumer that is ready, holds frame 1 in slot 0 and then sends `bytes`.
fn error_for(bytes: &[u8]) -> Error {
    let mut producer = producer(2);
    let mut good = join(&mut producer);
    let hostile = hostile(&mut producer);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    send_bytes(&hostile, bytes);
    let error = match next_event(&mut producer) {
        Event::Left { kind: LeaveKind::ProtocolError(error), held, .. } => {
            assert!(held <= 1);
            error
        }
        other => panic!("{other:?}"),
    };
    // Its slots are free, and the other consumer is not affected.
    let slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
    drop(slots);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    assert_eq!(producer.consumers(), 1);
    error
}

#[test]
fn the_release_of_a_slot_that_the_consumer_does_not_hold_is_refused() {
    for (wrong, problem) in [
        (vec![release(1, 1)], "slot 1 is not held by the consumer"),
        (vec![release(1, 2)], "slot 1 is not held by the consumer"),
        (vec![release(5, 1)], "the ring has no slot 5"),
        (vec![release(0, 2)], "slot 0 holds frame 1, not 2"),
        (vec![release(0, 1), release(0, 1)], "slot 0 is not held by the consumer"),
    ] {
        let bytes: Vec<u8> = wrong.iter().flat_map(Message::encode).collect();
        let error = error_for(&bytes);
        assert_eq!(field_of(&error), "release");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn the_messages_of_a_producer_are_refused() {
    let ring = RingInfo {
        slots: 1,
        semaphores: 0,
        drops_frames: false,
        name: String::new(),
        format: String::new(),
    };
    let (point, layouts) = (None, None);
    let frame = FrameToken { slot: 0, sequence: 1, point, layouts, published: 0, tag: 0 };
    for wrong in [join_message(), Message::Ready, Message::Ring(ring), Message::Frame(frame)] {
        assert_eq!(field_of(&error_for(&wrong.encode())), "message kind");
    }
}

#[test]
fn a_malformed_message_is_refused() {
    let wrong = |at: usize, value: u8| {
        let mut bytes = release(0, 1).encode();
        bytes[at] = value;
        bytes
    };
    for (bytes, field) in [
        (wrong(0, b'g'), "header.magic"),
        (wrong(4, 9), "header.version"),
        (wrong(6, 60), "header.kind"),
        (wrong(9, 0xff), "header.body_length"),
        (wrong(12, 1), "header.descriptors"),
        (wrong(16, 64), "body.slot"),
        (wrong(20, 1), "body.reserved"),
        (wrong(24, 0), "body.sequence"),
        (vec![0; 64], "header.magic"),
    ] {
        assert_eq!(field_of(&error_for(&bytes)), field);
    }
}

#[test]
fn unexpected_descriptors_are_refused_and_closed() {
    for count in [1, 3, 250] {
        let mut producer = producer(1);
        let hostile = hostile(&mut producer);
        publish(&mut producer);
        let memory = memfd(64);
        send_raw(
            &hostile,
            &release(0, 1).encode(),
            &vec![memory.as_fd(); count],
            SendFlags::empty(),
        );
        let event = next_event(&mut producer);
        let Event::Left { kind: LeaveKind::ProtocolError(error), .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!(field_of(&error), "descriptors");
        assert_eq!(open_here(&memory), 1);
        let _slot = producer.free_slot(LONG).unwrap();
    }
}

#[test]
fn out_of_band_data_are_refused_without_spinning() {
    let mut producer = producer(1);
    let hostile = hostile(&mut producer);
    send_raw(&hostile, b"!", &[], SendFlags::OOB);
    let event = next_event(&mut producer);
    let Event::Left { kind: LeaveKind::ProtocolError(error), .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(field_of(&error), "socket");
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
    let sockets = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
    let (mut silent, mut slow) = (Vec::new(), Vec::new());
    for (here, there) in sockets {
        producer.admit(here).unwrap();
        // A part of its join message.
        send_bytes(&there, &join_message().encode()[..slow.len() + 10]);
        slow.push(there);
    }
    let (here, there) = UnixStream::pair().unwrap();
    assert_eq!(field_of(&producer.admit(here).unwrap_err()), "options.max_consumers");
    silent.push(there);
    let mut errors = Vec::new();
    for _ in 0..3 {
        let event = next_event(&mut producer);
        let Event::NotJoined { error, .. } = event else { panic!("{event:?}") };
        errors.push(error);
    }
    assert!(matches!(errors[0], Error::Invalid(_)), "{errors:?}");
    assert!(errors[1..].iter().all(|e| matches!(e, Error::Timeout { .. })), "{errors:?}");
    let _consumer = join(&mut producer);
}

#[test]
fn a_flood_of_messages_or_connections_takes_neither_memory_nor_time() {
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
