//! CUDA's stage.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use gpu_interop::cuda::{Buffer, Endpoint};
use gpu_interop::cudarc::driver::CudaSlice;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket};

use super::stage::{Stage, Work};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;

/// A CUDA context that shares the payload.
#[derive(Debug)]
pub(super) struct CudaStage {
    gpu: Rc<CudaContext>,
    acquirer: Acquirer<Endpoint>,
    releaser: Releaser<Endpoint>,
    buffer: Buffer,
    private: CudaSlice<u8>,
}

impl CudaStage {
    pub(super) fn new(
        gpu: Rc<CudaContext>,
        buffer: Buffer,
        acquirer: Acquirer<Endpoint>,
        releaser: Releaser<Endpoint>,
    ) -> Result<Self> {
        let mut private = gpu.private_buffer(buffer.desc().size)?;
        gpu.launch(Kernel::Fill { seed: 79 }, &mut private.as_view_mut(), 0)?;
        Ok(Self { gpu, acquirer, releaser, buffer, private })
    }
}

impl Stage for CudaStage {
    fn api(&self) -> &'static str {
        "cuda"
    }

    fn turn(&mut self, ticket: Option<Ticket>, work: Work) -> Result<Ticket> {
        if let Some(ticket) = ticket {
            self.acquire(ticket)?;
        }
        match work {
            Work::Whole(kernel, groups) => {
                self.gpu.launch(kernel, &mut self.buffer.as_view_mut()?, groups)?;
            }
            Work::Touch(kernel) => self.gpu.touch(kernel, &mut self.buffer.as_view_mut()?)?,
            Work::Nothing => {}
        }
        self.release()
    }

    fn acquire(&mut self, ticket: Ticket) -> Result<()> {
        Ok(self.acquirer.acquire(ticket, &self.gpu.stream)?)
    }

    fn release(&mut self) -> Result<Ticket> {
        Ok(self.releaser.release(&self.gpu.stream)?.0)
    }

    fn time_shared(&mut self, kernel: Kernel, groups: u32) -> Result<Duration> {
        self.gpu.time(kernel, &mut self.buffer.as_view_mut()?, groups)
    }

    fn time_private(&mut self, kernel: Kernel, groups: u32) -> Result<Duration> {
        self.gpu.time(kernel, &mut self.private.as_view_mut(), groups)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        Ok(self.gpu.stream.clone_dtoh(&self.buffer.as_view::<u8>()?)?)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.gpu.stream.synchronize()?)
    }
}

impl Drop for CudaStage {
    fn drop(&mut self) {
        // Nothing may be in flight when the mapping goes; a lost context has nothing in flight.
        let _ = self.gpu.stream.synchronize();
    }
}
