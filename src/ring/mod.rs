//! Rings: several payloads in flight between two or three endpoints.
//!
//! Handing one payload over and waiting for it costs two switches between GPU contexts per round,
//! whatever the semaphore. With several payloads in flight, one side works on one while the other works
//! on the next.
//!
//! A ring has a [`RingStage`] for each endpoint ([`pair`], [`triple`]). At the beginning the first stage
//! has all slots. A stage takes slots, works on their buffers, and releases them to the next; the last
//! releases to the first. The buffer of a slot is only accessible to the stage that holds it. If no slot
//! has arrived, [`Wait`] decides whether to wait for one (backpressure) or to return at once.
//!
//! Slots are taken and released in a [`Batch`], often of one. A batch pays the handoff cost once: one wait,
//! one signal and one submit with a timeline, one fence if the host waits. (Binary semaphores are one per
//! slot, in one call.) Small payloads are fast in a deep ring of which a half or a quarter is taken at a
//! time.
//!
//! The `tune` module measures which depth, which batch and which route are best, and
//! `RingOptions::calibrated` applies its choice.
//!
//! The payloads of a ring are buffers. Images are handed over by [`handoff::open`](crate::handoff::open),
//! whose tickets carry their layouts.
//!
//! Dropping a stage waits for the slots that it has released; for work on a slot that it still holds the
//! owner of the stage must wait. If the wait fails, what the work uses is kept alive indefinitely. Dropping
//! a stage closes the ring: the other stages get an error instead of waiting indefinitely.
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
//!         let (signals, pending) = fill.release(batch, slot_commands())?;
//!         sync.merge(signals)?;
//!         // ... vkEndCommandBuffer ...
//!         unsafe { sync.submit(vulkan, queue, &[command_buffer]) }?;
//!         pending.submitted();
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
pub use slot::{Batch, PendingRelease, Slot};
#[cfg(feature = "tune")]
pub(crate) use stage::MAX_DEPTH;
pub use stage::{RingOptions, RingStage, Triple, pair, triple};
