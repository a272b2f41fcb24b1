//! Reads and writes every part of a texture by shaders: sampling, drawing and storing.
//!
//! Between the shaders and the host is a storage buffer with a `uvec4` for each sample of each texel
//! of a part: the bits of the four floats or integers that the shader has read or will write.

use anyhow::{Context, Result, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::format::{Aspects, Format};
use gpu_interop::gl::Texture;
use gpu_interop::glow::{self, HasContext as _};

use super::GlContext;
use super::shaders::{Access, source};
use super::words::{is_exactly, packed, sampled_type, storable, to_write, written_type};
use crate::image::{Part, level_extent, parts, texel_bytes};
use crate::texel::{decode, is_near};

/// Bytes of a texel's sample in the buffer.
const WORDS: usize = 16;

/// Locations of the uniforms in the shaders' sources.
const EXTENT: glow::NativeUniformLocation = glow::NativeUniformLocation(0);
const PLACE: glow::NativeUniformLocation = glow::NativeUniformLocation(1);

/// The unit of both textures and image variables.
const UNIT: u32 = 0;

impl GlContext {
    /// Samples every texel of `texture` in a shader and checks that it is the content for `seed`, with blue
    /// and red in their places and sRGB decoded.
    ///
    /// # Errors
    /// With the first texel that differs, and if OpenGL fails.
    pub fn sample_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        let desc = texture.desc();
        for part in parts(desc) {
            let words = self.sampled(texture, part)?;
            let filled = part.filled(desc, seed);
            let bytes = texel_bytes(desc.format, part.aspect) as usize;
            let mut found = Vec::with_capacity(filled.len());
            for (words, filled) in words.chunks_exact(WORDS).zip(filled.chunks_exact(bytes)) {
                let seen = bytemuck::pod_read_unaligned(words);
                if is_exactly(desc.format, part.aspect, seen, filled) {
                    found.extend_from_slice(filled);
                    continue;
                }
                let texel = packed(desc.format, part.aspect, seen)?;
                let near = is_near(desc.format, part.aspect, &texel, filled);
                found.extend_from_slice(if near { filled } else { &texel });
            }
            part.compare(desc, &filled, &found).context("sampled")?;
        }
        Ok(())
    }

    /// Returns what a shader reads for each texel of a part.
    fn sampled(&self, texture: &Texture, part: Part) -> Result<Vec<u8>> {
        let (gl, desc) = (self.glow(), texture.desc());
        let bytes = part.texels(desc) as usize * WORDS;
        let buffer = self.private_buffer(bytes as u64)?;
        let ty = sampled_type(desc.format, part.aspect);
        let program =
            self.program(&[(glow::COMPUTE_SHADER, source(Access::Sample, texture.target(), ty))])?;
        let stencil = part.aspect == Aspects::STENCIL;
        let target = texture.target();
        // SAFETY: the context is current; the program, the texture and the buffer are its own, and the
        // shader writes as much as the buffer has.
        unsafe {
            gl.active_texture(glow::TEXTURE0 + UNIT);
            gl.bind_texture(target, Some(texture.name()));
            if desc.samples == 1 {
                // Integers are not interpolated; with mip levels filtered they would read 0.
                let nearest = glow::NEAREST_MIPMAP_NEAREST as i32;
                gl.tex_parameter_i32(target, glow::TEXTURE_MIN_FILTER, nearest);
                gl.tex_parameter_i32(target, glow::TEXTURE_MAG_FILTER, glow::NEAREST as i32);
            }
            if desc.format.aspects().contains(Aspects::STENCIL) {
                let mode = if stencil { glow::STENCIL_INDEX } else { glow::DEPTH_COMPONENT };
                gl.tex_parameter_i32(target, glow::DEPTH_STENCIL_TEXTURE_MODE, mode as i32);
            }
            gl.use_program(Some(program));
            self.bind(buffer, desc, part, 0);
            gl.dispatch_compute(part.texels(desc).div_ceil(64), 1, 1);
            gl.use_program(None);
            gl.bind_texture(target, None);
        }
        let read = self.check("sampling").and_then(|()| self.download(buffer, 0, bytes as u64));
        self.delete_buffer(buffer);
        read
    }

    /// Fills the colour texture `texture` with the content for `seed` by drawing a triangle over each slice
    /// of each part, whose pixels come from a buffer. OpenGL encodes sRGB.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn draw_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        let canvas = Canvas::new(self)?;
        for part in parts(texture.desc()) {
            let buffer = self.words_to_write(texture.desc(), part, seed)?;
            let drawn = self.draw_part(&canvas, texture, part, buffer);
            self.delete_buffer(buffer);
            drawn?;
        }
        Ok(())
    }

    fn draw_part(
        &self,
        canvas: &Canvas<'_>,
        texture: &Texture,
        part: Part,
        buffer: glow::Buffer,
    ) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        let size = level_extent(desc, part.level);
        let ty = written_type(desc.format)?;
        let program = self.program(&[
            (glow::VERTEX_SHADER, source(Access::Cover, texture.target(), ty)),
            (glow::FRAGMENT_SHADER, source(Access::Draw, texture.target(), ty)),
        ])?;
        let (width, height) = (i32::try_from(size.width)?, i32::try_from(size.height)?);
        for z in 0..size.depth {
            canvas.attach(texture, part, z)?;
            // SAFETY: the context is current and the framebuffer complete; the program and the buffer
            // are its own, and the shader reads no more than the buffer has.
            unsafe {
                gl.viewport(0, 0, width, height);
                gl.enable(glow::FRAMEBUFFER_SRGB);
                gl.use_program(Some(program));
                self.bind(buffer, desc, part, z);
                gl.draw_arrays(glow::TRIANGLES, 0, 3);
                gl.use_program(None);
                gl.disable(glow::FRAMEBUFFER_SRGB);
            }
            self.check("drawing")?;
        }
        Ok(())
    }

    /// Fills `texture`, a small plain one of `R32_UINT`, with the content for `seed` by clearing texel by
    /// texel.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn clear_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        ensure!(desc.format == Format::R32Uint, "only R32_UINT can be cleared here");
        let canvas = Canvas::new(self)?;
        let part = parts(desc)[0];
        canvas.attach(texture, part, 0)?;
        let width = i32::try_from(desc.extent.width)?;
        for (i, texel) in (0i32..).zip(part.filled(desc, seed).chunks_exact(4)) {
            // SAFETY: the context is current and the framebuffer complete.
            unsafe {
                gl.enable(glow::SCISSOR_TEST);
                gl.scissor(i % width, i / width, 1, 1);
                let color = decode(desc.format, texel);
                gl.clear_buffer_u32_slice(glow::COLOR, 0, &color);
                gl.disable(glow::SCISSOR_TEST);
            }
        }
        self.check("glClearBufferuiv")
    }

    /// Fills the colour texture `texture`, which has one sample, with the content for `seed` by a compute
    /// shader.
    ///
    /// # Errors
    /// For a format without image variables in OpenGL ([`storable`]), and if OpenGL fails.
    pub fn store_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        for part in parts(texture.desc()) {
            let buffer = self.words_to_write(texture.desc(), part, seed)?;
            let stored = self.store_part(texture, part, buffer);
            self.delete_buffer(buffer);
            stored?;
        }
        Ok(())
    }

    fn store_part(&self, texture: &Texture, part: Part, buffer: glow::Buffer) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        ensure!(storable(desc.format), "OpenGL has no image variables of {}", desc.format.name());
        let ty = written_type(desc.format)?;
        let program =
            self.program(&[(glow::COMPUTE_SHADER, source(Access::Store, texture.target(), ty))])?;
        let internal = desc.format.gl()?.internal;
        let level = i32::try_from(part.level)?;
        // SAFETY: the context is current; the program, the texture and the buffer are its own, and the
        // shader reads no more than the buffer has.
        unsafe {
            let (layered, name) = (true, Some(texture.name()));
            gl.bind_image_texture(UNIT, name, level, layered, 0, glow::WRITE_ONLY, internal);
            gl.use_program(Some(program));
            self.bind(buffer, desc, part, 0);
            gl.dispatch_compute(part.texels(desc).div_ceil(64), 1, 1);
            gl.use_program(None);
            gl.bind_image_texture(UNIT, None, 0, false, 0, glow::WRITE_ONLY, glow::R8);
        }
        self.check("storing")
    }

    /// Draws `words` to the plain colour texture `texture`: for each texel the bits of the floats or integers
    /// that the shader writes. OpenGL encodes sRGB.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn draw_words(&self, texture: &Texture, words: &[[u32; 4]]) -> Result<()> {
        let (canvas, part) = (Canvas::new(self)?, parts(texture.desc())[0]);
        let buffer = self.buffer_of(bytemuck::cast_slice(words))?;
        // Dithering is enabled in a new context and would change the rounding.
        // SAFETY: the context is current.
        unsafe { self.glow().disable(glow::DITHER) };
        let drawn = self.draw_part(&canvas, texture, part, buffer);
        // SAFETY: as above.
        unsafe { self.glow().enable(glow::DITHER) };
        self.delete_buffer(buffer);
        drawn
    }

    /// Stores `words` by a compute shader.
    ///
    /// # Errors
    /// For a format without image variables in OpenGL ([`storable`]), and if OpenGL fails.
    pub fn store_words(&self, texture: &Texture, words: &[[u32; 4]]) -> Result<()> {
        let buffer = self.buffer_of(bytemuck::cast_slice(words))?;
        let stored = self.store_part(texture, parts(texture.desc())[0], buffer);
        self.delete_buffer(buffer);
        stored
    }

    /// Returns what a shader reads for each texel of the plain colour texture `texture`.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn sample_words(&self, texture: &Texture) -> Result<Vec<[u32; 4]>> {
        let words = self.sampled(texture, parts(texture.desc())[0])?;
        Ok(words.chunks_exact(WORDS).map(bytemuck::pod_read_unaligned).collect())
    }

    /// Binds the buffer and sets the part of the texture that it belongs to. A program is in use.
    unsafe fn bind(&self, buffer: glow::Buffer, desc: &ImageDesc, part: Part, z: u32) {
        let (gl, size) = (self.glow(), level_extent(desc, part.level));
        // SAFETY: the context is current, and the buffer its own; the uniforms are the program's.
        unsafe {
            gl.bind_buffer_base(glow::SHADER_STORAGE_BUFFER, 0, Some(buffer));
            gl.uniform_4_u32(Some(&EXTENT), size.width, size.height, size.depth, desc.samples);
            gl.uniform_3_u32(Some(&PLACE), part.level, part.layer, z);
        }
    }

    /// Creates a buffer with what a shader will write to each texel of a part.
    fn words_to_write(&self, desc: &ImageDesc, part: Part, seed: u32) -> Result<glow::Buffer> {
        let texel = texel_bytes(desc.format, part.aspect) as usize;
        let filled = part.filled(desc, seed);
        let mut words = Vec::with_capacity(filled.len() / texel * WORDS);
        for texel in filled.chunks_exact(texel) {
            words.extend_from_slice(bytemuck::bytes_of(&to_write(desc.format, texel)));
        }
        self.buffer_of(&words)
    }

    fn buffer_of(&self, words: &[u8]) -> Result<glow::Buffer> {
        let buffer = self.private_buffer(words.len() as u64)?;
        self.upload(buffer, 0, words)?;
        Ok(buffer)
    }
}

/// A framebuffer and a vertex array to draw without attributes. Unbound and deleted when dropped.
struct Canvas<'a> {
    gpu: &'a GlContext,
    framebuffer: glow::Framebuffer,
    vertex_array: glow::VertexArray,
}

impl<'a> Canvas<'a> {
    fn new(gpu: &'a GlContext) -> Result<Self> {
        let gl = gpu.glow();
        // SAFETY: the context is current.
        unsafe {
            let framebuffer = gl.create_framebuffer().map_err(anyhow::Error::msg)?;
            let vertex_array = gl.create_vertex_array().map_err(anyhow::Error::msg)?;
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
            gl.bind_vertex_array(Some(vertex_array));
            Ok(Self { gpu, framebuffer, vertex_array })
        }
    }

    /// Selects slice `z` of a part for the draws that follow.
    fn attach(&self, texture: &Texture, part: Part, z: u32) -> Result<()> {
        let (gl, target, name) = (self.gpu.glow(), glow::FRAMEBUFFER, Some(texture.name()));
        let (at, level) = (glow::COLOR_ATTACHMENT0, i32::try_from(part.level)?);
        let layer = i32::try_from(part.layer + z)?;
        // SAFETY: the context is current, the framebuffer bound, and the texture its own, with this
        // level and layer.
        let status = unsafe {
            match texture.target() {
                glow::TEXTURE_1D | glow::TEXTURE_2D | glow::TEXTURE_2D_MULTISAMPLE => {
                    gl.framebuffer_texture(target, at, name, level);
                }
                _ => gl.framebuffer_texture_layer(target, at, name, level, layer),
            }
            gl.check_framebuffer_status(target)
        };
        self.gpu.check("glFramebufferTextureLayer")?;
        let format = texture.desc().format.name();
        ensure!(status == glow::FRAMEBUFFER_COMPLETE, "{format} can't be drawn to: {status:#06x}");
        Ok(())
    }
}

impl Drop for Canvas<'_> {
    fn drop(&mut self) {
        let gl = self.gpu.glow();
        // SAFETY: the context is current, and both are its own.
        unsafe {
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
            gl.bind_vertex_array(None);
            gl.delete_framebuffer(self.framebuffer);
            gl.delete_vertex_array(self.vertex_array);
        }
    }
}
