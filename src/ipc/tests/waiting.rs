//! How long receiving and sending wait, and what they do in a process without descriptors.

use std::net::Shutdown;
use std::thread;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::ipc::{Receiver, send};
use crate::payload::Payload;

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
        "ipc::tests::waiting::no_message_is_lost_while_the_process_is_out_of_descriptors",
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
