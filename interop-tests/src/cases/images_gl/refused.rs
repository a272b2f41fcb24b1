//! Group D: textures that OpenGL hasn't, and that memory has no room for.

use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::{Extent, ImageKind, Tiling};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::payload::ImagePayload;
use gpu_interop::vulkan::{BufferOptions, DedicatedAllocation, ImageOptions};
use gpu_interop::{Api, BufferDesc, Error, ImageDesc, ImageUsage};

use crate::cases::images_gl::pair::USAGE;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::gl::GlContext;
use interop_gpu::image::{SIZES, Shape};

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan→gl/opaque_fd/image/{what}"), run).needs(&[Need::Gl])
    };
    let mut cases = vec![
        case("what_opengl_has_not_is_named/4", unsupported),
        case("past_the_end_is_refused_before_gl_sees_it/33", past_the_end),
        case("too_little_memory_is_explained/33a", too_little),
        case("at_an_offset_of_a_dedicated_allocation_is_refused/33", dedicated_offset),
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
            let run = move |machine: &TestGpu| storage_error(machine, &storage, memory, error);
            cases.push(Case::new(name, run).needs(&[Need::Gl]));
        }
    }
    cases
}

fn plain(format: Format) -> ImageDesc {
    Shape::D2.desc(format, Tiling::Optimal, SIZES[0], USAGE)
}

/// A number of samples a texel that this context does not have.
fn samples_not_there(gl: &GlContext) -> Option<u32> {
    let mut there = [0; 16];
    let (target, format) = (glow::TEXTURE_2D_MULTISAMPLE, glow::RGBA8);
    // SAFETY: the context is current, and there are no more than 16 counts.
    unsafe {
        gl.gl.glow().get_internal_format_i32_slice(target, format, glow::SAMPLES, &mut there)
    };
    [2, 4, 8, 16, 32, 64].into_iter().find(|&count: &u32| !there.contains(&(count as i32)))
}

/// Said by the capability and by the import, before OpenGL sees the descriptor, which comes back.
fn unsupported(machine: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let depth = plain(Format::D32Float);
    let depth_3d = ImageDesc {
        kind: ImageKind::D3,
        extent: Extent { depth: 4, ..depth.extent },
        usage: ImageUsage::SAMPLED,
        ..depth
    };
    let color = plain(Format::Rgba8Unorm);
    let wide = ImageDesc { extent: Extent { width: 1 << 20, ..color.extent }, ..color };
    // Everything is larger than it needs to be: what is refused is not the size of the memory.
    let buffer =
        vulkan.endpoint.create_buffer(&BufferDesc::storage(1 << 20), BufferOptions::default())?;
    let mut rows = vec![
        (depth_3d, &["D32_SFLOAT", "GL_TEXTURE_3D"][..]),
        (ImageDesc { tiling: Tiling::Linear, ..depth_3d }, &["D32_SFLOAT", "GL_TEXTURE_3D"]),
        (wide, &["1048576", "GL_TEXTURE_2D"]),
        (ImageDesc { layers: 1 << 20, ..color }, &["1048576 layers", "GL_TEXTURE_2D_ARRAY"]),
    ];
    // NVIDIA's has every count there is.
    if let Some(samples) = samples_not_there(gl) {
        let desc = ImageDesc { samples, ..color };
        rows.push((desc, &["samples", "R8G8B8A8_UNORM", "GL_SAMPLES"]));
    }
    for (desc, words) in rows {
        let told = gl.endpoint.capabilities(&desc.into())?;
        let support = told.memory(MemoryHandleType::OpaqueFd)?;
        let missing = support.import.clone().err().with_context(|| format!("has {desc:?}"))?;
        let text = missing.to_string();
        ensure!(missing.api == Api::OpenGl && missing.help.is_some(), "{missing:?}");
        for word in words {
            ensure!(text.contains(word), "{word} is not in: {text}");
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
            // The image is larger than the memory that is at hand here.
            Error::Invalid(refused) => {
                ensure!(refused.to_string().contains(&bytes.to_string()), "{refused}");
            }
            other => bail!("{desc:?}: {other:?}"),
        }
        ensure!(payload.memory().as_fd().as_raw_fd() == raw, "another descriptor came back");
    }
    gl.check("what was refused")
}

/// An image that certainly reaches past the end of its memory is refused before OpenGL is asked: an error
/// that was pending still is.
fn past_the_end(machine: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let desc = plain(Format::Rgba8Unorm);
    let image = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
    let memory = gl.endpoint.import_memory(image.memory().export()?)?;
    let size = memory.info().allocation_size;
    // SAFETY: the context is current; there is no such capability, which OpenGL says by the error.
    unsafe { gl.gl.glow().enable(0xFFFF) };
    let high = Extent { height: desc.extent.height * 9, ..desc.extent };
    for (what, offset, desc) in [
        ("more texels than it has bytes for", 0, ImageDesc { extent: high, ..desc }),
        ("more layers than it has bytes for", 0, ImageDesc { layers: 20, ..desc }),
        ("at its end", size, desc),
        ("over its end", size - 1, desc),
        ("at an offset that overflows", u64::MAX, desc),
    ] {
        match memory.texture(offset, &desc) {
            Err(Error::Invalid(refused)) => {
                ensure!(refused.to_string().contains(&size.to_string()), "{what}: {refused}");
            }
            other => bail!("a texture {what}: {other:?}"),
        }
    }
    // SAFETY: the context is current.
    let pending = unsafe { gl.gl.glow().get_error() };
    ensure!(pending == glow::INVALID_ENUM, "OpenGL was asked: {pending:#06x}");
    let texture = memory.texture(0, &desc)?;
    ensure!(texture.memory().info().allocation_size == size, "{texture:?}");
    Ok(())
}

/// How much memory an image takes only its driver knows. Where it is too little, that is said, by the library
/// or by OpenGL, and the payload comes back, to be used for what it is.
fn too_little(machine: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let small = Shape::D2.desc(Format::R8Unorm, Tiling::Optimal, (113, 211), USAGE);
    // Hardly larger: llvmpipe, whose rows are multiples of 64 bytes, has no room for it.
    let large = Shape::D2.desc(Format::R8Unorm, Tiling::Optimal, (129, 205), USAGE);
    let image = vulkan.endpoint.create_image(&small, ImageOptions::default())?;
    let payload = ImagePayload::new(image.memory().export()?, 0, large)?;
    let (payload, error) = match gl.endpoint.import_image(payload) {
        Err(refused) => refused.into_parts(),
        Ok(texture) => {
            ensure!(machine.is_hardware(), "llvmpipe has room for {texture:?}");
            return gl.check("the import");
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

fn dedicated_offset(machine: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
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

/// What memory object a texture is given.
#[derive(Clone, Copy)]
enum Memory {
    Zero,
    NotImported,
}

type Create = unsafe extern "system" fn(i32, *mut u32);
type Delete = unsafe extern "system" fn(i32, *const u32);
type D1 = unsafe extern "system" fn(u32, i32, u32, i32, u32, u64);
type D2 = unsafe extern "system" fn(u32, i32, u32, i32, i32, u32, u64);
type D3 = unsafe extern "system" fn(u32, i32, u32, i32, i32, i32, u32, u64);
type D2Samples = unsafe extern "system" fn(u32, i32, u32, i32, i32, u8, u32, u64);
type D3Samples = unsafe extern "system" fn(u32, i32, u32, i32, i32, i32, u8, u32, u64);

/// One of the calls that give a texture its storage, for a texture of a target.
#[derive(Clone, Copy)]
struct Storage {
    name: &'static str,
    target: u32,
    function: &'static CStr,
    /// Gives a texture storage in a memory object.
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
                    // SAFETY: the caller gives the function of that name in GL_EXT_memory_object, which
                    // has this type, while its context is current.
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

/// What OpenGL itself says to what the library's types leave no way to ask.
fn storage_error(
    machine: &TestGpu,
    storage: &Storage,
    memory: Memory,
    expected: u32,
) -> Result<()> {
    let gl = machine.gl()?;
    let create = address(gl, c"glCreateMemoryObjectsEXT")?;
    let delete = address(gl, c"glDeleteMemoryObjectsEXT")?;
    let function = address(gl, storage.function)?;
    let context = gl.gl.glow();
    let mut object = 0u32;
    // SAFETY: the context is current, and the functions are those of these names; the texture and the
    // memory object are new and deleted again.
    let error = unsafe {
        if let Memory::NotImported = memory {
            std::mem::transmute::<*const c_void, Create>(create)(1, &mut object);
        }
        let texture = context.create_named_texture(storage.target).map_err(anyhow::Error::msg)?;
        gl.check("glCreateTextures")?;
        (storage.call)(function, texture.0.get(), object);
        let error = context.get_error();
        context.delete_texture(texture);
        std::mem::transmute::<*const c_void, Delete>(delete)(1, &object);
        error
    };
    ensure!(error == expected, "{:?}: {error:#06x}", storage.function);
    Ok(())
}

fn address(gl: &GlContext, name: &CStr) -> Result<*const c_void> {
    let address = (gl.gl.loader())(name);
    ensure!(!address.is_null(), "{name:?} is not there");
    Ok(address)
}
