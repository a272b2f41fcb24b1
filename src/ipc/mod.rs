//! Payloads between processes, over a Unix stream socket.
//!
//! A payload is a file descriptor and a description. [`send()`] writes the description into one
//! message (see [`wire`] for its bytes) and attaches the descriptor to the first byte
//! (`SCM_RIGHTS`); [`receive()`] recreates the payload in the other process. No GPU API is needed,
//! so a process without one can relay payloads. A [`session`](crate::session) builds on this: a
//! ring of payloads, in which a producer publishes frames.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//!
//! use gpu_interop::fd::MemoryHandleType;
//! use gpu_interop::ipc;
//! use gpu_interop::payload::{MemoryInfo, Payload};
//! use gpu_interop::{BufferDesc, BufferPayload, Identity, MemoryPayload, Uuid};
//!
//! # use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
//! # let memory = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
//! # ftruncate(&memory, 8192)?;
//! # fcntl_add_seals(&memory, SealFlags::SHRINK)?;
//! // An endpoint's export returns such a payload. Here it is created from a memfd.
//! let info = MemoryInfo {
//!     handle_type: MemoryHandleType::OpaqueFd,
//!     allocation_size: 8192,
//!     memory_type_index: Some(0),
//!     dedicated: false,
//!     identity: Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() },
//! };
//! let memory = MemoryPayload::new(memory, info)?;
//! let payload = Payload::from(BufferPayload::new(memory, 4096, BufferDesc::storage(4096))?);
//!
//! let (producer, consumer) = UnixStream::pair()?;
//! consumer.set_read_timeout(Some(Duration::from_secs(1)))?;
//! ipc::send(&producer, &payload)?;
//!
//! let received = ipc::receive(&consumer)?.into_buffer()?;
//! assert_eq!(received.desc(), &BufferDesc::storage(4096));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Waiting
//! A call waits as a blocking call on the socket would: for its read or write timeout if it has
//! one, not at all if it is non-blocking, and otherwise until the peer sends, reads or closes. The
//! timeout covers a whole message. To end a wait without a timeout, shut the socket down from
//! another thread ([`UnixStream::shutdown`](std::os::unix::net::UnixStream::shutdown)).
//!
//! No system call on a descriptor that a peer has sent runs in the calling thread if it could block. What
//! was refused is closed by threads named `interop-close`, at most 16, which end when there is nothing
//! left to close. While 64 descriptors wait for them, nothing more is received. A descriptor that is not
//! a memfd is examined in a thread named `interop-examine`, for the read timeout or 50 milliseconds. Use
//! [`close()`] for the socket itself.
//!
//! Leave the socket options `SO_PASSCRED`, `SO_PASSSEC` and `SO_PASSPIDFD` unset: a socket that adds
//! control messages is refused, and a pidfd would stay open.
//!
//! # Trust
//! The peer may send anything. When a payload is received, the following is verified before any
//! driver sees it:
//!
//! - *The format.* Every field has a value of this version, reserved bytes are 0, texts are UTF-8
//!   without control characters, and the length is exact. No allocation is larger than one message,
//!   which has at most 4096 bytes.
//! - *The descriptors.* The announced number arrived, on the first byte. The kernel sets
//!   FD_CLOEXEC, so that no child of this process inherits them. Of the descriptors that a peer attaches
//!   (up to 253 to one byte), at most 4 are ever received. The others stay in the socket, and are closed
//!   with it.
//! - *The description.* It satisfies [`BufferDesc::validate`](crate::BufferDesc::validate) or
//!   [`ImageDesc::validate`](crate::ImageDesc::validate). A buffer lies within its allocation, and
//!   an image begins within it. A linear layout satisfies
//!   [`ImagePayload::with_linear`](crate::ImagePayload::with_linear): mip level 0 of a linear image
//!   lies within the allocation.
//! - *The kind of file*: one that drivers export, as [described](wire#what-a-descriptor-must-be). A file
//!   in a file system is refused, even with the right content.
//! - *Size and access of memory that is a memfd*, which software drivers share as an opaque fd. It is
//!   at least as long as the allocation size, open for reading and writing, and not sealed against
//!   writing (`F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE`). It is sealed against shrinking (`F_SEAL_SHRINK`), as
//!   Mesa does: its other owners can't shorten it, so accessing it never raises SIGBUS for that reason.
//!
//! The import then compares the device and driver UUIDs with the importer's own
//! ([`MemoryPayload::check`](crate::MemoryPayload::check)), and refuses a timeline semaphore that
//! is a sync fd ([`SemaphorePayload::check`](crate::SemaphorePayload::check)).
//!
//! The following can't be verified:
//!
//! - *The identity of the peer.* Check its credentials (`SO_PEERCRED`), and create the socket in a
//!   directory of mode 0700 so that only your own user can connect. A [`session`](crate::session)
//!   does both checks itself.
//! - *Whether UUIDs, memory type, dedicated flag, format, tiling, pitches, usage and the kind of a
//!   semaphore are those of the exporter.* The kernel does not know them. A driver may reject wrong
//!   values, or misinterpret the memory. The peer decides what the memory contains, and can change
//!   it at any time.
//! - *The size of memory that is not a file.* NVIDIA's descriptors are devices without a length.
//!   The driver may compare the size with its own record of the allocation, or may not.
//! - *Whether a driver created the memfd.* Mesa's software drivers read the size to map from a header
//!   in the memfd itself. A forged one can make them map more than it holds; accessing the excess raises
//!   SIGBUS.
//! - *Whether other owners leave the header alone.* Every process that has the memfd can write to it. If one
//!   changes the header, the next import, in any process, may crash. Imports that were made before are not
//!   affected.
//! - *Whether a semaphore is ever signalled.* Wait for a peer's semaphore with a timeout.
//!
//! So accept payloads only from processes that you would let read and write your GPU memory:
//! processes of your own user that you started or checked.
//!
//! # References
//! unix(7), `SCM_RIGHTS`; memfd_create(2) and fcntl(2), file seals; `VK_KHR_external_memory_fd`,
//! `VK_KHR_external_semaphore_fd`.

#![forbid(unsafe_code)]

pub(crate) mod foreign;
pub(crate) mod payload;
mod receiver;
pub(crate) mod socket;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::os::unix::net::UnixStream;

pub use payload::send;
pub use receiver::{Receiver, receive};

/// Closes a socket without waiting: in another thread.
///
/// close(2) can block if the peer has attached descriptors that have not been received, for as long as
/// the peer likes: what it attached is closed then, too, and may be a file that the peer serves or a
/// socket that lingers.
pub fn close(socket: UnixStream) {
    // The peer learns it at once.
    let _ = socket.shutdown(std::net::Shutdown::Both);
    foreign::close_elsewhere(socket.into());
}
