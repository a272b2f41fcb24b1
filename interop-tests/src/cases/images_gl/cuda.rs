//! Families D and F: one Vulkan image in CUDA and OpenGL, which hand it to each other.

use anyhow::{Context, Result};
use gpu_interop::cuda::{self, Array};
use gpu_interop::desc::{ImageLayout, Tiling};
use gpu_interop::format::Format;
use gpu_interop::handoff::{self, Handoff, HandoffOptions, TextureAccess};
use gpu_interop::{Api, ImageDesc, gl};

use crate::cases::images_cuda::{check_array, needs};
use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::cuda::CudaContext;
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
        let run = move |test_gpu: &TestGpu| {
            descs.iter().try_for_each(|desc| {
                there_and_back(test_gpu, desc).with_context(|| format!("{:?}", desc.extent))
            })
        };
        let case = Case::new(name, run).needs(&needs(&descs));
        cases.push(case.needs(&descs.map(|desc| Need::Image(Api::OpenGl, desc))));
    }
    cases
}

/// An image of Vulkan, OpenGL and CUDA, and a handoff each way between the latter two.
pub(crate) struct GlCuda<'a> {
    to_cuda: Handoff<gl::Endpoint, cuda::Endpoint>,
    to_gl: Handoff<cuda::Endpoint, gl::Endpoint>,
    pub(crate) cuda: &'a CudaContext,
    pub(crate) array: Array,
    pub(crate) pair: Pair<'a>,
}

impl<'a> GlCuda<'a> {
    pub(crate) fn new(test_gpu: &'a TestGpu, desc: &ImageDesc) -> Result<Self> {
        let (owner, cuda) = (&test_gpu.vulkan().endpoint, test_gpu.cuda()?);
        let pair = Pair::new(test_gpu, &widest_usage(test_gpu, desc)?)?;
        let array = cuda.endpoint.import_image(pair.image.export()?)?;
        let options = HandoffOptions::default();
        let to_cuda = handoff::open(owner, &pair.gl.endpoint, &cuda.endpoint, options)?;
        let to_gl = handoff::open(owner, &cuda.endpoint, &pair.gl.endpoint, options)?;
        Ok(Self { to_cuda, to_gl, cuda, array, pair })
    }

    pub(crate) fn pass_to_cuda(&mut self) -> Result<()> {
        let used = [TextureAccess::from(&self.pair.texture)];
        let (ticket, ()) = self.to_cuda.release.release(&used)?;
        Ok(self.to_cuda.acquire.acquire(ticket, &self.cuda.stream)?)
    }

    pub(crate) fn pass_to_gl(&mut self) -> Result<()> {
        let used = [TextureAccess::from(&self.pair.texture)];
        let (ticket, ()) = self.to_gl.release.release(&self.cuda.stream)?;
        Ok(self.to_gl.acquire.acquire(ticket, &used)?)
    }
}

/// OpenGL reads and samples what CUDA wrote through surfaces; CUDA reads through textures what OpenGL
/// uploaded.
fn there_and_back(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let mut shared = GlCuda::new(test_gpu, desc)?;
    let cuda = shared.cuda;
    shared.pair.vulkan_fills(1, ImageLayout::GENERAL)?;
    shared.pass_to_cuda()?;
    check_array((cuda, &shared.array), 1).context("CUDA reads what Vulkan wrote")?;
    for part in parts(shared.array.desc()) {
        cuda.store_part(&shared.array, &part, 2)?;
    }
    shared.pass_to_gl()?;
    shared.pair.gl_checks(2)?;
    shared.pair.gl.upload_texture(&shared.pair.texture, 3)?;
    shared.pass_to_cuda()?;
    check_array((cuda, &shared.array), 3).context("CUDA reads what OpenGL wrote")
}
