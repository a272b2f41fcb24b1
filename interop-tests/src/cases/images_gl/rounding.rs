//! Families E and F: each API stores a number that a format can't represent as the nearest that it can.
//!
//! OpenGL draws and stores such numbers, and Vulkan reads the bytes. CUDA, whose surfaces store bits, rounds in
//! a kernel, and OpenGL samples the result. Each channel is compared with the number itself, not with another
//! driver's result.

use anyhow::{Context, Result, ensure};
use gpu_interop::Api;
use gpu_interop::desc::{ImageLayout, Tiling};
use gpu_interop::format::Format;
use gpu_interop::gl::Texture;

use crate::cases::images_cuda::needs;
use crate::cases::images_gl::cuda::GlCuda;
use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::{GlContext, storable};
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::rounding::{Worst, for_opengl, numbers, rounds, worst, worst_sampled};

/// How OpenGL writes a texture.
type Write = fn(&GlContext, &Texture, &[[u32; 4]]) -> Result<()>;

/// Checks how far off the worst texel is.
type Check = fn(Option<Worst>) -> Result<()>;

/// The formats that CUDA's kernel rounds to.
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
        let to_the_nearest = by_opengl(format, "drawn_to_the_nearest", draw, check_nearest);
        cases.push(known(to_the_nearest, format, true));
        cases.push(by_opengl(format, "drawn_to_a_neighbour", draw, check_neighbour));
        if storable(format) {
            let to_the_nearest = by_opengl(format, "stored_to_the_nearest", store, check_nearest);
            cases.push(known(to_the_nearest, format, false));
            cases.push(by_opengl(format, "stored_to_a_neighbour", store, check_neighbour));
        }
    }
    cases.extend(BY_CUDA.map(by_cuda));
    cases
}

/// Adds the drivers that are known not to round to the nearest. OpenGL allows it, as the cases `to_a_neighbour`
/// show, and sharing is not the cause: what CUDA rounds arrives unchanged.
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

/// NVIDIA 580.159 on an H200: how it rounds a colour that is drawn or stored.
fn nvidia(format: Format) -> Option<&'static str> {
    Some(match format {
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => {
            "NVIDIA truncates to half floats: 601.49994 becomes 601.0, not 601.5"
        }
        Format::R32Float | Format::Rgba32Float => return None,
        Format::R5g6b5Unorm => "NVIDIA truncates when it draws to 5 bits: 0.913 of 31 becomes 0",
        _ => "NVIDIA rounds a fraction up to 0.562 of a step off (Direct3D allows 0.6)",
    })
}

/// llvmpipe of Mesa 22.3.6.
fn llvmpipe(format: Format, drawn: bool) -> Option<&'static str> {
    Some(match format {
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => {
            "llvmpipe truncates to half floats: 601.49994 becomes 601.0, not 601.5"
        }
        Format::R5g6b5Unorm if drawn => {
            "llvmpipe rounds to 8 bits and drops those beyond 5: 30.09 of 31 becomes 31"
        }
        Format::Rgb10a2Unorm if drawn => {
            "llvmpipe truncates when it draws to packed formats: 0.987 of 1023 becomes 0"
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
    let run = move |test_gpu: &TestGpu| {
        let mut pair = Pair::new(test_gpu, &widest_usage(test_gpu, &desc)?)?;
        let numbers = numbers(format, SIZES[0].0 * SIZES[0].1, SEED);
        let words: Vec<_> = numbers.iter().map(|&number| for_opengl(format, number)).collect();
        // Other content before.
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
    let run = move |test_gpu: &TestGpu| {
        let mut shared = GlCuda::new(test_gpu, &desc)?;
        let numbers = numbers(format, SIZES[0].0 * SIZES[0].1, SEED);
        shared.pair.vulkan_fills(1, ImageLayout::GENERAL)?;
        shared.pass_to_cuda()?;
        shared.cuda.store_numbers(&shared.array, &numbers)?;
        shared.pass_to_gl()?;
        let sampled = shared.pair.gl.sample_words(&shared.pair.texture)?;
        check_nearest(worst_sampled(format, &numbers, &sampled))
    };
    let case = Case::new(name, run).needs(&needs(&[desc]));
    case.needs(&[Need::Image(Api::OpenGl, desc)])
}

fn check_nearest(worst: Option<Worst>) -> Result<()> {
    let worst = worst.context("nothing was read")?;
    ensure!(worst.off <= worst.allowed, "{worst}");
    Ok(())
}

/// OpenGL allows either of the two adjacent numbers of the format. It prefers the nearest for fractions, and
/// specifies nothing for half floats.
fn check_neighbour(worst: Option<Worst>) -> Result<()> {
    let worst = worst.context("nothing was read")?;
    ensure!(worst.off < 1.0, "{worst}");
    Ok(())
}
