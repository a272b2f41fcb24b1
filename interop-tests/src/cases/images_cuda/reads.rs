//! Family F: how kernels read shared images. All levels at once, stored numbers and floats, between texels and
//! beyond the edges.

use anyhow::{Context, Result, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::cuda::{AddressMode, Array, Filter, ReadMode, TextureOptions};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::vulkan::{Image, ImageOptions};

use crate::cases::images_cuda::{formats, name, needs, pass_by};
use crate::cases::images_vulkan::USAGE;
use crate::harness::{Case, TestGpu};
use interop_gpu::cuda::CudaContext;
use interop_gpu::image::{Part, SIZES, Shape, parts};
use interop_gpu::texel::{Class, class};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in formats() {
        let desc = Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE);
        let run = move |test_gpu: &TestGpu| every_mode(test_gpu, &desc);
        let case = Case::new(name(format, Tiling::Optimal, "2d_read_modes"), run);
        cases.push(case.needs(&needs(&[desc])));
    }
    for format in [Format::Rgba8Unorm, Format::Rgba16Float, Format::R32Uint] {
        for (what, shape) in
            [("all_levels", Shape::MipChain), ("all_levels_of_layers", Shape::D2Array)]
        {
            let desc = shape.desc(format, Tiling::Optimal, SIZES[1], USAGE);
            let run = move |test_gpu: &TestGpu| all_levels(test_gpu, &desc);
            let case = Case::new(name(format, Tiling::Optimal, what), run);
            cases.push(case.needs(&needs(&[desc])));
        }
    }
    for (tiling, what) in [(Tiling::Optimal, "2d_sampled"), (Tiling::Linear, "2d_sampled")] {
        let desc = Shape::D2.desc(Format::Rgba8Unorm, tiling, SIZES[0], USAGE);
        let run = move |test_gpu: &TestGpu| sampled(test_gpu, &desc);
        cases.push(Case::new(name(desc.format, tiling, what), run).needs(&needs(&[desc])));
    }
    cases
}

/// An image of both APIs with the content for seed 2, which CUDA wrote; the work is done.
pub(crate) fn filled(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<(Image, Array)> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let image = vulkan.endpoint.create_image(desc, ImageOptions::default())?;
    let array = cuda.endpoint.import_image(image.export()?)?;
    // CUDA only writes.
    let store = |(cuda, array): (&CudaContext, &Array), part: &Part, _| match array.linear() {
        Some(_) => cuda.store_rows(array, part, 2),
        None => cuda.store_part(array, part, 2),
    };
    pass_by((vulkan, &image), (cuda, &array), |_, _, _| Ok(()), store)?;
    Ok((image, array))
}

/// Each mode of reading a format returns numbers from which the stored bytes follow, and an unsupported mode is
/// refused before the driver sees it.
fn every_mode(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let (_image, array) = filled(test_gpu, desc)?;
    let part = parts(desc)[0];
    let modes = [ReadMode::AsFormat, ReadMode::Stored, ReadMode::Normalized, ReadMode::DecodeSrgb];
    for read in modes {
        if is_refused(desc.format, read) {
            let options = TextureOptions { read, ..TextureOptions::texels() };
            let refused = array.level_texture(0, &options);
            ensure!(matches!(&refused, Err(gpu_interop::Error::Invalid(_))), "{refused:?}");
            continue;
        }
        if read == ReadMode::Normalized && class(desc.format) == Class::Sint {
            // The two smallest numbers are both read as -1.
            continue;
        }
        let found = cuda.fetch_part(&array, &part, read)?;
        part.check(desc, 2, &found).with_context(|| format!("{read:?}"))?;
    }
    Ok(())
}

/// The table of [`ReadMode`]'s documentation.
fn is_refused(format: Format, read: ReadMode) -> bool {
    let name = format.name();
    let is_wide = name.contains("32_UINT");
    match read {
        ReadMode::AsFormat => false,
        ReadMode::Stored => matches!(format, Format::Rgb10a2Unorm | Format::Bgr10a2Unorm),
        ReadMode::Normalized => name.contains("SFLOAT") || (is_wide && name.ends_with("UINT")),
        ReadMode::DecodeSrgb => {
            let of_unsigned_bytes = ["R8_U", "R8G8B8A8_U", "B8G8R8A8_U", "SRGB"];
            !of_unsigned_bytes.iter().any(|part| name.contains(part))
        }
    }
}

/// One texture object for all levels, which the kernel chooses from.
fn all_levels(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let (_image, array) = filled(test_gpu, desc)?;
    for part in parts(desc) {
        let found = cuda.fetch_of_all(&array, &part, ReadMode::AsFormat)?;
        part.check(desc, 2, &found)?;
    }
    Ok(())
}

/// Between texels the mean; beyond the edges what the address mode specifies.
fn sampled(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let cuda = test_gpu.cuda()?;
    let (_image, array) = filled(test_gpu, desc)?;
    let bytes = parts(desc)[0].filled(desc, 2);
    let (width, height) = (desc.extent.width as i32, desc.extent.height as i32);
    let texel = |x: i32, y: i32| -> [f32; 4] {
        let at = ((y * width + x) * 4) as usize;
        std::array::from_fn(|channel| f32::from(bytes[at + channel]) / 255.0)
    };
    let places =
        [(0, 0), (5, 7), (width - 1, height - 1), (-1, 3), (width, 3), (4, -2), (4, height)];
    let border = [0.25, 0.5, 0.75, 1.0];
    for mode in [AddressMode::Clamp, AddressMode::Border, AddressMode::Wrap, AddressMode::Mirror] {
        let options = TextureOptions {
            address: [mode; 3],
            border_color: border,
            filter: Filter::Point,
            mip_filter: Filter::Point,
            ..TextureOptions::sampled()
        };
        let middle = |(x, y): (i32, i32)| {
            [(x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32, 0.0]
        };
        let found = cuda.sample(&array.level_texture(0, &options)?, &places.map(middle), false)?;
        for (found, (x, y)) in found.iter().zip(places) {
            let expected = match (addressed(mode, x, width), addressed(mode, y, height)) {
                (Some(x), Some(y)) => texel(x, y),
                _ => border,
            };
            near(*found, expected).with_context(|| format!("{mode:?} at ({x}, {y})"))?;
        }
    }
    let options = TextureOptions { filter: Filter::Linear, ..TextureOptions::texels() };
    let texture = array.level_texture(0, &options)?;
    // On the corner that four texels share, and on the edge that two share.
    let found = cuda.sample(&texture, &[[6.0, 8.0, 0.0], [6.0, 8.5, 0.0]], false)?;
    let (four, two) =
        ([texel(5, 7), texel(6, 7), texel(5, 8), texel(6, 8)], [texel(5, 8), texel(6, 8)]);
    near(found[0], mean(&four)).context("between four texels")?;
    near(found[1], mean(&two)).context("between two texels")
}

/// Which texel of a row of `size` is read at `at`; `None` for the border.
fn addressed(mode: AddressMode, at: i32, size: i32) -> Option<i32> {
    match mode {
        AddressMode::Clamp => Some(at.clamp(0, size - 1)),
        AddressMode::Border => (0..size).contains(&at).then_some(at),
        AddressMode::Wrap => Some(at.rem_euclid(size)),
        AddressMode::Mirror => {
            let there_and_back = at.rem_euclid(2 * size);
            Some(there_and_back.min(2 * size - 1 - there_and_back))
        }
    }
}

fn mean(texels: &[[f32; 4]]) -> [f32; 4] {
    std::array::from_fn(|channel| {
        texels.iter().map(|texel| texel[channel]).sum::<f32>() / texels.len() as f32
    })
}

/// Checks within the precision of 8-bit filter weights and 8-bit channels.
fn near(found: [f32; 4], expected: [f32; 4]) -> Result<()> {
    let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 4e-3);
    ensure!(close, "{found:?}, not {expected:?}");
    Ok(())
}
