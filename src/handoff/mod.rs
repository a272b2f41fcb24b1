//! Handoffs: pass access to a payload from one peer to another, synchronised on the GPU if possible.
//!
//! [`open`] connects two endpoints in one direction with the best synchronisation that both support: a
//! timeline semaphore, otherwise a binary semaphore, otherwise a host wait. [`Handoff::plan`] reports the
//! choice and why better methods were not available.
//!
//! The releasing end ([`Releaser`]) makes a [`Ticket`], which is sent to the acquiring end ([`Acquirer`])
//! once the work is submitted. What the acquiring side does after its acquire happens after everything
//! that the releasing side did before its release, and sees its writes.
//!
//! - Vulkan records its half into the user's command buffer, with the queue-family transfer to or from
//!   `VK_QUEUE_FAMILY_EXTERNAL`, and returns what to add to the user's submit. For those who own no submit,
//!   [`Releaser::release_on`] and [`Acquirer::acquire_on`] submit a command buffer of the library's own.
//! - OpenGL lists the buffers and textures.
//! - CUDA enqueues its half on the user's stream. A stream that is being captured into a CUDA graph is
//!   refused; `GraphHandoff` records both halves into the graph, for any number of launches.
//!
//! # What can't go wrong
//!
//! - From its submit on, a handoff keeps what it names (buffers, images, semaphores) until the GPU is done
//!   with it. So `?`, a panic and any order of drops are safe. Dropping an end waits for its work within
//!   [`HandoffOptions::timeout`]; after that the Vulkan endpoint keeps what is in use. Work that never ends
//!   keeps it for good, which `tracing` reports.
//! - What a release or an acquire adds to a submit may be dropped instead: then the release counts as never
//!   made, and its ticket is refused; the release that was acquired is found by `lost_tickets`.
//! - A resource that is released can't be released again before it is acquired. If it won't be, its
//!   `reclaim` gives it up for undefined content.
//! - An acquire lists what was released: as many buffers, and as many images.
//!
//! Image layouts are named by the releasing side and travel in the ticket: the acquiring side lists the
//! images in the same order. All methods are generic over [`HandoffPeer`].
//!
//! The semaphores belong to a Vulkan device: OpenGL and CUDA can only import them. To keep several
//! payloads in flight, see [`ring`](crate::ring).
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
