//! CUDA kernels in a Vulkan queue, with `VK_NVX_binary_import`, an experimental NVIDIA extension.
//!
//! A handoff from Vulkan to CUDA switches the GPU between two contexts, which takes longer than
//! many kernels. Here a CUDA kernel is a command of a Vulkan command buffer and uses the device
//! addresses of Vulkan's buffers: no context is switched, and pipeline barriers are the only
//! synchronisation.
//!
//! 1. `cuda::Endpoint::link` creates a [`Cubin`] from PTX for the context's GPU; NVIDIA's compiler
//!    can also create one beforehand.
//! 2. [`Endpoint::load_module`](crate::vulkan::Endpoint::load_module) loads it into the device, and
//!    [`Module::function`] finds a kernel in it.
//! 3. [`Function::launch`] records a launch with its [`Argument`]s.
//! 4. [`Endpoint::record_barrier`](crate::vulkan::Endpoint::record_barrier) orders kernels, shaders
//!    and copies.
//!
//! [`Endpoint::supports_cuda_launch`](crate::vulkan::Endpoint::supports_cuda_launch) returns
//! whether a device can do this. With a cubin at hand, neither a CUDA context nor libcuda is
//! needed.
//!
//! # Experimental
//! NVIDIA does not document the extension: the specification lists its functions and structures
//! without their meaning. This module relies on the documentation of its successor
//! `VK_NV_cuda_kernel_launch` and of `cuLaunchKernel`, which have the same members, and on
//! measurements (driver 580.159). A driver update may change or remove the extension.
//!
//! Enable the extension only on a GPU that CUDA sees: `vkCreateDevice` of driver 580.159 crashes
//! (SIGSEGV) if `CUDA_VISIBLE_DEVICES` hides every GPU. `headless` checks this.
//!
//! ```no_run
//! use gpu_interop::ash::vk;
//! use gpu_interop::nvx::{Argument, Function, Launch, MemoryUse};
//! use gpu_interop::vulkan::Buffer;
//!
//! /// A shader writes, then a CUDA kernel doubles every number, then a copy reads.
//! unsafe fn record(
//!     vulkan: &gpu_interop::vulkan::Endpoint,
//!     commands: vk::CommandBuffer,
//!     double: &Function, // extern "C" __global__ void double_all(float* numbers, unsigned count)
//!     numbers: &Buffer,
//! ) -> gpu_interop::Result<()> {
//!     let count = (numbers.desc().size / 4) as u32;
//!     let arguments = [Argument::buffer(numbers), count.into()];
//!     // ... vkCmdDispatch ...
//!     // SAFETY: the command buffer is being recorded outside a render pass, the kernel stays below
//!     // `count`, and the caller keeps the buffer and the function until the work is done.
//!     unsafe {
//!         vulkan.record_barrier(commands, MemoryUse::SHADER, MemoryUse::KERNEL);
//!         double.launch(commands, &Launch::linear(count.div_ceil(256), 256), &arguments)?;
//!         vulkan.record_barrier(commands, MemoryUse::KERNEL, MemoryUse::TRANSFER);
//!     }
//!     // ... vkCmdCopyBuffer ...
//!     Ok(())
//! }
//! ```
//!
//! # References
//! `VK_NVX_binary_import`: `vkCreateCuModuleNVX`, `vkCreateCuFunctionNVX`,
//! `vkCmdCuLaunchKernelNVX`. `VK_NV_cuda_kernel_launch`; CUDA driver API: `cuLaunchKernel`.

mod barrier;
mod cubin;
mod elf;
mod launch;
#[cfg(feature = "cuda")]
mod link;
mod module;

pub use barrier::MemoryUse;
pub use cubin::{Cubin, KernelInfo};
pub use elf::Parameter;
pub use launch::{Argument, Launch};
pub use module::{Function, Module};
