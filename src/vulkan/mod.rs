//! The Vulkan peer, over the application's own `ash` device.
//!
//! [`Endpoint`] borrows a device. [`Buffer`]s, [`Image`]s and [`Semaphore`]s are created for
//! export, imported from payloads, or adopted from the application; each export makes a new
//! descriptor. The application keeps control of its command buffers and queues:
//! [`Endpoint::record_release`] and [`Endpoint::record_acquire`] record barriers, and
//! [`SubmitSync`] holds what to add to the submit.
//!
//! Objects are cheap to clone; dropping the last clone destroys the Vulkan object. The endpoint
//! keeps a clone of everything that a submitted handoff uses until its work is done. For other
//! work, keep a clone yourself until it is done.
//!
//! # References
//! `VK_KHR_external_memory_fd`, `VK_KHR_external_semaphore_fd`, `VK_EXT_external_memory_dma_buf`.

mod access;
mod accesses;
mod allocation;
mod barrier;
mod buffer;
mod capabilities;
mod commands;
mod conv;
mod device_info;
mod endpoint;
#[cfg(test)]
pub(crate) mod fake;
mod fence;
mod image;
mod import;
mod kept;
mod mapping;
mod memory;
mod memory_options;
mod ownership;
mod physical_device;
mod raw_device;
mod requirements;
mod resource;
mod semaphore;
mod submit;
mod submit_end;
pub mod workarounds;

pub use access::{BufferAccess, ImageAccess};
pub use accesses::Accesses;
#[cfg(feature = "gl")]
pub(crate) use accesses::List;
pub use buffer::Buffer;
pub(crate) use commands::Commands;
#[cfg(feature = "nvx")]
pub(crate) use conv::VkResultExt;
#[cfg(any(feature = "nvx", feature = "headless"))]
pub(crate) use conv::driver_error;
pub use device_info::{DeviceInfo, Features};
pub use endpoint::Endpoint;
pub use fence::Fence;
pub use image::Image;
pub use import::{AdoptedBuffer, AdoptedImage};
pub use mapping::Mapping;
pub use memory::Memory;
pub use memory_options::{
    BufferOptions, DedicatedAllocation, ImageOptions, MemoryLocation, MemoryOptions,
};
pub use raw_device::RawDeviceInfo;
pub use semaphore::{Semaphore, SemaphoreSignal, SemaphoreWait};
pub(crate) use submit::AfterSubmit;
pub use submit::{FencePool, SubmitParts, SubmitSync};
pub(crate) use submit_end::{Half, SubmitEnd, SubmitHandoff};
