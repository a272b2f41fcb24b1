//! OpenGL's last stage.

use std::ptr::NonNull;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gpu_interop::gl::{Endpoint, Texture};
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{Acquirer, Releaser, TextureAccess, Ticket};
use interop_gpu::gl::GlContext;

use crate::finish::{Finish, FinishTimes};
use crate::host_pages::HostPages;

const VIGNETTE: &str = include_str!("../../../shaders/vignette.comp");
/// Location of the strength in the shader.
const STRENGTH: glow::NativeUniformLocation = glow::NativeUniformLocation(0);
/// Threads of a work group in x and in y.
const GROUP: u32 = 8;

/// Adds the vignette with an OpenGL compute shader.
#[derive(Debug)]
pub(crate) struct GlFinish {
    picture: Picture,
    program: glow::Program,
    framed: glow::Texture,
    /// Timer queries of the upload and of the vignette; `None` if the host's clock is used.
    queries: Option<[glow::Query; 2]>,
    times: FinishTimes,
    strength: f32,
    size: (u32, u32),
    gpu: Rc<GlContext>,
}

/// The input picture.
#[derive(Debug)]
enum Picture {
    /// In memory that Vulkan allocated and CUDA writes.
    Shared { texture: Texture, acquirer: Acquirer<Endpoint>, releaser: Releaser<Endpoint> },
    /// Private to OpenGL, uploaded through a pixel buffer that stays mapped.
    Own { texture: glow::Texture, pixels: glow::Buffer, mapped: NonNull<u8> },
}

impl GlFinish {
    /// Creates the stage for the shared `texture`, which is handed over by `ends`.
    pub(crate) fn shared(
        gpu: &Rc<GlContext>,
        texture: Texture,
        (acquirer, releaser): (Acquirer<Endpoint>, Releaser<Endpoint>),
        strength: f32,
    ) -> Result<Self> {
        let extent = texture.desc().extent;
        let picture = Picture::Shared { texture, acquirer, releaser };
        Self::new(gpu, picture, (extent.width, extent.height), strength)
    }

    /// Creates the stage for pictures that are uploaded.
    pub(crate) fn copied(gpu: &Rc<GlContext>, size: (u32, u32), strength: f32) -> Result<Self> {
        let texture = texture(gpu, glow::SRGB8_ALPHA8, size)?;
        let bytes = i32::try_from(bytes(size)).context("glow takes sizes as i32")?;
        let (gl, target) = (gpu.gl.glow(), glow::PIXEL_UNPACK_BUFFER);
        let access = glow::MAP_WRITE_BIT | glow::MAP_PERSISTENT_BIT | glow::MAP_COHERENT_BIT;
        // SAFETY: the context is current; a new buffer, mapped as its storage allows.
        let (pixels, mapped) = unsafe {
            let pixels = gl.create_buffer().map_err(anyhow::Error::msg)?;
            gl.bind_buffer(target, Some(pixels));
            gl.buffer_storage(target, bytes, None, access | glow::CLIENT_STORAGE_BIT);
            let mapped = gl.map_buffer_range(target, 0, bytes, access);
            gl.bind_buffer(target, None);
            (pixels, mapped)
        };
        gpu.check("glMapBufferRange")?;
        let mapped = NonNull::new(mapped).context("glMapBufferRange returned no address")?;
        Self::new(gpu, Picture::Own { texture, pixels, mapped }, size, strength)
    }

    fn new(gpu: &Rc<GlContext>, picture: Picture, size: (u32, u32), strength: f32) -> Result<Self> {
        let program = gpu.program(&[(glow::COMPUTE_SHADER, VIGNETTE.to_owned())])?;
        let framed = texture(gpu, glow::RGBA8, size)?;
        let gl = gpu.gl.glow();
        let query = || {
            // SAFETY: the context is current.
            unsafe { gl.create_query() }.map_err(anyhow::Error::msg)
        };
        let queries = if gpu.has_timer() { Some([query()?, query()?]) } else { None };
        let times = FinishTimes::default();
        Ok(Self { picture, program, framed, queries, times, strength, size, gpu: gpu.clone() })
    }

    /// Runs `work` between the ends of query `which`.
    fn timed(&mut self, which: usize, work: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let gl = self.gpu.gl.glow();
        if let Some(queries) = self.queries {
            // SAFETY: the context is current; the query is its own, and no other is active.
            unsafe { gl.begin_query(glow::TIME_ELAPSED, queries[which]) };
            let done = work(self);
            // SAFETY: begun above.
            unsafe { gl.end_query(glow::TIME_ELAPSED) };
            return done;
        }
        self.gpu.finish();
        let start = Instant::now();
        work(self)?;
        self.gpu.finish();
        let passed = start.elapsed();
        *(if which == 0 { &mut self.times.upload } else { &mut self.times.vignette }) = passed;
        Ok(())
    }

    fn frame(&self, picture: glow::Texture) -> Result<()> {
        let (gl, (width, height)) = (self.gpu.gl.glow(), self.size);
        // SAFETY: the context is current; program, texture and image are its own.
        unsafe {
            gl.use_program(Some(self.program));
            gl.active_texture(glow::TEXTURE0);
            gl.bind_texture(glow::TEXTURE_2D, Some(picture));
            gl.bind_sampler(0, None);
            let image = Some(self.framed);
            gl.bind_image_texture(1, image, 0, false, 0, glow::WRITE_ONLY, glow::RGBA8);
            gl.uniform_1_f32(Some(&STRENGTH), self.strength);
            gl.dispatch_compute(width.div_ceil(GROUP), height.div_ceil(GROUP), 1);
            gl.memory_barrier(glow::TEXTURE_UPDATE_BARRIER_BIT | glow::PIXEL_BUFFER_BARRIER_BIT);
            gl.bind_texture(glow::TEXTURE_2D, None);
        }
        self.gpu.check("glDispatchCompute")
    }

    fn upload(&self, texture: glow::Texture, pixels: glow::Buffer) -> Result<()> {
        let (gl, target) = (self.gpu.gl.glow(), glow::PIXEL_UNPACK_BUFFER);
        let (width, height) = (i32::try_from(self.size.0)?, i32::try_from(self.size.1)?);
        // SAFETY: the context is current; the buffer has all of the texture.
        unsafe {
            gl.bind_buffer(target, Some(pixels));
            gl.bind_texture(glow::TEXTURE_2D, Some(texture));
            gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 4);
            let (format, ty) = (glow::RGBA, glow::UNSIGNED_BYTE);
            let from = glow::PixelUnpackData::BufferOffset(0);
            let kind = glow::TEXTURE_2D;
            gl.tex_sub_image_2d(kind, 0, 0, 0, width, height, format, ty, from);
            gl.bind_buffer(target, None);
        }
        self.gpu.check("glTexSubImage2D")
    }
}

impl Finish for GlFinish {
    fn api(&self) -> &'static str {
        "gl"
    }

    fn frame_shared(&mut self, ticket: Ticket) -> Result<Ticket> {
        self.gpu.gl.make_current()?;
        let Picture::Shared { texture, acquirer, .. } = &mut self.picture else {
            anyhow::bail!("this stage has no shared picture");
        };
        let (name, used) = (texture.name(), [TextureAccess::from(&*texture)]);
        acquirer.acquire(ticket, &used)?;
        self.timed(1, |finish| finish.frame(name))?;
        let Picture::Shared { releaser, .. } = &mut self.picture else {
            anyhow::bail!("the picture is not shared");
        };
        Ok(releaser.release(&used)?.0)
    }

    fn frame_copied(&mut self, pages: &mut HostPages) -> Result<()> {
        self.gpu.gl.make_current()?;
        let Picture::Own { texture, pixels, mapped } = self.picture else {
            anyhow::bail!("the picture is shared");
        };
        let (start, from) = (Instant::now(), pages.bytes());
        ensure!(from.len() == bytes(self.size), "{} bytes for a picture", from.len());
        // SAFETY: the buffer is mapped for as long as it lives and has as many bytes; OpenGL has read
        // the last frame, which was waited for.
        unsafe { mapped.as_ptr().copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        self.times.copy_on_host = start.elapsed();
        self.timed(0, |finish| finish.upload(texture, pixels))?;
        self.timed(1, |finish| finish.frame(texture))
    }

    fn wait(&mut self) -> Result<()> {
        self.gpu.finish();
        self.gpu.check("glFinish")
    }

    fn times(&mut self) -> Result<FinishTimes> {
        let Some(queries) = self.queries else { return Ok(self.times) };
        let gl = self.gpu.gl.glow();
        // SAFETY: the context is current and the queries were ended.
        let time = |query| unsafe { gl.get_query_parameter_u32(query, glow::QUERY_RESULT) };
        if matches!(self.picture, Picture::Own { .. }) {
            self.times.upload = Duration::from_nanos(time(queries[0]).into());
        }
        self.times.vignette = Duration::from_nanos(time(queries[1]).into());
        Ok(self.times)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let mut read = vec![0; bytes(self.size)];
        let gl = self.gpu.gl.glow();
        // SAFETY: the context is current; there is room for all of the texture.
        unsafe {
            gl.pixel_store_i32(glow::PACK_ALIGNMENT, 4);
            gl.bind_texture(glow::TEXTURE_2D, Some(self.framed));
            let into = glow::PixelPackData::Slice(Some(&mut read));
            gl.get_tex_image(glow::TEXTURE_2D, 0, glow::RGBA, glow::UNSIGNED_BYTE, into);
            gl.bind_texture(glow::TEXTURE_2D, None);
        }
        self.gpu.check("glGetTexImage")?;
        Ok(read)
    }
}

impl Drop for GlFinish {
    fn drop(&mut self) {
        if self.gpu.gl.make_current().is_err() {
            return;
        }
        self.gpu.finish();
        let gl = self.gpu.gl.glow();
        // SAFETY: the context is current, and all of these are its own. The program is the context's.
        unsafe {
            gl.delete_texture(self.framed);
            for query in self.queries.iter().flatten() {
                gl.delete_query(*query);
            }
            if let Picture::Own { texture, pixels, .. } = self.picture {
                gl.delete_texture(texture);
                gl.delete_buffer(pixels);
            }
        }
    }
}

/// Bytes of a picture.
fn bytes((width, height): (u32, u32)) -> usize {
    width as usize * height as usize * 4
}

/// Creates a texture of one level, read as single texels.
fn texture(gpu: &GlContext, format: u32, (width, height): (u32, u32)) -> Result<glow::Texture> {
    let gl = gpu.gl.glow();
    let (width, height) = (i32::try_from(width)?, i32::try_from(height)?);
    // SAFETY: the context is current; a new texture.
    let texture = unsafe {
        let texture = gl.create_texture().map_err(anyhow::Error::msg)?;
        gl.bind_texture(glow::TEXTURE_2D, Some(texture));
        gl.tex_storage_2d(glow::TEXTURE_2D, 1, format, width, height);
        gl.bind_texture(glow::TEXTURE_2D, None);
        texture
    };
    gpu.check("glTexStorage2D")?;
    Ok(texture)
}
