//! Receiving payloads.

use std::os::unix::net::UnixStream;

use super::receiver::{Half, Receiver};
use super::wire::Kind;
use crate::error::{Error, Mismatch, Result};
use crate::payload::{BufferPayload, ImagePayload, MemoryPayload, SemaphorePayload};

/// A payload that a peer sent. Its descriptor has FD_CLOEXEC set.
#[derive(Debug)]
#[non_exhaustive]
pub enum Received {
    /// An allocation.
    Memory(MemoryPayload),
    /// A buffer.
    Buffer(BufferPayload),
    /// An image.
    Image(ImagePayload),
    /// A semaphore.
    Semaphore(SemaphorePayload),
}

impl Received {
    /// What it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Memory(_) => Kind::Memory,
            Self::Buffer(_) => Kind::Buffer,
            Self::Image(_) => Kind::Image,
            Self::Semaphore(_) => Kind::Semaphore,
        }
    }

    /// The allocation.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is something else, which is dropped.
    pub fn into_memory(self) -> Result<MemoryPayload> {
        match self {
            Self::Memory(payload) => Ok(payload),
            other => Err(other.is_not(Kind::Memory)),
        }
    }

    /// The buffer.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is something else, which is dropped.
    pub fn into_buffer(self) -> Result<BufferPayload> {
        match self {
            Self::Buffer(payload) => Ok(payload),
            other => Err(other.is_not(Kind::Buffer)),
        }
    }

    /// The image.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is something else, which is dropped.
    pub fn into_image(self) -> Result<ImagePayload> {
        match self {
            Self::Image(payload) => Ok(payload),
            other => Err(other.is_not(Kind::Image)),
        }
    }

    /// The semaphore.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is something else, which is dropped.
    pub fn into_semaphore(self) -> Result<SemaphorePayload> {
        match self {
            Self::Semaphore(payload) => Ok(payload),
            other => Err(other.is_not(Kind::Semaphore)),
        }
    }

    fn is_not(&self, expected: Kind) -> Error {
        Mismatch::new("message kind", expected.name(), self.kind().name())
            .help("receive payloads in the order in which the peer sends them, or any with receive")
            .into()
    }
}

/// Receives the next payload, whatever it is.
///
/// Waits for as long as the socket's read timeout says, and not at all where the socket is
/// non-blocking. One thread at a time may receive from a socket.
///
/// This keeps nothing between two calls. To go on after a wait that ended in the middle of a message
/// use a [`Receiver`].
///
/// # Errors
/// As [`Receiver::receive`]; but a wait that ends in the middle of a message is
/// [`Error::Invalid`], since the half that had arrived is lost. After anything but
/// [`Error::Timeout`] close the socket.
///
/// # References
/// recvmsg(2), unix(7) `SCM_RIGHTS`.
#[doc(alias = "recvmsg")]
#[doc(alias = "SCM_RIGHTS")]
pub fn receive(socket: &UnixStream) -> Result<Received> {
    let mut receiver = Receiver::new();
    receiver.receive(socket).map_err(|error| match (error, receiver.half()) {
        (Error::Timeout { .. }, Some(half)) => stopped(half),
        (error, _) => error,
    })
}

fn stopped(half: Half) -> Error {
    half.invalid("stops", "the wait for the rest ended")
        .help("close the socket, which is out of step; a Receiver can go on after a wait")
        .into()
}

/// Receives a memory payload.
///
/// # Errors
/// As [`receive()`]; [`Error::Mismatch`] where another payload came, which is dropped.
pub fn receive_memory(socket: &UnixStream) -> Result<MemoryPayload> {
    receive(socket)?.into_memory()
}

/// Receives a buffer payload.
///
/// # Errors
/// As [`receive()`]; [`Error::Mismatch`] where another payload came, which is dropped.
pub fn receive_buffer(socket: &UnixStream) -> Result<BufferPayload> {
    receive(socket)?.into_buffer()
}

/// Receives an image payload.
///
/// # Errors
/// As [`receive()`]; [`Error::Mismatch`] where another payload came, which is dropped.
pub fn receive_image(socket: &UnixStream) -> Result<ImagePayload> {
    receive(socket)?.into_image()
}

/// Receives a semaphore payload.
///
/// # Errors
/// As [`receive()`]; [`Error::Mismatch`] where another payload came, which is dropped.
pub fn receive_semaphore(socket: &UnixStream) -> Result<SemaphorePayload> {
    receive(socket)?.into_semaphore()
}
