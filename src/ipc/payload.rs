//! Payloads as messages: sending one, and creating one from what a peer sent, with every check that
//! needs no driver.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::foreign::{Foreign, examine};
use super::socket::send_message;
use super::wire::Message;
use crate::error::{Mismatch, Result};
use crate::fd::{can_answer_at_once, check_received_memory, check_received_semaphore};
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

/// Creates a payload from a message and the descriptor that accompanied it, whose examination may take
/// as long as `limit`.
///
/// # Errors
/// `Mismatch` if the message belongs to a session, `Invalid` if the description is invalid or if
/// the descriptor can't match it.
pub(crate) fn payload_of(
    message: Message,
    descriptor: Option<Foreign>,
    limit: Duration,
) -> Result<Payload> {
    let kind = message.kind();
    let memory = |fd, info| memory(fd, info, limit);
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
            let fd = match can_answer_at_once(&fd) {
                true => check_received_semaphore(&fd).map(|()| fd)?,
                false => examine(fd, limit, |fd| check_received_semaphore(fd))?,
            };
            SemaphorePayload::new(fd.trust(), info)?.into()
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

/// Creates a memory payload from a peer's descriptor. The examination of a memfd never waits; that of
/// any other file could, and runs in another thread.
fn memory(fd: Foreign, info: MemoryInfo, limit: Duration) -> Result<MemoryPayload> {
    let MemoryInfo { handle_type, allocation_size, .. } = info;
    let fd = match can_answer_at_once(&fd) {
        true => check_received_memory(&fd, handle_type, allocation_size).map(|()| fd)?,
        false => {
            examine(fd, limit, move |fd| check_received_memory(fd, handle_type, allocation_size))?
        }
    };
    // What was accepted is closed without waiting.
    Ok(MemoryPayload::new(fd.trust(), info)?)
}
