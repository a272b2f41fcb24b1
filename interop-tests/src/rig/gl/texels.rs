//! Textures, every part read and written by shaders: sampled, drawn to, stored to.
//!
//! Between the shaders and the host is a storage buffer with a `uvec4` for each sample of each texel
//! of a part: the bits of the four floats or integers that the shader read, or shall write.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ImageDesc;
use gpu_interop::format::{Aspects, ChannelOrder, Format};
use gpu_interop::gl::Texture;
use gpu_interop::glow::{self, HasContext as _};

use super::GlRig;
use super::shaders::{Access, Type, source};
use crate::rig::image::{Part, level_extent, parts, texel_bytes};
use crate::rig::texel::{Class, class, decode, encode};

/// Bytes of a texel's sample in the buffer.
const WORDS: usize = 16;

/// Locations of the uniforms, as the sources say.
const EXTENT: glow::NativeUniformLocation = glow::NativeUniformLocation(0);
const PLACE: glow::NativeUniformLocation = glow::NativeUniformLocation(1);

/// `GL_EXT_memory_object`'s textures are sampled in unit 0, stored to in unit 0.
const UNIT: u32 = 0;

impl GlRig {
    /// Samples every texel of `texture` in a shader, the way a texture of its kind is, and checks that
    /// it shows what `seed` fills it with: blue and red in their places, sRGB decoded.
    ///
    /// # Errors
    /// With the first texel that differs, and where OpenGL refuses.
    pub fn sample_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        let desc = texture.desc();
        for part in parts(desc) {
            let words = self.sampled(texture, part)?;
            let filled = part.filled(desc, seed);
            let bytes = texel_bytes(desc.format, part.aspect) as usize;
            let mut found = Vec::with_capacity(filled.len());
            for (words, filled) in words.chunks_exact(WORDS).zip(filled.chunks_exact(bytes)) {
                let texel = packed(desc.format, part.aspect, bytemuck::pod_read_unaligned(words))?;
                let near = is_near(desc.format, part.aspect, &texel, filled);
                found.extend_from_slice(if near { filled } else { &texel });
            }
            part.compare(desc, &filled, &found).context("sampled")?;
        }
        Ok(())
    }

    /// What a shader reads of each texel of a part.
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

    /// Draws what `seed` fills `texture`, of colour, with: a triangle over each slice of each part, whose
    /// pixels come from a buffer. sRGB is encoded by OpenGL.
    ///
    /// # Errors
    /// Where OpenGL refuses.
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

    /// Clears `texture`, a small plain one of `R32_UINT`, to what `seed` fills it with: texel by texel.
    ///
    /// # Errors
    /// Where OpenGL refuses.
    pub fn clear_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        ensure!(desc.format == Format::R32Uint, "only R32_UINT is cleared");
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

    /// Stores what `seed` fills `texture`, of colour and of one sample, with, by a compute shader.
    ///
    /// # Errors
    /// For a format that OpenGL has no image variables of ([`storable`]), and where OpenGL refuses.
    pub fn store_texture(&self, texture: &Texture, seed: u32) -> Result<()> {
        let (gl, desc) = (self.glow(), texture.desc());
        ensure!(storable(desc.format), "{} is no format of image variables", desc.format.name());
        let ty = written_type(desc.format)?;
        let program =
            self.program(&[(glow::COMPUTE_SHADER, source(Access::Store, texture.target(), ty))])?;
        let internal = desc.format.gl()?.internal;
        for part in parts(desc) {
            let buffer = self.words_to_write(desc, part, seed)?;
            let level = i32::try_from(part.level)?;
            // SAFETY: the context is current; the program, the texture and the buffer are its own, and
            // the shader reads no more than the buffer has.
            unsafe {
                let (layered, name) = (true, Some(texture.name()));
                gl.bind_image_texture(UNIT, name, level, layered, 0, glow::WRITE_ONLY, internal);
                gl.use_program(Some(program));
                self.bind(buffer, desc, part, 0);
                gl.dispatch_compute(part.texels(desc).div_ceil(64), 1, 1);
                gl.use_program(None);
                gl.bind_image_texture(UNIT, None, 0, false, 0, glow::WRITE_ONLY, glow::R8);
            }
            let stored = self.check("storing");
            self.delete_buffer(buffer);
            stored?;
        }
        Ok(())
    }

    /// Binds the buffer, and says which part of the texture it is for. A program is in use.
    unsafe fn bind(&self, buffer: glow::Buffer, desc: &ImageDesc, part: Part, z: u32) {
        let (gl, size) = (self.glow(), level_extent(desc, part.level));
        // SAFETY: the context is current, and the buffer its own; the uniforms are the program's.
        unsafe {
            gl.bind_buffer_base(glow::SHADER_STORAGE_BUFFER, 0, Some(buffer));
            gl.uniform_4_u32(Some(&EXTENT), size.width, size.height, size.depth, desc.samples);
            gl.uniform_3_u32(Some(&PLACE), part.level, part.layer, z);
        }
    }

    /// A buffer of what a shader shall write to each texel of a part.
    fn words_to_write(&self, desc: &ImageDesc, part: Part, seed: u32) -> Result<glow::Buffer> {
        let texel = texel_bytes(desc.format, part.aspect) as usize;
        let filled = part.filled(desc, seed);
        let mut words = Vec::with_capacity(filled.len() / texel * WORDS);
        for texel in filled.chunks_exact(texel) {
            words.extend_from_slice(bytemuck::bytes_of(&to_write(desc.format, texel)));
        }
        let buffer = self.private_buffer(words.len() as u64)?;
        self.upload(buffer, 0, &words)?;
        Ok(buffer)
    }
}

/// Whether OpenGL has image variables of the format (OpenGL 4.6, table 8.26). An sRGB texture takes none,
/// as its texels would go in unencoded.
pub fn storable(format: Format) -> bool {
    let color = format.aspects().contains(Aspects::COLOR);
    color && !is_srgb(format) && format != Format::R5g6b5Unorm
}

fn is_srgb(format: Format) -> bool {
    matches!(format, Format::Rgba8Srgb | Format::Bgra8Srgb)
}

fn sampled_type(format: Format, aspect: Aspects) -> Type {
    if aspect == Aspects::STENCIL || class(format) == Class::Uint {
        Type::Uint
    } else {
        Type::Float
    }
}

fn written_type(format: Format) -> Result<Type> {
    match class(format) {
        Class::Float => Ok(Type::Float),
        Class::Uint => Ok(Type::Uint),
        Class::Depth => bail!("{} is no colour", format.name()),
    }
}

/// What a shader writes, so that OpenGL makes it `texel`: OpenGL, which takes a texture with blue first
/// for one with red first, finds red where blue is.
fn to_write(format: Format, texel: &[u8]) -> [u32; 4] {
    let mut words = decode(format, texel);
    if is_srgb(format) {
        for word in &mut words[..3] {
            *word = (srgb_to_linear(f64::from(f32::from_bits(*word))) as f32).to_bits();
        }
    }
    if format.channel_order() == ChannelOrder::Bgra {
        words.swap(0, 2);
    }
    words
}

/// The bytes of one aspect of the texel that a sampler reads as `seen`.
fn packed(format: Format, aspect: Aspects, seen: [u32; 4]) -> Result<Vec<u8>> {
    if aspect == Aspects::STENCIL {
        return Ok(vec![u8::try_from(seen[0]).context("stencil is 8 bits")?]);
    }
    ensure!(has_right_rest(format, seen), "{} is sampled as {seen:08x?}", format.name());
    let mut seen = seen;
    if is_srgb(format) {
        for word in &mut seen[..3] {
            *word = (linear_to_srgb(f64::from(f32::from_bits(*word))) as f32).to_bits();
        }
    }
    Ok(encode(format, seen)[..texel_bytes(format, aspect) as usize].to_vec())
}

/// Whether what was sampled may stand for what is there. A float has 24 bits, as many as depth has: where a
/// driver divides by 2^24 - 1 in floats (llvmpipe), it is one code off.
fn is_near(format: Format, aspect: Aspects, sampled: &[u8], there: &[u8]) -> bool {
    if (format, aspect) != (Format::D24UnormS8Uint, Aspects::DEPTH) {
        return false;
    }
    let code =
        |texel: &[u8]| i64::from(texel[0]) | i64::from(texel[1]) << 8 | i64::from(texel[2]) << 16;
    code(sampled).abs_diff(code(there)) <= 1
}

/// Whether the channels that the format lacks read as 0, 0, 1.
fn has_right_rest(format: Format, seen: [u32; 4]) -> bool {
    let one = if class(format) == Class::Uint { 1 } else { 1f32.to_bits() };
    let channels = match format {
        Format::R8Unorm | Format::R16Float | Format::R32Uint | Format::R32Float => 1,
        Format::Rg8Unorm | Format::Rg16Float => 2,
        Format::R5g6b5Unorm => 3,
        // What is in the other channels of depth OpenGL leaves open by its texture mode.
        _ => return true,
    };
    (channels..4).all(|channel| seen[channel] == if channel == 3 { one } else { 0 })
}

fn srgb_to_linear(c: f64) -> f64 {
    if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
}

fn linear_to_srgb(c: f64) -> f64 {
    if c <= 0.003_130_8 { c * 12.92 } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 }
}

/// A framebuffer and a vertex array to draw without attributes. Unbound and deleted when dropped.
struct Canvas<'a> {
    rig: &'a GlRig,
    framebuffer: glow::Framebuffer,
    vertex_array: glow::VertexArray,
}

impl<'a> Canvas<'a> {
    fn new(rig: &'a GlRig) -> Result<Self> {
        let gl = rig.glow();
        // SAFETY: the context is current.
        unsafe {
            let framebuffer = gl.create_framebuffer().map_err(anyhow::Error::msg)?;
            let vertex_array = gl.create_vertex_array().map_err(anyhow::Error::msg)?;
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
            gl.bind_vertex_array(Some(vertex_array));
            Ok(Self { rig, framebuffer, vertex_array })
        }
    }

    /// Draws go to slice `z` of a part from now on.
    fn attach(&self, texture: &Texture, part: Part, z: u32) -> Result<()> {
        let (gl, target, name) = (self.rig.glow(), glow::FRAMEBUFFER, Some(texture.name()));
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
        self.rig.check("glFramebufferTextureLayer")?;
        let format = texture.desc().format.name();
        ensure!(status == glow::FRAMEBUFFER_COMPLETE, "{format} is not drawn to: {status:#06x}");
        Ok(())
    }
}

impl Drop for Canvas<'_> {
    fn drop(&mut self) {
        let gl = self.rig.glow();
        // SAFETY: the context is current, and both are its own.
        unsafe {
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
            gl.bind_vertex_array(None);
            gl.delete_framebuffer(self.framebuffer);
            gl.delete_vertex_array(self.vertex_array);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srgb_goes_there_and_back() {
        for code in 0..=255u8 {
            for format in [Format::Rgba8Srgb, Format::Bgra8Srgb] {
                let texel = [code, 255 - code, code / 2, code];
                let mut seen = to_write(format, &texel);
                if format.channel_order() == ChannelOrder::Bgra {
                    // What the swizzle does when OpenGL reads.
                    seen.swap(0, 2);
                }
                assert_eq!(packed(format, Aspects::COLOR, seen).unwrap(), texel);
            }
        }
    }

    #[test]
    fn a_channel_that_is_not_there_reads_0_or_1() {
        let one = 1f32.to_bits();
        assert!(packed(Format::R8Unorm, Aspects::COLOR, [one, 0, 0, one]).is_ok());
        for wrong in [[one, one, 0, one], [one, 0, 0, 0], [one, 0, 0, 1]] {
            assert!(packed(Format::R8Unorm, Aspects::COLOR, wrong).is_err());
        }
        assert!(packed(Format::R32Uint, Aspects::COLOR, [7, 0, 0, 1]).is_ok());
    }
}
