//! Producers that lie to a consumer.

use super::*;
use crate::ipc::send;
use crate::ipc::wire::{FrameToken, LeaveReason, ReleaseToken, RingInfo};

fn info(slots: u32, semaphores: u32) -> Message {
    let (name, format) = (String::new(), String::new());
    Message::Ring(RingInfo { slots, semaphores, leaves_out: false, name, format })
}

fn frame(slot: u32, sequence: u64) -> Message {
    let (point, layouts) = (None, None);
    Message::Frame(FrameToken { slot, sequence, point, layouts, published: 0, tag: 0 })
}

/// A consumer that joins over one end, within `timeout`, of what the other is told to send.
fn join_of(timeout: Duration, lie: impl FnOnce(&UnixStream)) -> Result<(Consumer, Ring)> {
    let (here, there) = UnixStream::pair().unwrap();
    lie(&here);
    let joined = Consumer::over(there, JoinOptions { timeout, ..JoinOptions::default() });
    drop(here);
    joined
}

/// A consumer of a liar with two slots, and the liar's socket.
fn joined() -> (Consumer, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    send_raw(&here, &info(2, 1).encode(), &[], 0);
    (1..=2).for_each(|size| send(&here, &buffer(size)).unwrap());
    send(&here, &semaphore(SemaphoreKind::Timeline)).unwrap();
    let (mut consumer, _ring) = Consumer::over(there, JoinOptions::default()).unwrap();
    consumer.ready().unwrap();
    (consumer, here)
}

#[test]
fn a_ring_that_is_none_is_refused_and_its_descriptors_are_closed() {
    let payload = buffer(1);
    let before = open_here(payload.memory());
    let raw = |bytes: Vec<u8>| move |socket: &UnixStream| send_raw(socket, &bytes, &[], 0);
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
    // Something else than a payload, a semaphore for a slot, a slot for a semaphore, a binary one.
    let after = |slots, semaphores, then: &dyn Fn(&UnixStream)| {
        field(join_of(LONG, |socket| {
            send_raw(socket, &info(slots, semaphores).encode(), &[], 0);
            send(socket, &payload).unwrap();
            then(socket);
        }))
    };
    let put = |message: Message| move |s: &UnixStream| send_raw(s, &message.encode(), &[], 0);
    assert_eq!(after(2, 0, &put(frame(0, 1))), "message kind");
    assert_eq!(after(2, 0, &put(info(2, 0))), "message kind");
    let timeline = semaphore(SemaphoreKind::Timeline);
    assert_eq!(after(2, 0, &|s| send(s, &timeline).unwrap()), "message kind");
    assert_eq!(after(1, 1, &|s| send(s, &payload).unwrap()), "message kind");
    let binary = semaphore(SemaphoreKind::Binary);
    assert_eq!(after(1, 1, &|s| send(s, &binary).unwrap()), "ring.semaphores");
    // A payload that is none.
    let pipe = UnixStream::pair().unwrap();
    let message = Message::Memory(memory_info()).encode();
    assert_eq!(after(2, 0, &|s| send_raw(s, &message, &[pipe.0.as_fd()], 0)), "payload.fd");
    assert_eq!(open_here(payload.memory()), before);
}

#[test]
fn a_ring_that_does_not_come_is_a_timeout_and_one_that_breaks_off_the_end() {
    assert!(is_timeout(join_of(SHORT, |_| {})));
    let half = |socket: &UnixStream| send_raw(socket, &info(2, 0).encode()[..20], &[], 0);
    assert!(is_timeout(join_of(SHORT, half)));
    let closes = |socket: &UnixStream| {
        send_raw(socket, &info(2, 0).encode(), &[], 0);
        send(socket, &buffer(1)).unwrap();
        socket.shutdown(std::net::Shutdown::Both).unwrap();
    };
    assert!(is_closed(join_of(LONG, closes)));
    let closes_in_a_message = |socket: &UnixStream| {
        half(socket);
        socket.shutdown(std::net::Shutdown::Both).unwrap();
    };
    assert!(is_closed(join_of(LONG, closes_in_a_message)));
    for (reason, word) in [(LeaveReason::Full, "as many"), (LeaveReason::Refused, "may not")] {
        let refuses =
            |socket: &UnixStream| send_raw(socket, &Message::Leave(reason).encode(), &[], 0);
        let error = join_of(LONG, refuses).unwrap_err();
        assert!(matches!(error, Error::Closed { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_frame_that_can_not_be_is_refused() {
    let with_semaphore = |semaphore| {
        let point = Some(TimelinePoint { semaphore, value: 1 });
        let layouts = None;
        Message::Frame(FrameToken { slot: 0, sequence: 1, point, layouts, published: 0, tag: 0 })
    };
    let release = Message::Release(ReleaseToken { slot: 0, sequence: 1 });
    for (wrong, field, problem) in [
        (vec![frame(2, 1)], "frame", "slot 2, but the ring has 2"),
        (vec![frame(0, 1), frame(0, 2)], "frame", "which this consumer has already"),
        (vec![frame(0, 5), frame(1, 5)], "frame", "number 5, but one before it had 5"),
        (vec![frame(0, 5), frame(1, 4)], "frame", "number 4, but one before it had 5"),
        (vec![with_semaphore(1)], "frame", "names a semaphore"),
        (vec![release], "message kind", "a release from a producer"),
        (vec![info(2, 1)], "message kind", "a ring from a producer"),
    ] {
        let (mut consumer, liar) = joined();
        let bytes: Vec<u8> = wrong.iter().flat_map(Message::encode).collect();
        send_raw(&liar, &bytes, &[], 0);
        let error = consumer.next_frame(LONG).unwrap_err();
        assert_eq!(field_of(&error), field);
        assert!(error.to_string().contains(problem), "{error}");
        assert_eq!(consumer.end(), Some(End::Broke));
        assert_eq!(consumer.next_frame(LONG).unwrap_err(), error, "and stays so");
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut &liar, &mut said).unwrap();
        assert!(said.ends_with(&Message::Leave(LeaveReason::Broke).encode()));
    }
}

#[test]
fn a_frame_before_the_consumer_is_ready_is_refused() {
    let (here, there) = UnixStream::pair().unwrap();
    send_raw(&here, &info(1, 0).encode(), &[], 0);
    send(&here, &buffer(1)).unwrap();
    send_raw(&here, &frame(0, 1).encode(), &[], 0);
    let (mut consumer, _ring) = Consumer::over(there, JoinOptions::default()).unwrap();
    assert_eq!(field_of(&consumer.ready().unwrap_err()), "frame");
}

#[test]
fn frames_with_descriptors_are_refused_and_these_are_closed() {
    let (mut consumer, liar) = joined();
    let memory = memfd(64);
    send_raw(&liar, &frame(0, 1).encode(), &[memory.as_fd()], 0);
    assert_eq!(field_of(&consumer.next_frame(LONG).unwrap_err()), "descriptors");
    assert_eq!(open_here(&memory), 1);
}

#[test]
fn a_flood_of_frames_is_kept_no_further_than_there_are_slots() {
    let (mut consumer, liar) = joined();
    let flood: Vec<u8> = (1..2000).flat_map(|n| frame(n as u32 % 2, n).encode()).collect();
    liar.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut &liar, &flood).is_ok_and(|count| count > 0) {}
    assert_eq!(field_of(&consumer.next_frame(LONG).unwrap_err()), "frame");
}

#[test]
fn out_of_band_data_are_refused_without_spinning() {
    let (mut consumer, liar) = joined();
    send_raw(&liar, b"!", &[], libc::MSG_OOB);
    assert_eq!(field_of(&consumer.next_frame(LONG).unwrap_err()), "socket");
}

#[test]
fn an_eviction_is_noticed_though_the_socket_is_still_open() {
    let (mut consumer, producer) = joined();
    let both = [frame(0, 1), frame(1, 2)].map(|frame| frame.encode()).concat();
    send_raw(&producer, &both, &[], 0);
    let held = consumer.next_frame(LONG).unwrap();
    send_raw(&producer, &Message::Leave(LeaveReason::Evicted).encode(), &[], 0);
    // The release can still be sent; but what was read may have been written over.
    assert!(is_closed(held.release()));
    assert!(is_closed(consumer.next_frame(LONG)));
    assert_eq!(consumer.end(), Some(End::Evicted));
}

#[test]
fn half_a_frame_and_then_the_end_is_the_end() {
    for bytes in [1, 15, 16, 17, 71] {
        let (mut consumer, liar) = joined();
        send_raw(&liar, &frame(0, 1).encode(), &[], 0);
        let held = consumer.next_frame(LONG).unwrap();
        send_raw(&liar, &frame(1, 2).encode()[..bytes], &[], 0);
        assert!(is_timeout(consumer.next_frame(SHORT)));
        drop(liar);
        assert!(is_closed(consumer.next_frame(LONG)), "after {bytes} bytes");
        assert_eq!(consumer.end(), Some(End::Lost));
        assert!(is_closed(held.release()));
    }
}
