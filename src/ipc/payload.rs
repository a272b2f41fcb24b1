//! Payloads as messages: sending one, and creating one from what a peer sent, with every check that
//! needs no driver.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fcntl_getfl};

use super::socket::send_message;
use super::wire::Message;
use crate::error::{Invalid, Mismatch, Result};
use crate::fd::{
    FileKind, MemoryHandleType, check_memory_fd, check_no_file, check_semaphore_fd, failed,
    file_kind,
};
use crate::payload::{
    BufferPayload, ImagePayload, MemoryInfo, MemoryPayload, Payload, SemaphorePayload,
};

/// Sends a payload.
///
/// The kernel duplicates the descriptor for the receiver. This payload keeps its own, and can be
/// sent again, to the same peer or another one. What was sent stays valid after this payload is
/// dropped, even before the peer has read it.
///
/// A message is sent whole. If the socket is full, the call waits for the socket's write timeout,
/// or not at all if the socket is non-blocking.
///
/// # Errors
/// - [`Error::Timeout`](crate::Error::Timeout): the socket stayed full. Nothing was sent; the call
///   can be repeated.
/// - [`Error::Closed`](crate::Error::Closed): the peer has closed the connection. SIGPIPE is not
///   raised.
/// - [`Error::Invalid`](crate::Error::Invalid): the socket stayed full after a part of the message.
///   Close the socket.
/// - [`Error::Driver`](crate::Error::Driver): a system call failed, for example with
///   `ETOOMANYREFS`: too many descriptors have been sent and not yet received.
///
/// # References
/// sendmsg(2), unix(7) `SCM_RIGHTS`.
#[doc(alias = "sendmsg")]
#[doc(alias = "SCM_RIGHTS")]
pub fn send(socket: &UnixStream, payload: &Payload) -> Result<()> {
    let message = message_of(payload);
    send_message(socket, &message, Some(payload.as_fd()))?;
    tracing::debug!(kind = message.kind().name(), "payload sent");
    Ok(())
}

/// Describes a payload: everything except its descriptor.
pub(super) fn message_of(payload: &Payload) -> Message {
    match payload {
        Payload::Memory(memory) => Message::Memory(memory.info().clone()),
        Payload::Buffer(buffer) => Message::Buffer {
            memory: buffer.memory().info().clone(),
            offset: buffer.offset(),
            desc: *buffer.desc(),
        },
        Payload::Image(image) => Message::Image {
            memory: image.memory().info().clone(),
            offset: image.offset(),
            desc: *image.desc(),
            linear: image.linear().copied(),
        },
        Payload::Semaphore(semaphore) => Message::Semaphore(semaphore.info().clone()),
    }
}

/// Creates a payload from a message and the descriptor that accompanied it.
///
/// # Errors
/// `Mismatch` if the message belongs to a session, `Invalid` if the description is invalid or if
/// the descriptor can't match it.
pub(crate) fn payload_of(message: Message, descriptor: Option<OwnedFd>) -> Result<Payload> {
    let kind = message.kind();
    let payload = match (message, descriptor) {
        (Message::Memory(info), Some(fd)) => memory(fd, info)?.into(),
        (Message::Buffer { memory: info, offset, desc }, Some(fd)) => {
            BufferPayload::new(memory(fd, info)?, offset, desc)?.into()
        }
        (Message::Image { memory: info, offset, desc, linear }, Some(fd)) => {
            let image = ImagePayload::new(memory(fd, info)?, offset, desc)?;
            match linear {
                Some(linear) => image.with_linear(linear)?.into(),
                None => image.into(),
            }
        }
        (Message::Semaphore(info), Some(fd)) => {
            check_semaphore_fd(&fd, info.handle_type)?;
            // A semaphore in a file is memory that its other owner can corrupt or shorten.
            check_no_file(&fd)?;
            SemaphorePayload::new(fd, info)?.into()
        }
        // The messages of a session have no descriptor.
        _ => {
            return Err(Mismatch::new("message kind", "a payload", kind.name())
                .help("join a session with session::Consumer")
                .into());
        }
    };
    tracing::debug!(kind = kind.name(), "payload received");
    Ok(payload)
}

/// Creates a memory payload from a peer's descriptor.
///
/// An importer maps a file (a software driver's memory) for reading and writing. Accessing pages
/// past the end of the file raises SIGBUS. So the file must be open for both and not sealed against
/// writing, and it is sealed against shrinking, if possible, *before* its length is compared.
fn memory(fd: OwnedFd, info: MemoryInfo) -> Result<MemoryPayload> {
    let is_file = matches!(file_kind(fd.as_fd())?, FileKind::Regular { .. });
    // A dma-buf has no seals, and may be shared for reading only.
    if is_file && info.handle_type == MemoryHandleType::OpaqueFd {
        check_writable(fd.as_fd())?;
        seal_length(fd.as_fd());
    }
    check_memory_fd(fd.as_fd(), info.handle_type, info.allocation_size)?;
    Ok(MemoryPayload::new(fd, info)?)
}

fn check_writable(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = fcntl_getfl(fd).map_err(failed("fcntl(F_GETFL)"))?;
    let problem = if flags & OFlags::RWMODE != OFlags::RDWR {
        "is not open for reading and writing"
    } else if seals(fd).intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        "is sealed against writing"
    } else {
        return Ok(());
    };
    let help =
        "pass the fd that the exporter returned, unchanged; GPU memory can always be written";
    Err(Invalid::new("payload.fd", problem).help(help).into())
}

/// Returns the seals of a memfd. Other files can't have any.
fn seals(fd: BorrowedFd<'_>) -> SealFlags {
    fcntl_get_seals(fd).unwrap_or(SealFlags::empty())
}

/// Seals a memfd against shrinking, unless its exporter did (Mesa's drivers do) or forbade it.
fn seal_length(fd: BorrowedFd<'_>) {
    if !seals(fd).contains(SealFlags::SHRINK)
        && let Err(error) = fcntl_add_seals(fd, SealFlags::SHRINK)
    {
        tracing::debug!(?fd, %error, "the peer can still shorten this file");
    }
}
