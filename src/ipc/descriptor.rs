//! What can be found out of a descriptor that a stranger sent, before a driver sees it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Error, Invalid, Result};
use crate::fd::{FileKind, file_kind};
use crate::fd::{MemoryHandleType, check_memory_fd};
use crate::payload::MemoryInfo;

/// Refuses what can't be the memory that `info` describes.
///
/// A file (what drivers that run on the CPU share) is mapped by its importer for reading and writing.
/// So it has to be open for both, as long as promised, and not sealed against writing. And it has to
/// stay that long: touching what its owner has cut off is SIGBUS. So it is sealed against shrinking
/// where that is possible, *before* its length is asked.
pub(crate) fn check_memory(fd: BorrowedFd<'_>, info: &MemoryInfo) -> Result<()> {
    let is_file = matches!(file_kind(fd)?, FileKind::Regular { .. });
    // A dma-buf may be shared for reading only, and has no seals.
    if is_file && info.handle_type == MemoryHandleType::OpaqueFd {
        check_writable(fd)?;
        keep_length(fd);
    }
    check_memory_fd(fd, info.handle_type, info.allocation_size)
}

fn check_writable(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: F_GETFL reads the flags of a descriptor that is open for as long as it is borrowed.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(Error::io("fcntl(F_GETFL)", &io::Error::last_os_error()));
    }
    let problem = if flags & libc::O_ACCMODE != libc::O_RDWR {
        "is not open for reading and writing, as GPU memory is"
    } else if seals(fd).is_some_and(|seals| seals & WRITE_SEALS != 0) {
        "is sealed against writing, as GPU memory never is"
    } else {
        return Ok(());
    };
    let help = "pass the fd that the exporter returned, with nothing in between";
    Err(Invalid::new("payload.fd", problem).help(help).into())
}

const WRITE_SEALS: libc::c_int = libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE;

/// The seals of a memfd; `None` for other files, which can't have any.
fn seals(fd: BorrowedFd<'_>) -> Option<libc::c_int> {
    // SAFETY: F_GET_SEALS reads the seals of a file whose descriptor is open for as long as it is
    // borrowed.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    (seals >= 0).then_some(seals)
}

/// Seals a memfd against shrinking, where its exporter has not (Mesa's drivers do) and allows it.
fn keep_length(fd: BorrowedFd<'_>) {
    if seals(fd).is_some_and(|seals| seals & libc::F_SEAL_SHRINK != 0) {
        return;
    }
    // SAFETY: F_ADD_SEALS takes an integer and changes what may be done with the file from now on;
    // the descriptor is open for as long as it is borrowed.
    let added = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
    if added < 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(fd = fd.as_raw_fd(), %error, "the peer can still shorten this file");
    }
}
