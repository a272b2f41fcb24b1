//! Group E with images: handoffs by each method, in each layout, and of what nobody has written yet.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{ImageLayout, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::gl::texture_layouts;
use gpu_interop::{Api, ImageDesc};

use crate::cases::handoff::vulkan_gl::Route;
use crate::cases::images_gl::pair::{Pair, USAGE, vulkan_layout, widest_usage};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape};

const TURNS: u32 = 255;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for route in Route::ALL {
        let case = |what: &str, row: u32, run: fn(&TestGpu, Route) -> Result<()>| {
            let name = format!("vulkan→gl→vulkan/opaque_fd/image/{what}/{}/{row}", route.name);
            Case::new(name, move |machine| run(machine, route)).needs(&route.needs(Api::OpenGl))
        };
        cases.push(case("content_is_kept", 43, content_is_kept));
        cases.push(case("255_turns", route.row, turns));
    }
    for layout in texture_layouts() {
        let name = format!("vulkan→gl→vulkan/opaque_fd/image/layouts/{}/44", snake(layout));
        let run: fn(&TestGpu, ImageLayout) -> Result<()> =
            if layout == ImageLayout::UNDEFINED { no_layout } else { one_layout };
        cases.push(Case::new(name, move |machine| run(machine, layout)).needs(&[Need::Gl]));
    }
    let name = "vulkan→gl→vulkan/opaque_fd/image/layouts/one_to_come_and_another_to_go/44";
    cases.push(Case::new(name, two_layouts).needs(&[Need::Gl]));
    for (what, written) in [
        ("cleared", Written::Cleared),
        ("uploaded", Written::Uploaded),
        ("drawn", Written::Drawn),
        ("stored", Written::Stored),
        ("left", Written::Left),
    ] {
        for (how, handed_over) in [("handed_over", true), ("as_imported", false)] {
            let name = format!("gl→vulkan/opaque_fd/image/uninitialised/{what}/{how}/45");
            let run = move |machine: &TestGpu| uninitialised(machine, written, handed_over);
            cases.push(Case::new(name, run).needs(&[Need::Gl]));
        }
    }
    cases
}

/// The part of the C name that tells layouts apart; OpenGL's `none` for `UNDEFINED`.
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
fn depth_stencil(machine: &TestGpu) -> Result<ImageDesc> {
    for format in [Format::D24UnormS8Uint, Format::D32FloatS8Uint] {
        let desc = widest_usage(machine, &plain(format))?;
        let told = machine.vulkan().endpoint.capabilities(&desc.into())?;
        if told.memory(MemoryHandleType::OpaqueFd)?.export.is_ok() {
            return Ok(desc);
        }
    }
    bail!("no depth with stencil is shared")
}

/// Vulkan → OpenGL → Vulkan → OpenGL → Vulkan, with nothing done on the way but looking.
fn content_is_kept(machine: &TestGpu, route: Route) -> Result<()> {
    for desc in [
        Shape::MipChain.desc(Format::Rgba16Float, Tiling::Optimal, SIZES[1], USAGE),
        depth_stencil(machine)?,
    ] {
        let mut pair = Pair::with(machine, &widest_usage(machine, &desc)?, route.options())?;
        ensure!(pair.methods() == [route.method; 2], "{:?}", pair.methods());
        pair.vulkan_fills(43, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
        for leg in 1..=2 {
            pair.gl_checks(43).with_context(|| format!("in OpenGL, leg {leg}"))?;
            let left = pair.vulkan_checks(43, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
            pair.vulkan_passes(left, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
        }
        pair.vulkan_checks(43, ImageLayout::SHADER_READ_ONLY_OPTIMAL)?;
    }
    Ok(())
}

/// 255 turns each: Vulkan fills, OpenGL looks and writes what Vulkan looks at.
fn turns(machine: &TestGpu, route: Route) -> Result<()> {
    let desc = Shape::D2.desc(Format::R32Uint, Tiling::Optimal, (61, 47), USAGE);
    let mut pair = Pair::with(machine, &widest_usage(machine, &desc)?, route.options())?;
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
fn desc_for(machine: &TestGpu, layout: ImageLayout) -> Result<ImageDesc> {
    match layout {
        ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL
        | ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL
        | ImageLayout::DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL
        | ImageLayout::DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL => depth_stencil(machine),
        _ => widest_usage(machine, &plain(Format::Rgba8Unorm)),
    }
}

/// Handed over in `layout` both ways: OpenGL finds what Vulkan left, leaves it, and writes.
fn one_layout(machine: &TestGpu, layout: ImageLayout) -> Result<()> {
    let mut pair = Pair::new(machine, &desc_for(machine, layout)?)?;
    pair.vulkan_fills(1, layout)?;
    pair.gl_checks(1)?;
    let left = pair.vulkan_checks(1, layout).context("only looked at")?;
    pair.vulkan_passes(left, layout)?;
    pair.gl_checks(1)?;
    pair.gl.upload_texture(&pair.texture, 2)?;
    pair.vulkan_checks(2, layout).context("uploaded").map(drop)
}

/// `GL_NONE`: what was in the image is lost, and what is written then is not.
fn no_layout(machine: &TestGpu, none: ImageLayout) -> Result<()> {
    for desc in [widest_usage(machine, &plain(Format::Rgba8Unorm))?, depth_stencil(machine)?] {
        let mut pair = Pair::new(machine, &desc)?;
        // OpenGL doesn't look at what Vulkan left.
        pair.vulkan_fills_for(1, ImageLayout::TRANSFER_DST_OPTIMAL, none)?;
        pair.gl.upload_texture(&pair.texture, 2)?;
        let left = pair.vulkan_checks(2, ImageLayout::GENERAL)?;
        // Nor Vulkan at what OpenGL left.
        pair.vulkan_passes(left, ImageLayout::GENERAL)?;
        pair.gl.upload_texture(&pair.texture, 3)?;
        pair.vulkan_takes(none, vk::ImageLayout::GENERAL)?;
        pair.vulkan_fills(4, ImageLayout::GENERAL)?;
        pair.gl_checks(4)?;
    }
    Ok(())
}

/// OpenGL takes the image over in one layout and leaves it in another.
fn two_layouts(machine: &TestGpu) -> Result<()> {
    let color = [
        ImageLayout::GENERAL,
        ImageLayout::COLOR_ATTACHMENT_OPTIMAL,
        ImageLayout::SHADER_READ_ONLY_OPTIMAL,
        ImageLayout::TRANSFER_SRC_OPTIMAL,
        ImageLayout::TRANSFER_DST_OPTIMAL,
    ];
    let mut pair = Pair::new(machine, &widest_usage(machine, &plain(Format::Rgba8Unorm))?)?;
    let mut seed = 0;
    for come in color {
        for go in color {
            seed += 1;
            let told = || format!("{come:?} to {go:?}");
            pair.vulkan_fills(seed, come)?;
            pair.gl_checks(seed).with_context(told)?;
            pair.gl.draw_texture(&pair.texture, seed + 100)?;
            pair.vulkan_checks(seed + 100, go).with_context(told)?;
        }
    }
    Ok(())
}

/// What OpenGL does with an image that nobody has written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Cleared,
    Uploaded,
    Drawn,
    Stored,
    Left,
}

/// The first to write is OpenGL, which has taken the image over as one without content, or only imported
/// it.
fn uninitialised(machine: &TestGpu, written: Written, handed_over: bool) -> Result<()> {
    // Small enough to be cleared texel by texel.
    let desc = Shape::D2.desc(Format::R32Uint, Tiling::Optimal, (31, 17), USAGE);
    let mut pair = Pair::new(machine, &widest_usage(machine, &desc)?)?;
    if handed_over {
        pair.vulkan_passes_for(
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
        Written::Left => {}
    }
    if written == Written::Left {
        pair.vulkan_takes(ImageLayout::UNDEFINED, vulkan_layout(ImageLayout::GENERAL))?;
    } else {
        pair.vulkan_checks(5, ImageLayout::GENERAL)?;
    }
    // And it is an image like any other from then on.
    pair.vulkan_fills(6, ImageLayout::GENERAL)?;
    pair.gl_checks(6)
}
