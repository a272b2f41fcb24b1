//! The shared picture: a Vulkan image, OpenGL's texture of it, and a handoff in each direction.

use anyhow::{Result, ensure};
use demo_common::{handoff_name, rejected_methods};
use gpu_interop::ash::vk;
use gpu_interop::desc::{ImageFlags, ImageLayout, full_mip_chain};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::gl::{self, Texture};
use gpu_interop::handoff::{self, Handoff, HandoffOptions};
use gpu_interop::vulkan::{self, Image, ImageOptions};
use gpu_interop::{ImageDesc, ImageUsage};

use crate::gl::GlSide;
use crate::vulkan::VulkanRunner;

/// The format of everything that is drawn to: drawing encodes linear light as sRGB, and sampling decodes it.
pub(crate) const FORMAT: Format = Format::Rgba8Srgb;

/// An image and a texture of the same memory.
pub(crate) struct Shared {
    // Dropped before the image.
    pub(crate) texture: Texture,
    pub(crate) image: Image,
}

impl Shared {
    /// Creates a picture of `size` in Vulkan and imports it into OpenGL, with all mip levels or with the
    /// first only.
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
        // OpenGL can't restrict usages: a texture may be viewed in other formats, and stored to if the format
        // allows it.
        desc.flags = ImageFlags::MUTABLE_FORMAT;
        let endpoint = &vulkan.gpu.endpoint;
        let storing = ImageDesc { usage: desc.usage | ImageUsage::STORAGE, ..desc };
        let capabilities = endpoint.capabilities(&storing.into())?;
        if capabilities.memory(MemoryHandleType::OpaqueFd)?.export.is_ok() {
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

/// The handoffs in both directions.
pub(crate) struct Handoffs {
    pub(crate) to_gl: Handoff<vulkan::Endpoint, gl::Endpoint>,
    pub(crate) to_vulkan: Handoff<gl::Endpoint, vulkan::Endpoint>,
}

impl Handoffs {
    pub(crate) fn open(vulkan: &VulkanRunner, gl: &GlSide) -> Result<Self> {
        let (owner, gl) = (&vulkan.gpu.endpoint, &gl.endpoint);
        let options = HandoffOptions::default();
        let to_gl = handoff::open(owner, owner, gl, options)?;
        let to_vulkan = handoff::open(owner, gl, owner, options)?;
        Ok(Self { to_gl, to_vulkan })
    }

    /// How they are synchronised, and why better methods were rejected.
    pub(crate) fn describe(&self) -> (String, Vec<String>) {
        let mut names = vec![handoff_name(&self.to_gl.plan), handoff_name(&self.to_vulkan.plan)];
        names.dedup();
        (
            names.join(" there, back by "),
            rejected_methods(&[self.to_gl.plan.clone(), self.to_vulkan.plan.clone()]),
        )
    }
}

/// The Vulkan layout that corresponds to `layout`.
pub(crate) fn vulkan_layout(layout: ImageLayout) -> vk::ImageLayout {
    layout.into()
}

/// Checks that both have read the same bytes. Texels have four bytes.
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

/// Checks that a picture that was made by sampling another one equals it. Decoding and encoding sRGB may
/// change a value by one.
pub(crate) fn require_alike(meant: &[u8], made: &[u8]) -> Result<()> {
    let off = meant.iter().zip(made).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(u8::MAX);
    ensure!(meant.len() == made.len() && off <= 1, "a value differs by {off}");
    Ok(())
}
