//! Depth and stencil tests: an offscreen framebuffer with a shared texture as its depth or stencil attachment.

use anyhow::{Result, ensure};
use gpu_interop::format::Aspects;
use gpu_interop::gl::Texture;
use gpu_interop::glow::{self, HasContext as _};

use super::GlContext;

const VERTEX: &str = "#version 450
layout(location = 0) uniform float depth;
void main() {
    vec2 at = vec2(4.0 * (gl_VertexID & 1) - 1.0, 2.0 * (gl_VertexID & 2) - 1.0);
    gl_Position = vec4(at, 2.0 * depth - 1.0, 1.0);
}
";
const FRAGMENT: &str = "#version 450
layout(location = 1) uniform uint value;
layout(location = 0) out uint pixel;
void main() { pixel = value; }
";

const DEPTH: glow::NativeUniformLocation = glow::NativeUniformLocation(0);
const VALUE: glow::NativeUniformLocation = glow::NativeUniformLocation(1);

/// The state that a triangle over all pixels is drawn with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tested {
    /// The colour written to pixels that pass the tests.
    pub value: u32,
    /// The depth of the triangle, 0 to 1.
    pub depth: f32,
    /// If set, only pixels nearer than the stored depth pass; otherwise all do.
    pub nearer: bool,
    /// Only pixels pass whose stencil equals the reference in these bits.
    pub stencil: (u32, u8),
    /// If set, pixels that pass replace the depth, and the stencil by the reference.
    pub replaces: bool,
}

/// A framebuffer of 32-bit pixels with a plain texture of depth, or of depth and stencil.
#[derive(Debug)]
pub struct DepthCanvas<'a> {
    gpu: &'a GlContext,
    size: (i32, i32),
    program: glow::Program,
    framebuffer: glow::Framebuffer,
    renderbuffer: glow::Renderbuffer,
    vertex_array: glow::VertexArray,
}

impl<'a> DepthCanvas<'a> {
    /// A framebuffer with `texture`, every pixel 0.
    ///
    /// # Errors
    /// If OpenGL can't use it as an attachment.
    pub fn new(gpu: &'a GlContext, texture: &Texture) -> Result<Self> {
        let (gl, desc) = (gpu.glow(), texture.desc());
        let size = (i32::try_from(desc.extent.width)?, i32::try_from(desc.extent.height)?);
        let attachment = if desc.format.aspects().contains(Aspects::STENCIL) {
            glow::DEPTH_STENCIL_ATTACHMENT
        } else {
            glow::DEPTH_ATTACHMENT
        };
        let program = gpu.program(&[
            (glow::VERTEX_SHADER, VERTEX.to_owned()),
            (glow::FRAGMENT_SHADER, FRAGMENT.to_owned()),
        ])?;
        // SAFETY: the context is current, and the texture its own.
        let (canvas, status) = unsafe {
            let error = anyhow::Error::msg::<String>;
            let framebuffer = gl.create_framebuffer().map_err(error)?;
            let renderbuffer = gl.create_renderbuffer().map_err(error)?;
            let vertex_array = gl.create_vertex_array().map_err(error)?;
            let canvas = Self { gpu, size, program, framebuffer, renderbuffer, vertex_array };
            let (target, color) = (glow::FRAMEBUFFER, glow::COLOR_ATTACHMENT0);
            gl.bind_vertex_array(Some(vertex_array));
            gl.bind_framebuffer(target, Some(framebuffer));
            gl.bind_renderbuffer(glow::RENDERBUFFER, Some(renderbuffer));
            gl.renderbuffer_storage(glow::RENDERBUFFER, glow::R32UI, size.0, size.1);
            gl.framebuffer_renderbuffer(target, color, glow::RENDERBUFFER, Some(renderbuffer));
            gl.framebuffer_texture(target, attachment, Some(texture.name()), 0);
            (canvas, gl.check_framebuffer_status(target))
        };
        let format = desc.format.name();
        ensure!(
            status == glow::FRAMEBUFFER_COMPLETE,
            "{format} can't be an attachment: {status:#06x}"
        );
        // SAFETY: the framebuffer is bound and complete.
        unsafe {
            gl.viewport(0, 0, size.0, size.1);
            gl.clear_buffer_u32_slice(glow::COLOR, 0, &[0; 4]);
        }
        gpu.check("the canvas")?;
        Ok(canvas)
    }

    /// Draws a triangle over all pixels.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn draw(&self, tested: &Tested) -> Result<()> {
        let gl = self.gpu.glow();
        let (mask, reference) = tested.stencil;
        // SAFETY: the context is current, the framebuffer bound and complete, the program its own.
        unsafe {
            gl.use_program(Some(self.program));
            gl.uniform_1_f32(Some(&DEPTH), tested.depth);
            gl.uniform_1_u32(Some(&VALUE), tested.value);
            gl.enable(glow::DEPTH_TEST);
            gl.depth_func(if tested.nearer { glow::LESS } else { glow::ALWAYS });
            gl.depth_mask(tested.replaces);
            gl.enable(glow::STENCIL_TEST);
            gl.stencil_func(glow::EQUAL, i32::from(reference), mask);
            let pass = if tested.replaces { glow::REPLACE } else { glow::KEEP };
            gl.stencil_op(glow::KEEP, glow::KEEP, pass);
            gl.draw_arrays(glow::TRIANGLES, 0, 3);
            gl.disable(glow::STENCIL_TEST);
            gl.disable(glow::DEPTH_TEST);
            gl.depth_mask(true);
            gl.use_program(None);
        }
        self.gpu.check("a tested draw")
    }

    /// The pixels, row by row.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn pixels(&self) -> Result<Vec<u32>> {
        let (width, height) = self.size;
        let mut pixels = vec![0u32; usize::try_from(width * height)?];
        let (format, ty) = (glow::RED_INTEGER, glow::UNSIGNED_INT);
        let into = glow::PixelPackData::Slice(Some(bytemuck::cast_slice_mut(&mut pixels)));
        // SAFETY: the context is current, and there is room for all pixels.
        unsafe { self.gpu.glow().read_pixels(0, 0, width, height, format, ty, into) };
        self.gpu.check("glReadPixels")?;
        Ok(pixels)
    }
}

impl Drop for DepthCanvas<'_> {
    fn drop(&mut self) {
        let gl = self.gpu.glow();
        // SAFETY: the context is current, and all of these are its own.
        unsafe {
            gl.bind_vertex_array(None);
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
            gl.bind_renderbuffer(glow::RENDERBUFFER, None);
            gl.delete_vertex_array(self.vertex_array);
            gl.delete_framebuffer(self.framebuffer);
            gl.delete_renderbuffer(self.renderbuffer);
        }
    }
}
