//! OpenGL's stage.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use gpu_interop::gl::{Buffer, Endpoint};
use gpu_interop::glow;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket};

use super::stage::{Stage, Work};
use interop_gpu::Kernel;
use interop_gpu::gl::GlContext;

/// An OpenGL context that shares the payload.
#[derive(Debug)]
pub(super) struct GlStage {
    gpu: Rc<GlContext>,
    acquirer: Acquirer<Endpoint>,
    releaser: Releaser<Endpoint>,
    buffer: Buffer,
    private: glow::Buffer,
}

impl GlStage {
    pub(super) fn new(
        gpu: Rc<GlContext>,
        buffer: Buffer,
        acquirer: Acquirer<Endpoint>,
        releaser: Releaser<Endpoint>,
    ) -> Result<Self> {
        let bytes = buffer.desc().size;
        let private = gpu.private_buffer(bytes)?;
        gpu.dispatch(Kernel::Fill { seed: 78 }, private, bytes, 0)?;
        Ok(Self { gpu, acquirer, releaser, buffer, private })
    }
}

impl Stage for GlStage {
    fn api(&self) -> &'static str {
        "gl"
    }

    fn turn(&mut self, ticket: Option<Ticket>, work: Work) -> Result<Ticket> {
        if let Some(ticket) = ticket {
            self.acquire(ticket)?;
        }
        let (buffer, bytes) = (self.buffer.name(), self.buffer.desc().size);
        match work {
            Work::Whole(kernel, groups) => self.gpu.dispatch(kernel, buffer, bytes, groups)?,
            Work::Touch(kernel) => self.gpu.touch(kernel, buffer, bytes)?,
            Work::Nothing => {}
        }
        self.release()
    }

    fn acquire(&mut self, ticket: Ticket) -> Result<()> {
        Ok(self.acquirer.acquire(ticket, &[&self.buffer])?)
    }

    fn release(&mut self) -> Result<Ticket> {
        Ok(self.releaser.release(&[&self.buffer])?.0)
    }

    fn time_shared(&mut self, kernel: Kernel, groups: u32) -> Result<Duration> {
        self.gpu.time(kernel, self.buffer.name(), self.buffer.desc().size, groups)
    }

    fn time_private(&mut self, kernel: Kernel, groups: u32) -> Result<Duration> {
        self.gpu.time(kernel, self.private, self.buffer.desc().size, groups)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.gpu.download(self.buffer.name(), 0, self.buffer.desc().size)
    }

    fn finish(&mut self) -> Result<()> {
        self.gpu.finish();
        Ok(())
    }
}

impl Drop for GlStage {
    fn drop(&mut self) {
        self.gpu.delete_buffer(self.private);
    }
}
