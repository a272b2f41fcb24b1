//! Handoffs: pass access to a payload from one peer to another, synchronised on the GPU if
//! possible.
//!
//! [`open`] connects two endpoints in one direction with the best synchronisation that both
//! support: a timeline semaphore, otherwise a binary semaphore, otherwise a host wait.
//! [`Handoff::plan`] reports the choice and why better methods were not available.
//!
//! The releasing end ([`Releaser`]) returns a [`Ticket`]. Send it to the acquiring end
//! ([`Acquirer`]) once the work is submitted. Work after the acquire starts after all work before
//! the release has finished, and sees what it wrote.
//!
//! - Vulkan records its half into the application's command buffer, with the queue-family transfer
//!   to or from `VK_QUEUE_FAMILY_EXTERNAL`, and returns what to add to the application's submit.
//!   Code that controls no submit can use [`Releaser::release_on`] and [`Acquirer::acquire_on`],
//!   which submit a command buffer of the library's own.
//! - OpenGL waits and signals at the current point in its command stream, for the buffers and
//!   textures listed.
//! - CUDA enqueues its half on the application's stream. A stream that is being captured into a
//!   CUDA graph is refused; `GraphHandoff` records both halves into the graph, for any number of
//!   launches.
//!
//! # What can't go wrong
//!
//! - Once submitted, a handoff keeps the buffers, images and semaphores that it uses until the GPU
//!   is done with them. An early return, a panic and any order of drops are therefore safe.
//!   Dropping an end waits for its work, for at most [`HandoffOptions::timeout`]; after that the
//!   Vulkan endpoint keeps what is in use. Anything used by work that never ends is leaked, which
//!   `tracing` reports.
//! - The [`SubmitSync`](crate::vulkan::SubmitSync) of a release or an acquire may be dropped
//!   instead of submitted. The release then counts as never made, and its ticket is refused; after
//!   a dropped acquire, `lost_tickets` returns a new ticket.
//! - A released resource can't be released again before it is acquired. If it never will be, call
//!   its `reclaim`, which leaves its content undefined.
//! - An acquire must list as many buffers and images as the release.
//!
//! The releasing side names the image layouts, and the ticket carries them; the acquiring side
//! lists the images in the same order. The ends are generic over [`HandoffPeer`].
//!
//! A Vulkan endpoint creates the semaphores, since OpenGL and CUDA can only import them. To keep
//! several payloads in flight, see [`ring`](crate::ring).
//!
//! # Example
//!
//! Vulkan writes a buffer, CUDA works on it, and Vulkan gets it back:
//!
//! ```no_run
//! # #[cfg(feature = "cuda")] mod example {
//! use gpu_interop::ash::vk;
//! use gpu_interop::cudarc::driver::CudaStream;
//! use gpu_interop::handoff::{self, HandoffOptions, RoundTrip, VulkanCommands};
//! use gpu_interop::vulkan::{BufferAccess, BufferOptions};
//! use gpu_interop::{BufferDesc, cuda, vulkan};
//!
//! fn there_and_back(
//!     vulkan: &vulkan::Endpoint,
//!     (queue, family): (vk::Queue, u32),
//!     commands: [vk::CommandBuffer; 2],
//!     cuda: &cuda::Endpoint,
//!     stream: &CudaStream,
//! ) -> gpu_interop::Result<()> {
//!     // One piece of memory, two views of it, and a handoff in each direction.
//!     let buffer = vulkan.create_buffer(&BufferDesc::storage(4096), BufferOptions::default())?;
//!     let in_cuda = cuda.import_buffer(buffer.export()?)?;
//!     let RoundTrip { there: mut to_cuda, back: mut to_vulkan } =
//!         handoff::round_trip(vulkan, cuda, HandoffOptions::default())?;
//!     let used = BufferAccess::compute(&buffer);
//!
//!     // ... vkBeginCommandBuffer, dispatch into `commands[0]` ...
//!     let release = unsafe { VulkanCommands::record(commands[0], family, used) };
//!     let (ticket, sync) = to_cuda.release.release(release)?;
//!     // ... vkEndCommandBuffer ...
//!     unsafe { sync.submit(vulkan, queue, &commands[..1]) }?;
//!
//!     to_cuda.acquire.acquire(ticket, stream)?;
//!     // ... launch kernels on `stream` that use `in_cuda` ...
//!     let (ticket, ()) = to_vulkan.release.release(stream)?;
//!
//!     // ... vkBeginCommandBuffer ...
//!     let acquire = unsafe { VulkanCommands::record(commands[1], family, used) };
//!     let sync = to_vulkan.acquire.acquire(ticket, acquire)?;
//!     // ... dispatch into `commands[1]`, vkEndCommandBuffer ...
//!     unsafe { sync.submit(vulkan, queue, &commands[1..]) }
//! }
//! # }
//! ```

mod channel;
mod contents;
#[cfg(feature = "cuda")]
mod cuda;
mod ends;
#[cfg(feature = "gl")]
mod gl;
#[cfg(feature = "cuda")]
mod graph;
mod open;
mod peer;
mod vulkan;
mod wait;

pub(crate) use channel::Channel;
pub use channel::{AcquireError, Ticket};
pub(crate) use contents::Contents;
#[cfg(feature = "cuda")]
pub use cuda::CudaCommands;
pub use ends::{Acquirer, Releaser};
#[cfg(feature = "gl")]
pub use gl::{GlCommands, TextureAccess};
#[cfg(feature = "cuda")]
pub use graph::{CapturedAcquire, GraphHandoff};
pub use open::{Handoff, HandoffOptions, RoundTrip, open, round_trip};
pub use peer::HandoffPeer;
pub use vulkan::VulkanCommands;
pub use wait::WaitMode;
