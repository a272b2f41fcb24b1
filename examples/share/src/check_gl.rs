//! Checking frames with OpenGL.

use anyhow::{Context, Result};
use gpu_interop::gl::{Buffer, Semaphore};
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::Gl;
use gpu_interop::session::Frame;

use super::check_vulkan::verdict;
use super::checker::{Checker, NOTHING_FOUND, Parts, TIMEOUT, WARM_UP_BYTES};
use super::frame::Shape;
use super::frame_stats::FrameCheck;
use interop_gpu::gl::GlContext;
use interop_gpu::kernel::windows;

const CHECK: &str = include_str!("../../../shaders/check.comp");

#[derive(Debug)]
pub(super) struct GlChecker {
    slots: Vec<Buffer>,
    semaphore: Option<Semaphore>,
    program: glow::Program,
    counted: glow::Buffer,
    max_window: u64,
    shape: Shape,
    gpu: GlContext,
}

impl GlChecker {
    pub(super) fn new(gl: Gl, parts: Parts) -> Result<Self> {
        let Parts { shape, buffers, semaphore } = parts;
        let gpu = GlContext::new(gl)?;
        let program = gpu.program(&[(glow::COMPUTE_SHADER, CHECK.to_owned())])?;
        let import = |payload| gpu.endpoint.import_buffer(payload);
        let slots = buffers.into_iter().map(import).collect::<Result<_, _>>()?;
        let import = |payload| gpu.endpoint.import_semaphore(payload);
        let semaphore = semaphore.map(import).transpose()?;
        let counted = gpu.private_buffer(size_of_val(&NOTHING_FOUND) as u64)?;
        // SAFETY: opening the context made it current on this thread.
        let limit = unsafe { gpu.gl.glow().get_parameter_i64(glow::MAX_SHADER_STORAGE_BLOCK_SIZE) };
        // glow takes offsets and sizes as i32.
        let max_window = u64::try_from(limit)?.min(1 << 30);
        let made = Self { slots, semaphore, program, counted, max_window, shape, gpu };
        made.warm_up()?;
        Ok(made)
    }

    /// Runs the kernel once over a private frame: some drivers compile it only then.
    fn warm_up(&self) -> Result<()> {
        let frame = self.gpu.private_buffer(WARM_UP_BYTES)?;
        self.dispatch(frame, Shape::new(WARM_UP_BYTES)?, 0)?;
        self.gpu.finish();
        self.gpu.delete_buffer(frame);
        Ok(())
    }

    fn dispatch(&self, buffer: glow::Buffer, shape: Shape, number: u32) -> Result<()> {
        let gl = self.gpu.gl.glow();
        let storage = glow::SHADER_STORAGE_BUFFER;
        for window in windows(shape.bytes(), self.max_window) {
            let (groups, parameters) = shape.launch(window, number);
            let (offset, size) = (i32::try_from(window.offset)?, i32::try_from(window.bytes)?);
            // SAFETY: the context is current on this thread; the program and the buffers are its own.
            unsafe {
                gl.use_program(Some(self.program));
                gl.bind_buffer_range(storage, 0, Some(buffer), offset, size);
                gl.bind_buffer_base(storage, 1, Some(self.counted));
                for (location, value) in (0..).zip(parameters) {
                    let location = glow::NativeUniformLocation(location);
                    gl.uniform_1_u32(Some(&location), value);
                }
                gl.dispatch_compute(groups, 1, 1);
                gl.memory_barrier(
                    glow::SHADER_STORAGE_BARRIER_BIT | glow::BUFFER_UPDATE_BARRIER_BIT,
                );
            }
        }
        self.gpu.check("glDispatchCompute")
    }
}

impl Checker for GlChecker {
    fn check(&mut self, frame: &Frame, number: u32) -> Result<FrameCheck> {
        let (gpu, gl) = (&self.gpu, self.gpu.gl.glow());
        let buffer = self.slots.get(frame.slot()).context("the ring has no such slot")?;
        match (frame.point(), &self.semaphore) {
            // OpenGL can't wait for a semaphore on the host: if the producer dies before it signals, the wait
            // for the fence below times out.
            (Some(point), Some(semaphore)) => {
                gpu.endpoint.wait(semaphore, Some(point.value), &[buffer], &[])?;
            }
            _ => gpu.endpoint.memory_barrier()?,
        }
        gpu.upload(self.counted, 0, bytemuck::bytes_of(&NOTHING_FOUND))?;
        self.dispatch(buffer.name(), self.shape, number)?;
        let fence = gpu.endpoint.fence()?;
        frame.wait(TIMEOUT, |_, time| fence.wait(time))?;
        fence.wait(TIMEOUT)?;
        let mut found = NOTHING_FOUND;
        // SAFETY: the context is current and the buffer its own, of this length.
        unsafe {
            gl.bind_buffer(glow::COPY_READ_BUFFER, Some(self.counted));
            let bytes = bytemuck::bytes_of_mut(&mut found);
            gl.get_buffer_sub_data(glow::COPY_READ_BUFFER, 0, bytes);
        }
        gpu.check("glGetBufferSubData")?;
        Ok(verdict(found))
    }

    fn read(&mut self, slot: usize) -> Result<Vec<u8>> {
        let buffer = self.slots.get(slot).context("the ring has no such slot")?;
        self.gpu.endpoint.memory_barrier()?;
        self.gpu.download(buffer.name(), 0, self.shape.bytes())
    }
}

impl Drop for GlChecker {
    fn drop(&mut self) {
        if self.gpu.gl.make_current().is_ok() {
            self.gpu.delete_buffer(self.counted);
        }
    }
}
