//! The picture that is shared: one image of Vulkan's, OpenGL's texture of it, a handoff each way.

use anyhow::{Result, ensure};
use demo_common::{handoff_name, rejected_methods};
use gpu_interop::ash::vk;
use gpu_interop::desc::ImageLayout;
use gpu_interop::desc::full_mip_chain;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::gl::{self, Texture};
use gpu_interop::handoff::{self, Handoff, HandoffOptions};
use gpu_interop::vulkan::{self, Image, ImageOptions};
use gpu_interop::{ImageDesc, ImageUsage};

use crate::gl::GlSide;
use crate::vulkan::VulkanRunner;

/// Of everything that is drawn to: linear light in the shaders is encoded for screens by whoever draws,
/// and decoded by whoever samples.
pub(crate) const FORMAT: Format = Format::Rgba8Srgb;

/// An image and the texture of the same memory.
pub(crate) struct Shared {
    // Before the image: OpenGL's side goes first.
    pub(crate) texture: Texture,
    pub(crate) image: Image,
}

impl Shared {
    /// A picture of `size` that Vulkan makes and OpenGL imports, with all its smaller levels or with the
    /// first alone.
    pub(crate) fn new(
        vulkan: &VulkanRunner,
        gl: &GlSide,
        size: (u32, u32),
        chain: bool,
    ) -> Result<Self> {
        let usage = ImageUsage::TRANSFER_SRC
            | ImageUsage::TRANSFER_DST
            | ImageUsage::SAMPLED
            | ImageUsage::COLOR_ATTACHMENT;
        let mut desc = ImageDesc::d2(FORMAT, size.0, size.1, usage);
        if chain {
            desc.levels = full_mip_chain(desc.extent);
        }
        // OpenGL takes a texture to be good for everything: views, and stores from shaders where the
        // format has them.
        desc.mutable_format = true;
        let endpoint = &vulkan.gpu.endpoint;
        let storing = ImageDesc { usage: desc.usage | ImageUsage::STORAGE, ..desc };
        let told = endpoint.capabilities(&storing.into())?;
        if told.memory(MemoryHandleType::OpaqueFd)?.export.is_ok() {
            desc = storing;
        }
        let image = endpoint.create_image(&desc, ImageOptions::default())?;
        let texture = gl.endpoint.import_image(image.export()?)?;
        Ok(Self { texture, image })
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        let extent = self.image.desc().extent;
        (extent.width, extent.height)
    }

    pub(crate) fn levels(&self) -> u32 {
        self.image.desc().levels
    }
}

/// The handoffs, there and back.
pub(crate) struct Lanes {
    pub(crate) to_gl: Handoff<vulkan::Endpoint, gl::Endpoint>,
    pub(crate) to_vulkan: Handoff<gl::Endpoint, vulkan::Endpoint>,
}

impl Lanes {
    pub(crate) fn open(vulkan: &VulkanRunner, gl: &GlSide) -> Result<Self> {
        let (owner, gl) = (&vulkan.gpu.endpoint, &gl.endpoint);
        let options = HandoffOptions::default();
        let to_gl = handoff::open(owner, owner, gl, options)?;
        let to_vulkan = handoff::open(owner, gl, owner, options)?;
        Ok(Self { to_gl, to_vulkan })
    }

    /// How they are synchronised, and why not better.
    pub(crate) fn tell(&self) -> (String, Vec<String>) {
        let mut names = vec![handoff_name(&self.to_gl.plan), handoff_name(&self.to_vulkan.plan)];
        names.dedup();
        (
            names.join(" there, back by "),
            rejected_methods(&[self.to_gl.plan.clone(), self.to_vulkan.plan.clone()]),
        )
    }
}

/// The layout of Vulkan's that OpenGL calls `layout`.
pub(crate) fn vulkan_layout(layout: ImageLayout) -> vk::ImageLayout {
    layout.into()
}

/// Checks that both have read the same bytes, of texels of four.
pub(crate) fn require_same(by_vulkan: &[u8], by_gl: &[u8]) -> Result<()> {
    ensure!(by_vulkan.len() == by_gl.len(), "{} and {} bytes", by_vulkan.len(), by_gl.len());
    let differs = by_vulkan.chunks(4).zip(by_gl.chunks(4)).position(|(a, b)| a != b);
    match differs {
        None => Ok(()),
        Some(i) => anyhow::bail!(
            "texel {i} of the shared picture is {:02x?} in Vulkan and {:02x?} in OpenGL",
            &by_vulkan[4 * i..4 * i + 4],
            &by_gl[4 * i..4 * i + 4]
        ),
    }
}

/// Checks that a picture that was made by sampling another is that one. Decoding sRGB and encoding it
/// again may change a value by one.
pub(crate) fn require_alike(meant: &[u8], made: &[u8]) -> Result<()> {
    let off = meant.iter().zip(made).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(u8::MAX);
    ensure!(meant.len() == made.len() && off <= 1, "a value is off by {off}");
    Ok(())
}
