//! Vulkan's half of a handoff: the queue-family transfer to and from outside Vulkan.

use std::fmt;

use ash::vk;

use super::buffer::Buffer;
use super::endpoint::Endpoint;

/// A buffer and how the recorded commands use it: written before a release, read after an acquire.
#[derive(Clone, Copy)]
pub struct BufferAccess<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The stages of the commands that use it.
    pub stage: vk::PipelineStageFlags,
    /// What they do with it.
    pub access: vk::AccessFlags,
}

impl fmt::Debug for BufferAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferAccess")
            .field("buffer", self.buffer)
            .field("stage", &format_args!("{:#x}", self.stage.as_raw()))
            .field("access", &format_args!("{:#x}", self.access.as_raw()))
            .finish()
    }
}

impl<'a> BufferAccess<'a> {
    /// A buffer that compute shaders read and write.
    pub fn compute(buffer: &'a Buffer) -> Self {
        Self {
            buffer,
            stage: vk::PipelineStageFlags::COMPUTE_SHADER,
            access: vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE,
        }
    }

    /// A buffer that is copied from and to.
    pub fn transfer(buffer: &'a Buffer) -> Self {
        Self {
            buffer,
            stage: vk::PipelineStageFlags::TRANSFER,
            access: vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE,
        }
    }
}

impl Endpoint {
    /// Records the release of `buffers` from `queue_family` to outside this Vulkan device, after the
    /// commands that used them as said.
    ///
    /// # Safety
    /// `command_buffer` is being recorded, outside a render pass, for a queue of `queue_family` of
    /// this device, which owns the buffers; the buffers live until it has executed.
    ///
    /// # References
    /// `VK_QUEUE_FAMILY_EXTERNAL`, "Queue Family Ownership Transfer".
    pub unsafe fn record_release(
        &self,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        buffers: &[BufferAccess<'_>],
    ) {
        let barriers: Vec<_> = buffers
            .iter()
            .map(|used| {
                transfer_barrier(used, queue_family, vk::QUEUE_FAMILY_EXTERNAL)
                    .src_access_mask(used.access)
            })
            .collect();
        // The other half makes the writes visible there; here they only have to be available.
        let stages = (stages(buffers), vk::PipelineStageFlags::BOTTOM_OF_PIPE);
        // SAFETY: passed on to the caller.
        unsafe { self.record_barriers(command_buffer, stages, &barriers) };
    }

    /// Records the acquire of `buffers` by `queue_family` from outside this Vulkan device, before the
    /// commands that will use them as said.
    ///
    /// # Safety
    /// As [`record_release`](Self::record_release), and the submit waits until the other side has
    /// released them.
    ///
    /// # References
    /// `VK_QUEUE_FAMILY_EXTERNAL`, "Queue Family Ownership Transfer".
    pub unsafe fn record_acquire(
        &self,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        buffers: &[BufferAccess<'_>],
    ) {
        let barriers: Vec<_> = buffers
            .iter()
            .map(|used| {
                transfer_barrier(used, vk::QUEUE_FAMILY_EXTERNAL, queue_family)
                    .dst_access_mask(used.access)
            })
            .collect();
        // The semaphore wait of the submit covers ALL_COMMANDS: the barrier must come after it.
        let stages = (vk::PipelineStageFlags::ALL_COMMANDS, stages(buffers));
        // SAFETY: passed on to the caller.
        unsafe { self.record_barriers(command_buffer, stages, &barriers) };
    }

    unsafe fn record_barriers(
        &self,
        command_buffer: vk::CommandBuffer,
        (src, dst): (vk::PipelineStageFlags, vk::PipelineStageFlags),
        barriers: &[vk::BufferMemoryBarrier<'_>],
    ) {
        if barriers.is_empty() {
            return;
        }
        // SAFETY: the caller promises a recording command buffer of this device outside a render
        // pass and live buffers; the stage masks are not empty.
        unsafe {
            self.shared.device.cmd_pipeline_barrier(
                command_buffer,
                src,
                dst,
                vk::DependencyFlags::empty(),
                &[],
                barriers,
                &[],
            );
        }
    }
}

fn transfer_barrier<'a>(
    used: &BufferAccess<'_>,
    from: u32,
    to: u32,
) -> vk::BufferMemoryBarrier<'a> {
    vk::BufferMemoryBarrier::default()
        .src_queue_family_index(from)
        .dst_queue_family_index(to)
        .buffer(used.buffer.handle())
        .offset(0)
        .size(vk::WHOLE_SIZE)
}

fn stages(buffers: &[BufferAccess<'_>]) -> vk::PipelineStageFlags {
    buffers.iter().fold(vk::PipelineStageFlags::empty(), |stages, used| stages | used.stage)
}
