//! Group F with group D: one image of Vulkan's in CUDA and OpenGL, which hand it to each other.

use anyhow::{Context, Result};
use gpu_interop::Api;
use gpu_interop::cuda::ReadMode;
use gpu_interop::desc::ImageLayout;
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::handoff::{self, HandoffOptions, TextureAccess};

use crate::cases::images_cuda::{InCuda, needs};
use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape, parts};

const FORMATS: [Format; 8] = [
    Format::R8Unorm,
    Format::Rgba8Unorm,
    Format::Rgba8Srgb,
    Format::Bgra8Unorm,
    Format::Rgba8Snorm,
    Format::Rgba16Float,
    Format::R32Uint,
    Format::Rgba32Float,
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes = [Shape::D2Array, Shape::Cube, Shape::D3, Shape::MipChain];
    let plain = FORMATS.map(|format| (format, Shape::D2));
    let others = shapes.map(|shape| (Format::Rgba8Unorm, shape));
    for (format, shape) in plain.into_iter().chain(others) {
        let descs = SIZES.map(|size| shape.desc(format, Tiling::Optimal, size, USAGE));
        let (texels, shape) = (format.name().to_lowercase(), shape.name());
        let name = format!("cuda→gl→cuda/opaque_fd/image/{texels}/optimal/{shape}/54");
        let run = move |machine: &TestGpu| {
            descs.iter().try_for_each(|desc| {
                let pair = Pair::new(machine, &widest_usage(machine, desc)?)?;
                there_and_back(machine, pair).with_context(|| format!("{:?}", desc.extent))
            })
        };
        let case = Case::new(name, run).needs(&needs(&descs));
        cases.push(case.needs(&descs.map(|desc| Need::Image(Api::OpenGl, desc))));
    }
    cases
}

/// What CUDA wrote through surfaces OpenGL reads and samples, and what OpenGL uploaded CUDA reads
/// through textures.
fn there_and_back(machine: &TestGpu, mut pair: Pair<'_>) -> Result<()> {
    let (owner, cuda) = (&machine.vulkan().endpoint, machine.cuda()?);
    let array = cuda.endpoint.import_image(pair.image.export()?)?;
    let options = HandoffOptions::default();
    let mut to_cuda = handoff::open(owner, &pair.gl.endpoint, &cuda.endpoint, options)?;
    let mut to_gl = handoff::open(owner, &cuda.endpoint, &pair.gl.endpoint, options)?;

    pair.vulkan_fills(1, ImageLayout::GENERAL)?;
    let used = [TextureAccess::from(&pair.texture)];
    let (ticket, ()) = to_cuda.release.release(&used)?;
    to_cuda.acquire.acquire(ticket, &cuda.stream)?;
    check((cuda, &array), 1).context("CUDA reads what Vulkan wrote")?;
    for part in parts(array.desc()) {
        cuda.store_part(&array, &part, 2)?;
    }
    let (ticket, ()) = to_gl.release.release(&cuda.stream)?;
    to_gl.acquire.acquire(ticket, &used)?;
    pair.gl_checks(2)?;
    pair.gl.upload_texture(&pair.texture, 3)?;
    let (ticket, ()) = to_cuda.release.release(&used)?;
    to_cuda.acquire.acquire(ticket, &cuda.stream)?;
    check((cuda, &array), 3).context("CUDA reads what OpenGL wrote")
}

fn check((cuda, array): InCuda<'_>, seed: u32) -> Result<()> {
    for part in parts(array.desc()) {
        let found = cuda.fetch_part(array, &part, ReadMode::AsFormat)?;
        part.check(array.desc(), seed, &found)?;
    }
    Ok(())
}
