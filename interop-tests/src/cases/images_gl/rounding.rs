//! Group E and F: numbers that a format can't hold are stored as the nearest it can, whoever writes.
//!
//! OpenGL draws and stores numbers that no format has, and Vulkan reads the bytes. CUDA, whose surfaces
//! take bits, rounds in a kernel, and OpenGL samples what it wrote. Each channel is compared with the
//! number itself, and not with what another driver makes of it.

use anyhow::{Context, Result, ensure};
use gpu_interop::Api;
use gpu_interop::desc::{ImageLayout, Tiling};
use gpu_interop::format::Format;
use gpu_interop::gl::Texture;
use gpu_interop::handoff::{self, HandoffOptions, TextureAccess};

use crate::cases::images_cuda::needs;
use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::{GlContext, storable};
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::rounding::{Worst, for_opengl, numbers, rounds, worst, worst_sampled};

/// What OpenGL writes a texture with.
type Write = fn(&GlContext, &Texture, &[[u32; 4]]) -> Result<()>;

/// How far off the worst texel may be.
type Check = fn(Option<Worst>) -> Result<()>;

/// What CUDA's kernel rounds to.
const BY_CUDA: [Format; 5] = [
    Format::R8Unorm,
    Format::Rgba8Unorm,
    Format::Rgba8Snorm,
    Format::Rgba16Float,
    Format::Rgba32Float,
];

const SEED: u32 = 11;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &format in Format::ALL.iter().filter(|format| rounds(**format)) {
        let draw: Write = |gl, texture, words| gl.draw_words(texture, words);
        let store: Write = |gl, texture, words| gl.store_words(texture, words);
        let to_the_nearest = by_opengl(format, "drawn_to_the_nearest", draw, require_nearest);
        cases.push(known(to_the_nearest, format, true));
        cases.push(by_opengl(format, "drawn_to_a_neighbour", draw, require_neighbour));
        if storable(format) {
            let to_the_nearest = by_opengl(format, "stored_to_the_nearest", store, require_nearest);
            cases.push(known(to_the_nearest, format, false));
            cases.push(by_opengl(format, "stored_to_a_neighbour", store, require_neighbour));
        }
    }
    cases.extend(BY_CUDA.map(by_cuda));
    cases
}

/// What drivers are known not to round to the nearest. It is within what OpenGL allows, as the cases
/// `to_a_neighbour` show, and none of it comes from sharing: what CUDA rounds itself arrives as it is.
fn known(case: Case, format: Format, drawn: bool) -> Case {
    let case = match nvidia(format) {
        Some(why) => case.expected_failure("NVIDIA", why, "steps off"),
        None => case,
    };
    match llvmpipe(format, drawn) {
        Some(why) => case.expected_failure("llvmpipe", why, "steps off"),
        None => case,
    }
}

/// NVIDIA 580.159, on an H200: what its hardware does to a colour that is drawn or stored.
fn nvidia(format: Format) -> Option<&'static str> {
    Some(match format {
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => {
            "NVIDIA cuts off what a half can't hold: 601.49994 becomes 601.0, and not 601.5"
        }
        Format::R32Float | Format::Rgba32Float => return None,
        Format::R5g6b5Unorm => "NVIDIA cuts off where it draws to 5 bits: 0.913 of 31 becomes 0",
        _ => "NVIDIA rounds a fraction up to 0.562 of a step off (Direct3D wants 0.6)",
    })
}

/// llvmpipe of Mesa 22.3.6.
fn llvmpipe(format: Format, drawn: bool) -> Option<&'static str> {
    Some(match format {
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => {
            "llvmpipe cuts off what a half can't hold: 601.49994 becomes 601.0, and not 601.5"
        }
        Format::R5g6b5Unorm if drawn => {
            "llvmpipe rounds to 8 bits and cuts off those beyond 5: 30.09 of 31 becomes 31"
        }
        Format::Rgb10a2Unorm if drawn => {
            "llvmpipe cuts off where it draws to packed formats: 0.987 of 1023 becomes 0"
        }
        Format::Rgba8Srgb | Format::Bgra8Srgb => {
            "llvmpipe encodes sRGB by a polynomial: up to 0.65 of a step off"
        }
        _ => return None,
    })
}

/// OpenGL writes, Vulkan reads the bytes.
fn by_opengl(format: Format, how: &str, write: Write, check: Check) -> Case {
    let desc = Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE);
    let name = format.name().to_lowercase();
    let name = format!("gl→vulkan/opaque_fd/image/{name}/optimal/{how}/42");
    let run = move |machine: &TestGpu| {
        let mut pair = Pair::new(machine, &widest_usage(machine, &desc)?)?;
        let numbers = numbers(format, SIZES[0].0 * SIZES[0].1, SEED);
        let words: Vec<_> = numbers.iter().map(|&number| for_opengl(format, number)).collect();
        // Something else is there before.
        pair.vulkan_fills(1, ImageLayout::GENERAL)?;
        write(pair.gl, &pair.texture, &words)?;
        let read = pair.vulkan_reads(ImageLayout::GENERAL)?;
        let (_, bytes) = read.first().context("a plain image has one part")?;
        check(worst(format, &numbers, bytes))
    };
    Case::new(name, run).needs(&[Need::Image(Api::OpenGl, desc)])
}

/// CUDA writes, OpenGL samples.
fn by_cuda(format: Format) -> Case {
    let desc = Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE);
    let name = format.name().to_lowercase();
    let name = format!("cuda→gl/opaque_fd/image/{name}/optimal/rounded_to_the_nearest/54");
    let run = move |machine: &TestGpu| {
        let mut pair = Pair::new(machine, &widest_usage(machine, &desc)?)?;
        let (owner, cuda) = (&machine.vulkan().endpoint, machine.cuda()?);
        let array = cuda.endpoint.import_image(pair.image.export()?)?;
        let options = HandoffOptions::default();
        let mut to_cuda = handoff::open(owner, &pair.gl.endpoint, &cuda.endpoint, options)?;
        let mut to_gl = handoff::open(owner, &cuda.endpoint, &pair.gl.endpoint, options)?;
        let numbers = numbers(format, SIZES[0].0 * SIZES[0].1, SEED);
        pair.vulkan_fills(1, ImageLayout::GENERAL)?;
        let used = [TextureAccess::from(&pair.texture)];
        let (ticket, ()) = to_cuda.release.release(&used)?;
        to_cuda.acquire.acquire(ticket, &cuda.stream)?;
        cuda.store_numbers(&array, &numbers)?;
        let (ticket, ()) = to_gl.release.release(&cuda.stream)?;
        to_gl.acquire.acquire(ticket, &used)?;
        require_nearest(worst_sampled(format, &numbers, &pair.gl.sample_words(&pair.texture)?))
    };
    let case = Case::new(name, run).needs(&needs(&[desc]));
    case.needs(&[Need::Image(Api::OpenGl, desc)])
}

fn require_nearest(worst: Option<Worst>) -> Result<()> {
    let worst = worst.context("nothing was read")?;
    ensure!(worst.off <= worst.allowed, "{worst}");
    Ok(())
}

/// What OpenGL allows: one of the two numbers that the format has next to the one that was written. The
/// nearest is preferred for fractions; of halves nothing is said.
fn require_neighbour(worst: Option<Worst>) -> Result<()> {
    let worst = worst.context("nothing was read")?;
    ensure!(worst.off < 1.0, "{worst}");
    Ok(())
}
