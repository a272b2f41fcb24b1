//! A session: a producer hands frames to consumers in other processes.
//!
//! The producer announces a [`Ring`] on a socket: a payload for each slot, timeline semaphores, and what
//! a frame is. Consumers join and leave as they like, several at once, each with descriptors of its own
//! to import. From then on only tokens travel: the producer takes a free slot, fills it and
//! [publishes](Producer::publish) it, each consumer gets a [`Frame`] and [releases](Frame::release) it,
//! and when all have, the slot is free again.
//!
//! ```
//! # use std::os::fd::OwnedFd;
//! # use gpu_interop::fd::MemoryHandleType;
//! # use gpu_interop::payload::MemoryInfo;
//! # use gpu_interop::{BufferDesc, BufferPayload, Identity, MemoryPayload, Uuid};
//! use std::time::Duration;
//!
//! use gpu_interop::Error;
//! use gpu_interop::session::{
//!     Consumer, End, FrameInfo, JoinOptions, Producer, ProducerOptions, Ring,
//! };
//!
//! const SECOND: Duration = Duration::from_secs(1);
//!
//! /// In one process. `slots` are what an endpoint's buffers export.
//! fn produce(path: &str, slots: Vec<BufferPayload>) -> Result<(), Error> {
//!     let mut ring = Ring::new("camera", "rgba8 64x16");
//!     for slot in slots {
//!         ring = ring.slot(slot);
//!     }
//!     let mut producer = Producer::bind(path, ring, ProducerOptions::default())?;
//!     producer.wait_for_consumers(1, SECOND)?;
//!     for tag in 0..10 {
//!         let slot = producer.free_slot(SECOND)?;
//!         // Fill the buffer of slot.index() here, and wait for the fence.
//!         producer.publish(slot, FrameInfo { tag, ..FrameInfo::default() })?;
//!     }
//!     producer.finish(SECOND)
//! }
//!
//! /// In another.
//! fn consume(path: &str) -> Result<u32, Error> {
//!     let (mut consumer, ring) = Consumer::join(path, JoinOptions::default())?;
//!     let mut buffers = Vec::new();
//!     for slot in ring.slots {
//!         buffers.push(slot.into_buffer()?); // and import_buffer
//!     }
//!     let mut frames = 0;
//!     loop {
//!         match consumer.next_frame(SECOND) {
//!             Ok(frame) => {
//!                 let _read = &buffers[frame.slot()]; // and wait for the fence
//!                 frame.release()?;
//!                 frames += 1;
//!             }
//!             Err(Error::Closed { .. }) if consumer.end() == Some(End::Done) => return Ok(frames),
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//! # let slot = || {
//! #     let info = MemoryInfo {
//! #         handle_type: MemoryHandleType::OpaqueFd,
//! #         allocation_size: 4096,
//! #         memory_type_index: Some(0),
//! #         dedicated: false,
//! #         identity: Identity { device: Uuid::from_bytes([7; 16]), driver: None, name: "GPU".into() },
//! #     };
//! #     let memory = tempfile::tempfile().unwrap();
//! #     memory.set_len(4096).unwrap();
//! #     let memory = MemoryPayload::new(OwnedFd::from(memory), info).unwrap();
//! #     BufferPayload::new(memory, 0, BufferDesc::storage(4096)).unwrap()
//! # };
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("camera").to_str().unwrap().to_owned();
//! # let other = path.clone();
//! # let consumer = std::thread::spawn(move || consume(&other));
//! # produce(&path, vec![slot(), slot()])?;
//! # assert_eq!(consumer.join().unwrap()?, 10);
//! # Ok::<(), Error>(())
//! ```
//!
//! The format is [`wire`](super::wire)'s, byte for byte, so that either side can be another language's.
//!
//! # Waiting
//! No thread is started, and no call waits without a timeout. Every wait is on the socket, so that it
//! ends at once when the other side is gone.
//!
//! A producer that has no free slot waits for one ([`Producer::free_slot`]). No frame is lost: every
//! consumer that is ready gets every frame, and the slowest sets the pace, unless [`Pace::DropFrames`]
//! says that a slow one misses frames instead. A consumer that gives nothing back for
//! [`patience`](ProducerOptions::patience) while the producer waits is evicted: stopped in a debugger,
//! say, or by SIGSTOP.
//!
//! # Synchronisation
//! A frame without a [`point`](FrameInfo::point) is complete: the producer waited on its host for the
//! work before it published. One with a point is complete when that timeline semaphore has that value.
//! It can be published before the work has even begun.
//!
//! A release always means that the consumer's host has seen its work done. There is no semaphore for
//! it: a consumer that dies would never signal, and the producer's next work in that slot would never
//! begin.
//!
//! # What a peer that dies or stops can do
//! - *A consumer that dies* gives back all it has: the kernel closes its socket. What its GPU work was
//!   reading is read to nobody's use. Work that was *writing* (no consumer should) may go on for a
//!   moment, until the driver has ended it.
//! - *A producer that dies* is [`Error::Closed`](crate::Error::Closed) and [`End::Lost`] in every call of
//!   its consumers. The memory stays as long as a consumer has it. Frames that had arrived are dropped
//!   and those that the consumer has are not [good](Frame::check): whether the producer died or shut a
//!   slow consumer out, the end without a word does not tell.
//! - *A semaphore of a producer that died* is never signalled. A host wait ends with its timeout
//!   ([`Frame::wait`] looks at the socket, too). A wait that was submitted to the GPU keeps the queue for
//!   ever; submit one only for a producer that you trust to live.
//! - *A consumer that was stopped and goes on* is told [`End::Evicted`]. The producer says so, and closes,
//!   before it writes to the slots; and [`Frame::release`] and [`Frame::check`] look for it after the
//!   read. So a frame whose release returned `Ok` was read whole, and one whose release did not may be
//!   torn.
//! - *A producer that was stopped* is no more than slow: a wait for a frame ends with its timeout. Leave,
//!   and join another one.
//!
//! # Trust
//! The socket's file has mode 0600 from the first moment on. Both sides ask the kernel for the other's
//! user (`SO_PEERCRED`) and go on with their own only, unless [`PeerPolicy`] says otherwise. A process of the
//! own user can do what it wants: connect often enough that the producer is full, say. What it can't do:
//!
//! - *Make the other side wait for ever, spin, or allocate.* A message that makes no sense at its time
//!   ends the connection, with a typed error; and what makes sense is bounded by the number of slots.
//! - *Free a slot that somebody else has*, or one twice. A release names the slot and the frame, and is
//!   checked against what that consumer was sent.
//!
//! What can't be verified: that a consumer does not write to the memory, or read it after the release;
//! that the frames are what the ring's [`format`](Ring::format) says; and of payloads what the
//! [parent](super#trust) says.
//!
//! # References
//! unix(7), `SO_PEERCRED`; shutdown(2); `CLOCK_MONOTONIC`.

mod address;
mod clock;
mod connection;
mod consumer;
mod consumer_connection;
mod consumers;
mod credentials;
mod epoll;
mod event;
mod frame;
mod options;
mod producer;
mod ring;
mod slot_table;

#[cfg(test)]
mod tests;

pub use crate::ipc::wire::{Layouts, TimelinePoint};
pub use connection::End;
pub use consumer::Consumer;
pub use credentials::PeerPolicy;
pub use event::{ConsumerId, Event, Left};
pub use frame::Frame;
pub use options::{JoinOptions, Pace, ProducerOptions};
pub use producer::{FrameInfo, Producer, Published};
pub use ring::{Ring, SlotPayload};
pub use slot_table::Slot;
