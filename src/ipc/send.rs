//! Sending payloads.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::socket;
use super::wait::{For, Wait};
use super::wire::Message;
use crate::error::{Error, Invalid, Result};
use crate::payload::{BufferPayload, ImagePayload, MemoryPayload, SemaphorePayload};

mod sealed {
    use super::{BorrowedFd, Message};

    pub trait Parts {
        fn message(&self) -> Message;
        fn descriptor(&self) -> BorrowedFd<'_>;
    }
}

/// What can be sent: [`MemoryPayload`], [`BufferPayload`], [`ImagePayload`], [`SemaphorePayload`].
pub trait Payload: sealed::Parts {}

impl<P: sealed::Parts> Payload for P {}

impl sealed::Parts for MemoryPayload {
    fn message(&self) -> Message {
        Message::Memory(self.info().clone())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl sealed::Parts for BufferPayload {
    fn message(&self) -> Message {
        let memory = self.memory().info().clone();
        Message::Buffer { memory, offset: self.offset(), desc: *self.desc() }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory().as_fd()
    }
}

impl sealed::Parts for ImagePayload {
    fn message(&self) -> Message {
        let memory = self.memory().info().clone();
        let linear = self.linear().copied();
        Message::Image { memory, offset: self.offset(), desc: *self.desc(), linear }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory().as_fd()
    }
}

impl sealed::Parts for SemaphorePayload {
    fn message(&self) -> Message {
        Message::Semaphore(self.info().clone())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// Sends a payload.
///
/// The kernel duplicates the descriptor for the receiver: this payload keeps its own and can be
/// sent again, to the same peer or another. What is sent stays valid when this payload is dropped,
/// even before the peer has read it.
///
/// A message goes out whole. Where the socket is full this waits, for as long as the socket's write
/// timeout says, and not at all where the socket is non-blocking.
///
/// # Errors
/// - [`Error::Timeout`]: the socket stayed full; nothing was sent, and it can be tried again.
/// - [`Error::Closed`]: the peer is gone. No SIGPIPE is raised.
/// - [`Error::Invalid`]: the socket stayed full after a part of the message; close the socket.
/// - [`Error::Driver`]: the kernel refused (`ETOOMANYREFS`: too many descriptors under way).
///
/// # References
/// sendmsg(2), unix(7) `SCM_RIGHTS`.
#[doc(alias = "sendmsg")]
#[doc(alias = "SCM_RIGHTS")]
pub fn send<P: Payload>(socket: &UnixStream, payload: &P) -> Result<()> {
    let message = payload.message();
    send_message(socket, &message, Some(payload.descriptor()))?;
    tracing::debug!(kind = message.kind().name(), "payload sent");
    Ok(())
}

/// Sends one message, with its descriptor on the first byte.
pub(crate) fn send_message(
    socket: &UnixStream,
    message: &Message,
    mut descriptor: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let bytes = message.encode();
    let wait = Wait::start(For::Writing);
    let mut sent = 0;
    while sent < bytes.len() {
        match socket::send(socket.as_fd(), &bytes[sent..], descriptor) {
            Ok(count) => {
                sent += count;
                descriptor = None;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait.until_ready(socket).map_err(|error| match error {
                    Error::Timeout { .. } if sent > 0 => stopped(sent, bytes.len()),
                    error => error,
                })?;
            }
            Err(error) => {
                return Err(match error.kind() {
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                        Error::Closed { what: "the socket".into() }
                    }
                    _ => Error::io("sendmsg", &error),
                });
            }
        }
    }
    Ok(())
}

fn stopped(sent: usize, whole: usize) -> Error {
    Invalid::new(
        "message",
        format!("stopped after {sent} of its {whole} bytes: the socket is full"),
    )
    .help("close the socket: the peer is waiting for the rest")
    .into()
}
