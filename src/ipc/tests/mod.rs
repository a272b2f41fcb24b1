//! Over real sockets, with real descriptors and, in `hostile`, peers that lie.

mod hostile;
mod limits;
mod payloads;
mod waiting;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::desc::BufferDesc;
use crate::error::Error;
use crate::fd::MemoryHandleType;
use crate::identity::{Identity, Uuid};
use crate::payload::{BufferPayload, MemoryInfo, MemoryPayload};

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

/// A memfd of `len` bytes that can be sealed: what Mesa's software drivers share.
pub(crate) fn memfd(len: u64) -> OwnedFd {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; memfd_create returns a new descriptor (checked) or -1.
    let fd = unsafe {
        let raw = libc::memfd_create(c"test memory".as_ptr(), flags);
        assert!(raw >= 0);
        OwnedFd::from_raw_fd(raw)
    };
    fs::File::from(fd.try_clone().unwrap()).set_len(len).unwrap();
    fd
}

/// The reading and the writing end of a pipe.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [-1; 2];
    // SAFETY: pipe2 fills two integers with new descriptors (checked) that nobody else owns.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
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

fn is_close_on_exec(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFD reads the flags of an open descriptor.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

/// Sends any bytes with any descriptors, as a hostile peer would.
pub(crate) fn send_raw(
    socket: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: libc::c_int,
) {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let data_len = size_of_val(&raw[..]);
    // SAFETY: every pointer of `message` points at a buffer of the length given that outlives the
    // call; `control` is aligned for a cmsghdr and has room for one with all of `raw`.
    unsafe {
        let mut control = vec![0u64; libc::CMSG_SPACE(data_len as u32) as usize / 8 + 1];
        let mut iov =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        if !raw.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(data_len as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data_len as u32) as _;
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast(), libc::CMSG_DATA(header), data_len);
        }
        let sent = libc::sendmsg(socket.as_raw_fd(), &message, flags | libc::MSG_NOSIGNAL);
        assert_eq!(sent, bytes.len() as isize, "{}", std::io::Error::last_os_error());
    }
}

/// The field that an error is about.
pub(crate) fn field_of(error: &Error) -> &str {
    match error {
        Error::Invalid(invalid) => &invalid.parameter,
        Error::Mismatch(mismatch) => mismatch.field,
        other => panic!("{other:?}"),
    }
}
