//! Family F: images of compressed formats in CUDA, which copies and texture objects read, and copies write.

use anyhow::{Context, Result, ensure};
use gpu_interop::cuda::{Array, ReadMode, TextureOptions};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::vulkan::{DedicatedAllocation, ImageOptions};
use gpu_interop::{Error, ImageDesc, ImageUsage};

use crate::cases::images_cuda::copies::expected;
use crate::cases::images_cuda::{InCuda, name, needs, pass_by};
use crate::harness::{Case, TestGpu};
use interop_gpu::image::{Part, SIZES, Shape};

/// Vulkan stores to no compressed image.
const USAGE: ImageUsage =
    ImageUsage::SAMPLED.union(ImageUsage::TRANSFER_SRC).union(ImageUsage::TRANSFER_DST);
const FORMATS: [Format; 4] =
    [Format::Bc1RgbaUnorm, Format::Bc1RgbaSrgb, Format::Bc7Unorm, Format::Bc7Srgb];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |desc: ImageDesc, what: &str, run: fn(&TestGpu, &ImageDesc) -> Result<()>| {
        let name = name(desc.format, Tiling::Optimal, what);
        let case = Case::new(name, move |test_gpu: &TestGpu| run(test_gpu, &desc));
        cases.push(case.needs(&needs(&[desc])));
    };
    for format in FORMATS {
        for shape in [Shape::D2, Shape::D2Array, Shape::Cube, Shape::MipChain] {
            let desc = shape.desc(format, Tiling::Optimal, SIZES[0], USAGE);
            case(desc, &format!("{}_copied", shape.name()), there_and_back);
        }
    }
    for format in &FORMATS[..2] {
        let desc = Shape::D2.desc(*format, Tiling::Optimal, SIZES[1], USAGE);
        case(desc, "2d_sampled", sampled);
    }
    cases
}

/// The bytes of one part of a level that was read.
fn part_of<'a>(desc: &ImageDesc, part: &Part, level: &'a [u8]) -> Result<&'a [u8]> {
    let bytes = part.bytes(desc);
    level.get(part.layer as usize * bytes..).and_then(|rest| rest.get(..bytes)).context("too short")
}

/// Vulkan writes, CUDA reads and writes, Vulkan reads: every block of every part, in dedicated memory and not.
fn there_and_back(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    for dedicated in [DedicatedAllocation::Always, DedicatedAllocation::Avoid] {
        let options = ImageOptions { dedicated, ..ImageOptions::default() };
        let image = vulkan.endpoint.create_image(desc, options)?;
        let array = cuda.endpoint.import_image(image.export()?)?;
        let check = |(cuda, array): InCuda<'_>, part: &Part, seed| {
            let level = array.read(&cuda.stream, part.level)?;
            part.check(desc, seed, part_of(desc, part, &level)?)
        };
        // A copy writes all layers of a level.
        let store = |(cuda, array): InCuda<'_>, part: &Part, seed| match part.layer {
            0 => Ok(array.write(&cuda.stream, part.level, &expected(desc, part.level, seed))?),
            _ => Ok(()),
        };
        pass_by((vulkan, &image), (cuda, &array), check, store)
            .with_context(|| format!("{dedicated:?}"))?;
    }
    Ok(())
}

/// A block of BC1 whose texels all have this colour: 5, 6 and 5 bits.
fn one_colour(colour: u16) -> [u8; 8] {
    let [low, high] = colour.to_le_bytes();
    [low, high, low, high, 0, 0, 0, 0]
}

/// A texture object decodes the blocks, at coordinates that count texels; no surface object writes them.
fn sampled(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let image = vulkan.endpoint.create_image(desc, ImageOptions::default())?;
    let array: Array = cuda.endpoint.import_image(image.export()?)?;
    let across = desc.extent.width.div_ceil(4);
    let down = desc.extent.height.div_ceil(4);
    let colour = |block: u32| block.wrapping_mul(0x9e37) as u16;
    let blocks: Vec<u8> = (0..across * down).flat_map(|at| one_colour(colour(at))).collect();
    array.write(&cuda.stream, 0, &blocks)?;
    let texture = array.level_texture(0, &TextureOptions::texels())?;
    let places: Vec<(u32, u32)> = (0..200).map(|i| (i * 7 % 183, i * 31 % 365)).collect();
    let centres: Vec<_> =
        places.iter().map(|&(x, y)| [x as f32 + 0.5, y as f32 + 0.5, 0.0]).collect();
    let found = cuda.sample(&texture, &centres, false)?;
    let is_srgb = desc.format == Format::Bc1RgbaSrgb;
    for (found, &(x, y)) in found.iter().zip(&places) {
        let colour = colour(y / 4 * across + x / 4);
        let (red, green, blue) = (colour >> 11, colour >> 5 & 63, colour & 31);
        let stored = [f32::from(red) / 31.0, f32::from(green) / 63.0, f32::from(blue) / 31.0];
        let decode = |value: f32| match is_srgb {
            true if value <= 0.04045 => value / 12.92,
            true => ((value + 0.055) / 1.055).powf(2.4),
            false => value,
        };
        let expected = stored.map(decode);
        // The hardware expands a channel to 8 bits before it decodes.
        let close = found.iter().zip(expected).all(|(found, value)| (found - value).abs() < 8e-3);
        ensure!(close && found[3] == 1.0, "at ({x}, {y}): {found:?}, not {expected:?}");
    }
    let surface = array.surface(0).map(drop);
    ensure!(matches!(surface, Err(Error::Missing(_))), "{surface:?}");
    let stored = TextureOptions { read: ReadMode::Stored, ..TextureOptions::texels() };
    let stored = array.level_texture(0, &stored).map(drop);
    ensure!(matches!(stored, Err(Error::Invalid(_))), "{stored:?}");
    Ok(())
}
