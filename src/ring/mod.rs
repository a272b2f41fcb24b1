//! Rings: several payloads in flight between two or three endpoints.
//!
//! Handing a single payload back and forth costs two GPU context switches per round trip, with any
//! kind of semaphore. With several payloads in flight, one side works on one payload while the
//! other works on the next.
//!
//! A ring has a [`RingStage`] for each endpoint ([`pair`], [`triple`]). Initially the first stage
//! has all slots. A stage takes slots, works on their buffers, and releases them to the next stage;
//! the last stage releases to the first. Only the stage that holds a slot may access its buffer. If
//! no slot has arrived, [`Wait`] decides whether to wait for one (backpressure) or to return at
//! once.
//!
//! Slots are taken and released in a [`Batch`], often of one slot. A batch pays the handoff cost
//! once: one wait, one signal and one submit with a timeline semaphore, or one fence with a host
//! wait. Binary semaphores are one per slot, but still need only one call. For small payloads, use
//! a deep ring and batches of a half or a quarter of its depth.
//!
//! The `tune` module measures which depth, batch and route are best, and `RingOptions::calibrated`
//! applies its choice.
//!
//! The payloads of a ring are buffers. For images, use [`handoff::open`](crate::handoff::open),
//! whose tickets carry the layouts.
//!
//! Whatever submitted work uses is kept until the work is done, in any order of drops. Dropping a
//! stage waits for its work (a Vulkan stage waits at most the handoffs' timeout) and closes the
//! ring: the other stages then return an error instead of waiting indefinitely.
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
