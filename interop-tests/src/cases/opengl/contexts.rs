//! Family D: contexts other than the suite's: of one share group, on another thread, of OpenGL ES.

use std::ffi::{CStr, c_void};
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::desc::Tiling;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, TextureAccess, VulkanCommands};
use gpu_interop::headless::Gl;
use gpu_interop::peer::widest_for_gl;
use gpu_interop::vulkan::{BufferOptions, ImageOptions};
use gpu_interop::{BufferDesc, Error, gl};

use crate::cases::images_vulkan::USAGE;
use crate::cases::opengl::raw::MemoryObjects;
use crate::harness::{Case, Need, Role, TestGpu};
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::ImageIo;

const BYTES: usize = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        Case::new(format!("vulkan→gl/opaque_fd/{what}"), run).needs(&[Need::Gl])
    };
    vec![
        case("contexts_that_share_accept_each_others_objects/35d", shared_objects),
        case("contexts_that_do_not_share_refuse_each_others_buffers/35d", other_buffers),
        case("an_endpoint_follows_its_context_to_another_thread/35e", other_thread),
        case("opengl_es_imports_linear_images/36c", opengl_es),
        Case::new("headless/an_old_opengl_is_refused_with_the_version_needed/63k", old_opengl)
            .needs(&[Need::Gl]),
    ]
}

const OLD_OPENGL: &str = "opens a context of OpenGL 2.1";

/// What the child of these cases does.
pub(crate) fn roles() -> Vec<Role> {
    vec![(OLD_OPENGL, || match Gl::open(&std::env::var("INTEROP_DEVICE")?.parse()?) {
        // Only Mesa can be made to have an old version.
        Ok(_) => Ok(()),
        Err(refused) => {
            ensure!(refused.to_string().contains("OpenGL 3.3"), "{refused}");
            Ok(())
        }
    })]
}

fn old_opengl(test_gpu: &TestGpu) -> Result<()> {
    test_gpu.run_child(OLD_OPENGL, &[("MESA_GL_VERSION_OVERRIDE", "2.1")])
}

/// Reads the content of a buffer in the context that is current.
fn read(gl: &glow::Context, buffer: glow::Buffer) -> Result<Vec<u8>> {
    let mut bytes = vec![0; BYTES];
    // SAFETY: the context is current, and the buffer has as many bytes.
    let error = unsafe {
        gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer));
        gl.get_buffer_sub_data(glow::COPY_READ_BUFFER, 0, &mut bytes);
        gl.bind_buffer(glow::COPY_READ_BUFFER, None);
        gl.get_error()
    };
    ensure!(error == glow::NO_ERROR, "glGetBufferSubData: {error:#06x}");
    Ok(bytes)
}

fn shared_objects(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let objects = MemoryObjects::load(gl)?;
    let ours = vulkan
        .endpoint
        .create_buffer(&BufferDesc::storage(BYTES as u64), BufferOptions::default())?;
    let buffer = gl.endpoint.import_buffer(ours.export()?)?;
    let plain = Shape::D2.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE);
    let image = vulkan
        .endpoint
        .create_image(&widest_for_gl(&vulkan.endpoint, &plain)?, ImageOptions::default())?;
    let texture = gl.endpoint.import_image(image.export()?)?;
    vulkan.upload(ours.handle(), 0, &oracle::filled(BYTES, 35))?;
    gl.finish();

    let other = gl.gl.open_shared()?;
    let mut loader = other.loader();
    // SAFETY: the context is current, of the share group of `gl`, and outlives the endpoint.
    let endpoint = unsafe { gl.endpoint.new_shared(other.glow().clone(), &mut loader, None) }?;
    ensure!(endpoint.shares_with(&gl.endpoint) && !endpoint.is_same(&gl.endpoint));
    let run = || {
        let mut to_gl = handoff::open(
            &vulkan.endpoint,
            &vulkan.endpoint,
            &endpoint,
            HandoffOptions::default(),
        )?;
        let command = vulkan.command_buffers(1)?[0];
        vulkan.begin(command)?;
        let family = vulkan.vulkan.queue_family();
        // SAFETY: the command buffer is being recorded for a queue of the family, and lists nothing.
        let commands = unsafe {
            VulkanCommands::record(command, family, &[] as &[gpu_interop::vulkan::BufferAccess<'_>])
        };
        let (ticket, sync) = to_gl.release.release(commands)?;
        vulkan.submit(command, sync)?;
        let textures = [TextureAccess::from(&texture)];
        let refused = to_gl.acquire.acquire(ticket, (&[&buffer][..], &textures[..]));
        vulkan.vulkan.wait_idle()?;
        vulkan.free_command_buffers(&[command]);
        // The numbers of resources differ on purpose in some handoffs: only the endpoint matters here.
        if let Err(refused) = refused {
            let text = refused.to_string();
            ensure!(!text.contains("endpoint"), "{text}");
        }
        let bytes = read(other.glow(), buffer.name())?;
        oracle::check(&bytes, 35, &Passes::default())?;
        // SAFETY: the context is current.
        ensure!(unsafe { other.glow().is_texture(texture.name()) }, "not shared");
        let (name, memory) = (buffer.name(), buffer.memory().name());
        drop(buffer);
        ensure!(endpoint.delete_dropped()? >= 2, "the other context deletes it");
        // SAFETY: the context is current.
        ensure!(!unsafe { other.glow().is_buffer(name) }, "still there");
        ensure!(!objects.is_memory_object(memory), "still there");
        Ok(())
    };
    let result = run();
    drop(endpoint);
    drop(other);
    gl.gl.make_current()?;
    result
}

fn other_buffers(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let desc = BufferDesc::storage(BYTES as u64);
    let ours = vulkan.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let buffer = gl.endpoint.import_buffer(ours.export()?)?;
    let other = Gl::open(test_gpu.selector())?;
    let run = || {
        let endpoint = other.endpoint()?;
        ensure!(!endpoint.shares_with(&gl.endpoint));
        let mut to_vulkan = handoff::open(
            &vulkan.endpoint,
            &endpoint,
            &vulkan.endpoint,
            HandoffOptions::default(),
        )?;
        match to_vulkan.release.release(&[&buffer]) {
            Err(Error::Mismatch(refused)) => {
                ensure!(refused.to_string().contains("endpoint"), "{refused}");
                Ok(())
            }
            other => bail!("{:?}", other.map(|(ticket, ())| ticket)),
        }
    };
    let result = run();
    drop(other);
    gl.gl.make_current()?;
    result
}

/// While a context is current on one thread, another can't use its endpoint; after it is released, another
/// thread can.
fn other_thread(test_gpu: &TestGpu) -> Result<()> {
    let suite = test_gpu.gl()?;
    let vulkan = test_gpu.vulkan();
    let ours = vulkan
        .endpoint
        .create_buffer(&BufferDesc::storage(BYTES as u64), BufferOptions::default())?;
    vulkan.upload(ours.handle(), 0, &oracle::filled(BYTES, 36))?;
    let gl = Gl::open(test_gpu.selector())?;
    let run = || {
        let endpoint = gl.endpoint()?;
        let buffer = endpoint.import_buffer(ours.export()?)?;
        let joined = |thread: thread::JoinHandle<Result<()>>| {
            thread.join().map_err(|_| anyhow!("the thread panicked"))?
        };
        let early = endpoint.clone();
        joined(thread::spawn(move || match early.memory_barrier() {
            Err(Error::Invalid(refused)) => {
                ensure!(refused.to_string().contains("not current on this thread"), "{refused}");
                Ok(())
            }
            other => bail!("{other:?}"),
        }))?;
        gl.release_current()?;
        joined(thread::spawn(move || {
            gl.make_current()?;
            endpoint.memory_barrier()?;
            oracle::check(&read(gl.glow(), buffer.name())?, 36, &Passes::default())?;
            let name = buffer.name();
            drop(buffer);
            // SAFETY: the context is current.
            ensure!(!unsafe { gl.glow().is_buffer(name) }, "the buffer was not deleted at once");
            Ok(())
        }))
    };
    let result = run();
    suite.gl.make_current()?;
    result
}

type GetDisplay = unsafe extern "system" fn() -> *const c_void;
type BindApi = unsafe extern "system" fn(u32) -> u32;
type ChooseConfig =
    unsafe extern "system" fn(*const c_void, *const i32, *mut *const c_void, i32, *mut i32) -> u32;
type CreateContext = unsafe extern "system" fn(
    *const c_void,
    *const c_void,
    *const c_void,
    *const i32,
) -> *const c_void;
type MakeCurrent =
    unsafe extern "system" fn(*const c_void, *const c_void, *const c_void, *const c_void) -> u32;
type DestroyContext = unsafe extern "system" fn(*const c_void, *const c_void) -> u32;

/// EGL's functions, on the display of the context that is current.
struct Egl {
    display: *const c_void,
    bind_api: BindApi,
    choose_config: ChooseConfig,
    create_context: CreateContext,
    make_current: MakeCurrent,
    destroy_context: DestroyContext,
}

/// Loads a function by name and type.
macro_rules! function {
    ($loader:expr, $name:literal, $type:ty) => {{
        let address: *const c_void = $loader($name);
        ensure!(!address.is_null(), "{:?} is missing", $name);
        // SAFETY: the function of that name in EGL has that type.
        unsafe { std::mem::transmute::<*const c_void, $type>(address) }
    }};
}

impl Egl {
    fn load(loader: &dyn Fn(&CStr) -> *const c_void) -> Result<Self> {
        let get_display = function!(loader, c"eglGetCurrentDisplay", GetDisplay);
        Ok(Self {
            // SAFETY: it takes nothing.
            display: unsafe { get_display() },
            bind_api: function!(loader, c"eglBindAPI", BindApi),
            choose_config: function!(loader, c"eglChooseConfig", ChooseConfig),
            create_context: function!(loader, c"eglCreateContext", CreateContext),
            make_current: function!(loader, c"eglMakeCurrent", MakeCurrent),
            destroy_context: function!(loader, c"eglDestroyContext", DestroyContext),
        })
    }

    /// Runs `run` in a new surfaceless context of OpenGL ES 3.
    fn with_opengl_es(&self, run: impl FnOnce() -> Result<()>) -> Result<()> {
        const OPENGL_ES_API: u32 = 0x30A0;
        const OPENGL_API: u32 = 0x30A2;
        /// `EGL_SURFACE_TYPE`, none; `EGL_RENDERABLE_TYPE`, `EGL_OPENGL_ES3_BIT`; `EGL_NONE`.
        const CONFIG: [i32; 5] = [0x3033, 0, 0x3040, 0x40, 0x3038];
        /// `EGL_CONTEXT_MAJOR_VERSION`, 3; `EGL_NONE`.
        const VERSION: [i32; 3] = [0x3098, 3, 0x3038];
        let none = std::ptr::null();
        let (mut config, mut count) = (none, 0);
        // SAFETY: the display is initialised; the lists end in EGL_NONE, and there is room for one config.
        // The context is destroyed when nothing uses it any more.
        unsafe {
            let chosen =
                (self.choose_config)(self.display, CONFIG.as_ptr(), &mut config, 1, &mut count);
            ensure!(chosen != 0 && count == 1, "no EGL config for OpenGL ES 3");
            (self.bind_api)(OPENGL_ES_API);
            let context = (self.create_context)(self.display, config, none, VERSION.as_ptr());
            let result = if context.is_null() {
                Err(anyhow!("eglCreateContext failed"))
            } else if (self.make_current)(self.display, none, none, context) == 0 {
                Err(anyhow!("eglMakeCurrent failed"))
            } else {
                run()
            };
            if !context.is_null() {
                (self.make_current)(self.display, none, none, none);
                (self.destroy_context)(self.display, context);
            }
            (self.bind_api)(OPENGL_API);
            result
        }
    }
}

/// Reads the 64 × 64 texels of a texture through a framebuffer.
fn read_pixels(gl: &glow::Context, texture: &gl::Texture) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 64 * 64 * 4];
    let (target, point) = (glow::FRAMEBUFFER, glow::COLOR_ATTACHMENT0);
    // SAFETY: the context is current, the texture its own, and there is room for as many texels.
    let error = unsafe {
        let framebuffer = gl.create_framebuffer().map_err(anyhow::Error::msg)?;
        gl.bind_framebuffer(target, Some(framebuffer));
        let name = Some(texture.name());
        gl.framebuffer_texture_2d(target, point, texture.target(), name, 0);
        let pixels = glow::PixelPackData::Slice(Some(&mut bytes));
        gl.read_pixels(0, 0, 64, 64, glow::RGBA, glow::UNSIGNED_BYTE, pixels);
        gl.bind_framebuffer(target, None);
        gl.delete_framebuffer(framebuffer);
        gl.get_error()
    };
    ensure!(error == glow::NO_ERROR, "glReadPixels: {error:#06x}");
    Ok(bytes)
}

/// OpenGL ES has no query for the tilings of a texture; its driver decides when the texture is created.
fn opengl_es(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let mut loader = gl.gl.loader();
    let egl = Egl::load(&loader)?;
    let result = egl.with_opengl_es(|| {
        // SAFETY: the context is current, and outlives the endpoint.
        let endpoint = unsafe { gl::Endpoint::load(&mut loader, None) }?;
        ensure!(endpoint.gl().version().is_embedded, "{:?}", endpoint.gl().version());
        for tiling in [Tiling::Optimal, Tiling::Linear] {
            let desc = Shape::D2.desc(Format::Rgba8Unorm, tiling, (64, 64), USAGE);
            let desc = widest_for_gl(&vulkan.endpoint, &desc)?;
            let image = vulkan.endpoint.create_image(&desc, ImageOptions::default())?;
            let capabilities = endpoint.capabilities(&desc.into())?;
            if let Err(missing) = &capabilities.memory(MemoryHandleType::OpaqueFd)?.import {
                ensure!(test_gpu.is_hardware(), "{tiling:?}: {missing}");
                continue;
            }
            let io = ImageIo::new(vulkan, &image)?;
            io.fill(36)?;
            let (_, expected) = io.read()?.swap_remove(0);
            vulkan.fill_image(
                &image,
                36,
                (vk::ImageLayout::UNDEFINED, vk::ImageLayout::GENERAL),
            )?;
            let texture = endpoint.import_image(image.export()?)?;
            ensure!(read_pixels(endpoint.gl(), &texture)? == expected, "{tiling:?}: other bytes");
        }
        Ok(())
    });
    gl.gl.make_current()?;
    result
}
