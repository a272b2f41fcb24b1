//! Family M: images between two Vulkan devices. Every format × tiling × shape, byte for byte.

pub(crate) mod adopted;
pub(crate) mod layouts;
pub(crate) mod memory;
pub(crate) mod refused;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::desc::{ImageFlags, ImageLayout, Tiling};
use gpu_interop::format::{Aspects, Format};
use gpu_interop::handoff::{self, Acquirer, HandoffOptions, Releaser, Ticket, VulkanCommands};
use gpu_interop::vulkan::{Accesses, Endpoint, Image, ImageOptions};
use gpu_interop::{Api, ImageDesc, ImageUsage};

use crate::cases::support::importers::Place;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::vulkan::{ImageIo, VulkanContext};

/// Layouts that a colour image can be handed over in.
pub(crate) const COLOR_LAYOUTS: [ImageLayout; 5] = [
    ImageLayout::GENERAL,
    ImageLayout::COLOR_ATTACHMENT_OPTIMAL,
    ImageLayout::SHADER_READ_ONLY_OPTIMAL,
    ImageLayout::TRANSFER_SRC_OPTIMAL,
    ImageLayout::TRANSFER_DST_OPTIMAL,
];

/// The usage of most images of the suite.
pub(crate) const USAGE: ImageUsage =
    ImageUsage::TRANSFER_SRC.union(ImageUsage::TRANSFER_DST).union(ImageUsage::SAMPLED);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for shape in Shape::ALL.into_iter().filter(|shape| shape.has(format, tiling)) {
                cases.push(matrix(format, tiling, shape));
            }
        }
    }
    for place in Place::ALL {
        let name = format!("vulkan→vulkan/opaque_fd/image/{}/38a", place.name());
        let run = move |test_gpu: &TestGpu| {
            let (format, tiling) = (Format::Rgba16Float, Tiling::Optimal);
            let desc = Shape::MipChain.desc(format, tiling, SIZES[0], USAGE);
            there_and_back(test_gpu.vulkan(), place.gpu(test_gpu)?, &desc, ImageOptions::default())
        };
        cases.push(Case::new(name, run));
    }
    cases
}

/// The images of the matrix. Multisample ones are drawn to; if they are sRGB, through a view that is not.
pub(crate) fn desc_of(format: Format, tiling: Tiling, shape: Shape, size: (u32, u32)) -> ImageDesc {
    let mut desc = shape.desc(format, tiling, size, USAGE);
    if shape == Shape::Multisample {
        let color = format.aspects() == Aspects::COLOR;
        let drawn =
            if color { ImageUsage::COLOR_ATTACHMENT } else { ImageUsage::DEPTH_STENCIL_ATTACHMENT };
        desc.usage = ImageUsage::SAMPLED | drawn;
        if matches!(format, Format::Rgba8Srgb | Format::Bgra8Srgb) {
            desc.flags = ImageFlags::MUTABLE_FORMAT;
        }
    }
    desc
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
    let descs = SIZES.map(|size| desc_of(format, tiling, shape, size));
    let run = move |test_gpu: &TestGpu| {
        for desc in &descs {
            let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
            there_and_back(first, second, desc, ImageOptions::default())
                .with_context(|| format!("{:?}", desc.extent))?;
        }
        Ok(())
    };
    Case::new(name, run).needs(&descs.map(|desc| Need::Image(Api::Vulkan, desc)))
}

/// One device writes, the other reads and writes, the first reads: every texel of every part, with a handoff
/// each way.
pub(crate) fn there_and_back(
    from: &VulkanContext,
    to: &VulkanContext,
    desc: &ImageDesc,
    options: ImageOptions,
) -> Result<()> {
    let ours = from.endpoint.create_image(desc, options)?;
    let theirs = to.endpoint.import_image(ours.export()?)?;
    pass((from, &ours), (to, &theirs))
}

/// An image of one device.
pub(crate) type View<'a> = (&'a VulkanContext, &'a Image);

/// Passes an image, whatever its content, from one device to the other and back.
pub(crate) fn pass(first: View<'_>, second: View<'_>) -> Result<()> {
    let (one, other) = (&first.0.endpoint, &second.0.endpoint);
    let mut there = handoff::open(one, one, other, HandoffOptions::default())?;
    let mut back = handoff::open(one, other, one, HandoffOptions::default())?;
    let ticket = write(first, 1, &mut there.release)?;
    read(second, 1, &mut there.acquire, ticket).context("the importer reads")?;
    let ticket = write(second, 2, &mut back.release)?;
    read(first, 2, &mut back.acquire, ticket).context("the exporter reads")
}

/// Fills the image, whatever its content, and releases it for [`read`].
pub(crate) fn write(
    (gpu, image): View<'_>,
    seed: u32,
    to: &mut Releaser<Endpoint>,
) -> Result<Ticket> {
    let io = ImageIo::new(gpu, image)?;
    io.fill(seed)?;
    let used = [io.uploaded(image, io.download_layout())];
    release(gpu, to, &used, |command| {
        gpu.record_layout(command, image, (vk::ImageLayout::UNDEFINED, io.upload_layout()));
        io.record_upload(gpu, command, image);
    })
}

/// Acquires the image from [`write`], and checks every part of it.
pub(crate) fn read(
    (gpu, image): View<'_>,
    seed: u32,
    from: &mut Acquirer<Endpoint>,
    ticket: Ticket,
) -> Result<()> {
    let io = ImageIo::new(gpu, image)?;
    io.wipe()?;
    let used = [io.downloadable(image, io.upload_layout())];
    acquire(gpu, from, ticket, &used, |command| io.record_download(gpu, command, image))?;
    io.check(seed)
}

/// Records `before` and the release of `used`, submits both, and waits.
pub(crate) fn release<'u>(
    gpu: &VulkanContext,
    to: &mut Releaser<Endpoint>,
    used: impl Into<Accesses<'u>>,
    before: impl FnOnce(vk::CommandBuffer),
) -> Result<Ticket> {
    let family = gpu.vulkan.queue_family();
    gpu.run_with(|command, sync| {
        before(command);
        // SAFETY: the command buffer is being recorded for a queue of that family, which owns what is used;
        // images are in the layouts that the callers name; `run_with` waits.
        let commands = unsafe { VulkanCommands::record(command, family, used) };
        let (ticket, added) = to.release(commands)?;
        sync.merge(added);
        Ok(ticket)
    })
}

/// Records the acquire of `used` and `after`, submits both, and waits.
pub(crate) fn acquire<'u>(
    gpu: &VulkanContext,
    from: &mut Acquirer<Endpoint>,
    ticket: Ticket,
    used: impl Into<Accesses<'u>>,
    after: impl FnOnce(vk::CommandBuffer),
) -> Result<()> {
    let family = gpu.vulkan.queue_family();
    gpu.run_with(|command, sync| {
        // SAFETY: as above; the handoff refuses other layouts than those of the release.
        let commands = unsafe { VulkanCommands::record(command, family, used) };
        sync.merge(from.acquire(ticket, commands)?);
        after(command);
        Ok(())
    })
}
