use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use crate::desc::{ImageDesc, ImageUsage, Tiling};
use crate::fd::SemaphoreHandleType;
use crate::format::Format;
use crate::ipc::wire::Kind;
use crate::ipc::{
    Received, Receiver, receive, receive_buffer, receive_image, receive_memory, receive_semaphore,
    send,
};
use crate::payload::{ImagePayload, LinearLayout, SemaphoreInfo, SemaphoreKind, SemaphorePayload};

fn semaphore() -> SemaphorePayload {
    let info = SemaphoreInfo {
        handle_type: SemaphoreHandleType::OpaqueFd,
        kind: SemaphoreKind::Timeline,
        identity: identity(),
    };
    // SAFETY: eventfd returns a new descriptor (checked) that nobody else owns.
    let eventfd = unsafe {
        let raw = libc::eventfd(0, libc::EFD_CLOEXEC);
        assert!(raw >= 0);
        OwnedFd::from_raw_fd(raw)
    };
    SemaphorePayload::new(eventfd, info).unwrap()
}

fn image() -> ImagePayload {
    let desc = ImageDesc::d2(Format::Rgba8Unorm, 113, 7, ImageUsage::SAMPLED);
    ImagePayload::new(MemoryPayload::new(memfd(SIZE), memory_info()).unwrap(), 4096, desc).unwrap()
}

fn linear_image() -> ImagePayload {
    let desc = ImageDesc::d2(Format::Rgba8Unorm, 113, 7, ImageUsage::SAMPLED);
    let desc = ImageDesc { tiling: Tiling::Linear, ..desc };
    ImagePayload::new(MemoryPayload::new(memfd(SIZE), memory_info()).unwrap(), 4096, desc).unwrap()
}

#[test]
fn a_linear_image_arrives_with_its_pitches_through_a_process_in_between_too() {
    let layout = LinearLayout { offset: 64, row_pitch: 512, depth_pitch: 9, array_pitch: 4096 };
    // The exporter may not have said where the rows lie.
    for sent in [linear_image().with_linear(layout).unwrap(), linear_image(), image()] {
        let (producer, relay_in) = pair();
        let (relay_out, consumer) = pair();
        send(&producer, &sent).unwrap();
        send(&relay_out, &receive_image(&relay_in).unwrap()).unwrap();
        let received = receive_image(&consumer).unwrap();
        assert_eq!((received.desc(), received.offset()), (sent.desc(), sent.offset()));
        assert_eq!(received.linear(), sent.linear());
        assert_eq!(open_here(sent.memory()), 2);
    }
}

#[test]
fn a_buffer_arrives_as_it_was_and_refers_to_the_same_memory() {
    let (producer, consumer) = pair();
    let sent = buffer(4096);
    send(&producer, &sent).unwrap();
    let received = receive_buffer(&consumer).unwrap();
    assert_eq!(received.memory().info(), sent.memory().info());
    assert_eq!((received.offset(), received.desc()), (sent.offset(), sent.desc()));
    assert!(is_close_on_exec(received.memory().as_fd()));

    let (memory, ..) = received.into_parts();
    let theirs = File::from(memory.into_parts().0);
    let ours = File::from(sent.memory().as_fd().try_clone_to_owned().unwrap());
    theirs.write_all_at(b"theirs", 300).unwrap();
    let mut seen = [0; 6];
    ours.read_exact_at(&mut seen, 300).unwrap();
    assert_eq!(&seen, b"theirs");
}

#[test]
fn every_kind_arrives_with_its_own_descriptor_and_none_is_left_over() {
    let (producer, consumer) = pair();
    let (memory, buffer) = (MemoryPayload::new(memfd(SIZE), memory_info()).unwrap(), buffer(1));
    let (image, semaphore) = (image(), semaphore());
    // All are under way at once: one message's descriptor must not come with another's bytes.
    send(&producer, &memory).unwrap();
    send(&producer, &buffer).unwrap();
    send(&producer, &image).unwrap();
    send(&producer, &semaphore).unwrap();
    send(&producer, &memory).unwrap();

    let got = receive_memory(&consumer).unwrap();
    assert_eq!(got.info(), memory.info());
    assert_eq!((open_here(&memory), is_close_on_exec(got.as_fd())), (2, true));
    drop(got);

    let got = receive_buffer(&consumer).unwrap();
    assert_eq!((got.desc(), open_here(buffer.memory())), (buffer.desc(), 2));
    drop(got);

    let got = receive_image(&consumer).unwrap();
    assert_eq!((got.desc(), got.offset()), (image.desc(), image.offset()));
    assert_eq!((open_here(image.memory()), is_close_on_exec(got.memory().as_fd())), (2, true));
    drop(got);

    let got = receive_semaphore(&consumer).unwrap();
    assert_eq!(got.info(), semaphore.info());
    assert!(is_close_on_exec(got.as_fd()));
    drop(got);

    assert!(matches!(receive(&consumer).unwrap(), Received::Memory(_)));
    for fd in [memory.as_fd(), buffer.memory().as_fd(), image.memory().as_fd()] {
        assert_eq!(open_here(fd), 1, "the sender keeps its own, the receiver's are closed");
    }
}

#[test]
fn what_was_sent_outlives_its_sender() {
    let (producer, consumer) = pair();
    let sent = buffer(17);
    send(&producer, &sent).unwrap();
    send(&producer, &sent).unwrap();
    drop((sent, producer));
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 17);
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 17);
    assert!(matches!(receive(&consumer), Err(Error::Closed { .. })));
}

#[test]
fn another_payload_than_expected_is_named_and_the_next_one_still_comes() {
    let (producer, consumer) = pair();
    let sent = image();
    send(&producer, &sent).unwrap();
    send(&producer, &buffer(5)).unwrap();
    let error = receive_buffer(&consumer).unwrap_err();
    assert_eq!(field_of(&error), "message kind");
    assert!(error.to_string().contains("an image payload"), "{error}");
    assert_eq!(open_here(sent.memory()), 1, "what was not wanted is closed");
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 5);
}

#[test]
fn a_payload_passes_through_a_process_in_between() {
    let (producer, relay_in) = pair();
    let (relay_out, consumer) = pair();
    let sent = buffer(9);
    send(&producer, &sent).unwrap();
    match Receiver::new().receive(&relay_in).unwrap() {
        Received::Buffer(payload) => send(&relay_out, &payload).unwrap(),
        other => panic!("{other:?}"),
    }
    let received = receive(&consumer).unwrap();
    assert_eq!(received.kind(), Kind::Buffer);
    let received = received.into_buffer().unwrap();
    assert_eq!((received.desc(), open_here(sent.memory())), (sent.desc(), 2));
}

#[test]
fn the_credentials_that_a_socket_may_ask_for_do_no_harm() {
    let (producer, consumer) = pair();
    let on: libc::c_int = 1;
    // SAFETY: SO_PASSCRED takes an int, which `on` is.
    let set = unsafe {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        let on = (&raw const on).cast();
        libc::setsockopt(consumer.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, on, len)
    };
    assert_eq!(set, 0);
    send(&producer, &buffer(9)).unwrap();
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 9);
}

#[test]
fn a_file_on_a_disk_is_passed_on_though_it_can_not_be_sealed() {
    let (producer, consumer) = pair();
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    send(&producer, &MemoryPayload::new(file.into(), memory_info()).unwrap()).unwrap();
    receive_memory(&consumer).unwrap();
}
