//! Family D: depth and stencil tests against shared images.

use anyhow::{Result, ensure};
use gpu_interop::desc::{ImageLayout, Tiling};
use gpu_interop::format::{Aspects, Format};
use gpu_interop::{Api, ImageDesc, ImageUsage};

use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::{DepthCanvas, Tested};
use interop_gpu::image::{Part, SIZES, Shape};
use interop_gpu::texel::decode;

/// The depth of a triangle that is nearer than half of the image.
const HALF: f32 = 0.5;
/// The stencil value that it writes.
const MARK: u8 = 0xA5;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in
        [Format::D16Unorm, Format::D32Float, Format::D24UnormS8Uint, Format::D32FloatS8Uint]
    {
        let desc = desc(format);
        let case = |what: &str, run: fn(&TestGpu, &ImageDesc) -> Result<()>| {
            let name = format!("{what}/{}/37", format.name().to_lowercase());
            Case::new(name, move |test_gpu| run(test_gpu, &widest_usage(test_gpu, &desc)?))
                .needs(&[Need::Image(Api::OpenGl, desc)])
        };
        cases.push(case("vulkan→gl/opaque_fd/image/depth_is_tested_against", depth_tested));
        if has_stencil(&desc) {
            let name = "vulkan→gl/opaque_fd/image/stencil_is_tested_against";
            cases.push(case(name, stencil_tested));
        }
        cases.push(case(
            "gl→vulkan/opaque_fd/image/passing_fragments_replace_the_content",
            replaced,
        ));
    }
    cases
}

fn desc(format: Format) -> ImageDesc {
    let usage = USAGE | ImageUsage::DEPTH_STENCIL_ATTACHMENT;
    Shape::D2.desc(format, Tiling::Optimal, SIZES[0], usage)
}

fn has_stencil(desc: &ImageDesc) -> bool {
    desc.format.aspects().contains(Aspects::STENCIL)
}

/// The depth values in `bytes`.
fn depths(desc: &ImageDesc, bytes: &[u8]) -> Vec<f32> {
    let texel = if desc.format == Format::D16Unorm { 2 } else { 4 };
    let number = |texel| f32::from_bits(decode(desc.format, texel)[0]);
    bytes.chunks_exact(texel).map(number).collect()
}

fn filled(desc: &ImageDesc, aspect: Aspects, seed: u32) -> Vec<u8> {
    Part { aspect, level: 0, layer: 0 }.filled(desc, seed)
}

/// Whether `depth` is so near `there` that a driver's rounding decides the test.
fn is_near(desc: &ImageDesc, depth: f32, there: f32) -> bool {
    let code = if desc.format == Format::D16Unorm { 1.0 / 65_535.0 } else { 1.0 / 16_777_215.0 };
    (depth - there).abs() <= 1.5 * code
}

const EVERYWHERE: Tested =
    Tested { value: 1, depth: 0.0, nearer: false, stencil: (0, 0), replaces: false };

/// Vulkan fills depth; OpenGL's triangles at several depths appear at the pixels that they are nearer to.
fn depth_tested(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let mut pair = Pair::new(test_gpu, desc)?;
    pair.vulkan_fills(37, ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL)?;
    let there = depths(desc, &filled(desc, Aspects::DEPTH, 37));
    for depth in [0.25, HALF, 0.75] {
        let canvas = DepthCanvas::new(pair.gl, &pair.texture)?;
        canvas.draw(&Tested { depth, nearer: true, ..EVERYWHERE })?;
        let pixels = canvas.pixels()?;
        let passed = pixels.iter().filter(|&&pixel| pixel == 1).count();
        for (i, (&there, &pixel)) in there.iter().zip(&pixels).enumerate() {
            let right = (pixel == 1) == (depth < there) || is_near(desc, depth, there);
            ensure!(right, "pixel {i}: depth {depth} against {there} shows {pixel}");
        }
        // Each depth is nearer than some pixels and not than others.
        ensure!(passed > 0 && passed < pixels.len(), "{passed} pixels at {depth}");
    }
    pair.vulkan_checks(37, ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL).map(drop)
}

/// Vulkan fills stencil; each of eight triangles appears at the pixels that have its three bits.
fn stencil_tested(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let mut pair = Pair::new(test_gpu, desc)?;
    pair.vulkan_fills(38, ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL)?;
    let canvas = DepthCanvas::new(pair.gl, &pair.texture)?;
    for reference in 0..8u8 {
        let value = u32::from(reference) + 1;
        canvas.draw(&Tested { value, stencil: (7, reference), ..EVERYWHERE })?;
    }
    let pixels = canvas.pixels()?;
    for (i, (there, pixel)) in filled(desc, Aspects::STENCIL, 38).iter().zip(pixels).enumerate() {
        let expected = u32::from(there & 7) + 1;
        ensure!(pixel == expected, "pixel {i}: stencil {there:#x} shows {pixel}, not {expected}");
    }
    pair.vulkan_checks(38, ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL).map(drop)
}

/// OpenGL's triangle replaces what is farther, and marks it in the stencil; Vulkan reads both.
fn replaced(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let mut pair = Pair::new(test_gpu, desc)?;
    pair.vulkan_fills(39, ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL)?;
    let canvas = DepthCanvas::new(pair.gl, &pair.texture)?;
    let stencil = (0, MARK);
    canvas.draw(&Tested { depth: HALF, nearer: true, stencil, replaces: true, ..EVERYWHERE })?;
    let before = depths(desc, &filled(desc, Aspects::DEPTH, 39));
    let found = pair.vulkan_reads(ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL)?;
    for (part, bytes) in found {
        let marked: Vec<_> = before.iter().map(|&there| HALF < there).collect();
        let near = |i: usize| is_near(desc, HALF, before[i]);
        if part.aspect == Aspects::STENCIL {
            let old = filled(desc, Aspects::STENCIL, 39);
            for (i, &found) in bytes.iter().enumerate() {
                let expected = if marked[i] { MARK } else { old[i] };
                ensure!(found == expected || near(i), "stencil {i}: {found:#x}, not {expected:#x}");
            }
        } else {
            for (i, &found) in depths(desc, &bytes).iter().enumerate() {
                let right = if marked[i] { is_near(desc, found, HALF) } else { found == before[i] };
                ensure!(right || near(i), "depth {i}: {found}; before: {}", before[i]);
            }
        }
    }
    Ok(())
}
