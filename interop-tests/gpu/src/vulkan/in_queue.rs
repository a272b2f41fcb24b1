//! The CUDA kernels in a Vulkan queue, by `VK_NVX_binary_import`.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::nvx::{Argument, Function, Launch, MemoryUse, Module};
use gpu_interop::vulkan::{Buffer, Endpoint};
use gpu_interop::{BufferDesc, BufferUsage};

use super::VulkanContext;
use crate::cuda::CudaContext;
use crate::kernel::{ELEMENT_BYTES, GROUP_SIZE, Kernel};

const FILL: &str = include_str!("../../../../shaders/fill.ptx");
const PING_PONG: &str = include_str!("../../../../shaders/ping_pong.ptx");

/// CUDA's kernels, loaded into a Vulkan device.
#[derive(Debug)]
pub struct SameQueue {
    endpoint: Endpoint,
    fill: Function,
    ping_pong: Function,
}

/// A buffer that kernels in the queue can also use.
pub fn desc(bytes: u64) -> BufferDesc {
    let desc = BufferDesc::storage(bytes);
    BufferDesc { usage: desc.usage | BufferUsage::DEVICE_ADDRESS, ..desc }
}

/// Links `ptx` with `cuda`, on the same GPU, and loads it into the device of `endpoint`.
///
/// # Errors
/// If CUDA can't link it, or the device can't run it.
pub fn load(endpoint: &Endpoint, cuda: &CudaContext, ptx: &str) -> Result<Module> {
    endpoint.supports_cuda_launch()?;
    Ok(endpoint.load_module(&cuda.endpoint.link(ptx)?)?)
}

impl SameQueue {
    /// Loads the kernels into the device of `vulkan`.
    ///
    /// # Errors
    /// If CUDA can't link them, or the device can't run them.
    pub fn new(vulkan: &VulkanContext, cuda: &CudaContext) -> Result<Self> {
        let function = |ptx, name| -> Result<Function> {
            Ok(load(&vulkan.endpoint, cuda, ptx)?.function(name)?)
        };
        Ok(Self {
            endpoint: vulkan.endpoint.clone(),
            fill: function(FILL, "fill").context("fill.ptx")?,
            ping_pong: function(PING_PONG, "ping_pong").context("ping_pong.ptx")?,
        })
    }

    /// Records `kernel` over all of `buffer`, with `groups` blocks; 0 for one thread per element.
    ///
    /// # Errors
    /// If the buffer belongs to another device or has no device address.
    pub fn record(
        &self,
        command: vk::CommandBuffer,
        kernel: Kernel,
        buffer: &Buffer,
        groups: u32,
    ) -> Result<()> {
        self.record_part(command, kernel, buffer, 0, buffer.desc().size, groups)
    }

    /// Records `kernel` over the payload of `bytes` bytes at `offset`.
    ///
    /// # Errors
    /// Same as [`record`](Self::record).
    pub fn record_part(
        &self,
        command: vk::CommandBuffer,
        kernel: Kernel,
        buffer: &Buffer,
        offset: u64,
        bytes: u64,
        groups: u32,
    ) -> Result<()> {
        let function = match kernel {
            Kernel::Fill { .. } => &self.fill,
            Kernel::PingPong { .. } => &self.ping_pong,
        };
        let count = u32::try_from(bytes / ELEMENT_BYTES)?;
        let groups = if groups == 0 { count.div_ceil(GROUP_SIZE) } else { groups };
        let to = Argument::buffer_at(buffer, offset);
        let arguments = [to, 0u32.into(), count.into(), kernel.argument().into()];
        // SAFETY: the command buffer is being recorded (the caller's); the arguments are the
        // kernel's, and it stays within `count` elements; the callers keep the buffer until they
        // have waited, and the context keeps the kernel.
        unsafe { function.launch(command, &Launch::linear(groups, GROUP_SIZE), &arguments) }?;
        Ok(())
    }

    /// Records a barrier between kernels, shaders and copies, and those that follow.
    pub fn record_barrier(&self, command: vk::CommandBuffer) {
        let all = MemoryUse::KERNEL | MemoryUse::SHADER | MemoryUse::TRANSFER;
        // SAFETY: the command buffer is being recorded, for a queue that does all of these.
        unsafe { self.endpoint.record_barrier(command, all, all) };
    }

    /// Records the minimal barrier that orders kernels after kernels.
    pub fn record_kernel_barrier(&self, command: vk::CommandBuffer) {
        let kernel = MemoryUse::KERNEL | MemoryUse::SHADER;
        // SAFETY: as above.
        unsafe { self.endpoint.record_barrier(command, kernel, kernel) };
    }
}
