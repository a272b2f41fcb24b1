//! Producers that violate the protocol.

use super::*;
use crate::fd::set_pass_rights;
use crate::ipc::send;
use crate::ipc::wire::LeaveReason;
use crate::payload::Payload;

/// Joins a producer that sends what `act` sends, within `timeout`.
fn join_of(timeout: Duration, act: impl FnOnce(&UnixStream)) -> Result<(Consumer, Ring)> {
    let (here, there) = UnixStream::pair().unwrap();
    act(&here);
    let joined = Consumer::join_socket(there, JoinOptions { timeout, ..JoinOptions::default() });
    drop(here);
    joined
}

/// A consumer of a hostile producer with two slots, and the producer's socket.
fn joined() -> (Consumer, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    send_message(&here, &info(2, 1));
    (1..=2).for_each(|size| send(&here, &buffer(size).into()).unwrap());
    send(&here, &semaphore(SemaphoreKind::Timeline).into()).unwrap();
    let (mut consumer, _ring) = Consumer::join_socket(there, JoinOptions::default()).unwrap();
    // As with an older kernel.
    set_pass_rights(consumer.as_fd(), true);
    consumer.ready().unwrap();
    (consumer, here)
}

#[test]
fn an_invalid_ring_is_refused_and_its_descriptors_are_closed() {
    let payload = Payload::from(buffer(1));
    let before = open_here(&payload);
    let raw = |bytes: Vec<u8>| move |socket: &UnixStream| send_bytes(socket, &bytes);
    let field = |joined: Result<(Consumer, Ring)>| field_of(&joined.unwrap_err()).to_owned();
    assert_eq!(field(join_of(LONG, raw(frame(0, 1).encode()))), "message kind");
    assert_eq!(field(join_of(LONG, raw(Message::Ready.encode()))), "message kind");
    let mut other = info(1, 0).encode();
    other[4] = 2;
    assert_eq!(field(join_of(LONG, raw(other))), "header.version");
    let mut none = info(1, 0).encode();
    none[16] = 0;
    assert_eq!(field(join_of(LONG, raw(none))), "body.slots");
    assert_eq!(field(join_of(LONG, |s| send(s, &payload).unwrap())), "message kind");
    // A message that is not a payload, a semaphore for a slot, a buffer for a semaphore, a binary
    // semaphore.
    let after = |slots, semaphores, then: &dyn Fn(&UnixStream)| {
        field(join_of(LONG, |socket| {
            send_message(socket, &info(slots, semaphores));
            send(socket, &payload).unwrap();
            then(socket);
        }))
    };
    let put = |message: Message| move |s: &UnixStream| send_message(s, &message);
    assert_eq!(after(2, 0, &put(frame(0, 1))), "message kind");
    assert_eq!(after(2, 0, &put(info(2, 0))), "message kind");
    let timeline = Payload::from(semaphore(SemaphoreKind::Timeline));
    assert_eq!(after(2, 0, &|s| send(s, &timeline).unwrap()), "message kind");
    assert_eq!(after(1, 1, &|s| send(s, &payload).unwrap()), "message kind");
    let binary = Payload::from(semaphore(SemaphoreKind::Binary));
    assert_eq!(after(1, 1, &|s| send(s, &binary).unwrap()), "ring.semaphores");
    // A descriptor that can't be memory.
    let pipe = UnixStream::pair().unwrap();
    let message = Message::Memory(memory_info()).encode();
    assert_eq!(
        after(2, 0, &|s| send_raw(s, &message, &[pipe.0.as_fd()], SendFlags::empty())),
        "payload.fd"
    );
    assert_eq!(open_here(&payload), before);
}

#[test]
fn a_ring_that_does_not_arrive_is_a_timeout_and_one_that_is_cut_off_the_end() {
    assert!(is_timeout(join_of(SHORT, |_| {})));
    let half = |socket: &UnixStream| send_bytes(socket, &info(2, 0).encode()[..20]);
    assert!(is_timeout(join_of(SHORT, half)));
    let closes = |socket: &UnixStream| {
        send_message(socket, &info(2, 0));
        send(socket, &buffer(1).into()).unwrap();
        socket.shutdown(std::net::Shutdown::Both).unwrap();
    };
    assert!(is_closed(join_of(LONG, closes)));
    let closes_in_a_message = |socket: &UnixStream| {
        half(socket);
        socket.shutdown(std::net::Shutdown::Both).unwrap();
    };
    assert!(is_closed(join_of(LONG, closes_in_a_message)));
    for (reason, text) in [(LeaveReason::Full, "as many"), (LeaveReason::Refused, "may not")] {
        let refuses = |socket: &UnixStream| send_message(socket, &Message::Leave(reason));
        let error = join_of(LONG, refuses).unwrap_err();
        assert!(matches!(error, Error::Closed { .. }), "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn an_invalid_frame_is_refused() {
    let with_semaphore = |semaphore| {
        let point = Some(TimelinePoint { semaphore, value: 1 });
        let layouts = None;
        Message::Frame(FrameToken { slot: 0, sequence: 1, point, layouts, published: 0, tag: 0 })
    };
    for (wrong, field, problem) in [
        (vec![frame(2, 1)], "frame", "slot 2, but the ring has 2"),
        (vec![frame(0, 1), frame(0, 2)], "frame", "which this consumer already holds"),
        (vec![frame(0, 5), frame(1, 5)], "frame", "number 5, but the one before it has 5"),
        (vec![frame(0, 5), frame(1, 4)], "frame", "number 4, but the one before it has 5"),
        (vec![with_semaphore(1)], "frame", "names a semaphore"),
        (vec![release(0, 1)], "message kind", "a release from a producer"),
        (vec![info(2, 1)], "message kind", "a ring from a producer"),
    ] {
        let (mut consumer, producer) = joined();
        let bytes: Vec<u8> = wrong.iter().flat_map(Message::encode).collect();
        send_bytes(&producer, &bytes);
        let error = consumer.next_frame(LONG).unwrap_err();
        assert_eq!(field_of(&error), field);
        assert!(error.to_string().contains(problem), "{error}");
        assert_eq!(consumer.end(), Some(SessionEnd::ProtocolError));
        assert_eq!(consumer.next_frame(LONG).unwrap_err(), error, "the error is final");
        let mut sent = Vec::new();
        std::io::Read::read_to_end(&mut &producer, &mut sent).unwrap();
        assert!(sent.ends_with(&Message::Leave(LeaveReason::ProtocolError).encode()));
    }
}

#[test]
fn a_frame_before_the_consumer_is_ready_is_refused() {
    let (here, there) = UnixStream::pair().unwrap();
    send_message(&here, &info(1, 0));
    send(&here, &buffer(1).into()).unwrap();
    send_message(&here, &frame(0, 1));
    let (mut consumer, _ring) = Consumer::join_socket(there, JoinOptions::default()).unwrap();
    assert_eq!(field_of(&consumer.ready().unwrap_err()), "frame");
}

#[test]
fn a_flood_of_frames_is_refused_when_there_are_more_than_slots() {
    let (mut consumer, producer) = joined();
    let flood: Vec<u8> = (1..2000).flat_map(|n| frame(n as u32 % 2, n).encode()).collect();
    producer.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &producer, &flood).is_ok_and(|count| count > 0) {}
    assert_eq!(field_of(&consumer.next_frame(LONG).unwrap_err()), "frame");
}

#[test]
fn descriptors_of_a_frame_and_out_of_band_data_is_refused() {
    let memory = memfd(64);
    for (bytes, descriptors, flags, field) in [
        (&*frame(0, 1).encode(), &[memory.as_fd()][..], SendFlags::empty(), "descriptors"),
        (b"!", &[], SendFlags::OOB, "socket"),
    ] {
        let (mut consumer, producer) = joined();
        send_raw(&producer, bytes, descriptors, flags);
        assert_eq!(field_of(&consumer.next_frame(LONG).unwrap_err()), field);
        assert_eq!(open_here(&memory), 1);
    }
}

#[test]
fn an_eviction_is_noticed_while_the_socket_is_still_open() {
    let (mut consumer, producer) = joined();
    let both = [frame(0, 1), frame(1, 2)].map(|frame| frame.encode()).concat();
    send_bytes(&producer, &both);
    let held = consumer.next_frame(LONG).unwrap();
    send_message(&producer, &Message::Leave(LeaveReason::Evicted));
    // The release can still be sent, but the slot may have been written over.
    assert!(is_closed(held.release()));
    assert!(is_closed(consumer.next_frame(LONG)));
    assert_eq!(consumer.end(), Some(SessionEnd::Evicted));
}

#[test]
fn the_end_of_the_stream_within_a_frame_ends_the_session() {
    for bytes in [1, 15, 16, 17, 71] {
        let (mut consumer, producer) = joined();
        send_message(&producer, &frame(0, 1));
        let held = consumer.next_frame(LONG).unwrap();
        send_bytes(&producer, &frame(1, 2).encode()[..bytes]);
        assert!(is_timeout(consumer.next_frame(SHORT)));
        drop(producer);
        assert!(is_closed(consumer.next_frame(LONG)), "after {bytes} bytes");
        assert_eq!(consumer.end(), Some(SessionEnd::Lost));
        assert!(is_closed(held.release()));
    }
}
