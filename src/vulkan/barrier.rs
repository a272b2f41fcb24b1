//! Vulkan's half of a handoff: the queue-family transfer to and from outside Vulkan.

use ash::vk;

use super::access::{Accesses, BufferAccess, ImageAccess};
use super::endpoint::Endpoint;
use crate::error::Result;

impl Endpoint {
    /// Records the release of `used` from `queue_family` to outside this Vulkan device, after the
    /// commands that used it as said.
    ///
    /// # Safety
    /// `command_buffer` is being recorded, outside a render pass, for a queue of `queue_family` of
    /// this device, which owns the resources; the images are in their `old_layout`; the resources
    /// live until it has executed.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) for a resource of another device, and for a layout or a
    /// range that an image can't have; nothing is recorded then.
    ///
    /// # References
    /// `VK_QUEUE_FAMILY_EXTERNAL`, "Queue Family Ownership Transfer".
    #[doc(alias = "vkCmdPipelineBarrier")]
    pub unsafe fn record_release<'a>(
        &self,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Result<()> {
        let used = used.into();
        used.check(self)?;
        // The other half makes the writes visible there; here they only have to be available.
        let families = (queue_family, vk::QUEUE_FAMILY_EXTERNAL);
        let barriers = Barriers {
            stages: (stages(&used), vk::PipelineStageFlags::BOTTOM_OF_PIPE),
            buffers: used
                .buffers
                .iter()
                .map(|used| buffer_barrier(used, families).src_access_mask(used.access))
                .collect(),
            images: used
                .images
                .iter()
                .map(|used| image_barrier(used, families).src_access_mask(used.access))
                .collect(),
        };
        // SAFETY: passed on to the caller.
        unsafe { self.record_barriers(command_buffer, &barriers) };
        Ok(())
    }

    /// Records the acquire of `used` by `queue_family` from outside this Vulkan device, before the
    /// commands that will use it as said.
    ///
    /// # Safety
    /// As [`record_release`](Self::record_release), except that the other side owns the resources,
    /// has released the images with the same layouts, and the submit waits until it has.
    ///
    /// # Errors
    /// As [`record_release`](Self::record_release).
    ///
    /// # References
    /// `VK_QUEUE_FAMILY_EXTERNAL`, "Queue Family Ownership Transfer".
    #[doc(alias = "vkCmdPipelineBarrier")]
    pub unsafe fn record_acquire<'a>(
        &self,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Result<()> {
        let used = used.into();
        used.check(self)?;
        let families = (vk::QUEUE_FAMILY_EXTERNAL, queue_family);
        let barriers = Barriers {
            // The semaphore wait of the submit covers ALL_COMMANDS: the barrier must come after it.
            stages: (vk::PipelineStageFlags::ALL_COMMANDS, stages(&used)),
            buffers: used
                .buffers
                .iter()
                .map(|used| buffer_barrier(used, families).dst_access_mask(used.access))
                .collect(),
            images: used
                .images
                .iter()
                .map(|used| image_barrier(used, families).dst_access_mask(used.access))
                .collect(),
        };
        // SAFETY: passed on to the caller.
        unsafe { self.record_barriers(command_buffer, &barriers) };
        Ok(())
    }

    unsafe fn record_barriers(&self, command_buffer: vk::CommandBuffer, barriers: &Barriers) {
        let Barriers { stages: (src, dst), buffers, images } = barriers;
        if buffers.is_empty() && images.is_empty() {
            return;
        }
        // SAFETY: the caller promises a recording command buffer of this device outside a render
        // pass, live resources and the images' layouts, which with the ranges were checked
        // (`Accesses::check`); the stage masks are not empty.
        unsafe {
            self.device().cmd_pipeline_barrier(
                command_buffer,
                *src,
                *dst,
                vk::DependencyFlags::empty(),
                &[],
                buffers,
                images,
            );
        }
    }
}

/// One half of a handoff.
struct Barriers {
    stages: (vk::PipelineStageFlags, vk::PipelineStageFlags),
    buffers: Vec<vk::BufferMemoryBarrier<'static>>,
    images: Vec<vk::ImageMemoryBarrier<'static>>,
}

fn buffer_barrier(
    used: &BufferAccess<'_>,
    (from, to): (u32, u32),
) -> vk::BufferMemoryBarrier<'static> {
    vk::BufferMemoryBarrier::default()
        .src_queue_family_index(from)
        .dst_queue_family_index(to)
        .buffer(used.buffer.handle())
        .offset(0)
        .size(vk::WHOLE_SIZE)
}

fn image_barrier(
    used: &ImageAccess<'_>,
    (from, to): (u32, u32),
) -> vk::ImageMemoryBarrier<'static> {
    vk::ImageMemoryBarrier::default()
        .src_queue_family_index(from)
        .dst_queue_family_index(to)
        .old_layout(used.old_layout)
        .new_layout(used.new_layout)
        .image(used.image.handle())
        .subresource_range(used.range)
}

fn stages(used: &Accesses<'_>) -> vk::PipelineStageFlags {
    let buffers = used.buffers.iter().map(|used| used.stage);
    let images = used.images.iter().map(|used| used.stage);
    buffers.chain(images).fold(vk::PipelineStageFlags::empty(), |all, stage| all | stage)
}
