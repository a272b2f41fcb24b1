//! The light: a scene that Vulkan draws, or a picture from a file.

use crate::compute::ComputePass;
use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Image, ImageAccess};
use interop_gpu::post_process::{Light, transfer};
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};
use scene::vulkan::{FRAGMENT_SCENE, ImageView, Painter};
use scene::{self, Canvas, Tone};

const NOISE: &[u8] = include_bytes!("../../../shaders/noise.comp.spv");

/// Time from one frame to the next, in seconds.
const FRAME_TIME: f32 = 1.0 / 30.0;
/// Start of the animation, in seconds: the time of a single frame.
const START: f32 = 5.2;

/// Fills one image with light, frame by frame.
#[derive(Debug)]
pub(crate) struct Source {
    kind: Kind,
    noise: Option<Noise>,
    // Dropped after its users.
    _view: ImageView,
    size: (u32, u32),
}

#[derive(Debug)]
enum Kind {
    Scene(Box<Painter>),
    Picture(PrivateBuffer),
}

#[derive(Debug)]
struct Noise {
    pass: ComputePass,
    strength: f32,
}

impl Source {
    /// Prepares to fill `image`, which must outlive this, with `picture` or with the scene, and with noise.
    pub(crate) fn new(
        gpu: &VulkanContext,
        image: &Image,
        picture: Option<&Light>,
        noise: f32,
    ) -> Result<Self> {
        let extent = image.desc().extent;
        let size = (extent.width, extent.height);
        let (vulkan, format) = (&gpu.vulkan, image.format());
        // SAFETY: the image is of this device and format, and outlives this, as the caller promises.
        let view = unsafe { ImageView::new(vulkan, image.handle(), format, 1) }?;
        let kind = match picture {
            Some(picture) => Kind::Picture(on_the_device(gpu, &picture.to_halves())?),
            None => {
                let canvas = Canvas::scene(size);
                let painter = Painter::new(vulkan, FRAGMENT_SCENE, format, canvas, view.handle)?;
                Kind::Scene(Box::new(painter))
            }
        };
        let noise = if noise > 0.0 {
            let stored = vk::DescriptorType::STORAGE_IMAGE;
            let light = (stored, view.handle, vk::ImageLayout::GENERAL);
            Some(Noise { pass: ComputePass::new(vulkan, NOISE, &[light], 8)?, strength: noise })
        } else {
            None
        };
        Ok(Self { kind, noise, _view: view, size })
    }

    /// The layout that the image must be in before [`record`](Self::record).
    pub(crate) fn first_layout(&self) -> vk::ImageLayout {
        match self.kind {
            Kind::Scene(_) => vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL,
            Kind::Picture(_) => vk::ImageLayout::TRANSFER_DST_OPTIMAL,
        }
    }

    /// The layout that the image is in after it.
    pub(crate) fn last_layout(&self) -> vk::ImageLayout {
        if self.noise.is_some() { vk::ImageLayout::GENERAL } else { self.first_layout() }
    }

    /// The access that the image is acquired for, from the general layout.
    pub(crate) fn found<'a>(&self, image: &'a Image) -> ImageAccess<'a> {
        any_access(image, vk::ImageLayout::GENERAL, self.first_layout())
    }

    /// The access that the image is released from, to the general layout.
    pub(crate) fn left<'a>(&self, image: &'a Image) -> ImageAccess<'a> {
        any_access(image, self.last_layout(), vk::ImageLayout::GENERAL)
    }

    /// Records the drawing of frame `index`.
    pub(crate) fn record(
        &self,
        gpu: &VulkanContext,
        command: vk::CommandBuffer,
        image: &Image,
        index: u32,
    ) -> Result<()> {
        match &self.kind {
            Kind::Scene(painter) => {
                let time = START + index as f32 * FRAME_TIME;
                let aspect = self.size.0 as f32 / self.size.1 as f32;
                painter.record(command, &scene::knot(time, aspect, Tone::Radiance))?;
            }
            Kind::Picture(picture) => {
                let (layout, region) = (self.first_layout(), [transfer::region(image, 0)]);
                // SAFETY: the command buffer is being recorded, the buffer has all of the image, which
                // is in this layout.
                unsafe {
                    let (device, to) = (gpu.device(), image.handle());
                    device.cmd_copy_buffer_to_image(command, picture.buffer, to, layout, &region);
                }
            }
        }
        if let Some(noise) = &self.noise {
            gpu.record_layout(command, image, (self.first_layout(), vk::ImageLayout::GENERAL));
            let constants = [noise.strength.to_bits(), index];
            noise.pass.record(command, bytemuck::bytes_of(&constants), self.size);
        }
        Ok(())
    }
}

/// An access of any kind to all of an image.
pub(crate) fn any_access(
    image: &Image,
    old_layout: vk::ImageLayout,
    new_layout: vk::ImageLayout,
) -> ImageAccess<'_> {
    ImageAccess::any(image).with_layouts(old_layout, new_layout)
}

fn on_the_device(gpu: &VulkanContext, bytes: &[u8]) -> Result<PrivateBuffer> {
    let buffer = PrivateBuffer::device(&gpu.vulkan, bytes.len() as u64)?;
    gpu.upload(buffer.buffer, 0, bytes)?;
    Ok(buffer)
}
