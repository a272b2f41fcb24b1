//! Sessions: a producer publishes frames to consumers in other processes.
//!
//! The producer announces a [`Ring`] on a socket: one payload per slot, timeline semaphores, and a
//! text that describes what a frame contains. Consumers join and leave at any time. Several can be
//! connected at once, and each imports the payloads through its own descriptors. From then on only
//! small messages are exchanged. The producer takes a free slot, fills it and
//! [publishes](Producer::publish) it. Each consumer gets a [`Frame`] and [releases](Frame::release)
//! it. When all have released it, the slot is free again.
//!
//! ```
//! # use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
//! # use gpu_interop::fd::MemoryHandleType;
//! # use gpu_interop::payload::MemoryInfo;
//! # use gpu_interop::{BufferDesc, BufferPayload, Identity, MemoryPayload, Uuid};
//! use std::time::Duration;
//!
//! use gpu_interop::Error;
//! use gpu_interop::session::{
//!     Consumer, FrameInfo, JoinOptions, Producer, ProducerOptions, Ring, SessionEnd,
//! };
//!
//! const SECOND: Duration = Duration::from_secs(1);
//!
//! /// In one process. `slots` are exports of an endpoint's buffers.
//! fn produce(path: &str, slots: Vec<BufferPayload>) -> Result<(), Error> {
//!     let mut ring = Ring::new("camera", "rgba8 64x16");
//!     for slot in slots {
//!         ring = ring.slot(slot);
//!     }
//!     let mut producer = Producer::bind(path, ring, ProducerOptions::default())?;
//!     producer.wait_for_consumers(1, SECOND)?;
//!     for tag in 0..10 {
//!         let slot = producer.free_slot(SECOND)?;
//!         // Fill the buffer with index slot.index() here, and wait for the fence.
//!         producer.publish(slot, FrameInfo { tag, ..FrameInfo::default() })?;
//!     }
//!     producer.finish(SECOND)
//! }
//!
//! /// In another process.
//! fn consume(path: &str) -> Result<u32, Error> {
//!     let (mut consumer, ring) = Consumer::join(path, JoinOptions::default())?;
//!     let mut buffers = Vec::new();
//!     for slot in ring.slots {
//!         buffers.push(slot.into_buffer()?); // then import_buffer
//!     }
//!     let mut frames = 0;
//!     loop {
//!         match consumer.next_frame(SECOND) {
//!             Ok(frame) => {
//!                 let _read = &buffers[frame.slot()]; // then wait for the fence
//!                 frame.release()?;
//!                 frames += 1;
//!             }
//!             Err(Error::Closed { .. }) if consumer.end() == Some(SessionEnd::Done) => return Ok(frames),
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
//! #     let memory = memfd_create("memory", MemfdFlags::ALLOW_SEALING).unwrap();
//! #     ftruncate(&memory, 4096).unwrap();
//! #     fcntl_add_seals(&memory, SealFlags::SHRINK).unwrap();
//! #     let memory = MemoryPayload::new(memory, info).unwrap();
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
//! The messages of a session are described in [`wire`](crate::ipc::wire), byte by byte, so that a
//! producer or a consumer can be written in another language.
//!
//! # Waiting
//! Every call that waits has a timeout, except that dropping the producer or the consumer and releasing
//! a frame can wait up to 5 seconds for your own work on the GPU. Waits also watch the socket, so
//! that they end at once when the other side is gone. Nothing that a peer attaches to a message makes a
//! call wait longer: descriptors are examined and closed in [threads of their own](crate::ipc#waiting),
//! which are the only threads, and exist only meanwhile.
//!
//! A producer that has no free slot waits for one ([`Producer::free_slot`]). By default no frame is
//! lost: every consumer that is ready gets every frame, and the producer waits for the slowest one.
//! With [`SlowConsumer::DropFrames`] a slow consumer misses frames instead.
//!
//! # Consumers that do not work
//! A consumer that releases nothing for [`evict_after`](ProducerOptions::evict_after) while the producer
//! waits for a slot, or [finishes](Producer::finish), is evicted. This happens, for example, to a process
//! that was stopped by a debugger or by SIGSTOP. Also:
//!
//! - A consumer that no longer reads its socket gets no frame and is disconnected when one is sent to it.
//! - With [`SlowConsumer::DropFrames`], a consumer that misses frames and releases nothing for
//!   [`join_timeout`](ProducerOptions::join_timeout) is evicted.
//! - A process that was evicted, did not join in time or violated the protocol can't join again for 250
//!   milliseconds, and twice as long each further time, up to 30 seconds.
//! - For 60 seconds, other processes of the same user are *on probation* until they have released their first
//!   frame. They join one after the other, 10 to 100 milliseconds apart, and together they hold at most a
//!   quarter of the slots (at least one). So they miss frames at their start, and are evicted after
//!   `evict_after`. Consumers that have released a frame are not affected.
//! - If [`max_consumers`](ProducerOptions::max_consumers) are connected and another one asks to join,
//!   one of these makes room: a consumer that no longer reads; the one that has been silent for longest, for
//!   `evict_after` at least, and has never released a frame or misses frames; the one that has been joining
//!   for longest, for a second at least.
//! - 64 more connections may be waiting that have not asked to join. If there are more, the process that has
//!   most of them loses its oldest one. At most 16 connections are accepted in 40 milliseconds.
//!
//! This process itself is exempt from what concerns processes and users.
//!
//! # Synchronisation
//! A frame without a [`point`](FrameInfo::point) is complete: the producer waited for its work on
//! the host before it published the frame. A frame with a point is complete once that timeline
//! semaphore has that value. It can be published before its work has begun.
//!
//! A release means that the consumer has waited for its own work on the host. There is no semaphore
//! for it: a consumer that dies would never signal, and the producer's next work in the slot would
//! never begin.
//!
//! # Work on the GPU
//! A slot must not be reused, and what its work uses must not be freed, before the GPU is done with
//! it, even if an error or a panic drops everything in between. Therefore add submitted work to the
//! slot ([`WritableSlot::add_work`]) or to the frame ([`Frame::add_work`]), with clones of what it
//! uses:
//!
//! ```no_run
//! # use gpu_interop::session::Frame;
//! # use gpu_interop::vulkan::{Buffer, Fence};
//! fn submitted(frame: &mut Frame, fence: Fence, buffers: &[Buffer]) {
//!     let used = buffers.to_vec();
//!     frame.add_work(move |time| {
//!         let _until_done = &used;
//!         fence.wait(time)
//!     });
//! }
//! ```
//!
//! The slot is reused or released when the work is done, and what the work uses is dropped then.
//! Dropping the producer or the consumer waits up to 5 seconds for work. What is used by work that
//! does not end by then is leaked, and reported by `tracing`.
//!
//! Fences of Vulkan and CUDA can be added. OpenGL's can't: it can be queried only while its context
//! is current, and the session may wait on any thread. Before the frame or the slot is dropped,
//! wait for a `gl::Fence`, or for all commands (`wait_idle`, which is glFinish). To continue
//! meanwhile, hand the payload over to Vulkan and add the fence of the submit that acquires it.
//! OpenGL itself keeps the objects that its commands use.
//!
//! # What happens when a peer dies or stops
//! - *A consumer dies.* The kernel closes its socket, which releases its slots. Results of its
//!   outstanding GPU reads are discarded. GPU work that *writes* to a slot (which no consumer
//!   should submit) may continue until the driver has ended it.
//! - *A producer dies.* Every call of its consumers returns
//!   [`Error::Closed`](crate::Error::Closed), with [`SessionEnd::Lost`]. The memory lives as long
//!   as a consumer has imported it. Frames that had arrived are dropped, and frames that the
//!   consumer holds are [not valid](Frame::check): the connection also ends without a reason if the
//!   producer evicted a consumer whose socket was full.
//! - *A semaphore of a producer that died* is never signalled. A wait on the host ends with its
//!   timeout; [`Frame::wait`] also checks the session. A wait that was submitted to the GPU blocks
//!   its queue indefinitely, so submit one only if you trust the producer to live.
//! - *A consumer that was stopped continues.* It gets [`SessionEnd::Evicted`]. The producer sends
//!   this and closes the connection before it writes to the slots, and [`Frame::release`] and
//!   [`Frame::check`] look for it after the read. So if the release of a frame returns `Ok`,
//!   everything read from it is valid; otherwise it may be a mixture of two frames.
//! - *A producer that was stopped* is merely slow: a wait for a frame ends with its timeout. The
//!   consumer can leave and join another producer.
//!
//! # Trust
//! The socket's file has mode 0600 from the start. Both sides check the user of the other
//! (`SO_PEERCRED`), and accept only their own unless [`PeerPolicy`] allows others. A process of the
//! same user can disturb a session: it can delay it for [`evict_after`](ProducerOptions::evict_after) as a
//! consumer that stops, and it can connect so often that others find no place. But it can't:
//!
//! - *Make the other side wait indefinitely, spin, or allocate memory.* A message that violates the
//!   protocol ends the connection with a typed error. The number of other messages is bounded by
//!   the number of slots.
//! - *Free a slot that another consumer holds*, or free a slot twice. A release names the slot and
//!   the frame, and is compared with what this consumer was sent.
//!
//! The following can't be verified: that a consumer does not write to the memory, or read it after
//! the release; that the frames are what the ring's [`format`](Ring::format) says; and everything
//! that [can't be verified](crate::ipc#trust) about payloads.
//!
//! # References
//! unix(7), `SO_PEERCRED`; shutdown(2); `CLOCK_MONOTONIC`.

#![forbid(unsafe_code)]

mod admission;
mod consumer;
mod consumer_connection;
mod consumers;
mod newcomers;
mod options;
mod peer;
mod producer;
mod producer_connection;
mod ring;
mod work;

#[cfg(test)]
mod tests;

pub use crate::ipc::wire::{Layouts, TimelinePoint};
pub use consumer::{Consumer, Frame};
pub use consumer_connection::{ConsumerId, Event, LeaveKind};
pub use options::{JoinOptions, ProducerOptions, SlowConsumer};
pub use peer::PeerPolicy;
pub use producer::{FrameInfo, Producer, Published};
pub use producer_connection::SessionEnd;
pub use ring::{Ring, WritableSlot};
