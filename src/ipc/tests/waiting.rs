use std::net::Shutdown;
use std::os::unix::thread::JoinHandleExt;
use std::thread;
use std::time::Instant;

use super::*;
use crate::ipc::wire::Message;
use crate::ipc::{Received, Receiver, receive, receive_buffer, send};

const SHORT: Duration = Duration::from_millis(60);

fn good() -> Vec<u8> {
    let desc = BufferDesc::storage(64);
    Message::Buffer { memory: memory_info(), offset: 0, desc }.encode()
}

#[test]
fn a_wait_ends_when_the_sockets_read_timeout_says_and_nothing_is_lost() {
    let (producer, consumer) = pair();
    consumer.set_read_timeout(Some(SHORT)).unwrap();
    let started = Instant::now();
    let Err(Error::Timeout { waited, .. }) = receive(&consumer) else { panic!("no timeout") };
    assert!(waited >= SHORT && started.elapsed() < Duration::from_secs(10), "{waited:?}");
    send(&producer, &buffer(3)).unwrap();
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 3);
}

#[test]
fn a_socket_that_does_not_block_is_never_waited_for() {
    let (producer, consumer) = pair();
    consumer.set_nonblocking(true).unwrap();
    let Err(Error::Timeout { waited, .. }) = receive(&consumer) else { panic!("no timeout") };
    assert_eq!(waited, Duration::ZERO);
    send(&producer, &buffer(3)).unwrap();
    assert_eq!(receive_buffer(&consumer).unwrap().desc().size, 3);
}

#[test]
fn a_message_that_comes_byte_by_byte_is_received_by_one_receiver() {
    let (producer, consumer) = pair();
    consumer.set_nonblocking(true).unwrap();
    let memory = memfd(SIZE);
    let mut receiver = Receiver::new();
    let bytes = good();
    for (at, byte) in bytes.iter().enumerate() {
        match receiver.receive(&consumer) {
            Err(Error::Timeout { .. }) => {}
            other => panic!("after {at} bytes: {other:?}"),
        }
        let descriptors = [memory.as_fd()];
        send_raw(&producer, &[*byte], if at == 0 { &descriptors } else { &[] }, 0);
    }
    let received = receiver.receive(&consumer).unwrap();
    assert_eq!(open_here(&memory), 2);
    assert!(matches!(received, Received::Buffer(_)));
}

#[test]
fn a_wait_that_ends_in_a_message_says_that_the_socket_is_out_of_step() {
    let (producer, consumer) = pair();
    consumer.set_read_timeout(Some(SHORT)).unwrap();
    let memory = memfd(SIZE);
    send_raw(&producer, &good()[..20], &[memory.as_fd()], 0);
    let error = receive(&consumer).unwrap_err();
    assert_eq!(field_of(&error), "message");
    assert!(error.to_string().contains("after 20 bytes"), "{error}");
    assert_eq!(open_here(&memory), 1);
}

#[test]
fn a_peer_that_sends_a_byte_now_and_then_holds_nobody_up_for_longer() {
    let (producer, consumer) = pair();
    consumer.set_read_timeout(Some(SHORT)).unwrap();
    let dribble = thread::spawn(move || {
        // Ends when the consumer closes its socket. The whole would take 5 seconds.
        for byte in good() {
            if std::io::Write::write_all(&mut &producer, &[byte]).is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    // Without descriptors: the header alone takes longer than the timeout.
    assert_eq!(field_of(&receive(&consumer).unwrap_err()), "message");
    drop(consumer);
    assert!(dribble.join().unwrap(), "the wait ended long before the message");
}

#[test]
fn a_signal_does_not_end_a_wait() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; without SA_RESTART it interrupts system calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let (producer, consumer) = pair();
    let waiting = thread::spawn(move || receive_buffer(&consumer).map(|buffer| buffer.desc().size));
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        // SAFETY: the thread has not been joined, and its signal has a handler.
        assert_eq!(unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGUSR1) }, 0);
    }
    send(&producer, &buffer(3)).unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(3));
}

#[test]
fn another_thread_ends_a_wait_that_has_no_timeout() {
    let (_producer, consumer) = pair();
    consumer.set_read_timeout(None).unwrap();
    let socket = consumer.try_clone().unwrap();
    let waiting = thread::spawn(move || receive(&socket).map(|received| received.kind()));
    thread::sleep(SHORT);
    consumer.shutdown(Shutdown::Both).unwrap();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Closed { .. })));
}

#[test]
fn a_full_socket_is_a_timeout_and_no_message_is_lost_or_cut() {
    let (producer, consumer) = pair();
    let payload = buffer(3);
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
fn a_peer_that_is_gone_is_an_error_and_no_signal() {
    let (producer, consumer) = pair();
    drop(consumer);
    // SAFETY: the sets are initialised before they are read; the mask is this thread's, which ends
    // with the test. A blocked signal is pending even where it is ignored, as Rust's runtime does.
    let pending = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        assert_eq!(libc::sigemptyset(&mut set), 0);
        assert_eq!(libc::sigaddset(&mut set, libc::SIGPIPE), 0);
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()), 0);
        assert!(matches!(send(&producer, &buffer(3)), Err(Error::Closed { .. })));
        assert_eq!(libc::sigpending(&mut set), 0);
        libc::sigismember(&set, libc::SIGPIPE)
    };
    assert_eq!(pending, 0);
}
