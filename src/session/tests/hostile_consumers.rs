//! Consumers that lie to a producer.

use super::*;
use crate::ipc::wire::{FrameToken, LeaveReason, ReleaseToken, RingInfo};

fn name() -> Message {
    Message::Join { name: "liar".into() }
}

fn release(slot: u32, sequence: u64) -> Message {
    Message::Release(ReleaseToken { slot, sequence })
}

/// A raw consumer that has got as far as being ready.
fn ready(producer: &mut Producer) -> UnixStream {
    let (here, there) = UnixStream::pair().unwrap();
    producer.admit(here).unwrap();
    let count = producer.consumers() + 1;
    send_raw(&there, &name().encode(), &[], 0);
    assert_eq!(producer.poll(SHORT).unwrap(), None);
    send_raw(&there, &Message::Ready.encode(), &[], 0);
    producer.wait_for_consumers(count, LONG).unwrap();
    assert!(matches!(next_event(producer), Event::Joined { .. }));
    there
}

/// What the producer says of a consumer that is ready, has frame 1 in slot 0 and then sends `bytes`.
fn broke(bytes: &[u8]) -> Error {
    let mut producer = producer(2);
    let mut good = join(&mut producer);
    let liar = ready(&mut producer);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    send_raw(&liar, bytes, &[], 0);
    let error = match next_event(&mut producer) {
        Event::Left { how: Left::Broke(error), held, .. } => {
            assert!(held <= 1);
            error
        }
        other => panic!("{other:?}"),
    };
    // What it had is free, and the other consumer does not notice.
    let slots = [producer.free_slot(LONG).unwrap(), producer.free_slot(LONG).unwrap()];
    drop(slots);
    publish(&mut producer);
    good.next_frame(LONG).unwrap().release().unwrap();
    assert_eq!(producer.consumers(), 1);
    error
}

#[test]
fn a_release_of_what_the_consumer_does_not_have_is_refused() {
    for (wrong, problem) in [
        (vec![release(1, 1)], "slot 1 is not the consumer's"),
        (vec![release(1, 2)], "slot 1 is not the consumer's"),
        (vec![release(5, 1)], "the ring has no slot 5"),
        (vec![release(0, 2)], "slot 0 was sent with frame 1, not 2"),
        (vec![release(0, 1), release(0, 1)], "slot 0 is not the consumer's"),
    ] {
        let bytes: Vec<u8> = wrong.iter().flat_map(Message::encode).collect();
        let error = broke(&bytes);
        assert_eq!(field_of(&error), "release");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn what_is_no_consumers_to_say_is_refused() {
    let ring = RingInfo {
        slots: 1,
        semaphores: 0,
        leaves_out: false,
        name: String::new(),
        format: String::new(),
    };
    let (point, layouts) = (None, None);
    let frame = FrameToken { slot: 0, sequence: 1, point, layouts, published: 0, tag: 0 };
    for wrong in [name(), Message::Ready, Message::Ring(ring), Message::Frame(frame)] {
        assert_eq!(field_of(&broke(&wrong.encode())), "message kind");
    }
}

#[test]
fn what_is_no_message_is_refused() {
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
        assert_eq!(field_of(&broke(&bytes)), field);
    }
}

#[test]
fn descriptors_where_none_are_announced_are_refused_and_closed() {
    for count in [1, 3, 250] {
        let mut producer = producer(1);
        let liar = ready(&mut producer);
        publish(&mut producer);
        let memory = memfd(64);
        send_raw(&liar, &release(0, 1).encode(), &vec![memory.as_fd(); count], 0);
        let event = next_event(&mut producer);
        let Event::Left { how: Left::Broke(error), .. } = event else { panic!("{event:?}") };
        assert_eq!(field_of(&error), "descriptors");
        assert_eq!(open_here(&memory), 1);
        let _slot = producer.free_slot(LONG).unwrap();
    }
}

#[test]
fn out_of_band_data_are_refused_without_spinning() {
    let mut producer = producer(1);
    let liar = ready(&mut producer);
    send_raw(&liar, b"!", &[], libc::MSG_OOB);
    let event = next_event(&mut producer);
    let Event::Left { how: Left::Broke(error), .. } = event else { panic!("{event:?}") };
    assert_eq!(field_of(&error), "socket");
}

#[test]
fn whoever_does_not_join_properly_is_refused_and_told_so() {
    let cases: [(&[Message], &str); 4] = [
        (&[Message::Ready], "message kind"),
        (&[release(0, 1)], "message kind"),
        // The ring has not been asked for a second time.
        (&[name(), name()], "message kind"),
        (&[name(), release(0, 1)], "message kind"),
    ];
    for (said, field) in cases {
        let mut producer = producer(1);
        let (here, there) = UnixStream::pair().unwrap();
        producer.admit(here).unwrap();
        let bytes: Vec<u8> = said.iter().flat_map(Message::encode).collect();
        send_raw(&there, &bytes, &[], 0);
        let event = next_event(&mut producer);
        let Event::NotJoined { error, pid, .. } = event else { panic!("{event:?}") };
        assert_eq!((field_of(&error), pid), (field, std::process::id()));
        let mut last = Vec::new();
        std::io::Read::read_to_end(&mut &there, &mut last).unwrap();
        assert!(last.ends_with(&Message::Leave(LeaveReason::Broke).encode()));
    }
}

#[test]
fn whoever_connects_and_says_nothing_is_nobodys_business_or_late() {
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
        // Half of its join.
        send_raw(&there, &name().encode()[..slow.len() + 10], &[], 0);
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
fn a_flood_of_messages_or_of_connections_takes_no_memory_and_no_time() {
    let mut producer = producer(1);
    let mut good = join(&mut producer);
    let liar = ready(&mut producer);
    // As much nonsense as the socket takes; the first of it is the last that is read.
    liar.set_nonblocking(true).unwrap();
    let flood = Message::Ready.encode().repeat(4096);
    while std::io::Write::write(&mut &liar, &flood).is_ok_and(|count| count > 0) {}
    let started = Instant::now();
    let event = next_event(&mut producer);
    assert!(matches!(event, Event::Left { how: Left::Broke(_), .. }), "{event:?}");
    for _ in 0..3000 {
        let (here, there) = UnixStream::pair().unwrap();
        producer.admit(here).unwrap();
        send_raw(&there, b"GET / HTTP/1.1\r\n\r\n", &[], 0);
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
fn a_consumer_that_does_not_read_is_sent_the_ring_as_it_makes_room() {
    let (mut producer, slots) = (producer(64), 64);
    let (here, there) = UnixStream::pair().unwrap();
    let small: libc::c_int = 4608;
    // SAFETY: SO_SNDBUF takes an int, which is alive.
    let set = unsafe {
        use std::os::fd::AsRawFd;
        let (value, len) = ((&raw const small).cast(), size_of_val(&small) as libc::socklen_t);
        libc::setsockopt(here.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, value, len)
    };
    assert_eq!(set, 0);
    producer.admit(here).unwrap();
    send_raw(&there, &name().encode(), &[], 0);
    assert_eq!(producer.poll(SHORT).unwrap(), None);
    // It reads now: all of it comes, each payload whole.
    let reading = thread::spawn(move || {
        let mut receiver = crate::ipc::Receiver::new();
        there.set_read_timeout(Some(LONG)).unwrap();
        let (first, _) = receiver.message(&there).unwrap();
        assert!(matches!(first, Message::Ring(ring) if ring.slots == slots));
        for size in 1..=u64::from(slots) {
            let payload = receiver.receive(&there).unwrap().into_buffer().unwrap();
            assert_eq!(payload.desc().size, size);
        }
        send_raw(&there, &Message::Ready.encode(), &[], 0);
        there
    });
    producer.wait_for_consumers(1, LONG).unwrap();
    reading.join().unwrap();
}
