//! The CUDA peer, over the application's own `cudarc` context.
//!
//! [`Endpoint`] borrows a context. [`Buffer`]s are imported from payloads or created for export
//! ([`Endpoint::create_buffer`]), and are passed to cudarc's copies and kernel launches as views
//! ([`Buffer::as_view`]). Images are imported as mipmapped [`Array`]s, which kernels read through
//! [`TextureObject`]s and write through [`SurfaceObject`]s. [`Semaphore`]s are imported, waited for
//! and signalled in the application's streams; a [`Fence`] lets the host wait.
//!
//! # Without CUDA
//! libcuda is loaded at run time, so a program with this feature also builds and starts on a
//! machine without it. cudarc's own functions then panic: call [`require`] or [`devices`] before
//! the first `CudaContext::new`.
//!
//! # Contexts
//! Each call makes the endpoint's context current while it runs and then restores the previous one,
//! so other CUDA libraries on the thread are not disturbed. (cudarc's own calls leave their context
//! current.)
//!
//! # Errors while dropping
//! As in cudarc, a failure while an object is dropped is recorded in the context; the context's
//! next call, or `CudaContext::check_err`, returns it.
//!
//! # Stream captures
//! While a stream is captured into a CUDA graph, the library's calls and drops leave the capture
//! valid: they run in the relaxed capture mode, and what CUDA forbids even then is postponed until
//! a later call. A captured stream is refused ([`Error::Invalid`](crate::Error::Invalid)), except
//! by [`Endpoint::capture_wait`], [`Endpoint::capture_signal`], [`Memory::keep_in_capture`] and
//! `handoff::GraphHandoff`. In a capture, pass [`Buffer::device_ptr`] to kernels: cudarc's views
//! order their uses by events, which fails there.
//!
//! # Example
//! ```no_run
//! use gpu_interop::cudarc::driver::{CudaContext, CudaFunction, LaunchConfig, PushKernelArg};
//! use gpu_interop::{BufferPayload, SemaphorePayload, Uuid, cuda};
//!
//! fn double(
//!     gpu: Uuid,
//!     buffer: BufferPayload,
//!     timeline: SemaphorePayload,
//!     kernel: impl FnOnce(&std::sync::Arc<CudaContext>) -> CudaFunction,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let devices = cuda::devices()?; // an error, not a panic, without libcuda
//!     let device = devices.iter().find(|d| d.identity.device == gpu).ok_or("no such GPU")?;
//!     let context = CudaContext::new(device.ordinal)?;
//!     let stream = context.new_stream()?;
//!     let endpoint = cuda::Endpoint::new(context.clone())?;
//!
//!     let mut buffer = endpoint.import_buffer(buffer)?;
//!     let timeline = endpoint.import_semaphore(timeline)?;
//!     endpoint.wait(&stream, &timeline, Some(1))?;
//!     let mut numbers = buffer.as_view_mut::<f32>()?;
//!     let count = numbers.len() as u32;
//!     let kernel = kernel(&context);
//!     let mut launch = stream.launch_builder(&kernel);
//!     launch.arg(&mut numbers).arg(&count);
//!     // SAFETY: the kernel takes a float pointer and a count, and stays below the count.
//!     unsafe { launch.launch(LaunchConfig::for_num_elems(count)) }?;
//!     endpoint.signal(&stream, &timeline, Some(2))?;
//!     stream.synchronize()?;
//!     Ok(())
//! }
//! ```
//!
//! # Driver bugs
//! The library works around these:
//!
//! | name | driver | the bug | the workaround |
//! |---|---|---|---|
//! | `NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS` | NVIDIA 580.159, discrete GPUs (the descriptors of integrated GPUs may be dma-bufs) | `cuImportExternalMemory` closes a descriptor that it rejects (an eventfd), against its documentation; in Vulkan and OpenGL the same driver fails every later import in the process after one such descriptor | a descriptor that NVIDIA's driver can't have created is rejected before the driver sees it |
//! | `NVIDIA_LAYERED_LEVELS_LAID_OUT_DIFFERENTLY` | NVIDIA 580.159 | in a mipmapped array with layers, CUDA expects the second layer at a different place than Vulkan: only the first layer is read correctly. Layers without levels and levels without layers are correct | an image with several layers and several levels is refused ([`Memory::array`]) |
//! | `NVIDIA_SRGB_DECODES_ONLY_RED_OF_TWO_CHANNELS` | NVIDIA 580.159 | a texture object of two channels of bytes with `CU_TRSF_SRGB` returns green as it is stored | [`ReadMode::DecodeSrgb`] is refused for two channels |
//!
//! # References
//! CUDA driver API: "External Resource Interoperability", "Virtual Memory Management", "Texture
//! Object Management", "Surface Object Management".

mod allocation;
mod array;
mod array_copy;
mod array_shape;
mod buffer;
mod capabilities;
mod capture;
mod descriptors;
mod endpoint;
mod fence;
mod graph;
mod image_descriptors;
pub(crate) mod library;
mod memory;
mod objects;
mod semaphore;
mod texture_options;
pub(crate) mod uses;

pub use array::Array;
pub use buffer::{Buffer, Pod};
pub use endpoint::Endpoint;
pub use fence::Fence;
pub use graph::SemaphoreNode;
pub use library::{Device, devices, is_available, require};
pub use memory::Memory;
pub use objects::{SurfaceObject, TextureObject};
pub use semaphore::Semaphore;
pub use texture_options::{AddressMode, Filter, ReadMode, TextureOptions};
