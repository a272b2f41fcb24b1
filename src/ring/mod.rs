//! Rings: several payloads in flight between two or three endpoints.
//!
//! Handing a single payload back and forth costs two switches between GPU contexts per round, whatever
//! the semaphore. With several payloads in flight, one side works on one payload while the other side
//! works on the next.
//!
//! A ring has a [`RingStage`] for each endpoint ([`pair`], [`triple`]). Initially the first stage has all
//! slots. A stage takes slots, works on their buffers, and releases them to the next stage; the last one
//! releases to the first. The buffer of a slot is only accessible to the stage that holds the slot. If no
//! slot has arrived, [`Wait`] decides whether to wait for one (backpressure) or to return at once.
//!
//! Slots are taken and released in a [`Batch`], often of one. A batch pays the handoff cost once: one wait,
//! one signal and one submit with a timeline, one fence if the host waits. (With binary semaphores there is
//! one semaphore per slot, but still one call.) Small payloads are fast in a deep ring if each batch is a
//! half or a quarter of it.
//!
//! The `tune` module measures which depth, which batch and which route are best, and
//! `RingOptions::calibrated` applies its choice.
//!
//! The payloads of a ring are buffers. Images are handed over by [`handoff::open`](crate::handoff::open),
//! whose tickets carry their layouts.
//!
//! What submitted work uses is kept until it is done, whatever is dropped. Dropping a stage waits for its
//! work, within the timeout of the handoffs with Vulkan, and closes the ring: the other stages return an
//! error instead of waiting indefinitely.
//!
//! # Example
//!
//! Vulkan fills slots, OpenGL draws with them:
//!
//! ```no_run
//! # #[cfg(feature = "gl")] mod example {
//! use std::time::Duration;
//!
//! use gpu_interop::ash::vk;
//! use gpu_interop::ring::{self, RingOptions, SlotCommands, Wait};
//! use gpu_interop::vulkan::BufferAccess;
//! use gpu_interop::{BufferDesc, gl, vulkan};
//!
//! fn run(
//!     vulkan: &vulkan::Endpoint,
//!     (queue, family): (vk::Queue, u32),
//!     commands: &[vk::CommandBuffer],
//!     gl: &gl::Endpoint,
//! ) -> gpu_interop::Result<()> {
//!     let desc = BufferDesc::storage(1 << 20);
//!     let options = RingOptions { depth: 4, ..RingOptions::default() };
//!     let (mut fill, mut draw, _plans) = ring::pair(vulkan, vulkan, gl, &desc, options)?;
//!     let wait = Wait::UpTo(Duration::from_secs(1));
//!     for (frame, &command_buffer) in commands.iter().enumerate() {
//!         // ... vkBeginCommandBuffer ...
//!         let slot_commands = || unsafe {
//!             SlotCommands::record(command_buffer, family, |buffer| BufferAccess::compute(buffer))
//!         };
//!         let Some((batch, mut sync)) = fill.take(wait, 1..=1, slot_commands())? else { break };
//!         for slot in &batch {
//!             let _buffer = fill.buffer(slot)?.handle(); // ... dispatch frame `frame` into it ...
//!         }
//!         sync.merge(fill.release(batch, slot_commands())?);
//!         // ... vkEndCommandBuffer ...
//!         unsafe { sync.submit(vulkan, queue, &[command_buffer]) }?; // passes the slot on
//!
//!         // As many as have arrived, without waiting.
//!         while let Some((batch, ())) = draw.take(Wait::No, 1..=4, ())? {
//!             for slot in &batch {
//!                 let _buffer = draw.buffer(slot)?.name(); // ... draw with it ...
//!             }
//!             draw.release(batch, ())?;
//!         }
//!     }
//!     Ok(())
//! }
//! # }
//! ```

mod peer;
mod queue;
mod slot;
mod stage;

pub use peer::{RingPeer, SlotCommands};
pub use queue::Wait;
pub use slot::{Batch, Slot};
#[cfg(feature = "tune")]
pub(crate) use stage::MAX_DEPTH;
pub use stage::{RingOptions, RingStage, Triple, pair, triple};
