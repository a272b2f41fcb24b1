//! OpenGL's side: timing, textures and samplers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use gpu_interop::gl::Endpoint;
use gpu_interop::glow::{self, HasContext as _};
use scene::gl::check;

use crate::vulkan::level_size;

/// llvmpipe's timer queries return the time at which they were recorded, not executed (Mesa 22.3.6 and 25.0),
/// so the host's clock is used there.
const LLVMPIPE_TIMER_QUERIES_ARE_USELESS: &str = "llvmpipe";

/// `GL_TEXTURE_MAX_ANISOTROPY`, which glow has only under the extension's name.
const MAX_ANISOTROPY: u32 = 0x84FE;

/// A context that is current on this thread.
pub(crate) struct GlSide {
    pub(crate) endpoint: Endpoint,
    pub(crate) gl: Arc<glow::Context>,
    timer: Option<glow::Query>,
    /// Linear between texels and levels, anisotropic if supported, clamped at the edges.
    pub(crate) sampler: glow::Sampler,
    /// The same, not anisotropic.
    pub(crate) plain_sampler: glow::Sampler,
}

impl GlSide {
    /// Uses the context of `endpoint`, which must be current.
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self> {
        let gl = endpoint.gl().clone();
        let name = endpoint.identities().first().map(|id| id.name.clone()).unwrap_or_default();
        // SAFETY: the context is current.
        let timer = unsafe {
            gl.pixel_store_i32(glow::PACK_ALIGNMENT, 1);
            (!name.contains(LLVMPIPE_TIMER_QUERIES_ARE_USELESS)).then(|| gl.create_query())
        };
        let timer = timer.transpose().map_err(anyhow::Error::msg)?;
        let (sampler, plain_sampler) = (sampler(&gl, true)?, sampler(&gl, false)?);
        check(&gl, "creating samplers")?;
        Ok(Self { endpoint, gl, timer, sampler, plain_sampler })
    }

    /// Whether OpenGL's times are the GPU's, and not the host's.
    pub(crate) fn times_on_gpu(&self) -> bool {
        self.timer.is_some()
    }

    /// Returns how long `work` takes, on the GPU if its timer queries work.
    pub(crate) fn time(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let gl = &self.gl;
        let Some(timer) = self.timer else {
            self.finish();
            let start = Instant::now();
            work()?;
            self.finish();
            return Ok(start.elapsed());
        };
        // SAFETY: the context is current and the query its own, not in use.
        unsafe { gl.begin_query(glow::TIME_ELAPSED, timer) };
        let worked = work();
        // SAFETY: begun above.
        let nanoseconds = unsafe {
            gl.end_query(glow::TIME_ELAPSED);
            gl.get_query_parameter_u64(timer, glow::QUERY_RESULT)
        };
        worked?;
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Creates a private texture with four bytes per texel.
    pub(crate) fn texture(
        &self,
        format: u32,
        size: (u32, u32),
        levels: u32,
    ) -> Result<glow::Texture> {
        let (width, height) = (i32::try_from(size.0)?, i32::try_from(size.1)?);
        // SAFETY: the context is current.
        let texture = unsafe {
            let texture =
                self.gl.create_named_texture(glow::TEXTURE_2D).map_err(anyhow::Error::msg)?;
            self.gl.texture_storage_2d(texture, i32::try_from(levels)?, format, width, height);
            texture
        };
        check(&self.gl, "creating a texture")?;
        Ok(texture)
    }

    /// Reads the first `levels` of a texture, row 0 first.
    pub(crate) fn read(
        &self,
        texture: glow::Texture,
        size: (u32, u32),
        levels: u32,
    ) -> Result<Vec<u8>> {
        let gl = &self.gl;
        let mut all = Vec::new();
        for level in 0..levels {
            let (width, height) = level_size(size, level);
            let start = all.len();
            all.resize(start + width as usize * height as usize * 4, 0);
            let pixels = glow::PixelPackData::Slice(Some(&mut all[start..]));
            // SAFETY: the context is current; rows are packed tightly, and there is room for them.
            unsafe {
                gl.active_texture(glow::TEXTURE0);
                gl.bind_texture(glow::TEXTURE_2D, Some(texture));
                let level = i32::try_from(level)?;
                let (format, ty) = (glow::RGBA, glow::UNSIGNED_BYTE);
                gl.get_tex_image(glow::TEXTURE_2D, level, format, ty, pixels);
            }
        }
        check(gl, "glGetTexImage")?;
        Ok(all)
    }

    /// Copies level 0 of `from` to `to`, on the GPU.
    pub(crate) fn copy(
        &self,
        from: glow::Texture,
        to: glow::Texture,
        size: (u32, u32),
    ) -> Result<()> {
        let (width, height) = (i32::try_from(size.0)?, i32::try_from(size.1)?);
        let target = glow::TEXTURE_2D;
        // SAFETY: the context is current; both textures are of this size.
        unsafe {
            self.gl.copy_image_sub_data(
                from, target, 0, 0, 0, 0, to, target, 0, 0, 0, 0, width, height, 1,
            );
        }
        check(&self.gl, "glCopyImageSubData")
    }

    /// Waits until all commands are done.
    pub(crate) fn finish(&self) {
        // SAFETY: the context is current.
        unsafe { self.gl.finish() };
    }
}

impl Drop for GlSide {
    fn drop(&mut self) {
        // SAFETY: the context is current, and these are its own.
        unsafe {
            self.gl.delete_sampler(self.sampler);
            self.gl.delete_sampler(self.plain_sampler);
            if let Some(timer) = self.timer {
                self.gl.delete_query(timer);
            }
        }
    }
}

fn sampler(gl: &glow::Context, anisotropic: bool) -> Result<glow::Sampler> {
    let extensions = gl.supported_extensions();
    let has = |name: &&str| extensions.contains(*name);
    let names = ["GL_ARB_texture_filter_anisotropic", "GL_EXT_texture_filter_anisotropic"];
    // SAFETY: the context is current; the parameters are those of samplers.
    unsafe {
        let sampler = gl.create_sampler().map_err(anyhow::Error::msg)?;
        for (name, value) in [
            (glow::TEXTURE_MIN_FILTER, glow::LINEAR_MIPMAP_LINEAR),
            (glow::TEXTURE_MAG_FILTER, glow::LINEAR),
            (glow::TEXTURE_WRAP_S, glow::CLAMP_TO_EDGE),
            (glow::TEXTURE_WRAP_T, glow::CLAMP_TO_EDGE),
        ] {
            gl.sampler_parameter_i32(sampler, name, value as i32);
        }
        if anisotropic && names.iter().any(has) {
            gl.sampler_parameter_f32(sampler, MAX_ANISOTROPY, 8.0);
        }
        Ok(sampler)
    }
}
