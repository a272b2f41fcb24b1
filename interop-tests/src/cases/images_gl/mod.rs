//! Families D and E with images: every format × tiling × shape, byte for byte, from Vulkan to OpenGL and
//! back.

pub(crate) mod cuda;
pub(crate) mod depth;
pub(crate) mod layouts;
pub(crate) mod memory;
pub(crate) mod pair;
pub(crate) mod refused;
pub(crate) mod rounding;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{Extent, ImageFlags, ImageKind, ImageLayout, Tiling, full_mip_chain};
use gpu_interop::format::{Aspects, Format};
use gpu_interop::vulkan::ImageOptions;
use gpu_interop::{Api, Error, ImageDesc, ImagePayload, ImageUsage};

use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::storable;
use interop_gpu::image::{SIZES, Shape, raw_format};
use interop_gpu::texel::drawable;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            for shape in Shape::ALL.into_iter().filter(|shape| shape.has(format, tiling)) {
                let descs = SIZES.map(|size| desc_of(format, tiling, shape, size));
                cases.extend(both_ways(shape.name(), &descs, widest_usage));
            }
        }
        let plain = [desc_of(format, Tiling::Optimal, Shape::D2, SIZES[0])];
        cases.extend(both_ways("2d_with_only_the_needed_usages", &plain, |_, desc| Ok(*desc)));
    }
    for &format in Format::ALL {
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            // Shaders can't draw stencil.
            if drawable(format) || format.aspects() == Aspects::DEPTH {
                cases.push(drawn_by_vulkan(format, tiling));
            }
        }
    }
    let raw = [desc_of(raw_format(), Tiling::Optimal, Shape::MipArray, SIZES[0])];
    cases.extend(both_ways("raw_format", &raw, widest_usage));
    cases.push(raw_format_of_another_size());
    for format in [Format::Bgra8Srgb, Format::Rgba16Uint] {
        for (name, desc) in more_shapes(format) {
            cases.extend(both_ways(name, &[desc], widest_usage));
        }
    }
    cases
}

/// An image with the least usage that the cases need: multisample ones are drawn to, depth is tested.
fn desc_of(format: Format, tiling: Tiling, shape: Shape, size: (u32, u32)) -> ImageDesc {
    let usage = if !format.aspects().contains(Aspects::COLOR) {
        USAGE | ImageUsage::DEPTH_STENCIL_ATTACHMENT
    } else if shape == Shape::Multisample {
        USAGE | ImageUsage::COLOR_ATTACHMENT
    } else {
        USAGE
    };
    // Vulkan draws to sRGB images through a view that is not sRGB.
    let srgb = matches!(format, Format::Rgba8Srgb | Format::Bgra8Srgb);
    let flags = if srgb && shape == Shape::Multisample {
        ImageFlags::MUTABLE_FORMAT
    } else {
        ImageFlags::empty()
    };
    ImageDesc { flags, ..shape.desc(format, tiling, size, usage) }
}

/// A raw format whose OpenGL format has larger texels than the image is refused: the texture would reach past
/// the end of its memory.
fn raw_format_of_another_size() -> Case {
    let desc = desc_of(raw_format(), Tiling::Optimal, Shape::D2, SIZES[0]);
    let name = "vulkan→gl/opaque_fd/image/raw/optimal/larger_texels_in_opengl_are_refused/38";
    let run = move |test_gpu: &TestGpu| {
        let image = test_gpu.vulkan().endpoint.create_image(&desc, ImageOptions::default())?;
        let (memory, offset, _) = image.export()?.into_parts();
        let wider = Format::Rgba32Uint.gl()?;
        let Format::Raw(raw) = desc.format else { bail!("not a raw format") };
        let desc = ImageDesc { format: raw.with_gl(wider).into(), ..desc };
        let refused =
            test_gpu.gl()?.endpoint.import_image(ImagePayload::new(memory, offset, desc)?);
        let error = refused.err().context("it was imported")?.into_parts().1;
        ensure!(matches!(&error, Error::Invalid(i) if i.problem.contains("16 bytes")), "{error}");
        Ok(())
    };
    Case::new(name, run).needs(&[Need::Image(Api::OpenGl, desc)])
}

/// Levels for more shapes, and an array of cubes.
fn more_shapes(format: Format) -> [(&'static str, ImageDesc); 4] {
    let of = |shape: Shape| {
        let desc = desc_of(format, Tiling::Optimal, shape, SIZES[0]);
        ImageDesc { levels: full_mip_chain(desc.extent), ..desc }
    };
    let volume = of(Shape::D3);
    let volume = ImageDesc { extent: Extent { depth: 13, ..volume.extent }, ..volume };
    [
        ("1d_mip_chain", of(Shape::D1Array)),
        ("cube_mip_chain", of(Shape::Cube)),
        ("3d_mip_chain", volume),
        ("cube_array", ImageDesc { layers: 12, levels: 1, ..of(Shape::Cube) }),
    ]
}

/// A case each way for images of `descs`, which differ only in size; `choose` returns the images to create.
fn both_ways(
    shape: &str,
    descs: &[ImageDesc],
    choose: fn(&TestGpu, &ImageDesc) -> Result<ImageDesc>,
) -> Vec<Case> {
    let Some(&ImageDesc { format, tiling, kind, layers, levels, samples, .. }) = descs.first()
    else {
        return Vec::new();
    };
    let color = format.aspects().contains(Aspects::COLOR);
    let plain = (kind, layers, levels, samples) == (ImageKind::D2, 1, 1, 1);
    let row = match (plain, color) {
        (true, true) => 36,
        (true, false) => 37,
        _ => 38,
    };
    let (texels, tiled) = (format.name().to_lowercase(), format!("{tiling:?}").to_lowercase());
    let case = |way: &str, run: fn(&TestGpu, &ImageDesc) -> Result<()>| {
        let name = format!("{way}/opaque_fd/image/{texels}/{tiled}/{shape}/{row}");
        let needs: Vec<_> = descs.iter().map(|desc| Need::Image(Api::OpenGl, *desc)).collect();
        let descs = descs.to_vec();
        let run = move |test_gpu: &TestGpu| {
            descs.iter().try_for_each(|desc| {
                run(test_gpu, &choose(test_gpu, desc)?)
                    .with_context(|| format!("{:?}", desc.extent))
            })
        };
        Case::new(name, run).needs(&needs)
    };
    let mut cases = vec![case("vulkan→gl", vulkan_to_gl)];
    // OpenGL could only draw to the samples of a depth image.
    if samples == 1 || color {
        cases.push(case("gl→vulkan", gl_to_vulkan));
    }
    cases
}

/// Vulkan draws with a graphics pipeline; OpenGL reads and samples.
fn drawn_by_vulkan(format: Format, tiling: Tiling) -> Case {
    let attachment = match format.aspects().contains(Aspects::COLOR) {
        true => ImageUsage::COLOR_ATTACHMENT,
        false => ImageUsage::DEPTH_STENCIL_ATTACHMENT,
    };
    let descs = SIZES.map(|size| {
        let desc = desc_of(format, tiling, Shape::D2, size);
        // Vulkan draws to sRGB images through a view that is not sRGB.
        ImageDesc { usage: desc.usage | attachment, flags: ImageFlags::MUTABLE_FORMAT, ..desc }
    });
    let (texels, tiled) = (format.name().to_lowercase(), format!("{tiling:?}").to_lowercase());
    let name = format!("vulkan→gl/opaque_fd/image/drawn_by_vulkan/{texels}/{tiled}/41");
    let run = move |test_gpu: &TestGpu| {
        descs.iter().try_for_each(|desc| {
            let mut pair = Pair::new(test_gpu, &widest_usage(test_gpu, desc)?)?;
            pair.vulkan_draws(41, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
            pair.gl_checks(41).with_context(|| format!("{:?}", desc.extent))
        })
    };
    Case::new(name, run).needs(&descs.map(|desc| Need::Image(Api::OpenGl, desc)))
}

/// Vulkan fills every part; OpenGL reads each by `glGetTexImage` and samples each in a shader.
fn vulkan_to_gl(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let mut pair = Pair::new(test_gpu, desc)?;
    pair.vulkan_fills(1, ImageLayout::GENERAL)?;
    pair.gl_checks(1)
}

/// OpenGL uploads, draws and stores every part, if the format allows it; Vulkan reads each.
fn gl_to_vulkan(test_gpu: &TestGpu, desc: &ImageDesc) -> Result<()> {
    let mut pair = Pair::new(test_gpu, desc)?;
    let mut left = vk::ImageLayout::UNDEFINED;
    if desc.samples == 1 {
        pair.vulkan_releases(left, ImageLayout::GENERAL)?;
        pair.gl.upload_texture(&pair.texture, 2)?;
        left = pair.vulkan_checks(2, ImageLayout::GENERAL).context("uploaded")?;
    }
    if drawable(desc.format) {
        pair.vulkan_releases(left, ImageLayout::GENERAL)?;
        pair.gl.draw_texture(&pair.texture, 3)?;
        left = pair.vulkan_checks(3, ImageLayout::GENERAL).context("drawn")?;
    }
    if desc.samples == 1 && storable(desc.format) {
        pair.vulkan_releases(left, ImageLayout::GENERAL)?;
        pair.gl.store_texture(&pair.texture, 4)?;
        pair.vulkan_checks(4, ImageLayout::GENERAL).context("stored")?;
    }
    Ok(())
}
