//! Signals during a send or a receive. They concern the whole process, so these tests have one of their
//! own.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::thread::JoinHandleExt;
use std::thread;
use std::time::Duration;

use gpu_interop::fd::MemoryHandleType;
use gpu_interop::ipc;
use gpu_interop::payload::{MemoryInfo, Payload};
use gpu_interop::{Error, Identity, MemoryPayload, Uuid};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

fn payload() -> Payload {
    let identity = Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() };
    let info = MemoryInfo {
        handle_type: MemoryHandleType::OpaqueFd,
        allocation_size: 4096,
        memory_type_index: None,
        dedicated: false,
        identity,
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = File::from(memfd_create("test memory", flags).unwrap());
    memfd.set_len(4096).unwrap();
    fcntl_add_seals(&memfd, SealFlags::SHRINK).unwrap();
    MemoryPayload::new(memfd.into(), info).unwrap().into()
}

#[test]
fn a_signal_does_not_end_a_wait() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing. Without SA_RESTART it interrupts system calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let (producer, consumer) = UnixStream::pair().unwrap();
    consumer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let waiting = thread::spawn(move || ipc::receive(&consumer).map(drop));
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        // SAFETY: the thread has not been joined, and the signal has a handler.
        assert_eq!(unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGUSR1) }, 0);
    }
    ipc::send(&producer, &payload()).unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(()));
}

#[test]
fn sending_to_a_peer_that_is_gone_does_not_raise_sigpipe() {
    let (producer, consumer) = UnixStream::pair().unwrap();
    drop(consumer);
    // SAFETY: the sets are initialised before they are read. The mask is that of this thread, which
    // ends with the test. A blocked signal becomes pending even if the process ignores it.
    let pending = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        assert_eq!(libc::sigemptyset(&mut set), 0);
        assert_eq!(libc::sigaddset(&mut set, libc::SIGPIPE), 0);
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()), 0);
        assert!(matches!(ipc::send(&producer, &payload()), Err(Error::Closed { .. })));
        assert_eq!(libc::sigpending(&mut set), 0);
        libc::sigismember(&set, libc::SIGPIPE)
    };
    assert_eq!(pending, 0);
}
