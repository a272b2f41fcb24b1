//! A benchmark for calibrations: a ring of two, whose stages fill each payload with commands of their
//! own API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::{Capabilities, Support};
use gpu_interop::error::{Invalid, Missing};
use gpu_interop::peer::Peer as _;
use gpu_interop::ring::{self, RingOptions, RingPeer, RingStage, SlotCommands, Wait};
use gpu_interop::tune::{Benchmark, CalibrationKey, RouteConfig, RouteEndpoints};
use gpu_interop::vulkan::BufferAccess;
use gpu_interop::{Api, BufferDesc, Error, cuda, gl, vulkan};

use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::vulkan::VulkanContext;

/// One API's part in the benchmark.
pub(crate) trait Worker {
    type Peer: RingPeer;

    fn endpoint(&self) -> &Self::Peer;

    /// Fills and releases exactly `count` slots, if so many have arrived. Returns how many.
    fn pass(&mut self, stage: &mut RingStage<Self::Peer>, count: usize) -> Result<usize>;

    /// Waits until all of its work is done.
    fn finish(&mut self) -> Result<()>;
}

/// Runs a ring of two for each measurement, with both stages driven by the calling thread.
pub(crate) struct RingBenchmark<A: Worker, B: Worker> {
    owner: vulkan::Endpoint,
    first: A,
    second: B,
    capabilities: [Capabilities; 3],
    cuda_launch: Support,
}

impl<A: Worker, B: Worker> RingBenchmark<A, B> {
    pub(crate) fn new(owner: &vulkan::Endpoint, first: A, second: B) -> Result<Self> {
        let desc = BufferDesc::storage(16).into();
        let capabilities = [
            owner.capabilities(&desc)?,
            first.endpoint().capabilities(&desc)?,
            second.endpoint().capabilities(&desc)?,
        ];
        let cuda_launch = owner.supports_cuda_launch().and_then(|()| {
            Err(Missing::new(Api::Cuda, "a kernel in this benchmark", "the route in-queue"))
        });
        Ok(Self { owner: owner.clone(), first, second, capabilities, cuda_launch })
    }

    pub(crate) fn key(&self) -> Result<CalibrationKey> {
        let [owner, first, second] = &self.capabilities;
        Ok(CalibrationKey::new(owner, &[first.api, second.api])?)
    }

    fn pass_all(
        &mut self,
        (a, b): (&mut RingStage<A::Peer>, &mut RingStage<B::Peer>),
        config: RouteConfig,
        iterations: u32,
    ) -> Result<()> {
        let (batch, mut left) = (config.batch as usize, iterations as usize);
        while left > 0 {
            let sent = self.first.pass(a, batch)?;
            let returned = self.second.pass(b, batch)?;
            left = left.saturating_sub(returned);
            ensure!(sent + returned > 0, "no slot is at either stage");
        }
        self.second.finish()?;
        self.first.finish()
    }

    fn measure(&mut self, bytes: u64, config: RouteConfig, iterations: u32) -> Result<Duration> {
        self.support(config).map_err(Error::from)?;
        let options = RingOptions::of(config).context("the config is not for a ring")?;
        let desc = BufferDesc::storage(bytes);
        let (owner, first, second) = (&self.owner, self.first.endpoint(), self.second.endpoint());
        let (mut a, mut b, _) = ring::pair(owner, first, second, &desc, options)?;
        // The first writes allocate the memory.
        self.pass_all((&mut a, &mut b), config, config.depth)?;
        let start = Instant::now();
        self.pass_all((&mut a, &mut b), config, iterations)?;
        Ok(start.elapsed())
    }
}

impl<A: Worker, B: Worker> Benchmark for RingBenchmark<A, B> {
    fn support(&self, config: RouteConfig) -> Support {
        let [owner, first, second] = &self.capabilities;
        let cuda_launch = &self.cuda_launch;
        config.route.support(&RouteEndpoints { owner, endpoints: &[first, second], cuda_launch })
    }

    fn run(
        &mut self,
        payload_bytes: u64,
        config: RouteConfig,
        iterations: u32,
    ) -> gpu_interop::Result<Duration> {
        self.measure(payload_bytes, config, iterations).map_err(|error| {
            let other = |error| Invalid::new("benchmark", format!("failed: {error:#}")).into();
            error.downcast::<Error>().unwrap_or_else(other)
        })
    }
}

/// Command buffers of a [`VulkanWorker`]; after so many submits it waits for all of them.
const COMMAND_BUFFERS: u32 = 64;

/// How a [`VulkanWorker`] uses a payload.
fn used(buffer: &vulkan::Buffer) -> BufferAccess<'_> {
    BufferAccess::transfer(buffer)
}

/// Fills payloads with `vkCmdFillBuffer`.
pub(crate) struct VulkanWorker<'a> {
    gpu: &'a VulkanContext,
    commands: Vec<vk::CommandBuffer>,
    next: usize,
}

impl<'a> VulkanWorker<'a> {
    pub(crate) fn new(gpu: &'a VulkanContext) -> Result<Self> {
        Ok(Self { gpu, commands: gpu.command_buffers(COMMAND_BUFFERS)?, next: 0 })
    }
}

impl Worker for VulkanWorker<'_> {
    type Peer = vulkan::Endpoint;

    fn endpoint(&self) -> &vulkan::Endpoint {
        &self.gpu.endpoint
    }

    fn pass(&mut self, stage: &mut RingStage<vulkan::Endpoint>, count: usize) -> Result<usize> {
        if stage.arrived() < count {
            return Ok(0);
        }
        if self.next == self.commands.len() {
            self.finish()?;
        }
        let (command, family) = (self.commands[self.next], self.gpu.vulkan.queue_family());
        self.next += 1;
        self.gpu.begin(command)?;
        // SAFETY: the command buffer is being recorded; what is returned goes into its submit, and the stage
        // lives until `finish` has waited.
        let commands = unsafe { SlotCommands::record(command, family, used) };
        let taken = stage.take(Wait::No, count..=count, commands)?;
        let (batch, mut sync) = taken.context("they have arrived")?;
        for slot in &batch {
            let (buffer, data) = (stage.buffer(slot)?.handle(), slot.index() as u32);
            // SAFETY: as above; the buffer has TRANSFER_DST (`BufferDesc::storage`).
            unsafe {
                self.gpu.device().cmd_fill_buffer(command, buffer, 0, vk::WHOLE_SIZE, data);
            }
        }
        sync.merge(stage.release(batch, commands)?);
        self.gpu.submit(command, sync)?;
        Ok(count)
    }

    fn finish(&mut self) -> Result<()> {
        self.gpu.vulkan.wait_idle()?;
        self.next = 0;
        Ok(())
    }
}

impl Drop for VulkanWorker<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.gpu.free_command_buffers(&self.commands);
    }
}

/// Only acquires and releases payloads.
impl Worker for &GlContext {
    type Peer = gl::Endpoint;

    fn endpoint(&self) -> &gl::Endpoint {
        &self.endpoint
    }

    fn pass(&mut self, stage: &mut RingStage<gl::Endpoint>, count: usize) -> Result<usize> {
        let Some((batch, ())) = stage.take(Wait::No, count..=count, ())? else { return Ok(0) };
        stage.release(batch, ())?;
        Ok(count)
    }

    fn finish(&mut self) -> Result<()> {
        GlContext::finish(self);
        Ok(())
    }
}

/// Fills payloads with `cuMemsetD8Async`.
impl Worker for &CudaContext {
    type Peer = cuda::Endpoint;

    fn endpoint(&self) -> &cuda::Endpoint {
        &self.endpoint
    }

    fn pass(&mut self, stage: &mut RingStage<cuda::Endpoint>, count: usize) -> Result<usize> {
        let Some((batch, ())) = stage.take(Wait::No, count..=count, &self.stream)? else {
            return Ok(0);
        };
        for slot in &batch {
            let mut bytes = stage.buffer_mut(slot)?.as_view_mut::<u8>()?;
            self.stream.memset_zeros(&mut bytes)?;
        }
        stage.release(batch, &self.stream)?;
        Ok(count)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }
}
