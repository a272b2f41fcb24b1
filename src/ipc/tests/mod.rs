//! Real sockets and real descriptors; in `hostile`, peers that send anything.

mod hostile;
mod payloads;

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::desc::BufferDesc;
use crate::error::{Error, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::identity::{Identity, Uuid};
use crate::ipc::receive;
use crate::ipc::wire::Message;
use crate::payload::{
    BufferPayload, MemoryInfo, MemoryPayload, SemaphoreInfo, SemaphoreKind, SemaphorePayload,
};

/// Bytes of every allocation here.
pub(crate) const SIZE: u64 = 8192;

/// A connected pair. A test that would hang fails instead.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (producer, consumer) = UnixStream::pair().unwrap();
    for socket in [&producer, &consumer] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (producer, consumer)
}

/// A memfd of `len` bytes that can be sealed, as Mesa's software drivers share them.
pub(crate) fn memfd(len: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("test memory", flags).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    fd
}

/// The reading and the writing end of a pipe.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = std::io::pipe().unwrap();
    (read.into(), write.into())
}

pub(crate) fn identity() -> Identity {
    Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() }
}

pub(crate) fn memory_info() -> MemoryInfo {
    MemoryInfo {
        handle_type: MemoryHandleType::OpaqueFd,
        allocation_size: SIZE,
        memory_type_index: Some(3),
        dedicated: false,
        identity: identity(),
    }
}

/// The bytes of a valid buffer message.
fn valid() -> Vec<u8> {
    let desc = BufferDesc::storage(64);
    Message::Buffer { memory: memory_info(), offset: 0, desc }.encode()
}

/// An eventfd in place of a semaphore.
pub(crate) fn semaphore(kind: SemaphoreKind) -> SemaphorePayload {
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let handle_type = SemaphoreHandleType::OpaqueFd;
    let info = SemaphoreInfo { handle_type, kind, identity: identity() };
    SemaphorePayload::new(eventfd, info).unwrap()
}

fn receive_buffer(socket: &UnixStream) -> Result<BufferPayload> {
    Ok(receive(socket)?.into_buffer()?)
}

/// A buffer of `size` bytes in memory of its own.
pub(crate) fn buffer(size: u64) -> BufferPayload {
    let memory = MemoryPayload::new(memfd(SIZE), memory_info()).unwrap();
    BufferPayload::new(memory, 256, BufferDesc::storage(size)).unwrap()
}

/// How many descriptors of this process refer to the file of `fd`, itself included.
///
/// Counting this one file, not all, keeps the tests independent of those that run beside them.
pub(crate) fn open_here(fd: impl AsFd) -> usize {
    let of = |raw: RawFd| {
        let file = fs::metadata(format!("/proc/self/fd/{raw}")).ok()?;
        Some((file.dev(), file.ino()))
    };
    let file = of(fd.as_fd().as_raw_fd());
    assert!(file.is_some());
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|&raw| of(raw) == file).count()
}

fn is_close_on_exec(fd: impl AsFd) -> bool {
    rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
}

/// Sends any bytes with any descriptors, as a hostile peer could.
pub(crate) fn send_raw(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) {
    let rights = SendAncillaryMessage::ScmRights(descriptors);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(rights));
    let flags = flags | SendFlags::NOSIGNAL;
    let sent = sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut control, flags);
    assert_eq!(sent, Ok(bytes.len()));
}

/// Runs `check` in a process of its own, since the limit of descriptors applies to the whole process.
/// `test` is the test that calls this.
pub(crate) fn run_alone(test: &str, check: impl FnOnce()) {
    const ALONE: &str = "GPU_INTEROP_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return check();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

/// The field that an error is about.
pub(crate) fn field_of(error: &Error) -> &str {
    match error {
        Error::Invalid(invalid) => &invalid.parameter,
        Error::Mismatch(mismatch) => mismatch.field,
        other => panic!("{other:?}"),
    }
}
