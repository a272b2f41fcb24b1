//! Barriers between kernels, shaders and copies of one queue.

use std::fmt;
use std::ops::BitOr;

use ash::vk;

use crate::vulkan::{Buffer, BufferAccess, Endpoint};

/// How the commands before or after a barrier use memory.
///
/// The specification doesn't define the stage in which CUDA kernels run. They are dispatched like
/// compute shaders (`VK_NV_cuda_kernel_launch`: "a global workgroup ... is assembled"), so
/// [`KERNEL`](Self::KERNEL) is the compute stage with a shader's reads and writes. This orders them
/// on NVIDIA's driver (measured with 580.159). [`ANY`](Self::ANY) needs no such assumption.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryUse {
    /// The pipeline stages.
    pub stage: vk::PipelineStageFlags,
    /// The memory accesses.
    pub access: vk::AccessFlags,
}

/// All write accesses.
const WRITES: vk::AccessFlags = vk::AccessFlags::from_raw(
    vk::AccessFlags::SHADER_WRITE.as_raw()
        | vk::AccessFlags::COLOR_ATTACHMENT_WRITE.as_raw()
        | vk::AccessFlags::DEPTH_STENCIL_ATTACHMENT_WRITE.as_raw()
        | vk::AccessFlags::TRANSFER_WRITE.as_raw()
        | vk::AccessFlags::HOST_WRITE.as_raw()
        | vk::AccessFlags::MEMORY_WRITE.as_raw(),
);

impl MemoryUse {
    /// Reads and writes of CUDA kernels.
    pub const KERNEL: Self = Self::SHADER;
    /// Reads and writes of compute shaders.
    pub const SHADER: Self = Self {
        stage: vk::PipelineStageFlags::COMPUTE_SHADER,
        access: vk::AccessFlags::from_raw(
            vk::AccessFlags::SHADER_READ.as_raw() | vk::AccessFlags::SHADER_WRITE.as_raw(),
        ),
    };
    /// Reads and writes of copies and fills.
    pub const TRANSFER: Self = Self {
        stage: vk::PipelineStageFlags::TRANSFER,
        access: vk::AccessFlags::from_raw(
            vk::AccessFlags::TRANSFER_READ.as_raw() | vk::AccessFlags::TRANSFER_WRITE.as_raw(),
        ),
    };
    /// Reads by the host after the submission is done.
    pub const HOST_READ: Self =
        Self { stage: vk::PipelineStageFlags::HOST, access: vk::AccessFlags::HOST_READ };
    /// All reads and writes of all commands.
    pub const ANY: Self = Self {
        stage: vk::PipelineStageFlags::ALL_COMMANDS,
        access: vk::AccessFlags::from_raw(
            vk::AccessFlags::MEMORY_READ.as_raw() | vk::AccessFlags::MEMORY_WRITE.as_raw(),
        ),
    };
}

impl BitOr for MemoryUse {
    type Output = Self;

    /// Combines both uses.
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
    /// Records a barrier for all memory of the device: the uses `before` by earlier commands are
    /// finished, and their writes are visible, when later commands begin the uses `after`.
    ///
    /// # Safety
    /// `commands` is being recorded outside a render pass, for a queue of the endpoint's device
    /// that supports the stages (VUID-vkCmdPipelineBarrier-srcStageMask-06461 and
    /// -dstStageMask-06462), and each access belongs to one of its stages.
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
        // Only writes must be made visible; for reads, the stages are enough.
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(before.access & WRITES)
            .dst_access_mask(after.access);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the caller promises what the call requires; the barrier outlives the call.
        unsafe {
            self.device().cmd_pipeline_barrier(
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
    /// Describes a buffer that CUDA kernels in the queue read and write, for a handoff to or from
    /// another API.
    pub fn kernel(buffer: &'a Buffer) -> Self {
        let MemoryUse { stage, access } = MemoryUse::KERNEL;
        Self { buffer, stage, access }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_combined_and_only_writes_are_made_visible() {
        let both = MemoryUse::KERNEL | MemoryUse::TRANSFER;
        assert!(both.stage.contains(vk::PipelineStageFlags::COMPUTE_SHADER));
        assert!(both.stage.contains(vk::PipelineStageFlags::TRANSFER));
        let writes = vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE;
        assert_eq!(both.access & WRITES, writes);
        assert_eq!(MemoryUse::HOST_READ.access & WRITES, vk::AccessFlags::empty());
    }
}
