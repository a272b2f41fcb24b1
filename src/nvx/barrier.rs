//! Barriers between kernels, shaders and copies of one queue.

use std::fmt;
use std::ops::BitOr;

use ash::vk;

use crate::vulkan::access::BufferAccess;
use crate::vulkan::buffer::Buffer;
use crate::vulkan::endpoint::Endpoint;

/// How commands use memory: what a barrier has before it or after it.
///
/// The specification doesn't say in which stage CUDA kernels run. They are dispatched as compute
/// shaders are (`VK_NV_cuda_kernel_launch`: "a global workgroup ... is assembled"), so
/// [`KERNEL`](Self::KERNEL) is the compute stage with a shader's reads and writes, which orders them
/// on NVIDIA's driver (580.159, measured). [`ANY`](Self::ANY) needs no such assumption.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryUse {
    /// The stages of the commands.
    pub stage: vk::PipelineStageFlags,
    /// What they do.
    pub access: vk::AccessFlags,
}

/// All accesses that write.
const WRITES: vk::AccessFlags = vk::AccessFlags::from_raw(
    vk::AccessFlags::SHADER_WRITE.as_raw()
        | vk::AccessFlags::COLOR_ATTACHMENT_WRITE.as_raw()
        | vk::AccessFlags::DEPTH_STENCIL_ATTACHMENT_WRITE.as_raw()
        | vk::AccessFlags::TRANSFER_WRITE.as_raw()
        | vk::AccessFlags::HOST_WRITE.as_raw()
        | vk::AccessFlags::MEMORY_WRITE.as_raw(),
);

impl MemoryUse {
    /// CUDA kernels read and write.
    pub const KERNEL: Self = Self::SHADER;
    /// Compute shaders read and write.
    pub const SHADER: Self = Self {
        stage: vk::PipelineStageFlags::COMPUTE_SHADER,
        access: vk::AccessFlags::from_raw(
            vk::AccessFlags::SHADER_READ.as_raw() | vk::AccessFlags::SHADER_WRITE.as_raw(),
        ),
    };
    /// Copies and fills read and write.
    pub const TRANSFER: Self = Self {
        stage: vk::PipelineStageFlags::TRANSFER,
        access: vk::AccessFlags::from_raw(
            vk::AccessFlags::TRANSFER_READ.as_raw() | vk::AccessFlags::TRANSFER_WRITE.as_raw(),
        ),
    };
    /// The host reads, after the submit is done.
    pub const HOST_READ: Self =
        Self { stage: vk::PipelineStageFlags::HOST, access: vk::AccessFlags::HOST_READ };
    /// Any command reads and writes in any way.
    pub const ANY: Self = Self {
        stage: vk::PipelineStageFlags::ALL_COMMANDS,
        access: vk::AccessFlags::from_raw(
            vk::AccessFlags::MEMORY_READ.as_raw() | vk::AccessFlags::MEMORY_WRITE.as_raw(),
        ),
    };
}

impl BitOr for MemoryUse {
    type Output = Self;

    /// Both.
    fn bitor(self, other: Self) -> Self {
        Self { stage: self.stage | other.stage, access: self.access | other.access }
    }
}

impl fmt::Debug for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryUse")
            .field("stage", &format_args!("{:#x}", self.stage.as_raw()))
            .field("access", &format_args!("{:#x}", self.access.as_raw()))
            .finish()
    }
}

impl Endpoint {
    /// Records that what the commands so far do in the way of `before` is done, and seen, when those
    /// that follow begin what they do in the way of `after`. For all memory of the device.
    ///
    /// # Safety
    /// `commands` is being recorded, outside a render pass, for a queue of the endpoint's device that
    /// has the stages (VUID-vkCmdPipelineBarrier-srcStageMask-06461 and -dstStageMask-06462), and
    /// each access belongs to one of its stages.
    ///
    /// # References
    /// `vkCmdPipelineBarrier`, `VkMemoryBarrier`.
    #[doc(alias = "vkCmdPipelineBarrier")]
    pub unsafe fn record_barrier(
        &self,
        commands: vk::CommandBuffer,
        before: MemoryUse,
        after: MemoryUse,
    ) {
        // Reads have nothing to make visible; that they are done is the stages' affair.
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(before.access & WRITES)
            .dst_access_mask(after.access);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the caller's promise; the barrier outlives the call.
        unsafe {
            self.shared.device.cmd_pipeline_barrier(
                commands,
                before.stage,
                after.stage,
                none,
                &[barrier],
                &[],
                &[],
            );
        }
    }
}

impl<'a> BufferAccess<'a> {
    /// A buffer that CUDA kernels in the queue read and write, for a handoff to or from another API.
    pub fn kernel(buffer: &'a Buffer) -> Self {
        let MemoryUse { stage, access } = MemoryUse::KERNEL;
        Self { buffer, stage, access }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_joined_and_writes_are_found() {
        let both = MemoryUse::KERNEL | MemoryUse::TRANSFER;
        assert!(both.stage.contains(vk::PipelineStageFlags::COMPUTE_SHADER));
        assert!(both.stage.contains(vk::PipelineStageFlags::TRANSFER));
        let writes = vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE;
        assert_eq!(both.access & WRITES, writes);
        assert_eq!(MemoryUse::HOST_READ.access & WRITES, vk::AccessFlags::empty());
    }
}
