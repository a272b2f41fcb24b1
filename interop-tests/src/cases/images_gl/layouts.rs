//! Family E with images: handoffs by each method, in each layout, and of images without content.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{ImageLayout, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::gl::texture_layouts;
use gpu_interop::tune::Route;
use gpu_interop::{Api, ImageDesc};

use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::cases::images_vulkan::COLOR_LAYOUTS;
use crate::cases::support::routes::{CaseRoute as _, ROUTES};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape};

const TURNS: u32 = 255;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for route in ROUTES {
        let case = |what: &str, row: u32, run: fn(&TestGpu, Route) -> Result<()>| {
            let name = format!("vulkan→gl→vulkan/opaque_fd/image/{what}/{}/{row}", route.name());
            Case::new(name, move |test_gpu| run(test_gpu, route)).needs(&route.needs(Api::OpenGl))
        };
        cases.push(case("content_is_kept", 43, content_is_kept));
        cases.push(case("255_handoffs", route.row(), turns));
    }
    for layout in texture_layouts() {
        let name = format!("vulkan→gl→vulkan/opaque_fd/image/layouts/{}/44", snake(layout));
        let run: fn(&TestGpu, ImageLayout) -> Result<()> =
            if layout == ImageLayout::UNDEFINED { no_layout } else { one_layout };
        cases.push(Case::new(name, move |test_gpu| run(test_gpu, layout)).needs(&[Need::Gl]));
    }
    let name =
        "vulkan→gl→vulkan/opaque_fd/image/layouts/acquired_in_one_and_released_in_another/44";
    cases.push(Case::new(name, two_layouts).needs(&[Need::Gl]));
    for (what, written) in [
        ("cleared", Written::Cleared),
        ("uploaded", Written::Uploaded),
        ("drawn", Written::Drawn),
        ("stored", Written::Stored),
        ("left", Written::Unchanged),
    ] {
        for (how, handed_over) in [("handed_over", true), ("as_imported", false)] {
            let name = format!("gl→vulkan/opaque_fd/image/uninitialised/{what}/{how}/45");
            let run = move |test_gpu: &TestGpu| uninitialised(test_gpu, written, handed_over);
            cases.push(Case::new(name, run).needs(&[Need::Gl]));
        }
    }
    cases
}

/// The part of the C name that differs between layouts; `none`, as in OpenGL, for `UNDEFINED`.
fn snake(layout: ImageLayout) -> String {
    if layout == ImageLayout::UNDEFINED {
        return "none".to_owned();
    }
    let name = layout.to_string().to_lowercase();
    name.trim_start_matches("vk_image_layout_").trim_end_matches("_optimal").to_owned()
}

fn plain(format: Format) -> ImageDesc {
    Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE)
}

/// A format with depth and stencil that both sides have.
fn depth_stencil(test_gpu: &TestGpu) -> Result<ImageDesc> {
    for format in [Format::D24UnormS8Uint, Format::D32FloatS8Uint] {
        let desc = widest_usage(test_gpu, &plain(format))?;
        let capabilities = test_gpu.vulkan().endpoint.capabilities(&desc.into())?;
        if capabilities.memory(MemoryHandleType::OpaqueFd)?.export.is_ok() {
            return Ok(desc);
        }
    }
    bail!("no format with depth and stencil can be shared")
}

/// Vulkan → OpenGL → Vulkan → OpenGL → Vulkan, with nothing but reads in between.
fn content_is_kept(test_gpu: &TestGpu, route: Route) -> Result<()> {
    for desc in [
        Shape::MipChain.desc(Format::Rgba16Float, Tiling::Optimal, SIZES[1], USAGE),
        depth_stencil(test_gpu)?,
    ] {
        let mut pair = Pair::with(test_gpu, &widest_usage(test_gpu, &desc)?, route.options())?;
        ensure!(pair.methods().map(Some) == [route.method(); 2], "{:?}", pair.methods());
        pair.vulkan_fills(43, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
        for round in 1..=2 {
            pair.gl_checks(43).with_context(|| format!("in OpenGL, round {round}"))?;
            let left = pair.vulkan_checks(43, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
            pair.vulkan_releases(left, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
        }
        pair.vulkan_checks(43, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
    }
    Ok(())
}

/// 255 turns each: Vulkan fills; OpenGL checks, and writes what Vulkan checks.
fn turns(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let desc = Shape::D2.desc(Format::R32Uint, Tiling::Optimal, (61, 47), USAGE);
    let mut pair = Pair::with(test_gpu, &widest_usage(test_gpu, &desc)?, route.options())?;
    for turn in 0..TURNS {
        pair.vulkan_fills(2 * turn, ImageLayout::GENERAL)?;
        pair.gl.sample_texture(&pair.texture, 2 * turn).with_context(|| format!("turn {turn}"))?;
        match turn % 3 {
            0 => pair.gl.store_texture(&pair.texture, 2 * turn + 1)?,
            1 => pair.gl.draw_texture(&pair.texture, 2 * turn + 1)?,
            _ => pair.gl.upload_texture(&pair.texture, 2 * turn + 1)?,
        }
        pair.vulkan_checks(2 * turn + 1, ImageLayout::GENERAL)
            .with_context(|| format!("turn {turn}"))?;
    }
    Ok(())
}

/// An image that can be in `layout`.
fn desc_for(test_gpu: &TestGpu, layout: ImageLayout) -> Result<ImageDesc> {
    match layout {
        ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL
        | ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL
        | ImageLayout::DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL
        | ImageLayout::DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL => depth_stencil(test_gpu),
        _ => widest_usage(test_gpu, &plain(Format::Rgba8Unorm)),
    }
}

/// Handed over in `layout` both ways: OpenGL finds Vulkan's content, keeps it, and then writes.
fn one_layout(test_gpu: &TestGpu, layout: ImageLayout) -> Result<()> {
    let mut pair = Pair::new(test_gpu, &desc_for(test_gpu, layout)?)?;
    pair.vulkan_fills(1, layout)?;
    pair.gl_checks(1)?;
    let left = pair.vulkan_checks(1, layout).context("only read")?;
    pair.vulkan_releases(left, layout)?;
    pair.gl_checks(1)?;
    pair.gl.upload_texture(&pair.texture, 2)?;
    pair.vulkan_checks(2, layout).context("uploaded").map(drop)
}

/// `GL_NONE`: the content before is lost, and what is written afterwards is not.
fn no_layout(test_gpu: &TestGpu, none: ImageLayout) -> Result<()> {
    for desc in [widest_usage(test_gpu, &plain(Format::Rgba8Unorm))?, depth_stencil(test_gpu)?] {
        let mut pair = Pair::new(test_gpu, &desc)?;
        // OpenGL discards Vulkan's content.
        pair.vulkan_fills_as(1, ImageLayout::TRANSFER_DST_OPTIMAL, none)?;
        pair.gl.upload_texture(&pair.texture, 2)?;
        let left = pair.vulkan_checks(2, ImageLayout::GENERAL)?;
        // Vulkan discards OpenGL's.
        pair.vulkan_releases(left, ImageLayout::GENERAL)?;
        pair.gl.upload_texture(&pair.texture, 3)?;
        pair.vulkan_acquires(none, vk::ImageLayout::GENERAL)?;
        pair.vulkan_fills(4, ImageLayout::GENERAL)?;
        pair.gl_checks(4)?;
    }
    Ok(())
}

/// OpenGL acquires the image in one layout and releases it in another.
fn two_layouts(test_gpu: &TestGpu) -> Result<()> {
    let mut pair = Pair::new(test_gpu, &widest_usage(test_gpu, &plain(Format::Rgba8Unorm))?)?;
    let mut seed = 0;
    for acquired in COLOR_LAYOUTS {
        for released in COLOR_LAYOUTS {
            seed += 1;
            let pair_name = || format!("{acquired:?} to {released:?}");
            pair.vulkan_fills(seed, acquired)?;
            pair.gl_checks(seed).with_context(pair_name)?;
            pair.gl.draw_texture(&pair.texture, seed + 100)?;
            pair.vulkan_checks(seed + 100, released).with_context(pair_name)?;
        }
    }
    Ok(())
}

/// What OpenGL does with an image without content.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Cleared,
    Uploaded,
    Drawn,
    Stored,
    Unchanged,
}

/// OpenGL is the first to write. It has acquired the image as one without content, or only imported it.
fn uninitialised(test_gpu: &TestGpu, written: Written, handed_over: bool) -> Result<()> {
    // Small enough to be cleared texel by texel.
    let desc = Shape::D2.desc(Format::R32Uint, Tiling::Optimal, (31, 17), USAGE);
    let mut pair = Pair::new(test_gpu, &widest_usage(test_gpu, &desc)?)?;
    if handed_over {
        pair.vulkan_releases_as(
            vk::ImageLayout::UNDEFINED,
            ImageLayout::GENERAL,
            ImageLayout::UNDEFINED,
        )?;
    }
    match written {
        Written::Cleared => pair.gl.clear_texture(&pair.texture, 5)?,
        Written::Uploaded => pair.gl.upload_texture(&pair.texture, 5)?,
        Written::Drawn => pair.gl.draw_texture(&pair.texture, 5)?,
        Written::Stored => pair.gl.store_texture(&pair.texture, 5)?,
        Written::Unchanged => {}
    }
    if written == Written::Unchanged {
        pair.vulkan_acquires(ImageLayout::UNDEFINED, vk::ImageLayout::GENERAL)?;
    } else {
        pair.vulkan_checks(5, ImageLayout::GENERAL)?;
    }
    // From then on, it is like any other image.
    pair.vulkan_fills(6, ImageLayout::GENERAL)?;
    pair.gl_checks(6)
}
