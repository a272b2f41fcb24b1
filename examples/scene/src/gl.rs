//! Drawing with OpenGL 4.5.

use std::mem::offset_of;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use gpu_interop::glow::{self, HasContext as _};

use super::Canvas;
use super::drawing::{Drawing, INSTANCES, Instance, Uniforms};
use super::mesh::{Meshes, Vertex};

/// The fragment shader of [`knot`](super::knot).
pub const FRAGMENT_SCENE: &str = include_str!("../../../shaders/scene.frag");
/// The fragment shader of [`turntable`](super::turntable). It samples a picture.
pub const FRAGMENT_CUBE: &str = include_str!("../../../shaders/cube.frag");
/// The fragment shader of [`Drawing::picture`]. It samples a picture.
pub const FRAGMENT_PICTURE: &str = include_str!("../../../shaders/picture.frag");

const VERTEX: &str = include_str!("../../../shaders/scene.vert");

/// Bindings of the picture and of the uniform block in the shaders.
const PICTURE: u32 = 1;
const SCENE: u32 = 0;

/// Draws [`Drawing`]s to level 0 of one texture with one fragment shader.
///
/// The context must be current for every method and for the drop. The state that drawing needs is set each
/// time and not restored.
#[derive(Debug)]
pub struct Painter {
    gl: Arc<glow::Context>,
    canvas: Canvas,
    meshes: Meshes,
    program: glow::Program,
    arrays: glow::VertexArray,
    /// Vertices, indices, instances, uniforms.
    buffers: [glow::Buffer; 4],
    /// Renderbuffers for samples and depth, if any.
    renderbuffers: Vec<glow::Renderbuffer>,
    /// The framebuffer that is drawn to, and the one that it is resolved to: the same with one sample.
    framebuffers: [glow::Framebuffer; 2],
}

impl Painter {
    /// Creates a painter of `canvas` on level 0 of `target`, a two-dimensional texture of the sized format
    /// `format` that can be drawn to.
    ///
    /// # Errors
    /// If OpenGL is older than 4.5 or fails.
    pub fn new(
        gl: &Arc<glow::Context>,
        fragment: &str,
        format: u32,
        canvas: Canvas,
        target: glow::Texture,
    ) -> Result<Self> {
        let version = gl.version();
        ensure!(
            (version.major, version.minor) >= (4, 5) && !version.is_embedded,
            "drawing needs OpenGL 4.5, and this is {}.{}",
            version.major,
            version.minor
        );
        let meshes = Meshes::new();
        // SAFETY: the context is current and, as OpenGL 4.5, has these functions. Names that a failure
        // half-way leaves behind are deleted with the context.
        let made = unsafe {
            let program =
                link(gl, &[(glow::VERTEX_SHADER, VERTEX), (glow::FRAGMENT_SHADER, fragment)])?;
            let buffers = [
                buffer(gl, bytemuck::cast_slice(&meshes.vertices), 0)?,
                buffer(gl, bytemuck::cast_slice(&meshes.indices), 0)?,
                buffer(gl, &[0; INSTANCES * size_of::<Instance>()], glow::DYNAMIC_STORAGE_BIT)?,
                buffer(gl, &[0; size_of::<Uniforms>()], glow::DYNAMIC_STORAGE_BIT)?,
            ];
            let arrays = arrays(gl, &buffers)?;
            let resolved = gl.create_named_framebuffer().map_err(anyhow::Error::msg)?;
            let attachment = glow::COLOR_ATTACHMENT0;
            gl.named_framebuffer_texture(Some(resolved), attachment, Some(target), 0);
            let mut renderbuffers = Vec::new();
            let mut drawn = resolved;
            if canvas.samples > 1 {
                drawn = gl.create_named_framebuffer().map_err(anyhow::Error::msg)?;
                let colour = renderbuffer(gl, canvas, format)?;
                attach(gl, drawn, attachment, colour);
                renderbuffers.push(colour);
            }
            if canvas.depth {
                let depth = renderbuffer(gl, canvas, glow::DEPTH_COMPONENT32F)?;
                attach(gl, drawn, glow::DEPTH_ATTACHMENT, depth);
                renderbuffers.push(depth);
            }
            let framebuffers = [drawn, resolved];
            let gl = gl.clone();
            Self { gl, canvas, meshes, program, arrays, buffers, renderbuffers, framebuffers }
        };
        made.check_framebuffers()?;
        Ok(made)
    }

    fn check_framebuffers(&self) -> Result<()> {
        for framebuffer in self.framebuffers {
            // SAFETY: the context is current, and the framebuffer its own.
            let status = unsafe {
                self.gl.bind_framebuffer(glow::DRAW_FRAMEBUFFER, Some(framebuffer));
                self.gl.check_framebuffer_status(glow::DRAW_FRAMEBUFFER)
            };
            ensure!(
                status == glow::FRAMEBUFFER_COMPLETE,
                "OpenGL can't draw {:?}: the framebuffer's status is {status:#06x}",
                self.canvas
            );
        }
        check(&self.gl, "creating a painter")
    }

    /// Draws `drawing`. `picture` is what the fragment shader samples, if anything.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn paint(
        &self,
        drawing: &Drawing,
        picture: Option<(glow::Texture, glow::Sampler)>,
    ) -> Result<()> {
        ensure!(drawing.instances.len() <= INSTANCES, "{} instances", drawing.instances.len());
        let (gl, canvas) = (&self.gl, self.canvas);
        let (width, height) = (i32::try_from(canvas.size.0)?, i32::try_from(canvas.size.1)?);
        let uniforms = drawing.opengl_uniforms();
        let [_, _, instances, scene] = self.buffers;
        let [drawn, resolved] = self.framebuffers;
        // SAFETY: the context is current (the type's condition), and every name its own; the ranges lie
        // in the buffers.
        unsafe {
            let bytes = bytemuck::cast_slice(&drawing.instances);
            gl.named_buffer_sub_data_u8_slice(instances, 0, bytes);
            gl.named_buffer_sub_data_u8_slice(scene, 0, bytemuck::bytes_of(&uniforms));
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(drawn));
            gl.viewport(0, 0, width, height);
            gl.disable(glow::SCISSOR_TEST);
            gl.disable(glow::CULL_FACE);
            // Drawing to an sRGB image encodes.
            gl.enable(glow::FRAMEBUFFER_SRGB);
            gl.color_mask(true, true, true, true);
            gl.clear_named_framebuffer_f32_slice(
                Some(drawn),
                glow::COLOR,
                0,
                &[0.0, 0.0, 0.0, 1.0],
            );
            if canvas.depth {
                gl.enable(glow::DEPTH_TEST);
                gl.enable(glow::BLEND);
                gl.depth_mask(true);
                gl.depth_func(glow::LEQUAL);
                let (source, beneath) = (glow::SRC_ALPHA, glow::ONE_MINUS_SRC_ALPHA);
                gl.blend_func_separate(source, beneath, glow::ONE, beneath);
                gl.clear_named_framebuffer_f32_slice(Some(drawn), glow::DEPTH, 0, &[1.0]);
            } else {
                gl.disable(glow::DEPTH_TEST);
                gl.disable(glow::BLEND);
            }
            gl.use_program(Some(self.program));
            gl.bind_buffer_base(glow::UNIFORM_BUFFER, SCENE, Some(scene));
            gl.active_texture(glow::TEXTURE0 + PICTURE);
            gl.bind_texture(glow::TEXTURE_2D, picture.map(|(texture, _)| texture));
            gl.bind_sampler(PICTURE, picture.map(|(_, sampler)| sampler));
            gl.bind_vertex_array(Some(self.arrays));
            self.draw(drawing)?;
            gl.bind_vertex_array(None);
            if drawn != resolved {
                let (colour, filter) = (glow::COLOR_BUFFER_BIT, glow::NEAREST);
                let (from, to) = (Some(drawn), Some(resolved));
                gl.blit_named_framebuffer(
                    from, to, 0, 0, width, height, 0, 0, width, height, colour, filter,
                );
            }
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
        }
        check(gl, "drawing")
    }

    /// # Safety
    /// The context is current, and the program, the arrays and the framebuffer are bound.
    unsafe fn draw(&self, drawing: &Drawing) -> Result<()> {
        for draw in &drawing.draws {
            let (range, instances) = (self.meshes.range(draw.mesh), &draw.instances);
            let count = i32::try_from(range.end - range.start)?;
            let offset = i32::try_from(range.start as usize * size_of::<u32>())?;
            let (first, times) = (instances.start, i32::try_from(instances.end - instances.start)?);
            // SAFETY: the caller's promise; the indices and the instances are within their buffers.
            unsafe {
                self.gl.draw_elements_instanced_base_vertex_base_instance(
                    glow::TRIANGLES,
                    count,
                    glow::UNSIGNED_INT,
                    offset,
                    times,
                    0,
                    first,
                );
            }
        }
        Ok(())
    }
}

impl Drop for Painter {
    fn drop(&mut self) {
        let gl = &self.gl;
        // SAFETY: the context is current (the type's condition), and all of these are its own.
        unsafe {
            let [drawn, resolved] = self.framebuffers;
            gl.delete_framebuffer(resolved);
            if drawn != resolved {
                gl.delete_framebuffer(drawn);
            }
            for renderbuffer in self.renderbuffers.drain(..) {
                gl.delete_renderbuffer(renderbuffer);
            }
            gl.delete_vertex_array(self.arrays);
            for buffer in self.buffers {
                gl.delete_buffer(buffer);
            }
            gl.delete_program(self.program);
        }
    }
}

/// Turns OpenGL's error flag into an error.
///
/// # Errors
/// With `what` if the flag is set. The context must be current.
pub fn check(gl: &glow::Context, what: &str) -> Result<()> {
    // SAFETY: the context is current.
    let error = unsafe { gl.get_error() };
    match error {
        glow::NO_ERROR => Ok(()),
        glow::OUT_OF_MEMORY => bail!("OpenGL is out of memory after {what}; try a smaller picture"),
        _ => bail!("OpenGL failed with {error:#06x} after {what}"),
    }
}

/// # Safety
/// The context is current.
unsafe fn buffer(gl: &glow::Context, data: &[u8], flags: u32) -> Result<glow::Buffer> {
    // SAFETY: the caller's promise.
    unsafe {
        let buffer = gl.create_named_buffer().map_err(anyhow::Error::msg)?;
        gl.named_buffer_storage(buffer, i32::try_from(data.len())?, Some(data), flags);
        Ok(buffer)
    }
}

/// # Safety
/// As above, and the buffers are its own.
unsafe fn arrays(
    gl: &glow::Context,
    [vertices, indices, instances, _]: &[glow::Buffer; 4],
) -> Result<glow::VertexArray> {
    let columns = (0u32..4).map(|i| (3 + i, 4, offset_of!(Instance, model) + 16 * i as usize));
    let surface = [(7, 4, offset_of!(Instance, colour)), (8, 4, offset_of!(Instance, material))];
    let vertex = [
        (0, 3, offset_of!(Vertex, position)),
        (1, 3, offset_of!(Vertex, normal)),
        (2, 2, offset_of!(Vertex, uv)),
    ];
    // SAFETY: the caller's promise; the attributes are within their elements.
    unsafe {
        let arrays = gl.create_vertex_array().map_err(anyhow::Error::msg)?;
        gl.bind_vertex_array(Some(arrays));
        gl.bind_buffer(glow::ELEMENT_ARRAY_BUFFER, Some(*indices));
        let attribute = |(location, floats, offset): (u32, i32, usize), stride: usize, divisor| {
            let (offset, stride) = (offset as i32, stride as i32);
            gl.enable_vertex_attrib_array(location);
            gl.vertex_attrib_pointer_f32(location, floats, glow::FLOAT, false, stride, offset);
            gl.vertex_attrib_divisor(location, divisor);
        };
        gl.bind_buffer(glow::ARRAY_BUFFER, Some(*vertices));
        vertex.into_iter().for_each(|one| attribute(one, size_of::<Vertex>(), 0));
        gl.bind_buffer(glow::ARRAY_BUFFER, Some(*instances));
        columns.chain(surface).for_each(|one| attribute(one, size_of::<Instance>(), 1));
        gl.bind_vertex_array(None);
        Ok(arrays)
    }
}

/// # Safety
/// The context is current.
unsafe fn renderbuffer(
    gl: &glow::Context,
    canvas: Canvas,
    format: u32,
) -> Result<glow::Renderbuffer> {
    let samples = if canvas.samples > 1 { i32::try_from(canvas.samples)? } else { 0 };
    let (width, height) = (i32::try_from(canvas.size.0)?, i32::try_from(canvas.size.1)?);
    // SAFETY: the caller's promise.
    unsafe {
        let renderbuffer = gl.create_renderbuffer().map_err(anyhow::Error::msg)?;
        gl.bind_renderbuffer(glow::RENDERBUFFER, Some(renderbuffer));
        let target = glow::RENDERBUFFER;
        gl.renderbuffer_storage_multisample(target, samples, format, width, height);
        Ok(renderbuffer)
    }
}

/// # Safety
/// As above, and the names are its own.
unsafe fn attach(
    gl: &glow::Context,
    framebuffer: glow::Framebuffer,
    attachment: u32,
    renderbuffer: glow::Renderbuffer,
) {
    let target = glow::RENDERBUFFER;
    // SAFETY: the caller's promise.
    unsafe {
        let (framebuffer, renderbuffer) = (Some(framebuffer), Some(renderbuffer));
        gl.named_framebuffer_renderbuffer(framebuffer, attachment, target, renderbuffer);
    }
}

/// # Safety
/// The context is current.
unsafe fn link(gl: &glow::Context, shaders: &[(u32, &str)]) -> Result<glow::Program> {
    // SAFETY: the caller's promise.
    unsafe {
        let program = gl.create_program().map_err(anyhow::Error::msg)?;
        for &(kind, source) in shaders {
            let shader = gl.create_shader(kind).map_err(anyhow::Error::msg)?;
            gl.shader_source(shader, source);
            gl.compile_shader(shader);
            let compiled = gl.get_shader_compile_status(shader);
            ensure!(compiled, "a shader does not compile: {}", gl.get_shader_info_log(shader));
            gl.attach_shader(program, shader);
            gl.delete_shader(shader);
        }
        gl.link_program(program);
        let linked = gl.get_program_link_status(program);
        ensure!(linked, "a program does not link: {}", gl.get_program_info_log(program));
        Ok(program)
    }
}
