//! Family F: images in CUDA. Every format × shape, every level, dedicated and not, read through texture
//! objects and written through surface objects, byte for byte.

pub(crate) mod compressed;
pub(crate) mod copies;
pub(crate) mod life;
pub(crate) mod linear;
pub(crate) mod postprocess;
pub(crate) mod reads;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::cuda::{Array, ReadMode};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::handoff::{self, HandoffOptions};
use gpu_interop::vulkan::{DedicatedAllocation, Image, ImageAccess, ImageOptions};
use gpu_interop::{Api, ImageDesc, ImageUsage};

use crate::cases::images_vulkan::{USAGE, acquire, release};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::cuda::CudaContext;
use interop_gpu::image::{Part, SIZES, Shape, parts, raw_format};
use interop_gpu::vulkan::{ImageStaging, VulkanContext};

/// CUDA has no multisample images: `life` checks that they are refused.
pub(crate) const SHAPES: [Shape; 7] =
    [Shape::D1, Shape::D1Array, Shape::D2, Shape::D2Array, Shape::Cube, Shape::D3, Shape::MipChain];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in formats() {
        for shape in SHAPES {
            let descs = SIZES.map(|size| shape.desc(format, Tiling::Optimal, size, USAGE));
            let name = name(format, Tiling::Optimal, shape.name());
            let case = Case::new(name, move |test_gpu| matrix(test_gpu, &descs));
            cases.push(case.needs(&needs(&descs)));
        }
        let drawn = USAGE | ImageUsage::COLOR_ATTACHMENT;
        let desc = Shape::D2.desc(format, Tiling::Optimal, SIZES[0], drawn);
        let name = name(format, Tiling::Optimal, "2d_colour_attachment");
        let run =
            move |test_gpu: &TestGpu| there_and_back(test_gpu, &desc, ImageOptions::default());
        cases.push(Case::new(name, run).needs(&needs(&[desc])));
    }
    cases.push(cubes());
    let desc = Shape::MipChain.desc(raw_format(), Tiling::Optimal, SIZES[0], USAGE);
    let run = move |test_gpu: &TestGpu| there_and_back(test_gpu, &desc, ImageOptions::default());
    let name = name(desc.format, Tiling::Optimal, "mip_chain");
    cases.push(Case::new(name, run).needs(&needs(&[desc])));
    cases
}

/// The formats that CUDA supports and that kernels write: `compressed` has the others.
pub(crate) fn formats() -> impl Iterator<Item = Format> {
    let is_written = |format: &Format| format.cuda().is_ok() && !format.is_compressed();
    Format::ALL.iter().copied().filter(is_written)
}

pub(crate) fn name(format: Format, tiling: Tiling, what: &str) -> String {
    let (texels, tiled) = (format.name().to_lowercase(), format!("{tiling:?}").to_lowercase());
    format!("vulkan→cuda/opaque_fd/image/{texels}/{tiled}/{what}/54")
}

/// What a case with such images requires.
pub(crate) fn needs(descs: &[ImageDesc]) -> Vec<Need> {
    let images = descs.iter().map(|&desc| Need::Image(Api::Cuda, desc));
    std::iter::once(Need::Cuda).chain(images).collect()
}

/// Both sizes: plain images and those with levels in dedicated memory and not, the others in one of each.
fn matrix(test_gpu: &TestGpu, descs: &[ImageDesc; 2]) -> Result<()> {
    let choices = [DedicatedAllocation::Always, DedicatedAllocation::Avoid];
    for (desc, only) in descs.iter().zip(choices) {
        let plain = desc.layers == 1 && desc.extent.depth == 1 && desc.extent.height > 1;
        for dedicated in choices {
            if plain || desc.levels > 1 || dedicated == only {
                let options = ImageOptions { dedicated, ..ImageOptions::default() };
                there_and_back(test_gpu, desc, options)
                    .with_context(|| format!("{:?}, {dedicated:?}", desc.extent))?;
            }
        }
    }
    Ok(())
}

/// Two cubes in one image: twelve faces.
fn cubes() -> Case {
    let format = Format::Rgba8Unorm;
    let one = Shape::Cube.desc(format, Tiling::Optimal, SIZES[0], USAGE);
    let desc = ImageDesc { layers: 12, ..one };
    let run = move |test_gpu: &TestGpu| there_and_back(test_gpu, &desc, ImageOptions::default());
    Case::new(name(format, Tiling::Optimal, "cube_array"), run).needs(&needs(&[desc]))
}

/// Vulkan writes, CUDA reads and writes, Vulkan reads: every texel of every part, with a handoff each way.
fn there_and_back(test_gpu: &TestGpu, desc: &ImageDesc, options: ImageOptions) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let image = vulkan.endpoint.create_image(desc, options)?;
    let payload = image.export()?;
    let is_dedicated = payload.memory().info().dedicated;
    ensure!(
        is_dedicated || options.dedicated != DedicatedAllocation::Always,
        "the payload is not dedicated"
    );
    let array = cuda.endpoint.import_image(payload)?;
    ensure!(array.desc() == desc && array.memory().info().dedicated == is_dedicated, "{array:?}");
    pass((vulkan, &image), (cuda, &array))
}

/// Hands the image to CUDA and back: each reads every part that the other wrote.
pub(crate) fn pass(from: (&VulkanContext, &Image), to: (&CudaContext, &Array)) -> Result<()> {
    pass_by(
        from,
        to,
        |(cuda, array), part, seed| {
            let found = cuda.fetch_part(array, part, ReadMode::AsFormat)?;
            part.check(array.desc(), seed, &found)
        },
        |(cuda, array), part, seed| cuda.store_part(array, part, seed),
    )
}

/// A context of CUDA, and an image in it.
pub(crate) type InCuda<'a> = (&'a CudaContext, &'a Array);

/// As [`pass`], with functions by which CUDA checks a part for a seed, and writes it.
pub(crate) fn pass_by(
    (vulkan, image): (&VulkanContext, &Image),
    to: InCuda<'_>,
    check: impl Fn(InCuda<'_>, &Part, u32) -> Result<()>,
    store: impl Fn(InCuda<'_>, &Part, u32) -> Result<()>,
) -> Result<()> {
    let ((cuda, _), desc) = (to, image.desc());
    let (ours, theirs) = (&vulkan.endpoint, &cuda.endpoint);
    let mut there = handoff::open(ours, ours, theirs, HandoffOptions::default())?;
    let mut back = handoff::open(ours, theirs, ours, HandoffOptions::default())?;
    let staging = ImageStaging::new(vulkan, desc)?;
    let (old, copied) = (vk::ImageLayout::UNDEFINED, vk::ImageLayout::TRANSFER_DST_OPTIMAL);
    let general = vk::ImageLayout::GENERAL;

    staging.fill(1)?;
    let used = [ImageAccess::transfer(image).with_layouts(copied, general)];
    let ticket = release(vulkan, &mut there.release, &used, |command| {
        vulkan.record_layout(command, image, (old, copied));
        staging.record_upload(vulkan, command, image.handle());
    })?;
    there.acquire.acquire(ticket, &cuda.stream)?;
    for part in parts(desc) {
        check(to, &part, 1).context("CUDA reads")?;
    }
    for part in parts(desc) {
        store(to, &part, 2)?;
    }
    let (ticket, ()) = back.release.release(&cuda.stream)?;
    staging.wipe()?;
    // CUDA leaves an image in the general layout.
    let read = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
    let used = [ImageAccess::transfer(image).with_layouts(general, read)];
    acquire(vulkan, &mut back.acquire, ticket, &used, |command| {
        staging.record_download(vulkan, command, image.handle());
    })?;
    staging.check(2).context("Vulkan reads")
}

/// Checks that every part of the array has the content for `seed`.
pub(crate) fn check_array((cuda, array): InCuda<'_>, seed: u32) -> Result<()> {
    for part in parts(array.desc()) {
        let found = cuda.fetch_part(array, &part, ReadMode::AsFormat)?;
        part.check(array.desc(), seed, &found)?;
    }
    Ok(())
}
