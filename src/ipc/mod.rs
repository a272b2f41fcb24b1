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
//! # let memory = tempfile::tempfile()?;
//! # memory.set_len(8192)?;
//! // An endpoint's export returns such a payload. Here it is created from a file.
//! let info = MemoryInfo {
//!     handle_type: MemoryHandleType::OpaqueFd,
//!     allocation_size: 8192,
//!     memory_type_index: Some(0),
//!     dedicated: false,
//!     identity: Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() },
//! };
//! let memory = MemoryPayload::new(memory.into(), info)?;
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
//! Leave the socket options `SO_PASSCRED` and `SO_PASSPIDFD` unset: the control messages that they
//! add are ignored, and each pidfd would stay open.
//!
//! # Trust
//! The peer may send anything. When a payload is received, the following is verified before any
//! driver sees it:
//!
//! - *The format.* Every field has a value of this version, reserved bytes are 0, texts are UTF-8
//!   without control characters, and the length is exact. No allocation is larger than one message,
//!   which has at most 4096 bytes.
//! - *The descriptors.* The announced number arrived, on the first byte. The kernel sets
//!   FD_CLOEXEC, so that no child of this process inherits them. All descriptors of a refused
//!   message are closed. A peer can attach up to 253 of them to one byte; during a call each of
//!   them is open twice.
//! - *The description.* It satisfies [`BufferDesc::validate`](crate::BufferDesc::validate) or
//!   [`ImageDesc::validate`](crate::ImageDesc::validate). A buffer lies within its allocation, and
//!   an image begins within it. A linear layout satisfies
//!   [`ImagePayload::with_linear`](crate::ImagePayload::with_linear): mip level 0 of a linear image
//!   lies within the allocation.
//! - *The kind of file.* Memory is not a pipe, socket, directory, block device, or a device such as
//!   `/dev/null`. The same holds for a semaphore, which is not a regular file either. A dma-buf
//!   belongs to the file system of dma-bufs.
//! - *Size and access of memory that is a file*, which software drivers share as an opaque fd. The
//!   file is at least as long as the allocation size, open for reading and writing, and not sealed
//!   against writing (`F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE`). A memfd is sealed against shrinking
//!   (`F_SEAL_SHRINK`) before its length is compared, unless the exporter forbade further seals.
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
//! - *Whether a driver created the file.* Mesa's software drivers read the size to map from the
//!   file itself. A forged file can make them map more than it holds; accessing the excess raises
//!   SIGBUS.
//! - *Whether a file keeps its length*, if it is not a memfd, or a memfd with `F_SEAL_SEAL` but
//!   without `F_SEAL_SHRINK`. Its owner can shorten it; accessing the missing part raises SIGBUS.
//! - *Whether a semaphore is ever signalled.* Wait for a peer's semaphore with a timeout.
//!
//! So accept payloads only from processes that you would let read and write your GPU memory:
//! processes of your own user that you started or checked.
//!
//! # References
//! unix(7), `SCM_RIGHTS`; memfd_create(2) and fcntl(2), file seals; `VK_KHR_external_memory_fd`,
//! `VK_KHR_external_semaphore_fd`.

#![forbid(unsafe_code)]

pub(crate) mod payload;
mod receiver;
pub(crate) mod socket;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use payload::send;
pub use receiver::{Receiver, receive};
