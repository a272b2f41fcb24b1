use std::fs::File;
use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::desc::{Extent, ImageDesc, ImageKind, ImageUsage, Tiling};
use crate::error::Result;
use crate::fd::SemaphoreHandleType;
use crate::format::Format;
use crate::ipc::wire::{HEADER_LEN, Message};
use crate::ipc::{Received, Receiver, receive, send};
use crate::payload::{LinearLayout, SemaphoreInfo, SemaphoreKind};

/// The bytes of a good buffer message.
fn good() -> Vec<u8> {
    let desc = BufferDesc::storage(64);
    Message::Buffer { memory: memory_info(), offset: 0, desc }.encode()
}

/// What a receiver says of `bytes` with `count` descriptors, the writing ends of one pipe, on the
/// first. Checks that they are all closed while the socket is still open, and that the receiver has
/// not gone on.
fn refuse(bytes: &[u8], count: usize) -> Error {
    let (producer, consumer) = pair();
    let (mut read, write) = pipe();
    send_raw(&producer, bytes, &vec![write.as_fd(); count], 0);
    let mut receiver = Receiver::new();
    // A peer that goes on as if nothing had happened.
    send(&producer, &buffer(1)).unwrap();
    let error = receiver.receive(&consumer).unwrap_err();
    assert_eq!(open_here(&read), 2, "one of each end: {error}");
    assert_eq!(receiver.receive(&consumer).unwrap_err(), error, "a broken stream stays broken");
    drop(write);
    assert_eq!(read_to_end(&mut read, &error), 0);
    error
}

/// Returns when nobody holds the writing end of the pipe any more, here or in the kernel.
fn read_to_end(read: &mut OwnedFd, error: &Error) -> usize {
    let mut poll = libc::pollfd { fd: read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one entry.
    let ready = unsafe { libc::poll(&mut poll, 1, 20_000) };
    assert_eq!(ready, 1, "the pipe is still open somewhere: {error}");
    File::from(read.try_clone().unwrap()).read(&mut [0; 16]).unwrap()
}

#[test]
fn another_number_of_descriptors_than_announced_is_refused_and_all_are_closed() {
    for (count, found) in
        [(0, "found 0"), (2, "2 arrived"), (17, "17 arrived"), (250, "250 arrived")]
    {
        let error = refuse(&good(), count);
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
            let mut bytes = good();
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
        send_raw(&producer, &good()[..at], &[memory.as_fd()], 0);
        assert!(matches!(receiver.receive(&consumer), Err(Error::Timeout { .. })));
        send_raw(&producer, &good()[at..], &vec![write.as_fd(); count], 0);
        let error = receiver.receive(&consumer).unwrap_err();
        assert_eq!(field_of(&error), "descriptors", "{error}");
        assert_eq!((open_here(&memory), open_here(&read)), (1, 2), "{error}");
        drop(write);
        assert_eq!(read_to_end(&mut read, &error), 0);
    }
}

#[test]
fn a_stream_that_ends_in_a_message_is_told_from_one_that_ends_after_it() {
    for len in [0, 1, 15, 16, 17, good().len() - 1] {
        let (producer, consumer) = pair();
        let memory = memfd(SIZE);
        if len > 0 {
            send_raw(&producer, &good()[..len], &[memory.as_fd()], 0);
        }
        drop(producer);
        let mut receiver = Receiver::new();
        let error = receiver.receive(&consumer).unwrap_err();
        if len == 0 {
            assert_eq!(error, Error::Closed { what: "the socket".into() });
        } else {
            assert_eq!(field_of(&error), "message");
            assert!(error.to_string().contains(&format!("after {len} bytes")), "{error}");
        }
        assert_eq!(open_here(&memory), 1);
        assert_eq!(receiver.receive(&consumer).unwrap_err(), error, "and stays ended");
    }
}

#[test]
fn a_peer_that_leaves_with_messages_of_ours_unread_is_gone_too() {
    let (producer, consumer) = pair();
    send(&consumer, &buffer(1)).unwrap();
    drop(producer);
    let (receiving, sending) = (receive(&consumer).map(|_| ()), send(&consumer, &buffer(1)));
    assert!(matches!(receiving, Err(Error::Closed { .. })), "{receiving:?}");
    assert!(matches!(sending, Err(Error::Closed { .. })), "{sending:?}");
}

#[test]
fn out_of_band_data_are_refused_without_spinning() {
    let (producer, consumer) = pair();
    send_raw(&producer, b"!", &[], libc::MSG_OOB);
    assert_eq!(field_of(&receive(&consumer).unwrap_err()), "socket");
}

/// What a receiver says of `message` with `fd`. Where it refuses, the descriptor is closed and the
/// next message still comes.
fn receive_with(message: &Message, fd: impl AsFd) -> Result<Received> {
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).unwrap();
    // Other tests open these.
    let anybodys = ["/", "/dev/null"].iter().any(|other| path.as_os_str() == *other);
    let before = open_here(&fd);
    let (producer, consumer) = pair();
    send_raw(&producer, &message.encode(), &[fd.as_fd()], 0);
    send(&producer, &buffer(1)).unwrap();
    let mut receiver = Receiver::new();
    let received = receiver.receive(&consumer);
    if let Err(error) = &received {
        assert!(anybodys || open_here(&fd) == before, "{error}");
        assert_eq!(receiver.receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 1);
    }
    received
}

#[test]
fn what_can_not_be_the_memory_is_refused_and_the_next_message_still_comes() {
    let add_seals = |fd: &OwnedFd, seals: libc::c_int| {
        // SAFETY: F_ADD_SEALS takes an integer.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    };
    let sealed = |seals| {
        let fd = memfd(SIZE);
        add_seals(&fd, seals);
        fd
    };
    let read_only = memfd(SIZE);
    let path = format!("/proc/self/fd/{}", read_only.as_raw_fd());
    let read_only = File::open(path).map(OwnedFd::from).unwrap();
    let (read, write) = pipe();
    let (socket, _other) = UnixStream::pair().unwrap();
    let cases: [(OwnedFd, &str); 9] = [
        (read, "a pipe"),
        (write, "a pipe"),
        (socket.into(), "a socket"),
        (File::open("/").unwrap().into(), "a directory"),
        (File::open("/dev/null").unwrap().into(), "/dev/null"),
        (memfd(SIZE - 1), "8191 bytes, but the allocation has 8192"),
        (sealed(libc::F_SEAL_WRITE), "sealed against writing"),
        (sealed(libc::F_SEAL_FUTURE_WRITE), "sealed against writing"),
        (read_only, "not open for reading and writing"),
    ];
    let desc = BufferDesc::storage(64);
    let buffer = Message::Buffer { memory: memory_info(), offset: 0, desc };
    for (fd, word) in cases {
        for message in [&buffer, &Message::Memory(memory_info())] {
            let error = receive_with(message, &fd).unwrap_err();
            assert_eq!(field_of(&error), "payload.fd", "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
    // Nor is it a dma-buf.
    let dma_buf = MemoryInfo { handle_type: MemoryHandleType::DmaBuf, ..memory_info() };
    let error = receive_with(&Message::Memory(dma_buf), memfd(SIZE)).unwrap_err();
    assert!(error.to_string().contains("dma-buf"), "{error}");
    // And what Mesa's software drivers share is taken.
    let mesa = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    receive_with(&buffer, sealed(mesa)).unwrap();
    receive_with(&buffer, sealed(libc::F_SEAL_SEAL)).unwrap();
}

#[test]
fn what_can_not_be_a_semaphore_is_refused() {
    let handle_type = SemaphoreHandleType::OpaqueFd;
    let info = SemaphoreInfo { handle_type, kind: SemaphoreKind::Binary, identity: identity() };
    let (read, _write) = pipe();
    for fd in [read, memfd(SIZE), File::open("/dev/null").unwrap().into()] {
        let error = receive_with(&Message::Semaphore(info.clone()), &fd).unwrap_err();
        assert_eq!(field_of(&error), "payload.fd", "{error}");
    }
}

#[test]
fn a_descriptor_is_never_taken_for_the_one_of_the_message_before() {
    // Looking at a message, the kernel may show the descriptors of the next one with it.
    let (producer, consumer) = pair();
    let next = buffer(1);
    send_raw(&producer, &good(), &[], 0);
    send(&producer, &next).unwrap();
    assert_eq!(field_of(&receive(&consumer).unwrap_err()), "descriptors");
    assert_eq!(open_here(next.memory()), 1);
}

#[test]
fn the_peer_can_not_shorten_memory_once_it_has_been_received() {
    let memory = memfd(SIZE);
    let received = receive_with(&Message::Memory(memory_info()), &memory).unwrap();
    let theirs = File::from(memory);
    assert!(theirs.set_len(SIZE - 1).is_err());
    received.into_memory().unwrap().check(&[identity()]).unwrap();
}

#[test]
fn a_description_that_makes_no_sense_is_refused_and_the_next_message_still_comes() {
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
fn a_layout_that_is_not_the_images_is_refused_and_the_next_message_still_comes() {
    // The last row ends where the allocation does.
    let good = LinearLayout { offset: 4096 - 168, row_pitch: 64, depth_pitch: 0, array_pitch: 0 };
    let fd = memfd(SIZE);
    let (desc, message) = linear_image(good);
    let received = receive_with(&message, &fd).unwrap().into_image().unwrap();
    assert_eq!(received.linear(), Some(&good));
    drop(received);
    for (linear, word) in [
        (LinearLayout { offset: good.offset + 1, ..good }, "reaches"),
        (LinearLayout { offset: u64::MAX, ..good }, "reaches"),
        (LinearLayout { row_pitch: 65, ..good }, "reaches"),
        (LinearLayout { row_pitch: u64::MAX, ..good }, "reaches"),
        (LinearLayout { row_pitch: 39, ..good }, "row_pitch"),
        (LinearLayout { row_pitch: 0, ..good }, "row_pitch"),
    ] {
        let error = receive_with(&linear_image(linear).1, &fd).unwrap_err();
        assert_eq!(field_of(&error), "payload.linear");
        assert!(error.to_string().contains(word), "{error}");
    }
    let (linear, layers) = (Some(LinearLayout { offset: 0, ..good }), 2);
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

    /// A peer that says anything of where an image lies.
    #[test]
    fn any_layout_is_the_payloads_or_a_typed_error(
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

    /// A peer that sends pieces of a good message, changed, in any order, with any descriptors.
    #[test]
    fn whatever_a_peer_sends_is_a_payload_or_a_typed_error_and_nothing_stays_open(
        pieces in prop::collection::vec((0usize..160, 0usize..160, 0usize..4, any::<bool>()), 1..8),
        change in proptest::option::of((0usize..160, any::<u8>())),
    ) {
        let (producer, consumer) = pair();
        let memory = memfd(SIZE);
        let mut bytes = good();
        bytes.extend(good());
        if let Some((at, value)) = change {
            bytes[at % HEADER_LEN] = value;
        }
        for (from, len, count, whole) in pieces {
            let piece = match whole {
                true => &bytes[..good().len()],
                false => &bytes[from..(from + len + 1).min(bytes.len())],
            };
            send_raw(&producer, piece, &vec![memory.as_fd(); count], 0);
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
        prop_assert_eq!(receiver.receive(&consumer).unwrap_err(), end, "and stays ended");
    }
}
