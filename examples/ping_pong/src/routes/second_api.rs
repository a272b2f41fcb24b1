//! The other API of a pair: OpenGL, CUDA or a second Vulkan device.

use std::rc::Rc;

use anyhow::{Context, Result};
use gpu_interop::cudarc::driver::sys::CUdeviceptr;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket};
use gpu_interop::ring::{RingPeer, RingStage, Wait};
use gpu_interop::{cuda, gl, vulkan};

use super::benchmark::SECOND_STEP;
use super::vulkan_runner::{Recorded, TIMEOUT, VulkanRunner};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;

/// What the second API of a pair runs.
pub const KERNEL: Kernel = Kernel::PingPong { step: SECOND_STEP };

/// Far longer than any pair takes.
const PATIENT: Wait = Wait::UpTo(TIMEOUT);

/// The other API of a pair, with its kernel ready.
pub trait SecondApi {
    /// The library's endpoint.
    type Endpoint: RingPeer;
    /// A turn on one payload, prepared.
    type Turn;
    /// Turns at a stage, prepared.
    type Turns;

    fn endpoint(&self) -> &Self::Endpoint;

    /// Prepares a turn on `buffer`.
    fn prepare(&self, buffer: &BufferOf<Self>) -> Result<Self::Turn>;

    /// Takes the payload over, runs the kernel, gives it back. Returns without waiting, if the handoff
    /// allows.
    fn turn(&mut self, ticket: Ticket, ends: &mut Ends<Self>, turn: &Self::Turn) -> Result<Ticket>;

    /// Prepares turns at a stage of a ring, for `batch` slots at a time.
    fn prepare_stage(
        &self,
        station: &RingStage<Self::Endpoint>,
        batch: usize,
    ) -> Result<Self::Turns>;

    /// Takes the next `batch` slots of a ring, runs the kernel on each, passes them on together.
    fn run_stage(
        &mut self,
        station: &mut RingStage<Self::Endpoint>,
        turns: &Self::Turns,
        batch: usize,
    ) -> Result<()>;

    /// Waits until all turns are done.
    fn finish(&mut self) -> Result<()>;
}

/// A shared buffer as the other API has it.
pub type BufferOf<F> = <<F as SecondApi>::Endpoint as gpu_interop::Peer>::Buffer;

/// Both handoffs' ends at the other API, and the payload that goes through them.
pub struct Ends<F: SecondApi + ?Sized> {
    pub acquirer: Acquirer<F::Endpoint>,
    pub releaser: Releaser<F::Endpoint>,
    // After what waits for their last use.
    pub buffer: BufferOf<F>,
}

/// CUDA.
pub struct SecondCuda {
    pub gpu: Rc<CudaContext>,
    pub grid: u32,
}

impl SecondCuda {
    fn launch(&self, address: CUdeviceptr, bytes: u64) -> Result<()> {
        // SAFETY: the payload is this side's between the stream's wait and its signal, and the benchmark keeps
        // it until the stream has done all.
        unsafe { self.gpu.launch_at(KERNEL, address, bytes, self.grid) }
    }
}

impl SecondApi for SecondCuda {
    type Endpoint = cuda::Endpoint;
    type Turn = (CUdeviceptr, u64);
    type Turns = ();

    fn endpoint(&self) -> &cuda::Endpoint {
        &self.gpu.endpoint
    }

    fn prepare(&self, buffer: &cuda::Buffer) -> Result<Self::Turn> {
        Ok((buffer.device_ptr(), buffer.len()))
    }

    fn turn(&mut self, ticket: Ticket, ends: &mut Ends<Self>, turn: &Self::Turn) -> Result<Ticket> {
        ends.acquirer.acquire(ticket, &self.gpu.stream)?;
        self.launch(turn.0, turn.1)?;
        Ok(ends.releaser.release(&self.gpu.stream)?.0)
    }

    fn prepare_stage(&self, _: &RingStage<cuda::Endpoint>, _batch: usize) -> Result<()> {
        Ok(())
    }

    fn run_stage(
        &mut self,
        station: &mut RingStage<cuda::Endpoint>,
        (): &(),
        batch: usize,
    ) -> Result<()> {
        let taken = station.take(PATIENT, batch..=batch, &self.gpu.stream)?;
        let (slots, ()) = taken.context("it waited for slots")?;
        for slot in slots.iter() {
            let buffer = station.buffer(slot)?;
            self.launch(buffer.device_ptr(), buffer.len())?;
        }
        Ok(station.release(slots, &self.gpu.stream)?)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.gpu.stream.synchronize()?)
    }
}

/// OpenGL.
pub struct SecondGl {
    pub gpu: Rc<GlContext>,
    pub grid: u32,
}

impl SecondApi for SecondGl {
    type Endpoint = gl::Endpoint;
    type Turn = ();
    type Turns = ();

    fn endpoint(&self) -> &gl::Endpoint {
        &self.gpu.endpoint
    }

    fn prepare(&self, _buffer: &gl::Buffer) -> Result<()> {
        Ok(())
    }

    fn turn(&mut self, ticket: Ticket, ends: &mut Ends<Self>, (): &()) -> Result<Ticket> {
        let buffer = &ends.buffer;
        ends.acquirer.acquire(ticket, &[buffer])?;
        self.gpu.dispatch(KERNEL, buffer.name(), buffer.desc().size, self.grid)?;
        Ok(ends.releaser.release(&[buffer])?.0)
    }

    fn prepare_stage(&self, _: &RingStage<gl::Endpoint>, _batch: usize) -> Result<()> {
        Ok(())
    }

    fn run_stage(
        &mut self,
        station: &mut RingStage<gl::Endpoint>,
        (): &(),
        batch: usize,
    ) -> Result<()> {
        let taken = station.take(PATIENT, batch..=batch, ())?;
        let (slots, ()) = taken.context("it waited for slots")?;
        for slot in slots.iter() {
            let buffer = station.buffer(slot)?;
            self.gpu.dispatch(KERNEL, buffer.name(), buffer.desc().size, self.grid)?;
        }
        Ok(station.release(slots, ())?)
    }

    fn finish(&mut self) -> Result<()> {
        self.gpu.finish();
        Ok(())
    }
}

/// A second Vulkan device.
pub struct SecondVulkan {
    pub runner: VulkanRunner,
}

impl SecondApi for SecondVulkan {
    type Endpoint = vulkan::Endpoint;
    type Turn = Recorded;
    type Turns = Vec<Recorded>;

    fn endpoint(&self) -> &vulkan::Endpoint {
        &self.runner.gpu.endpoint
    }

    fn prepare(&self, buffer: &vulkan::Buffer) -> Result<Recorded> {
        self.runner.record_pass(std::slice::from_ref(buffer))
    }

    fn turn(&mut self, ticket: Ticket, ends: &mut Ends<Self>, turn: &Recorded) -> Result<Ticket> {
        self.runner.turn(Some(ticket), &mut ends.acquirer, &mut ends.releaser, turn)
    }

    fn prepare_stage(
        &self,
        station: &RingStage<vulkan::Endpoint>,
        batch: usize,
    ) -> Result<Vec<Recorded>> {
        self.runner.record_stage(station, batch)
    }

    fn run_stage(
        &mut self,
        station: &mut RingStage<vulkan::Endpoint>,
        turns: &Vec<Recorded>,
        batch: usize,
    ) -> Result<()> {
        self.runner.run_stage(station, turns, batch, |_| ())
    }

    fn finish(&mut self) -> Result<()> {
        self.runner.finish()
    }
}
