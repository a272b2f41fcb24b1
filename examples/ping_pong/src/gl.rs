//! OpenGL as a user of shared payloads.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::gl::{Buffer, Endpoint};
use gpu_interop::glow;
use gpu_interop::handoff::Ticket;
use gpu_interop::ring::{RingStage, Wait};
use interop_gpu::Kernel;
use interop_gpu::gl::GlContext;

use crate::user::{Ends, PayloadUser, TIMEOUT, Work};

/// An OpenGL context, current on this thread.
#[derive(Debug)]
pub struct GlUser {
    /// The context.
    pub gpu: Rc<GlContext>,
}

/// A private buffer.
#[derive(Debug)]
pub struct PrivateBuffer {
    gpu: Rc<GlContext>,
    buffer: glow::Buffer,
    bytes: u64,
}

impl Drop for PrivateBuffer {
    fn drop(&mut self) {
        self.gpu.delete_buffer(self.buffer);
    }
}

impl GlUser {
    fn dispatch(&self, buffer: glow::Buffer, bytes: u64, work: Work) -> Result<()> {
        match work {
            Work::Whole(kernel, groups) => self.gpu.dispatch(kernel, buffer, bytes, groups),
            Work::Touch(kernel) => self.gpu.touch(kernel, buffer, bytes),
        }
    }

    fn time_whole(&self, buffer: glow::Buffer, bytes: u64, work: Work) -> Result<Duration> {
        let Work::Whole(kernel, groups) = work else {
            anyhow::bail!("only whole payloads are timed")
        };
        self.gpu.time(kernel, buffer, bytes, groups)
    }
}

impl PayloadUser for GlUser {
    type Endpoint = Endpoint;
    type Prepared = Work;
    type Private = PrivateBuffer;

    fn name(&self) -> &'static str {
        "gl"
    }

    fn endpoint(&self) -> &Endpoint {
        &self.gpu.endpoint
    }

    fn prepare(&self, _buffers: &[Buffer], work: Work) -> Result<Work> {
        Ok(work)
    }

    fn pass(
        &mut self,
        ticket: Option<Ticket>,
        ends: &mut Ends<Self>,
        &work: &Work,
    ) -> Result<Ticket> {
        if let Some(ticket) = ticket {
            ends.acquirer.acquire(ticket, &[&ends.buffer])?;
        }
        self.dispatch(ends.buffer.name(), ends.buffer.desc().size, work)?;
        self.release(ends)
    }

    fn ring_pass(
        &mut self,
        stage: &mut RingStage<Endpoint>,
        prepared: &[Work],
        batch: usize,
        mut passed: impl FnMut(usize),
    ) -> Result<()> {
        let work = *prepared.first().context("work was prepared")?;
        let taken = stage.take(Wait::UpTo(TIMEOUT), batch..=batch, ())?;
        let (slots, ()) = taken.context("slots arrived in time")?;
        for slot in slots.iter() {
            let buffer = stage.buffer(slot)?;
            self.dispatch(buffer.name(), buffer.desc().size, work)?;
            passed(slot.index());
        }
        Ok(stage.release(slots, ())?)
    }

    fn acquire(&mut self, ticket: Ticket, ends: &mut Ends<Self>) -> Result<()> {
        ends.acquirer.acquire(ticket, &[&ends.buffer])?;
        self.finish()
    }

    fn release(&mut self, ends: &mut Ends<Self>) -> Result<Ticket> {
        let (ticket, ()) = ends.releaser.release(&[&ends.buffer])?;
        Ok(ticket)
    }

    fn time(&self, buffer: &Buffer, work: Work) -> Result<Duration> {
        self.time_whole(buffer.name(), buffer.desc().size, work)
    }

    fn read(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        self.gpu.download(buffer.name(), 0, buffer.desc().size)
    }

    fn private(&self, bytes: u64) -> Result<PrivateBuffer> {
        let buffer = self.gpu.private_buffer(bytes)?;
        let private = PrivateBuffer { gpu: self.gpu.clone(), buffer, bytes };
        self.gpu.dispatch(Kernel::Fill { seed: 78 }, buffer, bytes, 0)?;
        Ok(private)
    }

    fn time_private(&self, private: &mut PrivateBuffer, work: Work) -> Result<Duration> {
        self.time_whole(private.buffer, private.bytes, work)
    }

    fn finish(&mut self) -> Result<()> {
        self.gpu.finish();
        Ok(())
    }
}
