//! Vulkan as a user of shared payloads: command buffers that are recorded once and submitted often.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::handoff::{Ticket, VulkanCommands};
use gpu_interop::ring::{RingStage, SlotCommands, Wait};
use gpu_interop::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FencePool, SubmitSync};
use interop_gpu::Kernel;
use interop_gpu::vulkan::{Bound, PrivateBuffer, VulkanContext};

use crate::user::{Ends, PayloadUser, TIMEOUT, Work};

/// Submits per fence that the host may wait for. A fence for each submit would cost one more semaphore each.
const FENCE_EVERY: u64 = 16;
/// Fences in flight. They limit how far the host runs ahead of the GPU.
const FENCES: usize = 4;

/// A Vulkan device.
#[derive(Debug)]
pub struct VulkanUser {
    /// The device.
    pub gpu: Rc<VulkanContext>,
    fences: FencePool,
    submits: u64,
    pending: VecDeque<Fence>,
}

/// A command buffer that may be submitted again while it is pending.
#[derive(Debug)]
pub struct Recorded {
    gpu: Rc<VulkanContext>,
    /// The command buffer.
    pub command: vk::CommandBuffer,
    bounds: Vec<Bound>,
}

impl Recorded {
    /// Records commands by `record`.
    ///
    /// # Errors
    /// The errors of `record`, and if the driver fails.
    pub fn new(
        gpu: &Rc<VulkanContext>,
        record: impl FnOnce(vk::CommandBuffer) -> Result<()>,
    ) -> Result<Self> {
        let command = gpu.command_buffers(1)?[0];
        let recorded = Self { gpu: gpu.clone(), command, bounds: Vec::new() };
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE);
        // SAFETY: the command buffer is new, of a pool that only this thread uses.
        unsafe { gpu.device().begin_command_buffer(command, &info) }?;
        record(command)?;
        // SAFETY: it is being recorded.
        unsafe { gpu.device().end_command_buffer(command) }?;
        Ok(recorded)
    }

    /// Keeps the descriptor sets that the commands use.
    #[must_use]
    pub fn with(mut self, bounds: Vec<Bound>) -> Self {
        self.bounds = bounds;
        self
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // Nothing may be in flight when it is freed. A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.bounds.drain(..).for_each(|bound| self.gpu.unbind(bound));
        self.gpu.free_command_buffers(&[self.command]);
    }
}

impl VulkanUser {
    /// Uses the device of `gpu`.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(gpu: Rc<VulkanContext>) -> Result<Self> {
        let fences = FencePool::new(&gpu.endpoint)?;
        Ok(Self { gpu, fences, submits: 0, pending: VecDeque::new() })
    }

    fn family(&self) -> u32 {
        self.gpu.vulkan.queue_family()
    }

    fn bind(&self, buffer: &Buffer) -> Result<Bound> {
        self.gpu.bind(buffer.handle(), buffer.desc().size)
    }

    /// Fills `buffer` and releases it to `VK_QUEUE_FAMILY_EXTERNAL`, so that the first pass can acquire it.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn fill_and_release(&self, buffer: &Buffer, seed: u32) -> Result<()> {
        let bound = self.bind(buffer)?;
        let used = [BufferAccess::compute(buffer)];
        self.gpu.run(|command| {
            self.gpu.record(command, Kernel::Fill { seed }, &bound, 0);
            // SAFETY: the command buffer is being recorded for this family; the buffer outlives `run`, which
            // waits.
            unsafe { self.gpu.endpoint.record_release(command, self.family(), &used) }?;
            Ok(())
        })?;
        self.gpu.unbind(bound);
        Ok(())
    }

    /// Records `work` over `bound`.
    pub fn record(&self, command: vk::CommandBuffer, bound: &Bound, work: Work) {
        match work {
            Work::Whole(kernel, groups) => self.gpu.record(command, kernel, bound, groups),
            Work::Touch(kernel) => self.gpu.record_touch(command, kernel, bound),
        }
    }

    /// Submits `commands` with the waits and signals of `sync`. Waits if the host is too far ahead.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn submit(&mut self, commands: &[vk::CommandBuffer], mut sync: SubmitSync) -> Result<()> {
        self.submits += 1;
        let fence = match self.submits.is_multiple_of(FENCE_EVERY) {
            true => Some(self.fences.next(&mut sync)?),
            false => None,
        };
        self.gpu.vulkan.with_queue(|queue| {
            // SAFETY: the queue is guarded; the command buffers are executable, and they and all that they
            // use live until the caller has waited.
            unsafe { sync.submit(&self.gpu.endpoint, queue, commands) }
        })?;
        self.pending.extend(fence);
        if self.pending.len() <= FENCES {
            return Ok(());
        }
        Ok(self.pending.pop_front().map_or(Ok(()), |oldest| oldest.wait(TIMEOUT))?)
    }

    /// Acquires `buffers` for any use, after the waits of `sync`, and waits.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn acquire_all(&mut self, buffers: &[Buffer], sync: SubmitSync) -> Result<()> {
        let used: Vec<_> = buffers.iter().map(any_use).collect();
        let recorded = Recorded::new(&self.gpu, |command| {
            // SAFETY: the command buffer is being recorded for this family; the caller keeps the buffers.
            unsafe { self.gpu.endpoint.record_acquire(command, self.family(), &used[..]) }?;
            Ok(())
        })?;
        self.submit(&[recorded.command], sync)?;
        self.finish()
    }
}

/// A buffer as kernels and copies use it.
fn any_use(buffer: &Buffer) -> BufferAccess<'_> {
    BufferAccess::compute(buffer) | BufferAccess::transfer(buffer)
}

impl PayloadUser for VulkanUser {
    type Endpoint = Endpoint;
    type Prepared = Recorded;
    // The descriptor sets are freed before the buffer.
    type Private = PrivatePayload;

    fn name(&self) -> &'static str {
        "vulkan"
    }

    fn endpoint(&self) -> &Endpoint {
        &self.gpu.endpoint
    }

    /// Records one acquire barrier for all buffers, the kernels, which may overlap, and one release barrier.
    fn prepare(&self, buffers: &[Buffer], work: Work) -> Result<Recorded> {
        let bounds = buffers.iter().map(|buffer| self.bind(buffer)).collect::<Result<Vec<_>>>()?;
        let used: Vec<_> = buffers.iter().map(BufferAccess::compute).collect();
        let recorded = Recorded::new(&self.gpu, |command| {
            // SAFETY: the command buffer is being recorded for this family; the callers keep the buffers
            // until the device is idle.
            unsafe { self.gpu.endpoint.record_acquire(command, self.family(), &used[..]) }?;
            bounds.iter().for_each(|bound| self.record(command, bound, work));
            // SAFETY: as above.
            unsafe { self.gpu.endpoint.record_release(command, self.family(), &used[..]) }?;
            Ok(())
        })?;
        Ok(recorded.with(bounds))
    }

    fn pass(
        &mut self,
        ticket: Option<Ticket>,
        ends: &mut Ends<Self>,
        prepared: &Recorded,
    ) -> Result<Ticket> {
        let mut sync = match ticket {
            Some(ticket) => ends.acquirer.acquire(ticket, VulkanCommands::recorded())?,
            None => SubmitSync::default(),
        };
        let (ticket, signals) = ends.releaser.release(VulkanCommands::recorded())?;
        sync.merge(signals);
        self.submit(&[prepared.command], sync)?;
        Ok(ticket)
    }

    fn ring_pass(
        &mut self,
        stage: &mut RingStage<Endpoint>,
        prepared: &[Recorded],
        batch: usize,
        mut passed: impl FnMut(usize),
    ) -> Result<()> {
        let taken = stage.take(Wait::UpTo(TIMEOUT), batch..=batch, SlotCommands::recorded())?;
        let (slots, mut sync) = taken.context("slots arrived in time")?;
        let first = slots.iter().next().context("a batch has slots")?.index();
        // Slots circulate in their order, and the ring's depth is a multiple of the batch.
        let in_order = slots.iter().zip(first..).all(|(slot, index)| slot.index() == index);
        ensure!(in_order && first.is_multiple_of(batch), "slots arrived out of order");
        slots.iter().for_each(|slot| passed(slot.index()));
        sync.merge(stage.release(slots, SlotCommands::recorded())?);
        self.submit(&[prepared[first / batch].command], sync)
    }

    fn acquire(&mut self, ticket: Ticket, ends: &mut Ends<Self>) -> Result<()> {
        let sync = ends.acquirer.acquire(ticket, VulkanCommands::recorded())?;
        self.acquire_all(std::slice::from_ref(&ends.buffer), sync)
    }

    fn release(&mut self, ends: &mut Ends<Self>) -> Result<Ticket> {
        let used = [any_use(&ends.buffer)];
        let recorded = Recorded::new(&self.gpu, |command| {
            // SAFETY: the command buffer is being recorded for this family, which owns the buffer; the caller
            // keeps the buffer.
            unsafe { self.gpu.endpoint.record_release(command, self.family(), &used) }?;
            Ok(())
        })?;
        let (ticket, sync) = ends.releaser.release(VulkanCommands::recorded())?;
        self.submit(&[recorded.command], sync)?;
        self.finish()?;
        Ok(ticket)
    }

    fn time(&self, buffer: &Buffer, work: Work) -> Result<Duration> {
        let bound = self.bind(buffer)?;
        let time = self.gpu.time(|command| self.record(command, &bound, work));
        self.gpu.unbind(bound);
        time
    }

    fn read(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        self.gpu.download(buffer.handle(), 0, buffer.desc().size)
    }

    fn private(&self, bytes: u64) -> Result<PrivatePayload> {
        let buffer = PrivateBuffer::device(&self.gpu.vulkan, bytes)?;
        let bound = self.gpu.bind(buffer.buffer, bytes)?;
        self.gpu.run(|command| {
            self.gpu.record(command, Kernel::Fill { seed: 77 }, &bound, 0);
            Ok(())
        })?;
        Ok(PrivatePayload { gpu: self.gpu.clone(), bound, _buffer: buffer })
    }

    fn time_private(&self, private: &mut PrivatePayload, work: Work) -> Result<Duration> {
        self.gpu.time(|command| self.record(command, &private.bound, work))
    }

    fn finish(&mut self) -> Result<()> {
        self.pending.clear();
        Ok(self.gpu.vulkan.wait_idle()?)
    }
}

/// A private buffer, bound for the kernels.
#[derive(Debug)]
pub struct PrivatePayload {
    gpu: Rc<VulkanContext>,
    bound: Bound,
    _buffer: PrivateBuffer,
}

impl Drop for PrivatePayload {
    fn drop(&mut self) {
        self.gpu.unbind(std::mem::take(&mut self.bound));
    }
}
