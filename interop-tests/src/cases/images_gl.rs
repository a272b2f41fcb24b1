//! Groups D and E with images: every format × tiling × shape, byte for byte, from Vulkan to OpenGL and
//! back.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::format::{Aspects, Format};
use gpu_interop::gl::{self, Layout, Texture};
use gpu_interop::handoff::{self, Handoff, HandoffOptions};
use gpu_interop::resource::Tiling;
use gpu_interop::vulkan::{self, Image, ImageAccess, ImageOptions};
use gpu_interop::{Api, ImageDesc, ImageUsage};

use crate::rig::gl::{GlRig, storable};
use crate::rig::image::{SIZES, Shape};
use crate::rig::vulkan::{ImageStaging, VulkanRig};
use crate::suite::{Case, Machine, Need};

/// What every image of these cases is for.
pub(super) const USAGE: ImageUsage =
    ImageUsage::TRANSFER_SRC.union(ImageUsage::TRANSFER_DST).union(ImageUsage::SAMPLED);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for shape in Shape::ALL {
                cases.extend(matrix(format, tiling, shape));
            }
        }
    }
    cases
}

/// One format × tiling × shape at both sizes, there and back.
fn matrix(format: Format, tiling: Tiling, shape: Shape) -> Vec<Case> {
    let color = format.aspects().contains(Aspects::COLOR);
    let samples = shape == Shape::Multisample;
    // Samples are never linear; and nothing can put stencil into them that reads it back.
    let stencil = format.aspects().contains(Aspects::STENCIL);
    if samples && (tiling == Tiling::Linear || stencil) {
        return Vec::new();
    }
    let row = match shape {
        Shape::D2 if color => 36,
        Shape::D2 => 37,
        _ => 38,
    };
    let (texels, tiled) = (format.name().to_lowercase(), format!("{tiling:?}").to_lowercase());
    let of = format!("opaque_fd/image/{texels}/{tiled}/{}", shape.name());
    let descs = SIZES.map(|size| shape.desc(format, tiling, size, usage(format, samples)));
    let case = |name: String, run: fn(&Machine, &ImageDesc) -> Result<()>| {
        let run = move |machine: &Machine| {
            descs.iter().try_for_each(|desc| {
                let desc = &richest(machine, desc)?;
                run(machine, desc).with_context(|| format!("{:?}", desc.extent))
            })
        };
        Case::new(name, run).needs(&descs.map(|desc| Need::Image(Api::OpenGl, desc)))
    };
    let mut cases = vec![case(format!("vulkan→gl/{of}/{row}"), vulkan_to_gl)];
    if !samples || color {
        cases.push(case(format!("gl→vulkan/{of}/{row}"), gl_to_vulkan));
    }
    cases
}

/// The least that the cases need an image for.
fn usage(format: Format, samples: bool) -> ImageUsage {
    match (format.aspects().contains(Aspects::COLOR), samples) {
        (true, false) => USAGE,
        (true, true) => USAGE | ImageUsage::COLOR_ATTACHMENT,
        (false, _) => USAGE | ImageUsage::DEPTH_STENCIL_ATTACHMENT,
    }
}

/// `desc` with every other usage that Vulkan shares such images for, and open to views of other formats:
/// as `GL_EXT_memory_object` wants it (issues 13 and 17).
pub(super) fn richest(machine: &Machine, desc: &ImageDesc) -> Result<ImageDesc> {
    let mut richest = ImageDesc { mutable_format: true, ..*desc };
    if desc.format.aspects().contains(Aspects::COLOR) {
        for more in [ImageUsage::COLOR_ATTACHMENT, ImageUsage::STORAGE] {
            let asked = ImageDesc { usage: richest.usage | more, ..richest };
            if Need::Image(Api::OpenGl, asked).is_there(machine)? {
                richest = asked;
            }
        }
    }
    Ok(richest)
}

/// An image of Vulkan's, OpenGL's texture of it, and a handoff each way.
pub(super) struct Pair<'a> {
    pub(super) vulkan: &'a VulkanRig,
    pub(super) gl: &'a GlRig,
    pub(super) texture: Texture,
    pub(super) image: Image,
    to_gl: Handoff<vulkan::Endpoint, gl::Endpoint>,
    to_vulkan: Handoff<gl::Endpoint, vulkan::Endpoint>,
}

impl<'a> Pair<'a> {
    /// A new image, imported.
    pub(super) fn new(machine: &'a Machine, desc: &ImageDesc) -> Result<Self> {
        let image =
            machine.vulkan().endpoint.create_image(desc, ImageOptions::default())?;
        let texture = machine.gl()?.endpoint.import_image(image.export()?)?;
        Self::of(machine, image, texture, HandoffOptions::default())
    }

    /// Two views of one image.
    pub(super) fn of(
        machine: &'a Machine,
        image: Image,
        texture: Texture,
        options: HandoffOptions,
    ) -> Result<Self> {
        let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
        let to_gl = handoff::open(&vulkan.endpoint, &vulkan.endpoint, &gl.endpoint, options)?;
        let to_vulkan = handoff::open(&vulkan.endpoint, &gl.endpoint, &vulkan.endpoint, options)?;
        Ok(Self { vulkan, gl, texture, image, to_gl, to_vulkan })
    }

    /// Vulkan, which has the image, fills it by `seed` and hands it to OpenGL in `layout`.
    pub(super) fn vulkan_fills(&mut self, seed: u32, layout: Layout) -> Result<()> {
        let staging = ImageStaging::new(self.vulkan, &self.image)?;
        staging.fill(seed)?;
        let (undefined, upload) = (vk::ImageLayout::UNDEFINED, staging.upload_layout());
        let used = staging.uploaded(&self.image, vulkan_layout(layout));
        let ticket = self.vulkan.run_with(|command, part| {
            self.vulkan.record_layout(command, &self.image, (undefined, upload));
            staging.record_upload(self.vulkan, command, &self.image);
            let family = self.vulkan.vulkan.queue_family();
            // SAFETY: the command buffer is being recorded for a queue of that family, which owns the
            // image, and the image is in the layout of the upload; `run_with` waits.
            let (ticket, added) =
                unsafe { self.to_gl.release.release(command, family, &[used]) }?;
            part.merge(added)?;
            Ok(ticket)
        })?;
        Ok(self.to_gl.acquire.acquire(ticket, &[], &[self.texture.in_layout(layout)])?)
    }

    /// Vulkan, which has the image in layout `old`, hands it to OpenGL as it is, in `layout`.
    pub(super) fn vulkan_passes(&mut self, old: vk::ImageLayout, layout: Layout) -> Result<()> {
        let used = ImageAccess::transfer(&self.image, old, vulkan_layout(layout));
        let ticket = self.vulkan.run_with(|command, part| {
            let family = self.vulkan.vulkan.queue_family();
            // SAFETY: as above.
            let (ticket, added) =
                unsafe { self.to_gl.release.release(command, family, &[used]) }?;
            part.merge(added)?;
            Ok(ticket)
        })?;
        Ok(self.to_gl.acquire.acquire(ticket, &[], &[self.texture.in_layout(layout)])?)
    }

    /// OpenGL, which has the image, hands it to Vulkan in `layout`, where it must hold what `seed` fills
    /// it with. It is then in the layout that is returned.
    pub(super) fn vulkan_checks(&mut self, seed: u32, layout: Layout) -> Result<vk::ImageLayout> {
        let ticket = self.to_vulkan.release.release(&[], &[self.texture.in_layout(layout)])?;
        let staging = ImageStaging::new(self.vulkan, &self.image)?;
        staging.wipe()?;
        let used = staging.downloadable(&self.image, vulkan_layout(layout));
        self.vulkan.run_with(|command, part| {
            let family = self.vulkan.vulkan.queue_family();
            // SAFETY: as above; OpenGL has released the image in this layout.
            let added =
                unsafe { self.to_vulkan.acquire.acquire(ticket, command, family, &[used]) }?;
            part.merge(added)?;
            staging.record_download(self.vulkan, command, &self.image);
            Ok(())
        })?;
        staging.check(seed).context("Vulkan reads")?;
        Ok(staging.download_layout())
    }

    /// OpenGL reads and samples what `seed` fills the image with.
    pub(super) fn gl_checks(&self, seed: u32) -> Result<()> {
        if self.image.desc().samples == 1 {
            self.gl.check_texture(&self.texture, seed).context("OpenGL reads")?;
        }
        self.gl.sample_texture(&self.texture, seed).context("OpenGL samples")
    }
}

/// The layout of Vulkan's that OpenGL calls `layout`.
pub(super) fn vulkan_layout(layout: Layout) -> vk::ImageLayout {
    vk::ImageLayout::from_raw(layout.vulkan())
}

/// Vulkan fills every part; OpenGL reads each by `glGetTexImage` and samples each in a shader.
fn vulkan_to_gl(machine: &Machine, desc: &ImageDesc) -> Result<()> {
    let mut pair = Pair::new(machine, desc)?;
    pair.vulkan_fills(1, Layout::General)?;
    pair.gl_checks(1)
}

/// OpenGL uploads, draws and stores every part; Vulkan reads each back.
fn gl_to_vulkan(machine: &Machine, desc: &ImageDesc) -> Result<()> {
    let mut pair = Pair::new(machine, desc)?;
    let single = desc.samples == 1;
    let color = desc.format.aspects().contains(Aspects::COLOR);
    pair.vulkan_passes(vk::ImageLayout::UNDEFINED, Layout::General)?;
    let mut next = None;
    if single {
        pair.gl.upload_texture(&pair.texture, 2)?;
        next = Some(pair.vulkan_checks(2, Layout::General).context("uploaded")?);
    }
    if color {
        if let Some(layout) = next {
            pair.vulkan_passes(layout, Layout::General)?;
        }
        pair.gl.draw_texture(&pair.texture, 3)?;
        next = Some(pair.vulkan_checks(3, Layout::General).context("drawn")?);
    }
    if single && storable(desc.format) {
        if let Some(layout) = next {
            pair.vulkan_passes(layout, Layout::General)?;
        }
        pair.gl.store_texture(&pair.texture, 4)?;
        pair.vulkan_checks(4, Layout::General).context("stored")?;
    }
    Ok(())
}
