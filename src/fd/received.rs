//! Checks of descriptors that another process has sent. For a file that has no seals, they may have
//! to wait for the process that serves its file system.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{OFlags, SealFlags, fcntl_get_seals, fcntl_getfl};

use super::file::{self as fd, FileKind};
use super::handle::{
    MemoryHandleType, PASS_AS_EXPORTED, check_memory_fd, not_a_semaphore, not_memory,
};
use crate::error::{Invalid, Result};

/// Whether the file of `fd` is a memfd (or another file in memory), which has seals: neither
/// [`check_received_memory`] nor close(2) asks another process.
///
/// # References
/// fcntl(2), `F_GET_SEALS`: the kernel answers it by itself, with an error for every other file.
pub(crate) fn can_answer_at_once(fd: impl AsFd) -> bool {
    fcntl_get_seals(fd).is_ok()
}

/// Refuses a descriptor from another process that can't be GPU memory, more strictly than
/// [`check_memory_fd`]: only what a driver exports is accepted.
///
/// - A software driver's memory is a memfd. It must be open for reading and writing and not sealed
///   against writing, since importers map it for both. It must be sealed against shrinking
///   (`F_SEAL_SHRINK`), as Mesa does: access to pages past the end of a file raises SIGBUS. This
///   seal is not added here, since that waits for a lock that another process can hold.
/// - NVIDIA's memory is a character device of its driver.
/// - Other drivers' memory is a dma-buf.
///
/// Seals come first, because for other files some of what follows could wait for another process.
pub(crate) fn check_received_memory(
    fd: impl AsFd,
    handle_type: MemoryHandleType,
    allocation_size: u64,
) -> Result<()> {
    let fd = fd.as_fd();
    let refuse = |problem: String, help: &'static str| {
        Err(Invalid::new("payload.fd", problem).help(help).into())
    };
    let seals = match (handle_type, fcntl_get_seals(fd)) {
        (MemoryHandleType::OpaqueFd, Ok(seals)) => seals,
        (MemoryHandleType::DmaBuf, Ok(_)) => {
            let problem = "is a file in memory and not a dma-buf".to_owned();
            return refuse(problem, PASS_AS_EXPORTED);
        }
        (_, Err(_)) => return check_received_device(fd, handle_type),
    };
    let mode = fcntl_getfl(fd).map_err(fd::failed("fcntl(F_GETFL)"))? & OFlags::RWMODE;
    if mode != OFlags::RDWR {
        return refuse("is not open for reading and writing".into(), PASS_AS_EXPORTED);
    }
    if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        let help = "pass the fd that the exporter returned, unchanged; GPU memory can always be \
                    written";
        return refuse("is sealed against writing".into(), help);
    }
    if !seals.contains(SealFlags::SHRINK) {
        let help = "use an exporter that seals its memory against shrinking (F_SEAL_SHRINK), as \
                    Mesa's drivers do; its owner could shorten it otherwise";
        return refuse("is a file that is not sealed against shrinking".into(), help);
    }
    check_memory_fd(fd, handle_type, allocation_size)
}

/// Refuses everything but a device of NVIDIA's driver and a dma-buf.
fn check_received_device(fd: BorrowedFd<'_>, handle_type: MemoryHandleType) -> Result<()> {
    match fd::file_kind(fd)? {
        FileKind::CharDevice { major: fd::MAJOR_NVIDIA, .. }
            if handle_type == MemoryHandleType::OpaqueFd =>
        {
            Ok(())
        }
        // These have no file system that another process serves, so this does not wait.
        FileKind::Anonymous if fd::is_dma_buf(fd) => Ok(()),
        kind if handle_type == MemoryHandleType::DmaBuf => {
            Err(not_memory(&format!("{kind} and not a dma-buf")).into())
        }
        FileKind::Regular { .. } => {
            Err(not_memory("a file that no driver exports (it is not a memfd)").into())
        }
        kind => Err(not_memory(&kind.to_string()).into()),
    }
}

/// Refuses a descriptor from another process that can't be a semaphore: a file, which its other
/// owner could corrupt or shorten (SwiftShader's semaphores are files), and every device but those
/// of NVIDIA's driver.
pub(crate) fn check_received_semaphore(fd: impl AsFd) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::Anonymous | FileKind::CharDevice { major: fd::MAJOR_NVIDIA, .. } => Ok(()),
        other => not_a_semaphore(other),
    }
}
