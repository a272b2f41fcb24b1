use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use crate::desc::{ImageDesc, ImageUsage, Tiling};
use crate::format::Format;
use crate::ipc::{Receiver, send};
use crate::payload::{ImagePayload, LinearLayout, Payload};

fn memory() -> MemoryPayload {
    MemoryPayload::new(memfd(SIZE), memory_info()).unwrap()
}

fn image() -> ImagePayload {
    let desc = ImageDesc::d2(Format::Rgba8Unorm, 113, 7, ImageUsage::SAMPLED);
    ImagePayload::new(memory(), 4096, desc).unwrap()
}

fn linear_image() -> ImagePayload {
    let desc = ImageDesc::d2(Format::Rgba8Unorm, 113, 7, ImageUsage::SAMPLED);
    let desc = ImageDesc { tiling: Tiling::Linear, ..desc };
    ImagePayload::new(memory(), 4096, desc).unwrap()
}

#[test]
fn a_linear_image_arrives_with_its_pitches_even_through_a_relay() {
    let layout = LinearLayout { offset: 64, row_pitch: 512, depth_pitch: 9, array_pitch: 4096 };
    // The exporter may not have provided the layout.
    for sent in [linear_image().with_linear(layout).unwrap(), linear_image(), image()] {
        let (producer, relay_in) = pair();
        let (relay_out, consumer) = pair();
        send(&producer, &sent.try_clone().unwrap().into()).unwrap();
        send(&relay_out, &receive(&relay_in).unwrap()).unwrap();
        let received = receive(&consumer).unwrap().into_image().unwrap();
        assert_eq!((received.desc(), received.offset()), (sent.desc(), sent.offset()));
        assert_eq!(received.linear(), sent.linear());
        assert_eq!(open_here(sent.memory()), 2);
    }
}

#[test]
fn a_buffer_arrives_unchanged_and_refers_to_the_same_memory() {
    let (producer, consumer) = pair();
    let sent = buffer(4096);
    send(&producer, &sent.try_clone().unwrap().into()).unwrap();
    let received = receive_buffer(&consumer).unwrap();
    assert_eq!(received.memory().info(), sent.memory().info());
    assert_eq!((received.offset(), received.desc()), (sent.offset(), sent.desc()));
    assert!(is_close_on_exec(received.memory()));

    let (memory, ..) = received.into_parts();
    let theirs = File::from(memory.into_parts().0);
    let ours = File::from(sent.memory().as_fd().try_clone_to_owned().unwrap());
    theirs.write_all_at(b"theirs", 300).unwrap();
    let mut seen = [0; 6];
    ours.read_exact_at(&mut seen, 300).unwrap();
    assert_eq!(&seen, b"theirs");
}

#[test]
fn every_kind_arrives_with_its_own_descriptor_and_none_stays_open() {
    let (producer, consumer) = pair();
    let (memory, buffer) = (memory(), buffer(1));
    let (image, semaphore) = (image(), semaphore(SemaphoreKind::Timeline));
    // All are in the socket at once: a descriptor must not arrive with the bytes of another message.
    let payloads: [Payload; 5] = [
        memory.try_clone().unwrap().into(),
        buffer.try_clone().unwrap().into(),
        image.try_clone().unwrap().into(),
        semaphore.try_clone().unwrap().into(),
        memory.try_clone().unwrap().into(),
    ];
    for payload in payloads {
        send(&producer, &payload).unwrap();
    }

    let got = receive(&consumer).unwrap().into_memory().unwrap();
    assert_eq!(got.info(), memory.info());
    assert_eq!((open_here(&memory), is_close_on_exec(&got)), (2, true));
    drop(got);

    let got = receive_buffer(&consumer).unwrap();
    assert_eq!((got.desc(), open_here(buffer.memory())), (buffer.desc(), 2));
    drop(got);

    let got = receive(&consumer).unwrap().into_image().unwrap();
    assert_eq!((got.desc(), got.offset()), (image.desc(), image.offset()));
    assert_eq!((open_here(image.memory()), is_close_on_exec(got.memory())), (2, true));
    drop(got);

    let got = receive(&consumer).unwrap().into_semaphore().unwrap();
    assert_eq!(got.info(), semaphore.info());
    assert!(is_close_on_exec(&got));
    drop(got);

    assert!(matches!(receive(&consumer).unwrap(), Payload::Memory(_)));
    for fd in [memory.as_fd(), buffer.memory().as_fd(), image.memory().as_fd()] {
        assert_eq!(open_here(fd), 1, "the sender keeps its own, the receiver's are closed");
    }
}

#[test]
fn a_payload_that_was_sent_outlives_its_sender() {
    let (producer, consumer) = pair();
    let sent = buffer(17).into();
    send(&producer, &sent).unwrap();
    send(&producer, &sent).unwrap();
    drop((sent, producer));
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 17);
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 17);
    assert!(matches!(receive(&consumer), Err(Error::Closed { .. })));
}

#[test]
fn a_payload_of_another_kind_is_named_and_closed() {
    let (producer, consumer) = pair();
    let sent = image();
    send(&producer, &sent.try_clone().unwrap().into()).unwrap();
    send(&producer, &buffer(5).into()).unwrap();
    let error = receive_buffer(&consumer).unwrap_err();
    assert_eq!(field_of(&error), "payload kind");
    assert!(error.to_string().contains("found image"), "{error}");
    assert_eq!(open_here(sent.memory()), 1, "the payload was dropped");
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 5);
}

#[test]
fn a_payload_passes_through_a_relay() {
    let (producer, relay_in) = pair();
    let (relay_out, consumer) = pair();
    let sent = buffer(9);
    send(&producer, &sent.try_clone().unwrap().into()).unwrap();
    send(&relay_out, &Receiver::new().receive(&relay_in).unwrap()).unwrap();
    let received = receive_buffer(&consumer).unwrap();
    assert_eq!((received.desc(), open_here(sent.memory())), (sent.desc(), 2));
}

#[test]
fn credentials_that_a_socket_asks_for_do_no_harm() {
    let (producer, consumer) = pair();
    rustix::net::sockopt::set_socket_passcred(&consumer, true).unwrap();
    send(&producer, &buffer(9).into()).unwrap();
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 9);
}

#[test]
fn a_file_on_a_disk_is_accepted_though_it_cannot_be_sealed() {
    let (producer, consumer) = pair();
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    let payload = MemoryPayload::new(file.into(), memory_info()).unwrap();
    send(&producer, &payload.into()).unwrap();
    receive(&consumer).unwrap().into_memory().unwrap();
}
