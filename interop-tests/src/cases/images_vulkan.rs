//! Group D's images between two Vulkan devices: every format × tiling × shape, byte for byte.

use anyhow::{Context, Result};
use gpu_interop::ash::vk::ImageLayout;
use gpu_interop::format::{Aspects, Format};
use gpu_interop::handoff::{self, Acquirer, HandoffOptions, Releaser, Ticket};
use gpu_interop::resource::Tiling;
use gpu_interop::vulkan::{Endpoint, Image, ImageAccess, ImageOptions};
use gpu_interop::{Api, ImageDesc, ImageUsage};

use super::aliasing::Place;
use crate::rig::image::{SIZES, Shape};
use crate::rig::vulkan::{ImageStaging, VulkanRig};
use crate::suite::{Case, Machine, Need};

pub(super) const USAGE: ImageUsage =
    ImageUsage::TRANSFER_SRC.union(ImageUsage::TRANSFER_DST).union(ImageUsage::SAMPLED);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for shape in Shape::ALL.into_iter().filter(|shape| *shape != Shape::Multisample) {
                cases.push(matrix(format, tiling, shape));
            }
        }
    }
    for place in Place::ALL {
        let name = format!("vulkan→vulkan/opaque_fd/image/{}/38a", place.name());
        let run = move |machine: &Machine| {
            let (format, tiling) = (Format::Rgba16Float, Tiling::Optimal);
            let desc = Shape::MipChain.desc(format, tiling, SIZES[0], USAGE);
            there_and_back(machine.vulkan(), place.rig(machine)?, &desc, ImageOptions::default())
        };
        cases.push(Case::new(name, run));
    }
    cases
}

/// One format × tiling × shape, at both sizes.
fn matrix(format: Format, tiling: Tiling, shape: Shape) -> Case {
    let row = match shape {
        Shape::D2 if format.aspects() == Aspects::COLOR => 36,
        Shape::D2 => 37,
        _ => 38,
    };
    let (texels, tiled) = (format.name().to_lowercase(), format!("{tiling:?}").to_lowercase());
    let name = format!("vulkan→vulkan/opaque_fd/image/{texels}/{tiled}/{}/{row}", shape.name());
    let descs = SIZES.map(|size| shape.desc(format, tiling, size, USAGE));
    let run = move |machine: &Machine| {
        for desc in &descs {
            let (first, second) = (machine.vulkan(), machine.second_device()?);
            there_and_back(first, second, desc, ImageOptions::default())
                .with_context(|| format!("{:?}", desc.extent))?;
        }
        Ok(())
    };
    Case::new(name, run).needs(&descs.map(|desc| Need::Image(Api::Vulkan, desc)))
}

/// Written by one device, read and written by the other, read by the first, every texel of every part;
/// with a handoff each way.
pub(super) fn there_and_back(
    from: &VulkanRig,
    to: &VulkanRig,
    desc: &ImageDesc,
    options: ImageOptions,
) -> Result<()> {
    let ours = from.endpoint.create_image(desc, options)?;
    let theirs = to.endpoint.import_image(ours.export()?)?;
    pass((from, &ours), (to, &theirs))
}

/// An image as one device has it.
pub(super) type View<'a> = (&'a VulkanRig, &'a Image);

/// Hands two views of one image, whose content doesn't matter, there and back.
pub(super) fn pass(first: View<'_>, second: View<'_>) -> Result<()> {
    let (one, other) = (&first.0.endpoint, &second.0.endpoint);
    let mut there = handoff::open(one, one, other, HandoffOptions::default())?;
    let mut back = handoff::open(one, other, one, HandoffOptions::default())?;
    let ticket = write(first, 1, ImageLayout::UNDEFINED, &mut there.release)?;
    read(second, 1, &mut there.acquire, ticket).context("the importer reads")?;
    let ticket = write(second, 2, ImageLayout::TRANSFER_SRC_OPTIMAL, &mut back.release)?;
    read(first, 2, &mut back.acquire, ticket).context("the exporter reads")
}

/// How the writer leaves an image and the reader finds it.
fn copied(image: &Image) -> ImageAccess<'_> {
    let layouts = (ImageLayout::TRANSFER_DST_OPTIMAL, ImageLayout::TRANSFER_SRC_OPTIMAL);
    ImageAccess::transfer(image, layouts.0, layouts.1)
}

/// Fills the image, which is in layout `old`, and releases it.
pub(super) fn write(
    (rig, image): View<'_>,
    seed: u32,
    old: ImageLayout,
    to: &mut Releaser<Endpoint>,
) -> Result<Ticket> {
    let staging = ImageStaging::new(rig, image.desc())?;
    staging.fill(seed)?;
    rig.run_with(|command, part| {
        rig.record_layout(command, image, (old, ImageLayout::TRANSFER_DST_OPTIMAL));
        staging.record_upload(rig, command, image.handle());
        let family = rig.vulkan.queue_family();
        // SAFETY: the command buffer is being recorded for a queue of that family, which owns the
        // image, and the image is in the layout it was copied to; `run_with` waits.
        let (ticket, added) = unsafe { to.release(command, family, &[copied(image)]) }?;
        part.merge(added)?;
        Ok(ticket)
    })
}

/// Acquires the image and checks every part of it. It stays in `TRANSFER_SRC_OPTIMAL`.
pub(super) fn read(
    (rig, image): View<'_>,
    seed: u32,
    from: &mut Acquirer<Endpoint>,
    ticket: Ticket,
) -> Result<()> {
    let staging = ImageStaging::new(rig, image.desc())?;
    staging.wipe()?;
    rig.run_with(|command, part| {
        let family = rig.vulkan.queue_family();
        // SAFETY: as above; the other side has released the image with the same layouts.
        part.merge(unsafe { from.acquire(ticket, command, family, &[copied(image)]) }?)?;
        staging.record_download(rig, command, image.handle());
        Ok(())
    })?;
    staging.check(seed)
}
