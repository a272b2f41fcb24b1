//! The kernels in OpenGL: compute programs, windows of a buffer, timer queries.

mod depth;
mod depth_packing;
mod images;
mod shaders;
mod texels;
mod words;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::gl::Endpoint;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::Gl;

pub use self::depth::{DepthCanvas, Tested};
pub use self::words::storable;
use super::kernel::{Kernel, Window, windows};

const FILL: &str = include_str!("../../../../shaders/fill.comp");
const PING_PONG: &str = include_str!("../../../../shaders/ping_pong.comp");

/// Locations of the uniforms in the shaders' sources.
const FIRST: glow::NativeUniformLocation = glow::NativeUniformLocation(0);
const COUNT: glow::NativeUniformLocation = glow::NativeUniformLocation(1);
const ARGUMENT: glow::NativeUniformLocation = glow::NativeUniformLocation(2);

/// llvmpipe's timer queries return the time at which they were recorded, not executed (Mesa 22.3.6 and 25.0),
/// so the host's clock is used there.
const LLVMPIPE_TIMER_QUERIES_ARE_USELESS: &str = "llvmpipe";

/// An OpenGL context with the kernels loaded.
#[derive(Debug)]
pub struct GlContext {
    /// The context.
    pub gl: Gl,
    /// The library's endpoint over it.
    pub endpoint: Endpoint,
    fill: glow::Program,
    ping_pong: glow::Program,
    timer: Option<glow::Query>,
    max_window: u64,
    /// Programs by their sources: programs that many cases use are compiled once.
    programs: RefCell<BTreeMap<String, glow::Program>>,
}

impl GlContext {
    /// Loads the kernels into `gl`, which is made current.
    ///
    /// # Errors
    /// If the context has no compute shaders.
    pub fn new(gl: Gl) -> Result<Self> {
        let endpoint = gl.endpoint()?;
        let name = endpoint.identities().first().map(|id| id.name.clone()).unwrap_or_default();
        let context = gl.glow().clone();
        let fill = compile(&context, FILL).context("fill.comp")?;
        let ping_pong = compile(&context, PING_PONG).context("ping_pong.comp")?;
        // SAFETY: `endpoint` made the context current.
        let (timer, max_window) = unsafe {
            let timer = (!name.contains(LLVMPIPE_TIMER_QUERIES_ARE_USELESS))
                .then(|| context.create_query())
                .transpose()
                .map_err(anyhow::Error::msg)?;
            (timer, context.get_parameter_i64(glow::MAX_SHADER_STORAGE_BLOCK_SIZE))
        };
        // glow takes offsets and sizes as i32.
        let max_window = u64::try_from(max_window)?.min(1 << 30);
        let programs = RefCell::default();
        Ok(Self { gl, endpoint, fill, ping_pong, timer, max_window, programs })
    }

    /// Returns the program of these shaders, each a kind and a source. It is compiled once, and deleted with
    /// the context.
    ///
    /// # Errors
    /// If a shader does not compile or the program does not link.
    pub fn program(&self, shaders: &[(u32, String)]) -> Result<glow::Program> {
        let key = shaders.iter().map(|(_, source)| source.as_str()).collect::<String>();
        if let Some(&program) = self.programs.borrow().get(&key) {
            return Ok(program);
        }
        let program = link(self.glow(), shaders).with_context(|| key.clone())?;
        self.programs.borrow_mut().insert(key, program);
        Ok(program)
    }

    /// Whether the driver's timer queries measure the execution.
    pub fn has_timer(&self) -> bool {
        self.timer.is_some()
    }

    fn glow(&self) -> &glow::Context {
        self.gl.glow()
    }

    /// Runs `kernel` over the first `bytes` bytes of `buffer`, with `groups` work groups per window; 0
    /// for one thread per element.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn dispatch(
        &self,
        kernel: Kernel,
        buffer: glow::Buffer,
        bytes: u64,
        groups: u32,
    ) -> Result<()> {
        for window in windows(bytes, self.max_window) {
            self.dispatch_window(kernel, buffer, window, groups)?;
        }
        self.check("glDispatchCompute")
    }

    /// Runs `kernel` over the first 256 elements only.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn touch(&self, kernel: Kernel, buffer: glow::Buffer, bytes: u64) -> Result<()> {
        let window = Window { offset: 0, bytes: bytes.min(4096) };
        self.dispatch_window(kernel, buffer, window, 1)?;
        self.check("glDispatchCompute")
    }

    fn dispatch_window(
        &self,
        kernel: Kernel,
        buffer: glow::Buffer,
        window: Window,
        groups: u32,
    ) -> Result<()> {
        let program = match kernel {
            Kernel::Fill { .. } => self.fill,
            Kernel::PingPong { .. } => self.ping_pong,
        };
        let groups = if groups == 0 { window.groups().min(65_535) } else { groups };
        let (offset, size) = (i32::try_from(window.offset)?, i32::try_from(window.bytes)?);
        let gl = self.glow();
        let target = glow::SHADER_STORAGE_BUFFER;
        // SAFETY: the context is current (TestGpu::gl and the benchmarks see to it); the program and
        // the buffer are its own.
        unsafe {
            gl.use_program(Some(program));
            gl.bind_buffer_range(target, 0, Some(buffer), offset, size);
            gl.uniform_1_u32(Some(&FIRST), window.first());
            gl.uniform_1_u32(Some(&COUNT), window.count());
            gl.uniform_1_u32(Some(&ARGUMENT), kernel.argument());
            gl.dispatch_compute(groups, 1, 1);
            gl.memory_barrier(glow::SHADER_STORAGE_BARRIER_BIT | glow::BUFFER_UPDATE_BARRIER_BIT);
        }
        Ok(())
    }

    /// Runs `kernel` over the buffer and returns how long it took on the device, measured by a timer query if
    /// the driver has working ones.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn time(
        &self,
        kernel: Kernel,
        buffer: glow::Buffer,
        bytes: u64,
        groups: u32,
    ) -> Result<Duration> {
        let gl = self.glow();
        let Some(timer) = self.timer else {
            self.finish();
            let start = Instant::now();
            self.dispatch(kernel, buffer, bytes, groups)?;
            self.finish();
            return Ok(start.elapsed());
        };
        // SAFETY: the context is current and the query its own, not in use.
        unsafe { gl.begin_query(glow::TIME_ELAPSED, timer) };
        let dispatched = self.dispatch(kernel, buffer, bytes, groups);
        // SAFETY: begun above.
        let nanoseconds = unsafe {
            gl.end_query(glow::TIME_ELAPSED);
            gl.get_query_parameter_u32(timer, glow::QUERY_RESULT)
        };
        dispatched?;
        Ok(Duration::from_nanos(nanoseconds.into()))
    }

    /// Waits until OpenGL has finished all commands.
    pub fn finish(&self) {
        // SAFETY: the context is current.
        unsafe { self.glow().finish() };
    }

    /// Creates a private buffer, for comparison with shared memory.
    ///
    /// # Errors
    /// If OpenGL is out of memory.
    pub fn private_buffer(&self, bytes: u64) -> Result<glow::Buffer> {
        let gl = self.glow();
        let size = i32::try_from(bytes).context("glow takes sizes as i32")?;
        // SAFETY: the context is current.
        let buffer = unsafe {
            let buffer = gl.create_buffer().map_err(anyhow::Error::msg)?;
            gl.bind_buffer(glow::SHADER_STORAGE_BUFFER, Some(buffer));
            let flags = glow::DYNAMIC_STORAGE_BIT;
            gl.buffer_storage(glow::SHADER_STORAGE_BUFFER, size, None, flags);
            buffer
        };
        self.check("glBufferStorage")?;
        Ok(buffer)
    }

    /// Deletes a buffer created by [`private_buffer`](Self::private_buffer).
    pub fn delete_buffer(&self, buffer: glow::Buffer) {
        // SAFETY: the context is current and the buffer its own.
        unsafe { self.glow().delete_buffer(buffer) };
    }

    /// Writes `data` to `buffer` at `offset`.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn upload(&self, buffer: glow::Buffer, offset: u64, data: &[u8]) -> Result<()> {
        let (gl, offset) = (self.glow(), i32::try_from(offset)?);
        // SAFETY: the context is current and the buffer its own.
        unsafe {
            gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(buffer));
            gl.buffer_sub_data_u8_slice(glow::COPY_WRITE_BUFFER, offset, data);
        }
        self.check("glBufferSubData")
    }

    /// Reads `bytes` bytes of `buffer` at `offset`.
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn download(&self, buffer: glow::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let mut data = vec![0u8; usize::try_from(bytes)?];
        let (gl, offset, size) = (self.glow(), i32::try_from(offset)?, i32::try_from(bytes)?);
        // Through a buffer of OpenGL's own: NVIDIA's glGetBufferSubData of an imported buffer returns
        // old bytes (gl::workarounds).
        let private = self.private_buffer(bytes)?;
        let (from, to) = (glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER);
        // SAFETY: the context is current and the buffers its own.
        unsafe {
            gl.memory_barrier(glow::BUFFER_UPDATE_BARRIER_BIT);
            gl.bind_buffer(from, Some(buffer));
            gl.bind_buffer(to, Some(private));
            gl.copy_buffer_sub_data(from, to, offset, 0, size);
            gl.get_buffer_sub_data(to, 0, &mut data);
        }
        self.delete_buffer(private);
        self.check("glGetBufferSubData")?;
        Ok(data)
    }

    /// Reads from `offset` of `buffer` into `data`; the buffer was created by
    /// [`private_buffer`](Self::private_buffer).
    ///
    /// # Errors
    /// If OpenGL fails.
    pub fn read_own(&self, buffer: glow::Buffer, offset: u64, data: &mut [u8]) -> Result<()> {
        let (gl, offset) = (self.glow(), i32::try_from(offset)?);
        // SAFETY: the context is current and the buffer its own.
        unsafe {
            gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer));
            gl.get_buffer_sub_data(glow::COPY_READ_BUFFER, offset, data);
        }
        self.check("glGetBufferSubData")
    }

    /// Turns OpenGL's error flag into an error.
    ///
    /// # Errors
    /// With the name of `call` if the flag is set.
    pub fn check(&self, call: &str) -> Result<()> {
        // SAFETY: the context is current.
        let error = unsafe { self.glow().get_error() };
        ensure!(error == glow::NO_ERROR, "{call} failed with {error:#06x}");
        Ok(())
    }
}

impl Drop for GlContext {
    fn drop(&mut self) {
        if self.gl.make_current().is_err() {
            return;
        }
        let gl = self.glow();
        // SAFETY: the context is current, and all of these are its own.
        unsafe {
            gl.delete_program(self.fill);
            gl.delete_program(self.ping_pong);
            for program in self.programs.take().into_values() {
                gl.delete_program(program);
            }
            if let Some(timer) = self.timer {
                gl.delete_query(timer);
            }
        }
    }
}

fn compile(gl: &glow::Context, source: &str) -> Result<glow::Program> {
    link(gl, &[(glow::COMPUTE_SHADER, source.to_owned())])
}

fn link(gl: &glow::Context, shaders: &[(u32, String)]) -> Result<glow::Program> {
    // SAFETY: the context is current.
    unsafe {
        let program = gl.create_program().map_err(anyhow::Error::msg)?;
        for (kind, source) in shaders {
            let shader = gl.create_shader(*kind).map_err(anyhow::Error::msg)?;
            gl.shader_source(shader, source);
            gl.compile_shader(shader);
            if !gl.get_shader_compile_status(shader) {
                bail!("does not compile: {}", gl.get_shader_info_log(shader));
            }
            gl.attach_shader(program, shader);
            gl.delete_shader(shader);
        }
        gl.link_program(program);
        if !gl.get_program_link_status(program) {
            bail!("does not link: {}", gl.get_program_info_log(program));
        }
        Ok(program)
    }
}
