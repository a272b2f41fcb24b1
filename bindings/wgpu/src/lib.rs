//! Shares wgpu's buffers and textures with OpenGL, CUDA, other Vulkan devices and other processes
//! on Linux, without a copy.
//!
//! The crate connects wgpu's Vulkan backend to [`gpu_interop`]. Its major version is that of wgpu.
//!
//! 1. [`request_device`] opens a device with what sharing needs. An existing device works too, with
//!    what it has enabled.
//! 2. [`Interop::new`] borrows it. [`Interop::endpoint`] is a Vulkan endpoint like any other, with
//!    which [`gpu_interop::handoff::open`] connects to OpenGL or CUDA.
//! 3. [`Interop::buffer`] and [`Interop::texture`] create shared memory that is an ordinary
//!    [`wgpu::Buffer`] or [`wgpu::Texture`]. Export it, and import it elsewhere.
//! 4. [`Interop::give`] releases it to the other side, and [`Interop::take`] acquires it.
//!
//! The README has an example.
//!
//! # Synchronisation
//!
//! `give` and `take` submit to wgpu's queue and don't wait for the GPU if both sides support
//! timeline semaphores. They may be called while other threads submit to the same queue.
//!
//! wgpu adds the semaphores that are passed to its queue to the next submit, whichever thread makes
//! it, and makes each submit wait for the one before. `take` therefore passes its waits before it
//! submits its commands: if another thread's submit gets them, the commands still come after it.
//! `give` submits its commands first, passes its signals, and submits again: any submit that gets
//! them comes after the commands.

mod convert;
mod create;
mod device;
mod handoff;
mod interop;
mod shared;

pub use device::{RequestDeviceError, request_device};
pub use gpu_interop;
pub use interop::Interop;
pub use shared::{Shared, SharedBuffer, SharedTexture};
pub use wgpu;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
