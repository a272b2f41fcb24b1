//! Family D: textures that OpenGL doesn't support, and that don't fit their memory.

use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{Extent, ImageKind, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::payload::{ImagePayload, LinearLayout};
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation, ImageOptions};
use gpu_interop::{Api, BufferDesc, Error, ImageDesc, ImageUsage};

use crate::cases::images_gl::pair::USAGE;
use crate::cases::opengl::raw::{MemoryObjects, pending_error, raise_users_error};
use crate::cases::support::fds::check_same_fd;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::image::{SIZES, Shape};

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan→gl/opaque_fd/image/{what}"), run).needs(&[Need::Gl])
    };
    let mut cases = vec![
        case("what_opengl_lacks_is_named/4", unsupported),
        case("past_the_end_is_refused_before_gl_sees_it/33", past_the_end),
        case("too_little_memory_is_explained/33a", too_little),
        case("at_an_offset_of_a_dedicated_allocation_is_refused/33", dedicated_offset),
        case("another_pitch_than_opengls_is_refused/33b", other_pitch)
            .needs(&[Need::Image(Api::OpenGl, linear())]),
    ];
    for storage in STORAGES {
        for (what, memory, error) in [
            ("memory_object_0_is_an_invalid_value/31", Memory::Zero, glow::INVALID_VALUE),
            (
                "memory_that_is_not_imported_is_an_invalid_operation/32",
                Memory::NotImported,
                glow::INVALID_OPERATION,
            ),
        ] {
            let name = format!("gl/image/{}/{what}", storage.name);
            let run = move |test_gpu: &TestGpu| storage_error(test_gpu, &storage, memory, error);
            cases.push(Case::new(name, run).needs(&[Need::Gl]));
        }
    }
    cases
}

fn plain(format: Format) -> ImageDesc {
    Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE)
}

fn linear() -> ImageDesc {
    Shape::D2.desc(Format::Rgba8Unorm, Tiling::Linear, SIZES[0], USAGE)
}

/// Vulkan's own layout is imported. Another one is refused if OpenGL's is known, which OpenGL does not
/// report.
fn other_pitch(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let image = vulkan.endpoint.create_image(&linear(), ImageOptions::default())?;
    let payload = image.export()?;
    let own = *payload.linear().context("no layout")?;
    gl.endpoint.import_image(payload)?;
    if test_gpu.is_hardware() {
        return Ok(());
    }
    for (field, other) in [
        ("row_pitch", LinearLayout { row_pitch: own.row_pitch + 4, ..own }),
        ("offset", LinearLayout { offset: own.offset + 4, ..own }),
    ] {
        // One more row, so that the whole image fits.
        let rows = Extent { height: linear().extent.height - 1, ..linear().extent };
        let desc = ImageDesc { extent: rows, ..linear() };
        let payload = ImagePayload::new(image.memory().export()?, 0, desc)?.with_linear(other)?;
        match gl.endpoint.import_image(payload).err().context("imported")?.into_parts() {
            (_, Error::Mismatch(refused)) => ensure!(refused.field.contains(field), "{refused}"),
            (_, other) => bail!("{other:?}"),
        }
    }
    Ok(())
}

/// A number of samples per texel that this context does not support.
fn unsupported_samples(gl: &GlContext) -> Option<u32> {
    let mut supported = [0; 16];
    let (target, format) = (glow::TEXTURE_2D_MULTISAMPLE, glow::RGBA8);
    // SAFETY: the context is current, and OpenGL has no more than 16 counts.
    unsafe {
        gl.gl.glow().get_internal_format_i32_slice(target, format, glow::SAMPLES, &mut supported)
    };
    [2, 4, 8, 16, 32, 64].into_iter().find(|&count: &u32| !supported.contains(&(count as i32)))
}

/// The capability and the import return the same error before OpenGL sees the descriptor, which comes back.
fn unsupported(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let depth = plain(Format::D32Float);
    let depth_3d = ImageDesc {
        kind: ImageKind::D3,
        extent: Extent { depth: 4, ..depth.extent },
        usage: ImageUsage::SAMPLED,
        ..depth
    };
    let color = plain(Format::Rgba8Unorm);
    let wide = ImageDesc { extent: Extent { width: 1 << 20, ..color.extent }, ..color };
    // Large enough for most of the images: they are not refused for the size of the memory.
    let buffer =
        vulkan.endpoint.create_buffer(&BufferDesc::storage(1 << 20), BufferOptions::default())?;
    let mut rows = vec![
        (depth_3d, &["D32_SFLOAT", "GL_TEXTURE_3D"][..]),
        (ImageDesc { tiling: Tiling::Linear, ..depth_3d }, &["D32_SFLOAT", "GL_TEXTURE_3D"]),
        (wide, &["1048576", "GL_TEXTURE_2D"]),
        (ImageDesc { layers: 1 << 20, ..color }, &["1048576 layers", "GL_TEXTURE_2D_ARRAY"]),
    ];
    // NVIDIA supports every count.
    if let Some(samples) = unsupported_samples(gl) {
        let desc = ImageDesc { samples, ..color };
        rows.push((desc, &["samples", "R8G8B8A8_UNORM", "GL_SAMPLES"]));
    }
    for (desc, texts) in rows {
        let capabilities = gl.endpoint.capabilities(&desc.into())?;
        let support = capabilities.memory(MemoryHandleType::OpaqueFd)?;
        let missing =
            support.import.clone().err().with_context(|| format!("{desc:?} is supported"))?;
        let text = missing.to_string();
        ensure!(missing.api == Api::OpenGl && missing.help.is_some(), "{missing:?}");
        for part in texts {
            ensure!(text.contains(part), "{part} is not in: {text}");
        }
        let bytes = buffer.memory().info().allocation_size;
        let memory = buffer.memory().export()?;
        let payload = match ImagePayload::new(memory, 0, desc) {
            Ok(payload) => payload,
            Err(refused) => bail!("{desc:?}: {refused}"),
        };
        let raw = payload.memory().as_fd().as_raw_fd();
        let (payload, error) =
            gl.endpoint.import_image(payload).err().context("imported")?.into_parts();
        match error {
            Error::Missing(refused) => ensure!(refused == missing, "{refused}, but {missing}"),
            // The image is larger than this memory.
            Error::Invalid(refused) => {
                ensure!(refused.to_string().contains(&bytes.to_string()), "{refused}");
            }
            other => bail!("{desc:?}: {other:?}"),
        }
        check_same_fd(&payload, raw)?;
    }
    gl.check("a refused import")
}

/// An image that certainly reaches past the end of its memory is refused before OpenGL is called: a pending
/// error stays pending.
fn past_the_end(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let desc = plain(Format::Rgba8Unorm);
    let image = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
    let memory = gl.endpoint.import_memory(image.memory().export()?)?;
    let size = memory.info().allocation_size;
    raise_users_error(gl);
    let high = Extent { height: desc.extent.height * 9, ..desc.extent };
    for (what, offset, desc) in [
        ("more texels than it has bytes for", 0, ImageDesc { extent: high, ..desc }),
        ("more layers than it has bytes for", 0, ImageDesc { layers: 20, ..desc }),
        ("at its end", size, desc),
        ("across its end", size - 1, desc),
        ("at an offset that overflows", u64::MAX, desc),
    ] {
        match memory.texture(offset, &desc) {
            Err(Error::Invalid(refused)) => {
                ensure!(refused.to_string().contains(&size.to_string()), "{what}: {refused}");
            }
            other => bail!("a texture {what}: {other:?}"),
        }
    }
    ensure!(pending_error(gl)? == glow::INVALID_ENUM, "OpenGL was called");
    let texture = memory.texture(0, &desc)?;
    ensure!(texture.memory().info().allocation_size == size, "{texture:?}");
    Ok(())
}

/// Only its driver knows how much memory an image needs. If there is too little, the library or OpenGL returns
/// an error, and the payload comes back and can be used for the right image. If there is enough, for example
/// because the allocation is padded, the larger texture works.
fn too_little(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let small = Shape::D2.desc(Format::R8Unorm, Tiling::Optimal, (113, 211), USAGE);
    // Slightly larger: llvmpipe, whose rows are multiples of 64 bytes, has no room for it.
    let large = Shape::D2.desc(Format::R8Unorm, Tiling::Optimal, (129, 205), USAGE);
    let image = vulkan.endpoint.create_image(&small, ImageOptions::default())?;
    let payload = ImagePayload::new(image.memory().export()?, 0, large)?;
    let (payload, error) = match gl.endpoint.import_image(payload) {
        Err(refused) => refused.into_parts(),
        Ok(texture) => {
            ensure!(test_gpu.is_hardware(), "llvmpipe has room for {texture:?}");
            let needed = vulkan.endpoint.create_image(&large, ImageOptions::default())?;
            let needed = needed.memory().info().allocation_size;
            let size = texture.memory().info().allocation_size;
            ensure!(needed <= size, "accepted in {size} bytes, but Vulkan needs {needed}");
            gl.upload_texture(&texture, 33)?;
            return gl.check_texture(&texture, 33);
        }
    };
    ensure!(matches!(error, Error::Invalid(_) | Error::Driver(_)), "{error:?}");
    let text = error.to_string();
    ensure!(text.contains("bytes"), "{text}");
    let (memory, ..) = payload.into_parts();
    let texture = gl.endpoint.import_image(ImagePayload::new(memory, 0, small)?)?;
    vulkan.fill_image(&image, 33, (vk::ImageLayout::UNDEFINED, vk::ImageLayout::GENERAL))?;
    gl.endpoint.memory_barrier()?;
    gl.check_texture(&texture, 33)
}

fn dedicated_offset(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let dedicated = DedicatedAllocation::Always;
    let options = ImageOptions { dedicated, ..ImageOptions::default() };
    let image = vulkan.endpoint.create_image(&plain(Format::Rgba8Unorm), options)?;
    let memory = gl.endpoint.import_memory(image.memory().export()?)?;
    let small = Shape::D2.desc(Format::R8Unorm, Tiling::Optimal, (4, 4), USAGE);
    match memory.texture(1024, &small) {
        Err(Error::Invalid(refused)) => {
            ensure!(refused.to_string().contains("dedicated"), "{refused}");
            ensure!(refused.vuid.is_some() && refused.help.is_some(), "{refused}");
            Ok(())
        }
        other => bail!("{other:?}"),
    }
}

/// The memory object of a texture.
#[derive(Clone, Copy)]
enum Memory {
    Zero,
    NotImported,
}

type D1 = unsafe extern "system" fn(u32, i32, u32, i32, u32, u64);
type D2 = unsafe extern "system" fn(u32, i32, u32, i32, i32, u32, u64);
type D3 = unsafe extern "system" fn(u32, i32, u32, i32, i32, i32, u32, u64);
type D2Samples = unsafe extern "system" fn(u32, i32, u32, i32, i32, u8, u32, u64);
type D3Samples = unsafe extern "system" fn(u32, i32, u32, i32, i32, i32, u8, u32, u64);

/// A function that places a texture of a target in a memory object.
#[derive(Clone, Copy)]
struct Storage {
    name: &'static str,
    target: u32,
    function: &'static CStr,
    /// Calls it with a texture and a memory object.
    call: unsafe fn(*const c_void, u32, u32),
}

/// A call of `function`, of type `$type`, with `$argument`s between the texture and the memory object.
macro_rules! storage {
    ($name:literal, $target:ident, $function:literal, $type:ty, ($($argument:expr),*)) => {
        Storage {
            name: $name,
            target: glow::$target,
            function: $function,
            call: {
                unsafe fn call(function: *const c_void, texture: u32, memory: u32) {
                    // SAFETY: the caller passes the function of that name in GL_EXT_memory_object, which has
                    // this type, while its context is current.
                    unsafe {
                        let function = std::mem::transmute::<*const c_void, $type>(function);
                        function(texture, $($argument,)* memory, 0);
                    }
                }
                call
            },
        }
    };
}

const STORAGES: [Storage; 5] = [
    storage!("1d", TEXTURE_1D, c"glTextureStorageMem1DEXT", D1, (1, glow::R8, 4)),
    storage!("2d", TEXTURE_2D, c"glTextureStorageMem2DEXT", D2, (1, glow::R8, 4, 4)),
    storage!("3d", TEXTURE_3D, c"glTextureStorageMem3DEXT", D3, (1, glow::R8, 4, 4, 4)),
    storage!(
        "4_samples",
        TEXTURE_2D_MULTISAMPLE,
        c"glTextureStorageMem2DMultisampleEXT",
        D2Samples,
        (4, glow::R8, 4, 4, 1)
    ),
    storage!(
        "4_samples_array",
        TEXTURE_2D_MULTISAMPLE_ARRAY,
        c"glTextureStorageMem3DMultisampleEXT",
        D3Samples,
        (4, glow::R8, 4, 4, 4, 1)
    ),
];

/// OpenGL's own error for a call that the library's types make impossible.
fn storage_error(
    test_gpu: &TestGpu,
    storage: &Storage,
    memory: Memory,
    expected: u32,
) -> Result<()> {
    let gl = test_gpu.gl()?;
    let objects = MemoryObjects::load(gl)?;
    let function = address(gl, storage.function)?;
    let context = gl.gl.glow();
    let object = match memory {
        Memory::Zero => 0,
        Memory::NotImported => objects.create(gl)?,
    };
    // SAFETY: the context is current, and the function is the one of this name; the texture is new and deleted
    // again.
    let error = unsafe {
        let texture = context.create_named_texture(storage.target).map_err(anyhow::Error::msg)?;
        gl.check("glCreateTextures")?;
        (storage.call)(function, texture.0.get(), object);
        let error = context.get_error();
        context.delete_texture(texture);
        error
    };
    objects.delete(object);
    ensure!(error == expected, "{:?}: {error:#06x}", storage.function);
    Ok(())
}

fn address(gl: &GlContext, name: &CStr) -> Result<*const c_void> {
    let address = (gl.gl.loader())(name);
    ensure!(!address.is_null(), "{name:?} is missing");
    Ok(address)
}
