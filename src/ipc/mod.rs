//! Payloads between processes, over a Unix stream socket.
//!
//! A payload is a file descriptor and a description. [`send()`] puts the description into one message
//! ([`wire`] has it byte for byte) and the descriptor on its first byte (`SCM_RIGHTS`); [`receive()`]
//! makes the same payload of them in the other process. Needs no GPU API: a process in between can
//! pass payloads on. A [`session`] goes on from there: a ring of payloads, and frames that go round.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//!
//! use gpu_interop::fd::MemoryHandleType;
//! use gpu_interop::ipc;
//! use gpu_interop::payload::MemoryInfo;
//! use gpu_interop::{BufferDesc, BufferPayload, Identity, MemoryPayload, Uuid};
//!
//! # let memory = tempfile::tempfile()?;
//! # memory.set_len(8192)?;
//! // What an endpoint's export returns; here of a file.
//! let info = MemoryInfo {
//!     handle_type: MemoryHandleType::OpaqueFd,
//!     allocation_size: 8192,
//!     memory_type_index: Some(0),
//!     dedicated: false,
//!     identity: Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() },
//! };
//! let memory = MemoryPayload::new(memory.into(), info)?;
//! let payload = BufferPayload::new(memory, 4096, BufferDesc::storage(4096))?;
//!
//! let (producer, consumer) = UnixStream::pair()?;
//! consumer.set_read_timeout(Some(Duration::from_secs(1)))?;
//! ipc::send(&producer, &payload)?;
//!
//! let received = ipc::receive_buffer(&consumer)?;
//! assert_eq!(received.desc(), payload.desc());
//! assert_eq!(received.memory().info(), payload.memory().info());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Waiting
//! A call waits as its socket says: for the read or write timeout where there is one, not at all
//! where the socket is non-blocking, and else until the peer does something or is gone. The timeout
//! counts once for a whole message. So set one, or close the socket from another thread
//! ([`UnixStream::shutdown`](std::os::unix::net::UnixStream::shutdown)) to end a wait.
//!
//! # Trust
//! The peer is a process that may lie. What is verified when a payload is received, before any driver
//! is asked:
//!
//! - *The format.* Every field has a value that this version knows, reserved bytes are 0, the name is
//!   UTF-8 without control characters, the length is exact. Nothing is allocated that is larger than
//!   one message, 4096 bytes.
//! - *The descriptors.* As many as announced arrived, on the first byte. Each has FD_CLOEXEC from the
//!   kernel, before this process can start a child. All that arrive with what is refused are closed.
//!   A peer can attach 253 to a byte; these are open (twice) for the moment of one call.
//! - *The description.* What [`BufferDesc::validate`](crate::BufferDesc::validate) and
//!   [`ImageDesc::validate`](crate::ImageDesc::validate) ask; a buffer lies inside its allocation, an
//!   image begins inside it. Of a row pitch and the like what
//!   [`ImagePayload::with_linear`](crate::ImagePayload::with_linear) asks: a linear image whose first
//!   level, laid out so, lies inside the allocation.
//! - *The kind of file.* Memory is no pipe, socket, directory, block device, `/dev/null` or its like;
//!   a semaphore is none of these and no file with a length either. What is said to be a dma-buf is no
//!   file of another kind.
//! - *Size and access, for memory that is a file* (what drivers that run on the CPU share as opaque
//!   fd). It is as long as the allocation is said to be, open for reading and writing, and not sealed
//!   against writing (`F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE`). A memfd is sealed against shrinking
//!   (`F_SEAL_SHRINK`) before its length is asked, where its exporter has not done so and has not
//!   forbidden it, so that the length stays true.
//!
//! The import then compares the device and driver UUID with the importer's own
//! ([`MemoryPayload::check`](crate::MemoryPayload::check)), and refuses a timeline semaphore as sync
//! fd ([`SemaphorePayload::check`](crate::SemaphorePayload::check)).
//!
//! What can't be verified here:
//!
//! - *Who the peer is.* Ask the socket for the peer's credentials (`SO_PEERCRED`), and let only your
//!   own user connect: a socket in a directory of mode 0700. A [`session`] does so.
//! - *That the UUIDs, the memory type, the dedicated flag, the format, the tiling, the pitches, the
//!   usage and the kind of a semaphore are the exporter's.* The kernel knows nothing of them. A driver
//!   may find out, or misread the memory: its content is whatever the peer wants it to be, in any case,
//!   and can change at any time.
//! - *The size of memory that is no file.* NVIDIA's descriptors are devices and tell no length; that
//!   driver compares the size with what it knows of the allocation, or does not.
//! - *That a file is what a driver made of it.* Mesa's software drivers read the size to map from the
//!   file itself. A forged file can make them map more than there is, and touching that is SIGBUS.
//! - *That a file stays as long as it is*, where it is no memfd, or one whose seals are sealed
//!   (`F_SEAL_SEAL`) without `F_SEAL_SHRINK`. Its owner can shorten it; touching the rest is SIGBUS.
//! - *That a signal ever comes.* Wait for a peer's semaphore with a timeout.
//!
//! So take payloads from processes that you would let read and write your own GPU memory: of your own
//! user, started by you or checked by you.
//!
//! # References
//! unix(7), `SCM_RIGHTS`; memfd_create(2) and fcntl(2), file seals; `VK_KHR_external_memory_fd`,
//! `VK_KHR_external_semaphore_fd`.

pub(crate) mod descriptor;
pub(crate) mod receive;
pub(crate) mod receiver;
pub(crate) mod send;
pub(crate) mod socket;
pub(crate) mod wait;
pub mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use receive::{
    Received, receive, receive_buffer, receive_image, receive_memory, receive_semaphore,
};
pub use receiver::Receiver;
pub(crate) use send::send_message;
pub use send::{Payload, send};
