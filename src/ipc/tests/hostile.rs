use std::io::Read as _;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::desc::{Extent, ImageKind};
use crate::ipc::wire::HEADER_LEN;

/// Returns the error for `bytes` with `count` descriptors, writing ends of one pipe, on the first
/// byte. Checks that they are all closed with the socket at the latest, and that the error is final.
fn refuse(bytes: &[u8], count: usize) -> Error {
    let (producer, consumer) = pair();
    let (mut read, write) = pipe();
    send_raw(&producer, bytes, &vec![write.as_fd(); count], SendFlags::empty());
    let mut receiver = Receiver::new();
    // The peer continues.
    send(&producer, &buffer(1).into()).unwrap();
    let error = receiver.receive(&consumer).unwrap_err();
    assert_eq!(open_here(&read), 2, "one of each end: {error}");
    assert_eq!(receiver.receive(&consumer).unwrap_err(), error, "the error is final");
    drop(write);
    super::super::close(consumer);
    assert_eq!(read_to_end(&mut read, &error), 0);
    error
}

/// Returns when the writing end of the pipe is closed everywhere, in this process and in the
/// kernel.
fn read_to_end(read: &mut OwnedFd, error: &Error) -> usize {
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(read, PollFlags::IN)], Some(&limit));
    assert_eq!(ready, Ok(1), "the pipe is still open: {error}");
    File::from(read.try_clone().unwrap()).read(&mut [0; 16]).unwrap()
}

#[test]
fn a_wrong_number_of_descriptors_is_refused_and_all_are_closed() {
    for (count, found) in
        [(0, "found 0"), (2, "more than 1"), (17, "more than 1"), (250, "more than 1")]
    {
        let error = refuse(&valid(), count);
        assert_eq!(field_of(&error), "descriptors", "{error}");
        assert!(error.to_string().contains(found), "{error}");
    }
}

#[test]
fn a_wrong_header_is_refused_and_its_descriptor_closed() {
    let cases: [(usize, &[u8], &str); 8] = [
        (0, b"GET / HTTP/1.1\r\n", "header.magic"),
        (0, &[0; 16], "header.magic"),
        (4, &[2], "header.version"),
        (6, &[99], "header.kind"),
        (8, &[0xff, 0xff], "header.body_length"),
        (8, &[0xff, 0xff, 0xff, 0xff], "header.body_length"),
        (12, &[0], "header.descriptors"),
        (14, &[1], "header.reserved"),
    ];
    for (at, wrong, field) in cases {
        for count in [0, 1] {
            let mut bytes = valid();
            bytes[at..][..wrong.len()].copy_from_slice(wrong);
            assert_eq!(field_of(&refuse(&bytes, count)), field);
        }
    }
}

#[test]
fn descriptors_in_the_middle_of_a_message_are_refused_and_closed() {
    for (at, count) in [(1, 1), (15, 2), (16, 1), (17, 1), (90, 253)] {
        let (producer, consumer) = pair();
        let (mut read, write) = pipe();
        let memory = memfd(SIZE);
        let mut receiver = Receiver::new();
        consumer.set_nonblocking(true).unwrap();
        send_raw(&producer, &valid()[..at], &[memory.as_fd()], SendFlags::empty());
        assert!(matches!(receiver.receive(&consumer), Err(Error::Timeout { .. })));
        send_raw(&producer, &valid()[at..], &vec![write.as_fd(); count], SendFlags::empty());
        let error = receiver.receive(&consumer).unwrap_err();
        assert_eq!(field_of(&error), "descriptors", "{error}");
        assert_eq!((open_here(&memory), open_here(&read)), (1, 2), "{error}");
        drop((write, consumer));
        assert_eq!(read_to_end(&mut read, &error), 0);
    }
}

#[test]
fn the_end_of_the_stream_within_a_message_is_not_the_end_between_two() {
    for len in [0, 1, 15, 16, 17, valid().len() - 1] {
        let (producer, consumer) = pair();
        let memory = memfd(SIZE);
        if len > 0 {
            send_raw(&producer, &valid()[..len], &[memory.as_fd()], SendFlags::empty());
        }
        drop(producer);
        let mut receiver = Receiver::new();
        let error = receiver.receive(&consumer).unwrap_err();
        if len == 0 {
            assert_eq!(error, Error::Closed { what: "the socket".into() });
        } else {
            assert_eq!(field_of(&error), "message");
            assert!(error.to_string().contains(&format!("after {len} byte")), "{error}");
        }
        assert_eq!(open_here(&memory), 1);
        assert_eq!(receiver.receive(&consumer).unwrap_err(), error, "the error is final");
    }
}

#[test]
fn a_peer_that_closes_without_reading_has_closed_the_socket() {
    let (producer, consumer) = pair();
    send(&consumer, &buffer(1).into()).unwrap();
    drop(producer);
    let (receiving, sending) = (receive(&consumer).map(|_| ()), send(&consumer, &buffer(1).into()));
    assert!(matches!(receiving, Err(Error::Closed { .. })), "{receiving:?}");
    assert!(matches!(sending, Err(Error::Closed { .. })), "{sending:?}");
}

#[test]
fn a_timeout_within_a_message_is_final_without_a_receiver() {
    let (producer, consumer) = pair();
    consumer.set_read_timeout(Some(SHORT)).unwrap();
    let memory = memfd(SIZE);
    send_raw(&producer, &valid()[..20], &[memory.as_fd()], SendFlags::empty());
    let error = receive(&consumer).unwrap_err();
    assert_eq!(field_of(&error), "message");
    assert!(error.to_string().contains("after 20 bytes"), "{error}");
    assert_eq!(open_here(&memory), 1);
}

#[test]
fn single_bytes_do_not_extend_the_timeout() {
    let (producer, consumer) = pair();
    consumer.set_read_timeout(Some(SHORT)).unwrap();
    let sending = thread::spawn(move || {
        // Ends when the consumer closes its socket. The whole message would take 5 seconds.
        for byte in valid() {
            if std::io::Write::write_all(&mut &producer, &[byte]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    // Without a descriptor: the header alone takes longer than the timeout.
    assert_eq!(field_of(&receive(&consumer).unwrap_err()), "message");
    drop(consumer);
    assert!(sending.join().unwrap(), "the wait must end long before the message");
}

#[test]
fn out_of_band_data_is_refused_without_spinning() {
    let (producer, consumer) = pair();
    send_raw(&producer, b"!", &[], SendFlags::OOB);
    assert_eq!(field_of(&receive(&consumer).unwrap_err()), "socket");
}

/// Receives `message` with `fd`. If it is refused, checks that the descriptor is closed and that
/// the next message is received.
fn receive_with(message: &Message, fd: impl AsFd) -> Result<Payload> {
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).unwrap();
    // Other tests open these as well.
    let shared = ["/", "/dev/null"].iter().any(|other| path.as_os_str() == *other);
    let before = open_here(&fd);
    let (producer, consumer) = pair();
    send_raw(&producer, &message.encode(), &[fd.as_fd()], SendFlags::empty());
    send(&producer, &buffer(1).into()).unwrap();
    let mut receiver = Receiver::new();
    let received = receiver.receive(&consumer);
    if let Err(error) = &received {
        assert!(shared || open_here(&fd) == before, "{error}");
        assert_eq!(receiver.receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 1);
    }
    received
}

#[test]
fn a_descriptor_that_cannot_be_the_memory_is_refused_alone() {
    let sealed = |seals| {
        let fd = memfd(SIZE);
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    };
    let read_only = memfd(SIZE);
    let path = format!("/proc/self/fd/{}", read_only.as_raw_fd());
    let read_only = File::open(path).map(OwnedFd::from).unwrap();
    let (read, write) = pipe();
    let (socket, _other) = UnixStream::pair().unwrap();
    let on_disk = tempfile::tempfile().unwrap();
    on_disk.set_len(SIZE).unwrap();
    let eventfd = semaphore(SemaphoreKind::Timeline).into_parts().0;
    let terminal = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let cases: [(OwnedFd, &str); 13] = [
        (on_disk.into(), "no driver exports"),
        (eventfd, "an anonymous inode"),
        (terminal.into(), "character device 5:2"),
        (unsealed_memfd(SIZE), "not sealed against shrinking"),
        (read, "a pipe"),
        (write, "a pipe"),
        (socket.into(), "a socket"),
        (File::open("/").unwrap().into(), "a directory"),
        (File::open("/dev/null").unwrap().into(), "/dev/null"),
        (memfd(SIZE - 1), "8191 bytes, but the allocation has 8192"),
        (sealed(SealFlags::WRITE), "sealed against writing"),
        (sealed(SealFlags::FUTURE_WRITE), "sealed against writing"),
        (read_only, "not open for reading and writing"),
    ];
    let desc = BufferDesc::storage(64);
    let buffer = Message::Buffer { memory: memory_info(), offset: 0, desc };
    for (fd, text) in cases {
        for message in [&buffer, &Message::Memory(memory_info())] {
            let error = receive_with(message, &fd).unwrap_err();
            assert_eq!(field_of(&error), "payload.fd", "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
    // A memfd is not a dma-buf either.
    let dma_buf = MemoryInfo { handle_type: MemoryHandleType::DmaBuf, ..memory_info() };
    let error = receive_with(&Message::Memory(dma_buf), memfd(SIZE)).unwrap_err();
    assert!(error.to_string().contains("dma-buf"), "{error}");
    // What Mesa's software drivers share is accepted.
    let mesa = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    receive_with(&buffer, sealed(mesa)).unwrap();
}

#[test]
fn a_descriptor_that_cannot_be_a_semaphore_is_refused() {
    let info = semaphore(SemaphoreKind::Binary).info().clone();
    let (read, _write) = pipe();
    for fd in [read, memfd(SIZE), File::open("/dev/null").unwrap().into()] {
        let error = receive_with(&Message::Semaphore(info.clone()), &fd).unwrap_err();
        assert_eq!(field_of(&error), "payload.fd", "{error}");
    }
}

#[test]
fn a_descriptor_belongs_to_its_own_message_and_not_to_the_one_before() {
    // MSG_PEEK may show the descriptors of the next message as well.
    let (producer, consumer) = pair();
    let next = buffer(1);
    send_raw(&producer, &valid(), &[], SendFlags::empty());
    send(&producer, &next.try_clone().unwrap().into()).unwrap();
    assert_eq!(field_of(&receive(&consumer).unwrap_err()), "descriptors");
    assert_eq!(open_here(next.memory()), 1);
}

#[test]
fn the_peer_cannot_shorten_memory_that_has_been_received() {
    let memory = memfd(SIZE);
    let received = receive_with(&Message::Memory(memory_info()), &memory).unwrap();
    let theirs = File::from(memory);
    assert!(theirs.set_len(SIZE - 1).is_err());
    received.into_memory().unwrap().check(&[identity()]).unwrap();
}

/// A TCP socket with unsent data, whose close(2) waits for the other end up to a time limit.
#[test]
fn a_descriptor_whose_close_blocks_delays_no_receive() {
    let time = Duration::from_secs(3);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lingering = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_other, _) = listener.accept().unwrap();
    lingering.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut lingering, &[0; 1 << 16]).is_ok() {}
    lingering.set_nonblocking(false).unwrap();
    rustix::net::sockopt::set_socket_linger(&lingering, Some(time)).unwrap();
    let lingering = OwnedFd::from(lingering);
    let message = Message::Memory(memory_info()).encode();
    let mut sockets = Vec::new();
    for (bytes, count, at) in
        [(&message[..], 1, 0), (&message, 250, 0), (b"GIPC", 1, 0), (&message, 1, 20)]
    {
        let (producer, consumer) = pair();
        let memory = memfd(SIZE);
        if at > 0 {
            send_raw(&producer, &bytes[..at], &[memory.as_fd()], SendFlags::empty());
        }
        send_raw(&producer, &bytes[at..], &vec![lingering.as_fd(); count], SendFlags::empty());
        sockets.push(consumer);
    }
    // From here on, the last reference is in the sockets.
    drop(lingering);
    let started = Instant::now();
    for consumer in sockets {
        consumer.set_read_timeout(Some(SHORT)).unwrap();
        assert!(receive(&consumer).is_err());
        super::super::close(consumer);
    }
    assert!(started.elapsed() < time / 2, "{:?}", started.elapsed());
    super::super::foreign::settle();
    assert!(started.elapsed() > time / 2, "the last close did block, elsewhere");
}
#[test]
fn an_invalid_description_is_refused_alone() {
    let with = |offset, size| Message::Buffer {
        memory: memory_info(),
        offset,
        desc: BufferDesc::storage(size),
    };
    let fd = memfd(SIZE);
    for (message, field) in [
        (with(0, 0), "desc.size"),
        (with(0, SIZE + 1), "offset"),
        (with(SIZE, 1), "offset"),
        (with(u64::MAX, u64::MAX), "offset"),
    ] {
        assert_eq!(field_of(&receive_with(&message, &fd).unwrap_err()), field);
    }
    let huge = MemoryInfo { allocation_size: u64::MAX, ..memory_info() };
    assert_eq!(field_of(&receive_with(&Message::Memory(huge), &fd).unwrap_err()), "payload.fd");
}

/// A linear image of 10 × 3 texels of 4 bytes, at 4096 bytes into the allocation.
fn linear_image(linear: LinearLayout) -> (ImageDesc, Message) {
    let desc = ImageDesc::d2(Format::Rgba8Unorm, 10, 3, ImageUsage::SAMPLED);
    let desc = ImageDesc { tiling: Tiling::Linear, ..desc };
    let linear = Some(linear);
    (desc, Message::Image { memory: memory_info(), offset: 4096, desc, linear })
}

#[test]
fn a_linear_layout_that_does_not_fit_the_image_is_refused_alone() {
    // The last row ends with the allocation.
    let fitting =
        LinearLayout { offset: 4096 - 168, row_pitch: 64, depth_pitch: 0, array_pitch: 0 };
    let fd = memfd(SIZE);
    let (desc, message) = linear_image(fitting);
    let received = receive_with(&message, &fd).unwrap().into_image().unwrap();
    assert_eq!(received.linear(), Some(&fitting));
    drop(received);
    for (linear, text) in [
        (LinearLayout { offset: fitting.offset + 1, ..fitting }, "reaches"),
        (LinearLayout { offset: u64::MAX, ..fitting }, "reaches"),
        (LinearLayout { row_pitch: 65, ..fitting }, "reaches"),
        (LinearLayout { row_pitch: u64::MAX, ..fitting }, "reaches"),
        (LinearLayout { row_pitch: 39, ..fitting }, "row_pitch"),
        (LinearLayout { row_pitch: 0, ..fitting }, "row_pitch"),
    ] {
        let error = receive_with(&linear_image(linear).1, &fd).unwrap_err();
        assert_eq!(field_of(&error), "payload.linear");
        assert!(error.to_string().contains(text), "{error}");
    }
    let (linear, layers) = (Some(LinearLayout { offset: 0, ..fitting }), 2);
    for desc in [
        ImageDesc { tiling: Tiling::Optimal, ..desc },
        ImageDesc { layers, ..desc },
        ImageDesc { kind: ImageKind::D3, extent: Extent { depth: 2, ..desc.extent }, ..desc },
    ] {
        let message = Message::Image { memory: memory_info(), offset: 0, desc, linear };
        assert_eq!(field_of(&receive_with(&message, &fd).unwrap_err()), "payload.linear");
    }
}

/// Numbers that fit, nearly fit, and overflow.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..300, 1 => 0..2 * SIZE, 1 => any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_linear_layout_is_accepted_or_a_typed_error(
        offset in number(),
        linear in [number(), number(), number(), number()],
        (width, height) in (0u32..9, 0u32..9),
        // Slices of a 3D image or layers of another.
        slices in prop_oneof![4 => 0u32..4, 1 => any::<u32>()],
        kind in prop::sample::select(vec![ImageKind::D1, ImageKind::D2, ImageKind::D3]),
        tiling in prop::sample::select(vec![Tiling::Linear, Tiling::Linear, Tiling::Optimal]),
    ) {
        let [linear_offset, row_pitch, depth_pitch, array_pitch] = linear;
        let linear = LinearLayout { offset: linear_offset, row_pitch, depth_pitch, array_pitch };
        let (depth, layers) = if kind == ImageKind::D3 { (slices, 1) } else { (1, slices) };
        let extent = Extent { width, height, depth };
        let desc = ImageDesc::d2(Format::Rgba8Unorm, 1, 1, ImageUsage::SAMPLED);
        let desc = ImageDesc { kind, extent, layers, tiling, ..desc };
        let linear = Some(linear);
        let message = Message::Image { memory: memory_info(), offset, desc, linear };
        match receive_with(&message, memfd(SIZE)) {
            Ok(received) => {
                let image = received.into_image().unwrap();
                prop_assert_eq!((image.linear(), tiling), (linear.as_ref(), Tiling::Linear));
                let end = u128::from(offset) + u128::from(linear_offset) + 4 * u128::from(width);
                prop_assert!(end <= u128::from(SIZE));
            }
            Err(error) => {
                let field = field_of(&error);
                let known = field == "payload.linear" || field == "offset";
                prop_assert!(known || field.starts_with("desc."), "{}", error);
            }
        }
    }

    /// The peer sends pieces of a valid message, changed, in any order, with any descriptors.
    #[test]
    fn anything_is_a_payload_or_a_typed_error_and_no_descriptor_stays_open(
        pieces in prop::collection::vec((0usize..160, 0usize..160, 0usize..4, any::<bool>()), 1..8),
        change in proptest::option::of((0usize..160, any::<u8>())),
    ) {
        let (producer, consumer) = pair();
        let memory = memfd(SIZE);
        let mut bytes = valid();
        bytes.extend(valid());
        if let Some((at, value)) = change {
            bytes[at % HEADER_LEN] = value;
        }
        for (from, len, count, whole) in pieces {
            let piece = match whole {
                true => &bytes[..valid().len()],
                false => &bytes[from..(from + len + 1).min(bytes.len())],
            };
            send_raw(&producer, piece, &vec![memory.as_fd(); count], SendFlags::empty());
        }
        drop(producer);
        let mut receiver = Receiver::new();
        let end = loop {
            match receiver.receive(&consumer) {
                Ok(received) => prop_assert_eq!(received.into_buffer().unwrap().desc().size, 64),
                Err(error @ Error::Closed { .. }) => break error,
                Err(error @ (Error::Invalid(_) | Error::Mismatch(_))) => {
                    let field = field_of(&error).to_owned();
                    if !field.starts_with("body") && field != "payload.fd" && field != "offset" {
                        break error;
                    }
                }
                Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        };
        prop_assert_eq!(open_here(&memory), 1, "{}", end);
        prop_assert_eq!(receiver.receive(&consumer).unwrap_err(), end, "the error is final");
    }
}
