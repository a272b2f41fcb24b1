//! The Vulkan peer, over the user's own `ash` device.
//!
//! [`Endpoint`] borrows a device; [`Buffer`]s, [`Image`]s and [`Semaphore`]s are created exportable,
//! imported from payloads, or adopted from the user. [`Buffer::export`] makes a new descriptor each
//! time, and so do the others.
//! Command buffers and queues stay the user's: [`Endpoint::record_release`] and
//! [`Endpoint::record_acquire`] write barriers, [`SubmitSync`] says what to add to the submit.
//!
//! # References
//! `VK_KHR_external_memory_fd`, `VK_KHR_external_semaphore_fd`, `VK_EXT_external_memory_dma_buf`.

pub(crate) mod access;
mod allocation;
pub(crate) mod buffer;
mod capabilities;
mod conv;
mod cuda_launch;
pub(crate) mod endpoint;
pub(crate) mod error;
mod fence;
mod image;
mod image_adopted;
mod import;
mod memory;
mod ownership;
mod requirements;
mod semaphore;
mod submit;
pub mod workarounds;

pub use access::{Accesses, BufferAccess, ImageAccess};
pub use allocation::{
    BufferOptions, DedicatedAllocation, ImageOptions, MemoryLocation, MemoryOptions,
};
pub use buffer::{AdoptedBuffer, Buffer};
pub use endpoint::{DeviceInfo, Endpoint, Features};
pub use fence::{Fence, FencePool};
pub use image::Image;
pub use image_adopted::AdoptedImage;
pub use memory::Memory;
pub use semaphore::Semaphore;
pub use submit::{SemaphoreSignal, SemaphoreWait, SubmitSync};
