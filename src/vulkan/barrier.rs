//! Vulkan's half of a handoff: the queue-family ownership transfer to and from outside Vulkan.

use ash::vk;
use smallvec::SmallVec;

use super::accesses::Accesses;
use super::endpoint::Endpoint;
use crate::error::Result;

impl Endpoint {
    /// Records the release of `used` from `queue_family` to outside this Vulkan device, after the
    /// commands that use the resources.
    ///
    /// # Safety
    /// - `command_buffer` is being recorded, outside a render pass, for a queue of `queue_family`
    ///   of this device.
    /// - The queue family owns the resources and supports the stages; each access belongs to one of
    ///   the stages.
    /// - The images are in their `old_layout`.
    /// - The resources live until the commands have executed.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) for a resource from another device, and for a layout or a
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
        let barrier = Barrier::release(self, queue_family, used.into())?;
        // SAFETY: the caller's promise.
        unsafe { barrier.record(self, command_buffer) };
        Ok(())
    }

    /// Records the acquire of `used` by `queue_family` from outside this Vulkan device, before the
    /// commands that use the resources.
    ///
    /// # Safety
    /// The same as for [`record_release`](Self::record_release), except that the other side owns
    /// the resources and has released the images with the same layouts, and the submit waits for
    /// that release.
    ///
    /// # Errors
    /// Same as [`record_release`](Self::record_release).
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
        let barrier = Barrier::acquire(self, queue_family, used.into())?;
        // SAFETY: the caller's promise.
        unsafe { barrier.record(self, command_buffer) };
        Ok(())
    }
}

/// A release or an acquire: checked, but not recorded yet.
struct Barrier {
    src_stage: vk::PipelineStageFlags,
    dst_stage: vk::PipelineStageFlags,
    buffers: SmallVec<[vk::BufferMemoryBarrier<'static>; 4]>,
    images: SmallVec<[vk::ImageMemoryBarrier<'static>; 4]>,
}

impl Barrier {
    /// The release of `used` by `queue_family`.
    fn release(endpoint: &Endpoint, queue_family: u32, used: Accesses<'_>) -> Result<Self> {
        used.check(endpoint)?;
        let families = (queue_family, vk::QUEUE_FAMILY_EXTERNAL);
        // The acquire makes the writes visible; the release only has to make them available.
        let barrier = Self::new(used, families, |access| (access, vk::AccessFlags::empty()));
        Ok(Self { dst_stage: vk::PipelineStageFlags::BOTTOM_OF_PIPE, ..barrier })
    }

    /// The acquire of `used` by `queue_family`.
    fn acquire(endpoint: &Endpoint, queue_family: u32, used: Accesses<'_>) -> Result<Self> {
        used.check(endpoint)?;
        let families = (vk::QUEUE_FAMILY_EXTERNAL, queue_family);
        let barrier = Self::new(used, families, |access| (vk::AccessFlags::empty(), access));
        // The semaphore wait of the submit covers ALL_COMMANDS; the barrier must come after it.
        Ok(Self { src_stage: vk::PipelineStageFlags::ALL_COMMANDS, ..barrier })
    }

    /// The barrier between the queue families, with the stages of `used` on both sides.
    fn new(
        used: Accesses<'_>,
        (from, to): (u32, u32),
        masks: impl Fn(vk::AccessFlags) -> (vk::AccessFlags, vk::AccessFlags),
    ) -> Self {
        let buffers = used.buffers().iter().map(|used| {
            let (src, dst) = masks(used.access);
            vk::BufferMemoryBarrier::default()
                .src_access_mask(src)
                .dst_access_mask(dst)
                .src_queue_family_index(from)
                .dst_queue_family_index(to)
                .buffer(used.buffer.handle())
                .offset(0)
                .size(vk::WHOLE_SIZE)
        });
        let images = used.images().iter().map(|used| {
            let (src, dst) = masks(used.access);
            let (old_layout, new_layout) = used.layouts();
            vk::ImageMemoryBarrier::default()
                .src_access_mask(src)
                .dst_access_mask(dst)
                .src_queue_family_index(from)
                .dst_queue_family_index(to)
                .old_layout(old_layout.into())
                .new_layout(new_layout.into())
                .image(used.image.handle())
                .subresource_range(used.range)
        });
        let stages = used.buffers().iter().map(|used| used.stage);
        let stages = stages.chain(used.images().iter().map(|used| used.stage));
        let stage = stages.fold(vk::PipelineStageFlags::empty(), |all, stage| all | stage);
        let (buffers, images) = (buffers.collect(), images.collect());
        Self { src_stage: stage, dst_stage: stage, buffers, images }
    }

    /// Records the barrier, unless it covers nothing.
    ///
    /// # Safety
    /// Same as [`Endpoint::record_release`] or [`Endpoint::record_acquire`].
    unsafe fn record(&self, endpoint: &Endpoint, command_buffer: vk::CommandBuffer) {
        if self.buffers.is_empty() && self.images.is_empty() {
            return;
        }
        // SAFETY: the caller promises a recording command buffer of this device outside a render
        // pass, live resources, and images in their layouts. Layouts and ranges were checked
        // (`Accesses::check`), and neither stage mask is empty.
        unsafe {
            endpoint.device().cmd_pipeline_barrier(
                command_buffer,
                self.src_stage,
                self.dst_stage,
                vk::DependencyFlags::empty(),
                &[],
                &self.buffers,
                &self.images,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{ImageLayout, ImageUsage};
    use crate::format::Format;
    use crate::vulkan::fake::{self, Call};
    use crate::vulkan::{BufferAccess, ImageAccess};

    const FAMILY: u32 = 3;
    const NOTHING: vk::AccessFlags = vk::AccessFlags::empty();

    /// The one barrier that the driver was given.
    fn recorded() -> fake::RecordedBarrier {
        match &mut *fake::take_calls() {
            [Call::Barrier(barrier)] => std::mem::take(barrier),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_halves_name_the_same_layouts_and_opposite_families() {
        let endpoint = fake::endpoint();
        let buffer = fake::buffer(&endpoint, 7);
        let image = fake::image(&endpoint, 8, Format::Rgba8Unorm, ImageUsage::all());
        let (old, new) = (ImageLayout::TRANSFER_DST_OPTIMAL, ImageLayout::SHADER_READ_ONLY_OPTIMAL);
        let (buffers, images) = (
            [BufferAccess::compute(&buffer)],
            [ImageAccess::transfer(&image).with_layouts(old, new)],
        );
        let used = Accesses::from((&buffers[..], &images[..]));
        let commands = vk::CommandBuffer::null();
        // SAFETY: the fake driver only records the call.
        unsafe { endpoint.record_release(commands, FAMILY, used) }.unwrap();
        let release = recorded();
        // SAFETY: as above.
        unsafe { endpoint.record_acquire(commands, FAMILY, used) }.unwrap();
        let acquire = recorded();

        let stages = buffers[0].stage | images[0].stage;
        assert_eq!(release.stages, (stages, vk::PipelineStageFlags::BOTTOM_OF_PIPE));
        assert_eq!(acquire.stages, (vk::PipelineStageFlags::ALL_COMMANDS, stages));
        for (half, families) in [
            (&release, (FAMILY, vk::QUEUE_FAMILY_EXTERNAL)),
            (&acquire, (vk::QUEUE_FAMILY_EXTERNAL, FAMILY)),
        ] {
            let [buffer_half] = half.buffers[..] else { panic!("{half:?}") };
            let [image_half] = half.images[..] else { panic!("{half:?}") };
            let found = (buffer_half.src_queue_family_index, buffer_half.dst_queue_family_index);
            assert_eq!(found, families);
            let found = (image_half.src_queue_family_index, image_half.dst_queue_family_index);
            assert_eq!(found, families);
            assert_eq!(buffer_half.buffer, buffer.handle());
            assert_eq!((buffer_half.offset, buffer_half.size), (0, vk::WHOLE_SIZE));
            assert_eq!(image_half.image, image.handle());
            let layouts = (image_half.old_layout.into(), image_half.new_layout.into());
            assert_eq!(layouts, (old, new));
            let range = image_half.subresource_range;
            assert_eq!((range.base_mip_level, range.level_count), (0, image.desc().levels));
            assert_eq!((range.base_array_layer, range.layer_count), (0, image.desc().layers));
            assert_eq!(range.aspect_mask, vk::ImageAspectFlags::COLOR);
        }
        // A release makes writes available, an acquire makes them visible.
        let masks = |half: &fake::RecordedBarrier| {
            let (buffer, image) = (half.buffers[0], half.images[0]);
            [
                (buffer.src_access_mask, buffer.dst_access_mask),
                (image.src_access_mask, image.dst_access_mask),
            ]
        };
        let (of_buffer, of_image) = (buffers[0].access, images[0].access);
        assert_eq!(masks(&release), [(of_buffer, NOTHING), (of_image, NOTHING)]);
        assert_eq!(masks(&acquire), [(NOTHING, of_buffer), (NOTHING, of_image)]);
    }

    #[test]
    fn nothing_is_recorded_for_nothing() {
        let endpoint = fake::endpoint();
        // SAFETY: the fake driver only records calls.
        unsafe {
            let nothing = Accesses::default();
            endpoint.record_release(vk::CommandBuffer::null(), FAMILY, nothing).unwrap();
        }
        assert!(fake::take_calls().is_empty());
    }
}
