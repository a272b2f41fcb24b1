//! Payloads arrive as they were sent; how long receiving and sending wait; and a process without
//! descriptors.

use std::fs::File;
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

const SHORT: Duration = Duration::from_millis(60);

#[test]
fn a_wait_ends_with_the_read_timeout_and_nothing_is_lost() {
    let (producer, consumer) = pair();
    consumer.set_read_timeout(Some(SHORT)).unwrap();
    let started = Instant::now();
    let Err(Error::Timeout { waited, .. }) = receive(&consumer) else { panic!("no timeout") };
    assert!(waited >= SHORT && started.elapsed() < Duration::from_secs(10), "{waited:?}");
    send(&producer, &buffer(3).into()).unwrap();
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 3);
}

#[test]
fn a_nonblocking_socket_is_never_waited_for() {
    let (producer, consumer) = pair();
    consumer.set_nonblocking(true).unwrap();
    let Err(Error::Timeout { waited, .. }) = receive(&consumer) else { panic!("no timeout") };
    assert_eq!(waited, Duration::ZERO);
    send(&producer, &buffer(3).into()).unwrap();
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 3);
}

#[test]
fn a_receiver_receives_a_message_byte_by_byte() {
    let (producer, consumer) = pair();
    consumer.set_nonblocking(true).unwrap();
    let memory = memfd(SIZE);
    let mut receiver = Receiver::new();
    let bytes = valid();
    for (at, byte) in bytes.iter().enumerate() {
        match receiver.receive(&consumer) {
            Err(Error::Timeout { .. }) => {}
            other => panic!("after {at} bytes: {other:?}"),
        }
        let descriptors = [memory.as_fd()];
        let descriptors = if at == 0 { &descriptors[..] } else { &[] };
        send_raw(&producer, &[*byte], descriptors, SendFlags::empty());
    }
    let received = receiver.receive(&consumer).unwrap();
    assert_eq!(open_here(&memory), 2);
    assert!(matches!(received, Payload::Buffer(_)));
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
fn shutdown_in_another_thread_ends_a_wait() {
    let (_producer, consumer) = pair();
    consumer.set_read_timeout(None).unwrap();
    let socket = consumer.try_clone().unwrap();
    let waiting = thread::spawn(move || receive(&socket).map(drop));
    thread::sleep(SHORT);
    consumer.shutdown(Shutdown::Both).unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed { .. })));
}

#[test]
fn a_full_socket_is_a_timeout_and_no_message_is_lost_or_cut_off() {
    let (producer, consumer) = pair();
    let payload = Payload::from(buffer(3));
    producer.set_write_timeout(Some(SHORT)).unwrap();
    let mut sent = 0;
    let error = loop {
        match send(&producer, &payload) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Timeout { waited, .. } if waited >= SHORT), "{error:?}");
    producer.set_nonblocking(true).unwrap();
    let error = send(&producer, &payload).unwrap_err();
    assert!(matches!(error, Error::Timeout { waited: Duration::ZERO, .. }), "{error:?}");
    producer.set_nonblocking(false).unwrap();

    producer.set_write_timeout(None).unwrap();
    let waiting = thread::spawn(move || send(&producer, &payload));
    for _ in 0..sent + 1 {
        assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 3);
    }
    waiting.join().unwrap().unwrap();
    assert!(matches!(receive(&consumer), Err(Error::Closed { .. })));
}

#[test]
fn no_message_is_lost_while_the_process_is_out_of_descriptors() {
    run_alone(
        "ipc::tests::payloads::no_message_is_lost_while_the_process_is_out_of_descriptors",
        || {
            let (producer, consumer) = pair();
            let (read, write) = pipe();
            send(&producer, &buffer(1).into()).unwrap();
            send(&producer, &buffer(2).into()).unwrap();
            let (sender, third) = pair();
            send(&sender, &buffer(3).into()).unwrap();
            let (flood, flooded) = pair();
            send_raw(&flood, b"GIPC", &[write.as_fd(); 250], SendFlags::empty());

            let count = || fs::read_dir("/proc/self/fd").unwrap().count();
            let before = count();
            let old = getrlimit(Resource::Nofile);
            let limit = |current: u64| {
                let limit = Rlimit { current: Some(current), ..old };
                setrlimit(Resource::Nofile, limit).unwrap();
            };
            // Every number below the next free one is in use.
            let next = read.as_fd().try_clone_to_owned().unwrap().as_raw_fd() as u64;
            limit(next);
            let mut receiver = Receiver::new();
            for _ in 0..3 {
                let error = receiver.receive(&consumer).unwrap_err();
                let full = i64::from(Errno::MFILE.raw_os_error());
                assert!(
                    matches!(&error, Error::Driver(driver) if driver.code == full),
                    "{error:?}"
                );
            }
            assert!(matches!(receive(&consumer), Err(Error::Driver(_))));
            // None of several descriptors is received if there is no room for all.
            limit(next + 100);
            assert!(matches!(receive(&flooded), Err(Error::Driver(_))));
            // Room for one is enough.
            limit(next + 1);
            assert_eq!(receive(&third).unwrap().into_buffer().unwrap().desc().size, 3);
            setrlimit(Resource::Nofile, old).unwrap();
            assert_eq!(count(), before);
            assert_eq!(receiver.receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 1);
            assert_eq!(receive(&consumer).unwrap().into_buffer().unwrap().desc().size, 2);
            assert_eq!(field_of(&receive(&flooded).unwrap_err()), "descriptors");
            assert_eq!(count(), before);
        },
    );
}
