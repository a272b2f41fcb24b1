//! Family D: the memory of textures, alone or with others, and the life of both.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{ImageLayout, Tiling};
use gpu_interop::format::{ChannelOrder, Format};
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::vulkan::{DedicatedAllocation, ImageOptions};
use gpu_interop::{Api, Error, ImageDesc};

use crate::cases::images_gl::pair::{Pair, USAGE, widest_usage};
use crate::cases::opengl::raw::MemoryObjects;
use crate::cases::support::fds::leave_nothing_open;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::image::{SIZES, Shape};

const TEXTURE_TILING_EXT: u32 = 0x9580;
const OPTIMAL_TILING_EXT: i32 = 0x9584;
const LINEAR_TILING_EXT: i32 = 0x9585;

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan→gl/opaque_fd/image/{what}"), run).needs(&[Need::Gl])
    };
    let linear = Need::Image(Api::OpenGl, plain(Format::Bgra8Srgb, Tiling::Linear));
    vec![
        case("several_in_one_memory_object/39", several_in_one).expected_failure(
            "llvmpipe",
            "ignores a texture's offset, so that the library refuses one: gl::workarounds",
            "a texture at offset",
        ),
        case("two_at_the_same_place/39a", two_of_one_place),
        case("dedicated/26", |test_gpu| dedicated(test_gpu, DedicatedAllocation::Always)),
        case("not_dedicated/26", |test_gpu| dedicated(test_gpu, DedicatedAllocation::Avoid)),
        case("the_importer_outlives_the_exporter/18", importer_alone),
        case("the_exporter_outlives_the_importer/18", exporter_alone),
        case("dropped_names_are_deleted/35a", dropped),
        case("without_its_context_the_payload_comes_back/35b", not_current),
        case("repeated_imports_leave_no_descriptor/16", repeated_imports),
        case("the_texture_is_what_the_image_is/36a", parameters).needs(&[linear]),
        case("an_array_of_multisample_images/38", multisample_array)
            .needs(&[Need::Image(Api::OpenGl, samples_in_layers())]),
    ]
}

fn plain(format: Format, tiling: Tiling) -> ImageDesc {
    Shape::D2.desc(format, tiling, SIZES[0], USAGE)
}

fn color(test_gpu: &TestGpu) -> Result<ImageDesc> {
    widest_usage(test_gpu, &plain(Format::Rgba8Unorm, Tiling::Optimal))
}

/// One import of the memory, with every texture at its own place in it: none overlaps another.
fn several_in_one(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let mut descs = Vec::new();
    for (shape, format) in [
        (Shape::D2, Format::Rgba8Unorm),
        (Shape::MipChain, Format::R32Uint),
        (Shape::D3, Format::Rg16Float),
        (Shape::Cube, Format::R8Unorm),
    ] {
        descs.push(widest_usage(test_gpu, &shape.desc(format, Tiling::Optimal, SIZES[1], USAGE))?);
    }
    let images = vulkan.endpoint.create_images(&descs, ImageOptions::default())?;
    let memory = gl.endpoint.import_memory(images[0].memory().export()?)?;
    let mut pairs = Vec::new();
    for image in images {
        let texture = memory.texture(image.offset(), image.desc())?;
        ensure!(texture.memory().name() == memory.name(), "imported again");
        pairs.push(Pair::of(test_gpu, image, texture, HandoffOptions::default())?);
    }
    ensure!(pairs[1..].iter().all(|pair| pair.texture.offset() > 0), "all at 0");
    for (seed, pair) in (100..).zip(&mut pairs) {
        pair.vulkan_fills(seed, ImageLayout::GENERAL)?;
    }
    for (seed, pair) in (100..).zip(&pairs) {
        pair.gl_checks(seed).with_context(|| format!("at {}", pair.texture.offset()))?;
    }
    for (seed, pair) in (200..).zip(&pairs) {
        pair.gl.upload_texture(&pair.texture, seed)?;
    }
    for (seed, pair) in (200..).zip(&mut pairs) {
        let at = pair.texture.offset();
        pair.vulkan_checks(seed, ImageLayout::GENERAL).with_context(|| format!("at {at}"))?;
    }
    Ok(())
}

/// Two textures of one image, in one memory object: both show what Vulkan wrote, and Vulkan reads what either
/// writes.
fn two_of_one_place(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let desc = color(test_gpu)?;
    let image = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
    let memory = gl.endpoint.import_memory(image.memory().export()?)?;
    let (one, other) = (memory.texture(0, &desc)?, memory.texture(0, &desc)?);
    ensure!(one.name() != other.name(), "one name for two textures");
    let mut pair = Pair::of(test_gpu, image, one, HandoffOptions::default())?;
    pair.vulkan_fills(1, ImageLayout::GENERAL)?;
    pair.gl_checks(1)?;
    gl.check_texture(&other, 1)?;
    gl.sample_texture(&other, 1)?;
    gl.upload_texture(&other, 2)?;
    pair.texture = other;
    pair.vulkan_checks(2, ImageLayout::GENERAL).map(drop)
}

/// The payload reports whether the allocation is dedicated, and the import passes it to OpenGL.
fn dedicated(test_gpu: &TestGpu, dedicated: DedicatedAllocation) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let raw = MemoryObjects::load(gl)?;
    for desc in
        [color(test_gpu)?, widest_usage(test_gpu, &plain(Format::D32Float, Tiling::Optimal))?]
    {
        let options = ImageOptions { dedicated, ..ImageOptions::default() };
        let image = vulkan.endpoint.create_image(&desc, options)?;
        let is_dedicated = image.memory().info().dedicated;
        ensure!(is_dedicated || dedicated != DedicatedAllocation::Always, "not dedicated");
        let texture = gl.endpoint.import_image(image.export()?)?;
        let set = raw.is_dedicated(gl, texture.memory().name())?;
        ensure!(set == is_dedicated, "the payload: {is_dedicated}, OpenGL: {set}");
        let mut pair = Pair::of(test_gpu, image, texture, HandoffOptions::default())?;
        pair.vulkan_fills(1, ImageLayout::GENERAL)?;
        pair.gl_checks(1)?;
        pair.gl.upload_texture(&pair.texture, 2)?;
        pair.vulkan_checks(2, ImageLayout::GENERAL)?;
    }
    Ok(())
}

/// The texture has Vulkan's content after Vulkan's image and memory were dropped.
fn importer_alone(test_gpu: &TestGpu) -> Result<()> {
    let mut pair = Pair::new(test_gpu, &color(test_gpu)?)?;
    pair.vulkan_fills(18, ImageLayout::GENERAL)?;
    pair.wait_idle()?;
    // Another image in its place: the first one is dropped.
    let endpoint = &pair.vulkan.endpoint;
    pair.image = endpoint.create_image(&color(test_gpu)?, ImageOptions::default())?;
    pair.gl_checks(18)
}

/// The image has OpenGL's content after the texture and its memory object were dropped.
fn exporter_alone(test_gpu: &TestGpu) -> Result<()> {
    let mut pair = Pair::new(test_gpu, &color(test_gpu)?)?;
    pair.vulkan_releases(vk::ImageLayout::UNDEFINED, ImageLayout::GENERAL)?;
    pair.gl.upload_texture(&pair.texture, 19)?;
    let ticket = pair.gl_releases(ImageLayout::GENERAL)?;
    // Another texture in its place: the first one is dropped.
    let endpoint = &pair.vulkan.endpoint;
    let other = endpoint.create_image(&color(test_gpu)?, ImageOptions::default())?;
    pair.texture = pair.gl.endpoint.import_image(other.export()?)?;
    pair.vulkan_checks_after(ticket, 19, ImageLayout::GENERAL).map(drop)
}

/// Dropping deletes the names: at once if the context is current, otherwise with the next operation. Some
/// drivers require that the memory waits.
fn dropped(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let raw = MemoryObjects::load(gl)?;
    // SAFETY: the context is current when this is called.
    let is_texture = |name| unsafe { gl.gl.glow().is_texture(name) };
    for current in [true, false] {
        let image =
            test_gpu.vulkan().endpoint.create_image(&color(test_gpu)?, ImageOptions::default())?;
        let texture = gl.endpoint.import_image(image.export()?)?;
        let (name, memory) = (texture.name(), texture.memory().name());
        ensure!(is_texture(name) && raw.is_memory_object(memory), "not created");
        if !current {
            gl.gl.release_current()?;
        }
        drop(texture);
        gl.gl.make_current()?;
        ensure!(is_texture(name) != current, "current: {current}");
        let deleted = gl.endpoint.delete_dropped()?;
        ensure!(current || deleted >= 2, "{deleted} names were left");
        ensure!(!is_texture(name) && !raw.is_memory_object(memory), "still there");
    }
    Ok(())
}

/// Without a current context, nothing is done, and the payload comes back.
fn not_current(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    let desc = color(test_gpu)?;
    let image = test_gpu.vulkan().endpoint.create_image(&desc, ImageOptions::default())?;
    let memory = gl.endpoint.import_memory(image.memory().export()?)?;
    gl.gl.release_current()?;
    let import = gl.endpoint.import_image(image.export()?);
    let texture = memory.texture(0, &desc);
    let capabilities = gl.endpoint.capabilities(&desc.into());
    gl.gl.make_current()?;
    for error in [texture.err(), capabilities.err()] {
        let error = error.context("done without a context")?;
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
        ensure!(error.to_string().contains("make it current"), "{error}");
    }
    let (payload, error) = import.err().context("imported without a context")?.into_parts();
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    let texture = gl.endpoint.import_image(payload)?;
    let mut pair = Pair::of(test_gpu, image, texture, HandoffOptions::default())?;
    pair.vulkan_fills(1, ImageLayout::GENERAL)?;
    pair.gl_checks(1)
}

fn repeated_imports(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let desc = color(test_gpu)?;
    leave_nothing_open(256, || {
        let image = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
        let (payload, _unused) = (image.export()?, image.export()?);
        gl.endpoint.import_image(payload)?;
        Ok(())
    })
}

/// The texture is immutable, of the image's target, and has its tiling; if blue comes first, it is swizzled.
fn parameters(test_gpu: &TestGpu) -> Result<()> {
    let gl = test_gpu.gl()?;
    for (format, tiling, token) in [
        (Format::Rgba8Unorm, Tiling::Optimal, OPTIMAL_TILING_EXT),
        (Format::Rgba8Unorm, Tiling::Linear, LINEAR_TILING_EXT),
        (Format::Bgra8Srgb, Tiling::Linear, LINEAR_TILING_EXT),
    ] {
        let desc = widest_usage(test_gpu, &plain(format, tiling))?;
        let Pair { texture, .. } = &Pair::new(test_gpu, &desc)?;
        ensure!(texture.target() == glow::TEXTURE_2D && *texture.desc() == desc, "{texture:?}");
        let (red, blue) = match format.channel_order() {
            ChannelOrder::Bgra => (glow::BLUE, glow::RED),
            _ => (glow::RED, glow::BLUE),
        };
        for (parameter, expected) in [
            (TEXTURE_TILING_EXT, token),
            (glow::TEXTURE_IMMUTABLE_FORMAT, 1),
            (glow::TEXTURE_SWIZZLE_R, red as i32),
            (glow::TEXTURE_SWIZZLE_G, glow::GREEN as i32),
            (glow::TEXTURE_SWIZZLE_B, blue as i32),
            (glow::TEXTURE_SWIZZLE_A, glow::ALPHA as i32),
        ] {
            let context = gl.gl.glow();
            // SAFETY: the context is current, and the texture its own.
            let found = unsafe {
                context.bind_texture(texture.target(), Some(texture.name()));
                let found = context.get_tex_parameter_i32(texture.target(), parameter);
                context.bind_texture(texture.target(), None);
                found
            };
            gl.check("glGetTexParameteriv")?;
            ensure!(found == expected, "{format:?}, {tiling:?}, {parameter:#06x}: {found:#06x}");
        }
    }
    Ok(())
}

fn samples_in_layers() -> ImageDesc {
    let desc = Shape::Multisample.desc(Format::Rgba16Uint, Tiling::Optimal, SIZES[0], USAGE);
    let usage = USAGE | gpu_interop::ImageUsage::COLOR_ATTACHMENT;
    ImageDesc { layers: 3, usage, ..desc }
}

/// OpenGL draws and samples every sample of it; the suite has no kernel to read it with Vulkan.
fn multisample_array(test_gpu: &TestGpu) -> Result<()> {
    let pair = Pair::new(test_gpu, &widest_usage(test_gpu, &samples_in_layers())?)?;
    ensure!(pair.texture.target() == glow::TEXTURE_2D_MULTISAMPLE_ARRAY, "{:?}", pair.texture);
    pair.gl.draw_texture(&pair.texture, 38)?;
    pair.gl.sample_texture(&pair.texture, 38)
}
