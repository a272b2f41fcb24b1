//! Vulkan's side of a pair: command buffers that are recorded once and submitted as often as wanted.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket, VulkanCommands};
use gpu_interop::ring::{RingStage, SlotCommands, Wait};
use gpu_interop::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FencePool, SubmitSync};

use interop_gpu::Kernel;
use interop_gpu::vulkan::{Bound, VulkanContext};

/// Far longer than any pair takes.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Submits between two that the host may wait for. A fence each would be a semaphore more a submit.
const FENCE_EVERY: u64 = 16;
/// Fences under way: the host runs that second ahead of the GPU, and no farther.
const FENCES: usize = 4;

/// A Vulkan device that runs the kernel with `step`.
#[derive(Debug)]
pub struct VulkanRunner {
    pub gpu: Rc<VulkanContext>,
    grid: u32,
    step: u32,
    fences: FencePool,
    submits: u64,
    pending: VecDeque<Fence>,
}

/// A command buffer that may be submitted again while it is pending.
#[derive(Debug)]
pub struct Recorded {
    gpu: Rc<VulkanContext>,
    pub command: vk::CommandBuffer,
    bounds: Vec<Bound>,
}

impl Recorded {
    /// Records by `record`.
    pub fn new(
        gpu: &Rc<VulkanContext>,
        record: impl FnOnce(vk::CommandBuffer) -> Result<()>,
    ) -> Result<Self> {
        let command = gpu.command_buffers(1)?[0];
        let recorded = Self { gpu: gpu.clone(), command, bounds: Vec::new() };
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE);
        // SAFETY: the command buffer is new, of a pool that this thread alone uses.
        unsafe { gpu.device().begin_command_buffer(command, &info) }?;
        record(command)?;
        // SAFETY: it is being recorded.
        unsafe { gpu.device().end_command_buffer(command) }?;
        Ok(recorded)
    }

    /// Keeps what the commands use.
    pub fn with(mut self, bounds: Vec<Bound>) -> Self {
        self.bounds = bounds;
        self
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // Nothing may be in flight when it goes; a lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.bounds.drain(..).for_each(|bound| self.gpu.unbind(bound));
        self.gpu.free_command_buffers(&[self.command]);
    }
}

impl VulkanRunner {
    pub fn new(gpu: Rc<VulkanContext>, grid: u32, step: u32) -> Result<Self> {
        let fences = FencePool::new(&gpu.endpoint)?;
        Ok(Self { gpu, grid, step, fences, submits: 0, pending: VecDeque::new() })
    }

    fn family(&self) -> u32 {
        self.gpu.vulkan.queue_family()
    }

    /// Fills `buffer` and leaves it outside Vulkan, as if the other side had released it.
    pub fn fill_and_release(&self, buffer: &Buffer, seed: u32) -> Result<()> {
        let bound = self.gpu.bind(buffer.handle(), buffer.desc().size)?;
        let used = [BufferAccess::compute(buffer)];
        self.gpu.run(|command| {
            self.gpu.record(command, Kernel::Fill { seed }, &bound, 0);
            // SAFETY: the command buffer is being recorded for this family; the buffer outlives `run`,
            // which waits.
            unsafe { self.gpu.endpoint.record_release(command, self.family(), &used) }?;
            Ok(())
        })?;
        self.gpu.unbind(bound);
        Ok(())
    }

    /// Records once: take `buffers` over, run the kernel on each, give them back. One barrier before all
    /// and one after: between them the kernels may overlap.
    pub fn record_pass(&self, buffers: &[Buffer]) -> Result<Recorded> {
        let bind = |buffer: &Buffer| self.gpu.bind(buffer.handle(), buffer.desc().size);
        let bounds = buffers.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let used: Vec<_> = buffers.iter().map(BufferAccess::compute).collect();
        let recorded = Recorded::new(&self.gpu, |command| {
            // SAFETY: the command buffer is being recorded for this family; the benchmarks keep the buffers until
            // the device is idle.
            unsafe { self.gpu.endpoint.record_acquire(command, self.family(), &used[..]) }?;
            for bound in &bounds {
                self.gpu.record(command, Kernel::PingPong { step: self.step }, bound, self.grid);
            }
            // SAFETY: as above.
            unsafe { self.gpu.endpoint.record_release(command, self.family(), &used[..]) }?;
            Ok(())
        })?;
        Ok(recorded.with(bounds))
    }

    /// Records the kernel, between whatever else the queue does with the same payload.
    pub fn record_kernel(&self, bound: &Bound) -> Result<Recorded> {
        Recorded::new(&self.gpu, |command| {
            self.gpu.record_barrier(command);
            self.gpu.record(command, Kernel::PingPong { step: self.step }, bound, self.grid);
            Ok(())
        })
    }

    /// Records a copy of `range`, between whatever else the queue does and for the host to see.
    pub fn record_copy(
        &self,
        from: vk::Buffer,
        to: vk::Buffer,
        range: &Range<u64>,
    ) -> Result<Recorded> {
        let (start, size) = (range.start, range.end - range.start);
        let region = vk::BufferCopy { src_offset: start, dst_offset: start, size };
        let visible = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        let (copy, host) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        let none = vk::DependencyFlags::empty();
        let device = self.gpu.device();
        Recorded::new(&self.gpu, |command| {
            self.gpu.record_barrier(command);
            // SAFETY: the command buffer is being recorded, and both buffers are as long as the range.
            unsafe {
                device.cmd_copy_buffer(command, from, to, &[region]);
                device.cmd_pipeline_barrier(command, copy, host, none, &[visible], &[], &[]);
            }
            Ok(())
        })
    }

    /// Submits a turn that was recorded by [`record_pass`](Self::record_pass). The first of all has no
    /// ticket.
    pub fn turn(
        &mut self,
        ticket: Option<Ticket>,
        acquirer: &mut Acquirer<Endpoint>,
        releaser: &mut Releaser<Endpoint>,
        recorded: &Recorded,
    ) -> Result<Ticket> {
        let mut part = match ticket {
            Some(ticket) => acquirer.acquire(ticket, VulkanCommands::recorded())?,
            None => SubmitSync::default(),
        };
        let (ticket, signals) = releaser.release(VulkanCommands::recorded())?;
        part.merge(signals)?;
        self.submit(&[recorded.command], part)?;
        Ok(ticket)
    }

    /// Submits `commands` with `part`, and waits if the host is too second ahead.
    pub fn submit(&mut self, commands: &[vk::CommandBuffer], mut part: SubmitSync) -> Result<()> {
        self.submits += 1;
        let fence = match self.submits.is_multiple_of(FENCE_EVERY) {
            true => Some(self.fences.next(&mut part)?),
            false => None,
        };
        self.gpu.vulkan.with_queue(|queue| {
            // SAFETY: the queue is guarded; the command buffers are executable, and they and all that they
            // use live until the benchmark has waited.
            unsafe { part.submit(&self.gpu.endpoint, queue, commands) }
        })?;
        self.pending.extend(fence);
        if self.pending.len() <= FENCES {
            return Ok(());
        }
        Ok(self.pending.pop_front().map_or(Ok(()), |oldest| oldest.wait(TIMEOUT))?)
    }

    /// Records a turn for each `batch` slots of a ring that lie side by side.
    pub fn record_stage(
        &self,
        station: &RingStage<Endpoint>,
        batch: usize,
    ) -> Result<Vec<Recorded>> {
        station.buffers().chunks(batch).map(|buffers| self.record_pass(buffers)).collect()
    }

    /// Takes the next `batch` slots, runs the kernel on each and passes them on, all in one submit.
    /// `recorded` is what [`record_stage`](Self::record_stage) recorded for batches of that size. Tells
    /// `did` each slot's number.
    pub fn run_stage(
        &mut self,
        station: &mut RingStage<Endpoint>,
        recorded: &[Recorded],
        batch: usize,
        mut did: impl FnMut(usize),
    ) -> Result<()> {
        let taken = station.take(Wait::UpTo(TIMEOUT), batch..=batch, SlotCommands::recorded())?;
        let (slots, mut part) = taken.context("it waited for slots")?;
        let first = slots.iter().next().context("a batch has slots")?.index();
        // Slots go round in their order, and the ring's depth is a multiple of the batch.
        let in_order = slots.iter().zip(first..).all(|(slot, index)| slot.index() == index);
        ensure!(in_order && first.is_multiple_of(batch), "slots came out of order");
        slots.iter().for_each(|slot| did(slot.index()));
        let (added, pending) = station.release(slots, SlotCommands::recorded())?;
        part.merge(added)?;
        self.submit(&[recorded[first / batch].command], part)?;
        pending.submitted();
        Ok(())
    }

    /// Waits until all that was submitted is done.
    pub fn finish(&mut self) -> Result<()> {
        self.pending.clear();
        Ok(self.gpu.vulkan.wait_idle()?)
    }

    /// Takes `buffer` over permanently.
    pub fn take_back(
        &mut self,
        ticket: Ticket,
        acquirer: &mut Acquirer<Endpoint>,
        buffer: &Buffer,
    ) -> Result<()> {
        let part = acquirer.acquire(ticket, VulkanCommands::recorded())?;
        self.take_buffers(std::slice::from_ref(buffer), part)
    }

    /// Takes `buffers` over permanently, waiting for what `part` says.
    pub fn take_buffers(&mut self, buffers: &[Buffer], part: SubmitSync) -> Result<()> {
        let used: Vec<_> = buffers.iter().map(everything).collect();
        let recorded = Recorded::new(&self.gpu, |command| {
            // SAFETY: the command buffer is being recorded for this family; the benchmark keeps the buffers.
            unsafe { self.gpu.endpoint.record_acquire(command, self.family(), &used[..]) }?;
            Ok(())
        })?;
        self.submit(&[recorded.command], part)?;
        self.finish()
    }
}

/// A buffer as kernels and copies use it.
fn everything(buffer: &Buffer) -> BufferAccess<'_> {
    BufferAccess::compute(buffer) | BufferAccess::transfer(buffer)
}
