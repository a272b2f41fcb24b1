//! Images: every part filled and read through a staging buffer, layout transitions, ownership.

use anyhow::{Context, Result, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::ash::vk;
use gpu_interop::format::Aspects;
use gpu_interop::vulkan::{Image, SubmitPart};

use super::private::PrivateBuffer;
use super::{VulkanRig, record_host_barrier};
use crate::rig::image::{Part, level_extent, parts};

/// A copy's offset in its buffer is a multiple of the texel size, and of 4 for depth and stencil.
const ALIGNMENT: usize = 16;

/// A host-visible buffer with room for every part of an image of one sample, each tightly packed.
#[derive(Debug)]
pub struct ImageStaging {
    desc: ImageDesc,
    buffer: PrivateBuffer,
    places: Vec<(Part, usize)>,
    bytes: usize,
}

impl ImageStaging {
    /// Room for all of an image of `desc`.
    ///
    /// # Errors
    /// For a multisample image, which can't be copied to a buffer, and where the driver is out of
    /// memory.
    pub fn new(rig: &VulkanRig, desc: &ImageDesc) -> Result<Self> {
        ensure!(desc.samples == 1, "a multisample image is no place to copy to");
        let mut bytes = 0;
        let mut places = Vec::new();
        for part in parts(desc) {
            places.push((part, bytes));
            bytes = (bytes + part.bytes(desc)).next_multiple_of(ALIGNMENT);
        }
        let buffer = PrivateBuffer::host(&rig.vulkan, bytes as u64)?;
        Ok(Self { desc: *desc, buffer, places, bytes })
    }

    /// Fills the buffer with what the parts hold by `seed`.
    ///
    /// # Errors
    /// Where the driver refuses to map.
    pub fn fill(&self, seed: u32) -> Result<()> {
        self.buffer.with_bytes(self.bytes, |all| {
            for (part, at) in &self.places {
                let bytes = part.filled(&self.desc, seed);
                all[*at..*at + bytes.len()].copy_from_slice(&bytes);
            }
        })
    }

    /// Overwrites the buffer, so that a copy that didn't happen shows.
    ///
    /// # Errors
    /// Where the driver refuses to map.
    pub fn wipe(&self) -> Result<()> {
        self.buffer.with_bytes(self.bytes, |all| all.fill(0xA5))
    }

    /// Checks that the buffer holds what the parts hold by `seed`.
    ///
    /// # Errors
    /// With the first texel that differs.
    pub fn check(&self, seed: u32) -> Result<()> {
        let mut found = vec![0; self.bytes];
        self.buffer.with_bytes(self.bytes, |all| found.copy_from_slice(all))?;
        for (part, at) in &self.places {
            part.check(&self.desc, seed, &found[*at..*at + part.bytes(&self.desc)])?;
        }
        Ok(())
    }

    /// Records the copy of every part to `image`, which is in `TRANSFER_DST_OPTIMAL`.
    pub fn record_upload(&self, rig: &VulkanRig, command: vk::CommandBuffer, image: vk::Image) {
        let layout = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
        // SAFETY: the command buffer is being recorded, the regions lie within the buffer and an
        // image of this description, which the callers pass.
        unsafe {
            let buffer = self.buffer.buffer;
            rig.device().cmd_copy_buffer_to_image(command, buffer, image, layout, &self.regions());
        }
    }

    /// Records the copy of every part from `image`, which is in `TRANSFER_SRC_OPTIMAL`.
    pub fn record_download(&self, rig: &VulkanRig, command: vk::CommandBuffer, image: vk::Image) {
        let layout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        // SAFETY: as above.
        unsafe {
            let buffer = self.buffer.buffer;
            rig.device().cmd_copy_image_to_buffer(command, image, layout, buffer, &self.regions());
        }
        record_host_barrier(rig.device(), command);
    }

    fn regions(&self) -> Vec<vk::BufferImageCopy> {
        let region = |(part, at): &(Part, usize)| {
            let extent = level_extent(&self.desc, part.level);
            vk::BufferImageCopy {
                buffer_offset: *at as u64,
                image_subresource: vk::ImageSubresourceLayers {
                    aspect_mask: aspect(part.aspect),
                    mip_level: part.level,
                    base_array_layer: part.layer,
                    layer_count: 1,
                },
                image_extent: vk::Extent3D {
                    width: extent.width,
                    height: extent.height,
                    depth: extent.depth,
                },
                ..Default::default()
            }
        };
        self.places.iter().map(region).collect()
    }
}

/// The flag of a single aspect.
pub fn aspect(aspect: Aspects) -> vk::ImageAspectFlags {
    match aspect {
        Aspects::DEPTH => vk::ImageAspectFlags::DEPTH,
        Aspects::STENCIL => vk::ImageAspectFlags::STENCIL,
        _ => vk::ImageAspectFlags::COLOR,
    }
}

impl VulkanRig {
    /// Records by `record`, submits with what it adds to the part, and waits.
    ///
    /// # Errors
    /// What `record` returns, and where the driver refuses.
    pub fn run_with<T>(
        &self,
        record: impl FnOnce(vk::CommandBuffer, &mut SubmitPart) -> Result<T>,
    ) -> Result<T> {
        let command = self.objects.one_shot;
        self.begin(command)?;
        let mut part = SubmitPart::default();
        let made = match record(command, &mut part) {
            Ok(made) => made,
            Err(error) => {
                // SAFETY: the command buffer is being recorded; it is never submitted.
                unsafe { self.device().end_command_buffer(command) }?;
                return Err(error);
            }
        };
        self.submit(command, &part)?;
        self.vulkan.wait_idle()?;
        Ok(made)
    }

    /// Records that all of `image` goes from layout `old` to `new`, after all that was recorded and
    /// before all that follows.
    pub fn record_layout(
        &self,
        command: vk::CommandBuffer,
        image: &Image,
        (old, new): (vk::ImageLayout, vk::ImageLayout),
    ) {
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        let any = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let barrier = vk::ImageMemoryBarrier::default()
            .src_access_mask(any)
            .dst_access_mask(any)
            .old_layout(old)
            .new_layout(new)
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .image(image.handle())
            .subresource_range(image.full_range());
        // SAFETY: the command buffer is being recorded, outside a render pass, and the image lives
        // until the callers have waited.
        unsafe {
            let none = vk::DependencyFlags::empty();
            self.device().cmd_pipeline_barrier(command, all, all, none, &[], &[], &[barrier]);
        }
    }

    /// Fills every part of `image`, of one sample, by `seed`, and waits. It is in layout `old` and is
    /// left in `new`.
    ///
    /// # Errors
    /// Where the driver refuses.
    pub fn fill_image(
        &self,
        image: &Image,
        seed: u32,
        (old, new): (vk::ImageLayout, vk::ImageLayout),
    ) -> Result<()> {
        let staging = ImageStaging::new(self, image.desc())?;
        staging.fill(seed)?;
        self.run(|command| {
            self.record_layout(command, image, (old, vk::ImageLayout::TRANSFER_DST_OPTIMAL));
            staging.record_upload(self, command, image.handle());
            self.record_layout(command, image, (vk::ImageLayout::TRANSFER_DST_OPTIMAL, new));
            // For who maps a linear image.
            record_host_barrier(self.device(), command);
            Ok(())
        })
    }

    /// Checks that every part of `image`, of one sample, holds what `seed` fills it with. It is in
    /// `layout`, and is left in it.
    ///
    /// # Errors
    /// With the first texel that differs, and where the driver refuses.
    pub fn check_image(&self, image: &Image, seed: u32, layout: vk::ImageLayout) -> Result<()> {
        let staging = ImageStaging::new(self, image.desc())?;
        staging.wipe()?;
        self.run(|command| {
            self.record_layout(command, image, (layout, vk::ImageLayout::TRANSFER_SRC_OPTIMAL));
            staging.record_download(self, command, image.handle());
            self.record_layout(command, image, (vk::ImageLayout::TRANSFER_SRC_OPTIMAL, layout));
            Ok(())
        })?;
        staging.check(seed).with_context(|| format!("{:?}", image.desc()))
    }
}
