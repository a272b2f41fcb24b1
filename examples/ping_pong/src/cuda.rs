//! CUDA as a user of shared payloads.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::cuda::{Buffer, Endpoint};
use gpu_interop::cudarc::driver::CudaSlice;
use gpu_interop::cudarc::driver::sys::CUdeviceptr;
use gpu_interop::handoff::Ticket;
use gpu_interop::ring::{RingStage, Wait};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;

use crate::user::{Ends, PayloadUser, TIMEOUT, TOUCHED_BYTES, Work};

/// A CUDA context.
#[derive(Debug)]
pub struct CudaUser {
    /// The context.
    pub gpu: Rc<CudaContext>,
}

impl CudaUser {
    fn launch(&self, (address, bytes): (CUdeviceptr, u64), work: Work) -> Result<()> {
        let (kernel, bytes, groups) = match work {
            Work::Whole(kernel, groups) => (kernel, bytes, groups),
            Work::Touch(kernel) => (kernel, bytes.min(TOUCHED_BYTES), 1),
        };
        // SAFETY: CUDA owns the payload between the stream's wait and its signal, and the caller keeps the
        // buffer until the stream has done all work.
        unsafe { self.gpu.launch_at(kernel, address, bytes, groups) }
    }
}

fn memory(buffer: &Buffer) -> (CUdeviceptr, u64) {
    (buffer.device_ptr(), buffer.len())
}

impl PayloadUser for CudaUser {
    type Endpoint = Endpoint;
    type Prepared = Work;
    type Private = CudaSlice<u8>;

    fn name(&self) -> &'static str {
        "cuda"
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
            ends.acquirer.acquire(ticket, &self.gpu.stream)?;
        }
        self.launch(memory(&ends.buffer), work)?;
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
        let taken = stage.take(Wait::UpTo(TIMEOUT), batch..=batch, &self.gpu.stream)?;
        let (slots, ()) = taken.context("slots arrived in time")?;
        for slot in slots.iter() {
            self.launch(memory(stage.buffer(slot)?), work)?;
            passed(slot.index());
        }
        Ok(stage.release(slots, &self.gpu.stream)?)
    }

    fn acquire(&mut self, ticket: Ticket, ends: &mut Ends<Self>) -> Result<()> {
        ends.acquirer.acquire(ticket, &self.gpu.stream)?;
        self.finish()
    }

    fn release(&mut self, ends: &mut Ends<Self>) -> Result<Ticket> {
        let (ticket, ()) = ends.releaser.release(&self.gpu.stream)?;
        Ok(ticket)
    }

    fn time(&self, buffer: &Buffer, work: Work) -> Result<Duration> {
        self.gpu.time(|| self.launch(memory(buffer), work))
    }

    fn read(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        Ok(self.gpu.stream.clone_dtoh(&buffer.as_view::<u8>()?)?)
    }

    fn private(&self, bytes: u64) -> Result<CudaSlice<u8>> {
        let mut private = self.gpu.private_buffer(bytes)?;
        self.gpu.launch(Kernel::Fill { seed: 79 }, &mut private.as_view_mut(), 0)?;
        Ok(private)
    }

    fn time_private(&self, private: &mut CudaSlice<u8>, work: Work) -> Result<Duration> {
        let Work::Whole(kernel, groups) = work else {
            anyhow::bail!("only whole payloads are timed")
        };
        self.gpu.time(|| self.gpu.launch(kernel, &mut private.as_view_mut(), groups))
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.gpu.stream.synchronize()?)
    }
}
