//! Copies every part of an image with one sample from and to a buffer.

use anyhow::{Result, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::ash::vk;
use gpu_interop::format::Aspects;

use super::private::PrivateBuffer;
use super::{VulkanContext, record_host_barrier};
use crate::image::{Part, level_extent, parts};

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
    /// Allocates room for all of an image of `desc`.
    ///
    /// # Errors
    /// For a multisample image, which can't be copied to a buffer, and if the driver is out of
    /// memory.
    pub fn new(gpu: &VulkanContext, desc: &ImageDesc) -> Result<Self> {
        ensure!(desc.samples == 1, "a multisample image can't be copied to a buffer");
        let mut bytes = 0;
        let mut places = Vec::new();
        for part in parts(desc) {
            places.push((part, bytes));
            bytes = (bytes + part.bytes(desc)).next_multiple_of(ALIGNMENT);
        }
        let buffer = PrivateBuffer::host(&gpu.vulkan, bytes as u64)?;
        Ok(Self { desc: *desc, buffer, places, bytes })
    }

    /// Fills the buffer with the parts' content for `seed`.
    ///
    /// # Errors
    /// If the driver fails to map.
    pub fn fill(&self, seed: u32) -> Result<()> {
        self.buffer.with_bytes(self.bytes, |all| {
            for (part, at) in &self.places {
                let bytes = part.filled(&self.desc, seed);
                all[*at..*at + bytes.len()].copy_from_slice(&bytes);
            }
        })
    }

    /// Overwrites the buffer, so that a copy that did not happen is detected.
    ///
    /// # Errors
    /// If the driver fails to map.
    pub fn wipe(&self) -> Result<()> {
        self.buffer.with_bytes(self.bytes, |all| all.fill(0xA5))
    }

    /// Checks that the buffer holds the parts' content for `seed`.
    ///
    /// # Errors
    /// With the first texel that differs.
    pub fn check(&self, seed: u32) -> Result<()> {
        self.read()?.iter().try_for_each(|(part, found)| part.check(&self.desc, seed, found))
    }

    /// Returns the content of the buffer, part by part.
    ///
    /// # Errors
    /// If the driver fails to map.
    pub fn read(&self) -> Result<Vec<(Part, Vec<u8>)>> {
        let mut found = Vec::with_capacity(self.places.len());
        self.buffer.with_bytes(self.bytes, |all| {
            for (part, at) in &self.places {
                found.push((*part, all[*at..*at + part.bytes(&self.desc)].to_vec()));
            }
        })?;
        Ok(found)
    }

    /// Records the copy of every part to `image`, which is in `TRANSFER_DST_OPTIMAL`.
    pub fn record_upload(&self, gpu: &VulkanContext, command: vk::CommandBuffer, image: vk::Image) {
        let layout = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
        // SAFETY: the command buffer is being recorded, the regions lie within the buffer and an
        // image of this description, which the callers pass.
        unsafe {
            let buffer = self.buffer.buffer;
            gpu.device().cmd_copy_buffer_to_image(command, buffer, image, layout, &self.regions());
        }
    }

    /// Records the copy of every part from `image`, which is in `TRANSFER_SRC_OPTIMAL`.
    pub fn record_download(
        &self,
        gpu: &VulkanContext,
        command: vk::CommandBuffer,
        image: vk::Image,
    ) {
        let layout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        // SAFETY: as above.
        unsafe {
            let buffer = self.buffer.buffer;
            gpu.device().cmd_copy_image_to_buffer(command, image, layout, buffer, &self.regions());
        }
        record_host_barrier(gpu.device(), command);
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
fn aspect(aspect: Aspects) -> vk::ImageAspectFlags {
    match aspect {
        Aspects::DEPTH => vk::ImageAspectFlags::DEPTH,
        Aspects::STENCIL => vk::ImageAspectFlags::STENCIL,
        _ => vk::ImageAspectFlags::COLOR,
    }
}
