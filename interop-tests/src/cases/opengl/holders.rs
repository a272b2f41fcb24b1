//! Family D: objects of the application that still hold a texture or buffer when it is dropped. Using
//! them is harmless: the memory lives as long as they do.

use std::ffi::c_void;

use anyhow::{Context as _, Result, bail, ensure};
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::{Gl, GpuSelector, Vulkan};
use gpu_interop::peer::widest_for_gl;
use gpu_interop::vulkan::{BufferOptions, ImageOptions};
use gpu_interop::{BufferDesc, BufferUsage, ImageDesc, ImageUsage, gl};

use crate::harness::{Case, Need, ProcessResources, Role, TestGpu};

/// What holds the texture or buffer, what the child does, and whether the memory is freed before the context
/// is destroyed.
type Holder = (&'static str, fn(&Child) -> Result<()>, bool);

const HOLDERS: [Holder; 7] = [
    ("texture/dropped_while_a_framebuffer_holds_it", framebuffer, true),
    ("texture/dropped_with_its_endpoint_while_a_framebuffer_holds_it", without_endpoint, false),
    ("texture/dropped_while_a_view_holds_it", view, true),
    ("buffer/dropped_while_a_vertex_array_holds_it", vertex_array, true),
    ("buffer/dropped_while_a_buffer_texture_holds_it", buffer_texture, true),
    ("buffer/dropped_while_a_transform_feedback_holds_it", feedback, true),
    ("buffer/dropped_many_times_while_nothing_holds_it", many, true),
];

const ROLE: &str = "uses what is dropped";
/// The name of the child's variable that has the index in [`HOLDERS`].
const HOLDER: &str = "INTEROP_HOLDER";

pub(crate) fn cases() -> Vec<Case> {
    let case = |(at, (what, ..)): (usize, &Holder)| {
        // In a child, since a driver that frees the memory too early crashes.
        let run = move |gpu: &TestGpu| gpu.run_child(ROLE, &[(HOLDER, &at.to_string())]);
        Case::new(format!("vulkan→gl/opaque_fd/{what}/35c"), run).needs(&[Need::Gl])
    };
    HOLDERS.iter().enumerate().map(case).collect()
}

/// What the child of these cases does.
pub(crate) fn roles() -> Vec<Role> {
    vec![(ROLE, || {
        let at: usize = std::env::var(HOLDER)?.parse()?;
        let (_, run, is_freed) = HOLDERS.get(at).context("no such holder")?;
        let child = Child::open()?;
        let run = || {
            child.use_names();
            run(&child)?;
            // Nothing of the application's holds the memory any more.
            child.endpoint.delete_dropped()?;
            ProcessResources::now()
        };
        // Drivers may hold what was used last until they use something else.
        let before = run()?;
        for _ in 0..4 {
            let after = run()?;
            if *is_freed {
                before.require_same(&after)?;
            }
        }
        Ok(())
    })]
}

const SIDE: i32 = 512;
const BYTES: usize = 4 << 20;
/// More names than a search for the next name in use skips.
const NAMES: usize = 2000;

struct Child {
    vulkan: Vulkan,
    gl: Gl,
    endpoint: gl::Endpoint,
}

impl Child {
    /// Opens both APIs, and binds a framebuffer to draw to.
    fn open() -> Result<Self> {
        let selector: GpuSelector = std::env::var("INTEROP_DEVICE")?.parse()?;
        let vulkan = Vulkan::open(&selector, &TestGpu::options())?;
        let gl = Gl::open(&selector)?;
        let context = gl.glow();
        // SAFETY: the context is current, and the objects are its own.
        unsafe {
            let (buffer, pixels) =
                (named(context.create_framebuffer())?, named(context.create_renderbuffer())?);
            context.bind_renderbuffer(glow::RENDERBUFFER, Some(pixels));
            context.renderbuffer_storage(glow::RENDERBUFFER, glow::RGBA8, 16, 16);
            context.bind_framebuffer(glow::FRAMEBUFFER, Some(buffer));
            let (target, point) = (glow::RENDERBUFFER, glow::COLOR_ATTACHMENT0);
            context.framebuffer_renderbuffer(glow::FRAMEBUFFER, point, target, Some(pixels));
        }
        let endpoint = gl.endpoint()?;
        Ok(Self { vulkan, gl, endpoint })
    }

    /// Generates and deletes names. Some drivers don't use them again.
    fn use_names(&self) {
        let gl = self.gl.glow();
        for _ in 0..NAMES {
            // SAFETY: the context is current, and the names are new.
            unsafe {
                gl.create_texture().into_iter().for_each(|name| gl.delete_texture(name));
                gl.create_framebuffer().into_iter().for_each(|name| gl.delete_framebuffer(name));
                gl.create_vertex_array().into_iter().for_each(|name| gl.delete_vertex_array(name));
                let feedback = gl.create_transform_feedback();
                feedback.into_iter().for_each(|name| gl.delete_transform_feedback(name));
            }
        }
    }

    fn texture(&self, endpoint: &gl::Endpoint) -> Result<gl::Texture> {
        let side = SIDE as u32;
        let desc = ImageDesc::d2(Format::Rgba8Unorm, side, side, ImageUsage::SAMPLED);
        let exporter = self.vulkan.endpoint()?;
        let image =
            exporter.create_image(&widest_for_gl(&exporter, &desc)?, ImageOptions::default())?;
        Ok(endpoint.import_image(image.export()?)?)
    }

    fn buffer(&self) -> Result<gl::Buffer> {
        self.buffer_of(BYTES)
    }

    fn buffer_of(&self, bytes: usize) -> Result<gl::Buffer> {
        let usage = BufferUsage::all();
        let desc = BufferDesc { usage, ..BufferDesc::storage(bytes as u64) };
        let buffer = self.vulkan.endpoint()?.create_buffer(&desc, BufferOptions::default())?;
        Ok(self.endpoint.import_buffer(buffer.export()?)?)
    }

    fn check(&self, call: &str) -> Result<()> {
        // SAFETY: the context is current.
        match unsafe { self.gl.glow().get_error() } {
            glow::NO_ERROR => Ok(()),
            error => bail!("{call}: {error:#06x}"),
        }
    }

    /// Draws `count` points, of which the vertex shader `source` reads something.
    fn draw(&self, source: &str, count: i32) -> Result<()> {
        let gl = self.gl.glow();
        // SAFETY: the context is current, and the objects are its own.
        unsafe {
            let program = self.program(source)?;
            gl.use_program(Some(program));
            gl.draw_arrays(glow::POINTS, 0, count);
            gl.finish();
        }
        self.check("draw")
    }

    unsafe fn program(&self, source: &str) -> Result<glow::Program> {
        let gl = self.gl.glow();
        let error = anyhow::Error::msg::<String>;
        // SAFETY: the context is current, and the objects are its own.
        unsafe {
            let shader = gl.create_shader(glow::VERTEX_SHADER).map_err(error)?;
            gl.shader_source(shader, &format!("#version 330\n{source}"));
            gl.compile_shader(shader);
            ensure!(gl.get_shader_compile_status(shader), "{}", gl.get_shader_info_log(shader));
            let program = gl.create_program().map_err(error)?;
            gl.attach_shader(program, shader);
            gl.transform_feedback_varyings(program, &["value"], glow::INTERLEAVED_ATTRIBS);
            gl.link_program(program);
            ensure!(gl.get_program_link_status(program), "{}", gl.get_program_info_log(program));
            Ok(program)
        }
    }
}

fn named<T>(name: Result<T, String>) -> Result<T> {
    name.map_err(anyhow::Error::msg)
}

fn framebuffer(child: &Child) -> Result<()> {
    draw_after(child, child.texture(&child.endpoint)?, drop)
}

/// The context frees the memory when it is destroyed.
fn without_endpoint(child: &Child) -> Result<()> {
    let endpoint = child.gl.endpoint()?;
    draw_after(child, child.texture(&endpoint)?, |texture| drop((texture, endpoint)))
}

/// Draws to the texture after `drop` has dropped it.
fn draw_after(child: &Child, texture: gl::Texture, drop: impl FnOnce(gl::Texture)) -> Result<()> {
    let gl = child.gl.glow();
    // SAFETY: the context is current, and the objects are its own.
    unsafe {
        let framebuffer = named(gl.create_framebuffer())?;
        let before = gl.get_parameter_framebuffer(glow::DRAW_FRAMEBUFFER_BINDING);
        gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
        let attachment = glow::COLOR_ATTACHMENT0;
        let name = Some(texture.name());
        gl.framebuffer_texture_2d(glow::FRAMEBUFFER, attachment, glow::TEXTURE_2D, name, 0);
        // A texture is detached from the framebuffers that are bound when it is deleted, but from no
        // others.
        gl.bind_framebuffer(glow::FRAMEBUFFER, before);
        drop(texture);
        gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
        gl.viewport(0, 0, SIDE, SIDE);
        for _ in 0..4 {
            gl.clear_color(0.25, 0.5, 0.75, 1.0);
            gl.clear(glow::COLOR_BUFFER_BIT);
            gl.finish();
        }
        let mut pixel = [0; 4];
        let into = glow::PixelPackData::Slice(Some(&mut pixel));
        gl.read_pixels(0, 0, 1, 1, glow::RGBA, glow::UNSIGNED_BYTE, into);
        child.check("glReadPixels")?;
        ensure!(pixel[3] == 255, "{pixel:?}");
        gl.bind_framebuffer(glow::FRAMEBUFFER, before);
        gl.delete_framebuffer(framebuffer);
    }
    Ok(())
}

type TextureView = unsafe extern "system" fn(u32, u32, u32, u32, u32, u32, u32, u32);

fn view(child: &Child) -> Result<()> {
    let (gl, texture) = (child.gl.glow(), child.texture(&child.endpoint)?);
    let target = glow::TEXTURE_2D;
    // SAFETY: the context is current, and the objects are its own.
    unsafe {
        let view = named(gl.create_texture())?;
        let texture_view = child.gl.loader()(c"glTextureView");
        ensure!(!texture_view.is_null(), "no glTextureView");
        let texture_view = std::mem::transmute::<*const c_void, TextureView>(texture_view);
        texture_view(view.0.get(), target, texture.name().0.get(), glow::RGBA8UI, 0, 1, 0, 1);
        child.check("glTextureView")?;
        drop(texture);
        gl.bind_texture(target, Some(view));
        let row = [7u8; 4 * SIDE as usize];
        let pixels = glow::PixelUnpackData::Slice(Some(&row));
        let (format, ty) = (glow::RGBA_INTEGER, glow::UNSIGNED_BYTE);
        gl.tex_sub_image_2d(target, 0, 0, 0, SIDE, 1, format, ty, pixels);
        gl.finish();
        child.check("glTexSubImage2D")?;
        gl.bind_texture(target, None);
        gl.delete_texture(view);
    }
    Ok(())
}

fn vertex_array(child: &Child) -> Result<()> {
    let (gl, buffer) = (child.gl.glow(), child.buffer()?);
    // SAFETY: the context is current, and the objects are its own.
    unsafe {
        let array = named(gl.create_vertex_array())?;
        gl.bind_vertex_array(Some(array));
        gl.bind_buffer(glow::ARRAY_BUFFER, Some(buffer.name()));
        gl.enable_vertex_attrib_array(0);
        gl.vertex_attrib_pointer_f32(0, 4, glow::FLOAT, false, 16, 0);
        gl.bind_buffer(glow::ARRAY_BUFFER, None);
        gl.bind_vertex_array(None);
        drop(buffer);
        gl.bind_vertex_array(Some(array));
        let source = "layout(location = 0) in vec4 position; out vec4 value;
            void main() { gl_Position = position; value = position; }";
        child.draw(source, (BYTES / 16) as i32)?;
        gl.bind_vertex_array(None);
        gl.delete_vertex_array(array);
    }
    Ok(())
}

/// What waits until it is known that nothing holds it is bounded, in number and in bytes.
fn many(child: &Child) -> Result<()> {
    const MOST_KIB: u64 = 48 << 10;
    const MOST: usize = 256;
    let before = ProcessResources::now()?;
    for (bytes, count) in [(BYTES, 40), (64 << 10, 2 * MOST)] {
        for _ in 0..count {
            drop(child.buffer_of(bytes)?);
        }
        let after = ProcessResources::now()?;
        let (kib, mappings) = (after.shared_kib, after.shared_mappings);
        ensure!(kib <= before.shared_kib + MOST_KIB, "{bytes} bytes: {before:?}, {after:?}");
        ensure!(mappings <= before.shared_mappings + MOST, "{bytes} bytes: {before:?}, {after:?}");
    }
    Ok(())
}

fn buffer_texture(child: &Child) -> Result<()> {
    let (gl, buffer) = (child.gl.glow(), child.buffer()?);
    // SAFETY: the context is current, and the objects are its own.
    unsafe {
        let texture = named(gl.create_texture())?;
        gl.bind_texture(glow::TEXTURE_BUFFER, Some(texture));
        gl.tex_buffer(glow::TEXTURE_BUFFER, glow::R32F, Some(buffer.name()));
        child.check("glTexBuffer")?;
        drop(buffer);
        let array = named(gl.create_vertex_array())?;
        gl.bind_vertex_array(Some(array));
        let source = "uniform samplerBuffer texels; out vec4 value;
            void main() { value = texelFetch(texels, gl_VertexID); gl_Position = value; }";
        child.draw(source, 60_000)?;
        gl.bind_vertex_array(None);
        gl.bind_texture(glow::TEXTURE_BUFFER, None);
        gl.delete_texture(texture);
        gl.delete_vertex_array(array);
    }
    Ok(())
}

fn feedback(child: &Child) -> Result<()> {
    let (gl, buffer) = (child.gl.glow(), child.buffer()?);
    // SAFETY: the context is current, and the objects are its own.
    unsafe {
        let feedback = named(gl.create_transform_feedback())?;
        gl.bind_transform_feedback(glow::TRANSFORM_FEEDBACK, Some(feedback));
        gl.bind_buffer_base(glow::TRANSFORM_FEEDBACK_BUFFER, 0, Some(buffer.name()));
        gl.bind_transform_feedback(glow::TRANSFORM_FEEDBACK, None);
        drop(buffer);
        gl.bind_transform_feedback(glow::TRANSFORM_FEEDBACK, Some(feedback));
        let program =
            child.program("out vec4 value; void main() { value = vec4(gl_VertexID); }")?;
        let array = named(gl.create_vertex_array())?;
        gl.bind_vertex_array(Some(array));
        gl.use_program(Some(program));
        gl.enable(glow::RASTERIZER_DISCARD);
        gl.begin_transform_feedback(glow::POINTS);
        gl.draw_arrays(glow::POINTS, 0, 60_000);
        gl.end_transform_feedback();
        gl.finish();
        child.check("transform feedback")?;
        gl.disable(glow::RASTERIZER_DISCARD);
        gl.bind_transform_feedback(glow::TRANSFORM_FEEDBACK, None);
        gl.delete_transform_feedback(feedback);
        gl.bind_vertex_array(None);
        gl.delete_vertex_array(array);
    }
    Ok(())
}
