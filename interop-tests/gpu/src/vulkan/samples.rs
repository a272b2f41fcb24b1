//! Fills and reads every sample of a multisample image by shaders, as it can't be copied.

use anyhow::{Result, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::ash::vk;
use gpu_interop::vulkan::Image;

use super::VulkanContext;
use super::private::PrivateBuffer;
use super::samples_objects::SampleObjects;
use crate::image::{Part, parts, texel_bytes};
use crate::texel::{Class, class, decode, encode, is_near};

/// A sample in the buffer: four floats or four integers.
const SAMPLE_BYTES: usize = 16;

/// A host-visible buffer with every sample of an image as shaders see it, and the shaders.
#[derive(Debug)]
pub(super) struct Samples {
    desc: ImageDesc,
    part: Part,
    bytes: usize,
    // The objects, whose descriptors refer to the buffer, are dropped first.
    objects: SampleObjects,
    buffer: PrivateBuffer,
}

impl Samples {
    pub(super) fn new(gpu: &VulkanContext, image: &Image) -> Result<Self> {
        let desc = *image.desc();
        let parts = parts(&desc);
        ensure!(parts.len() == 1, "{} has stencil, which shaders don't write", desc.format.name());
        let part = parts[0];
        let bytes = part.texels(&desc) as usize * SAMPLE_BYTES;
        let buffer = PrivateBuffer::host(&gpu.vulkan, bytes as u64)?;
        let objects = SampleObjects::new(&gpu.vulkan, image, buffer.buffer)?;
        Ok(Self { desc, part, bytes, objects, buffer })
    }

    fn texel_bytes(&self) -> usize {
        texel_bytes(self.desc.format, self.part.aspect) as usize
    }

    pub(super) fn fill(&self, seed: u32) -> Result<()> {
        let filled = self.part.filled(&self.desc, seed);
        self.buffer.with_bytes(self.bytes, |all| {
            let texels = filled.chunks_exact(self.texel_bytes());
            for (texel, sample) in texels.zip(all.chunks_exact_mut(SAMPLE_BYTES)) {
                sample.copy_from_slice(bytemuck::bytes_of(&decode(self.desc.format, texel)));
            }
        })
    }

    pub(super) fn wipe(&self) -> Result<()> {
        self.buffer.with_bytes(self.bytes, |all| all.fill(0xA5))
    }

    pub(super) fn check(&self, seed: u32) -> Result<()> {
        let mut found = Vec::with_capacity(self.part.bytes(&self.desc));
        let filled = self.part.filled(&self.desc, seed);
        self.buffer.with_bytes(self.bytes, |all| {
            let texels = filled.chunks_exact(self.texel_bytes());
            for (filled, sample) in texels.zip(all.chunks_exact(SAMPLE_BYTES)) {
                let texel = encode(self.desc.format, bytemuck::pod_read_unaligned(sample));
                let texel = &texel[..self.texel_bytes()];
                let near = is_near(self.desc.format, self.part.aspect, texel, filled);
                found.extend_from_slice(if near { filled } else { texel });
            }
        })?;
        self.part.compare(&self.desc, &filled, &found)
    }

    pub(super) fn attachment_layout(&self) -> vk::ImageLayout {
        match class(self.desc.format) {
            Class::Depth => vk::ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL,
            _ => vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL,
        }
    }

    /// Draws the samples, one sample of every texel at a time.
    pub(super) fn record_upload(&self, gpu: &VulkanContext, command: vk::CommandBuffer) {
        let (device, made) = (gpu.device(), &self.objects);
        let area = made.area();
        let extent = area.extent;
        let viewport = vk::Viewport {
            x: 0.0,
            y: 0.0,
            width: extent.width as f32,
            height: extent.height as f32,
            min_depth: 0.0,
            max_depth: 1.0,
        };
        let begin = vk::RenderPassBeginInfo::default()
            .render_pass(made.render_pass)
            .framebuffer(made.framebuffer)
            .render_area(area);
        let graphics = vk::PipelineBindPoint::GRAPHICS;
        // SAFETY: the command buffer is being recorded, outside a render pass, and everything bound
        // lives as long as this staging, which the callers keep until they have waited.
        unsafe {
            device.cmd_begin_render_pass(command, &begin, vk::SubpassContents::INLINE);
            device.cmd_set_viewport(command, 0, &[viewport]);
            device.cmd_set_scissor(command, 0, &[area]);
            let (layout, set) = (made.layout.handle(), made.set);
            device.cmd_bind_descriptor_sets(command, graphics, layout, 0, &[set], &[]);
            for (sample, pipeline) in (0u32..).zip(&made.write) {
                device.cmd_bind_pipeline(command, graphics, *pipeline);
                made.push(command, &[extent.width, self.desc.samples, sample]);
                device.cmd_draw(command, 3, 1, 0, 0);
            }
            device.cmd_end_render_pass(command);
        }
    }

    /// Fetches the samples.
    pub(super) fn record_download(&self, command: vk::CommandBuffer) {
        let (made, extent) = (&self.objects, self.objects.area().extent);
        let parameters = [extent.width, self.desc.samples, 0];
        let groups = (extent.width.div_ceil(8), extent.height.div_ceil(8));
        let constants = bytemuck::bytes_of(&parameters);
        made.layout.dispatch(command, made.read, made.set, constants, groups);
    }
}
