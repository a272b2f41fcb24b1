//! CUDA kernels in a Vulkan queue: `VK_NVX_binary_import`, an experimental extension of NVIDIA's.
//!
//! A handoff from Vulkan to CUDA switches the GPU from one context to another, which takes longer
//! than many a kernel. Here a CUDA kernel is one more command of a Vulkan command buffer, on the
//! addresses of Vulkan's buffers: nothing is switched, and a pipeline barrier is all the
//! synchronisation there is.
//!
//! 1. A [`Cubin`](crate::nvx::Cubin) is made of PTX for the present GPU by `cuda::Endpoint::link`, or by
//!    NVIDIA's compiler beforehand.
//! 2. [`Endpoint::load_module`](crate::vulkan::Endpoint::load_module) gives it to the device, and
//!    [`Module::function`] finds a kernel in it.
//! 3. [`Function::launch`] records the kernel, with its [`Argument`]s.
//! 4. [`Endpoint::record_barrier`](crate::vulkan::Endpoint::record_barrier) lets kernels, shaders and copies
//!    follow one another.
//!
//! Whether a device can is told by [`Endpoint::supports_cuda_launch`](crate::vulkan::Endpoint::supports_cuda_launch). Neither a CUDA
//! context nor libcuda is needed once there is a cubin.
//!
//! # Experimental
//! NVIDIA documents the extension nowhere: the specification has its calls and structures and not a
//! word on what they mean. What is relied on here is what the calls of its successor
//! `VK_NV_cuda_kernel_launch` and of `cuLaunchKernel` say, which have the same members, and what was
//! measured (driver 580.159). The extension may change or go with any driver.
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
//! `VK_NVX_binary_import`: `vkCreateCuModuleNVX`, `vkCreateCuFunctionNVX`, `vkCmdCuLaunchKernelNVX`.
//! `VK_NV_cuda_kernel_launch`; CUDA driver API: `cuLaunchKernel`.

mod argument;
mod barrier;
mod cubin;
mod function;
mod launch;
mod limits;
#[cfg(feature = "cuda")]
mod link;
mod module;

pub use argument::Argument;
pub use barrier::MemoryUse;
pub use cubin::{Cubin, KernelInfo, Parameter};
pub use function::Function;
pub use launch::Launch;
pub use module::Module;
