//! Vulkan's side of a pair: command buffers that are recorded once and submitted as often as wanted.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::handoff::ring::{Station, Wait};
use gpu_interop::handoff::{Acquirer, Releaser, Ticket};
use gpu_interop::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FenceSource, SubmitPart};

use crate::rig::Kernel;
use crate::rig::vulkan::{Bound, VulkanRig};

/// Far longer than any pair takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Submits between two that the host may wait for. A fence each would be a semaphore more a submit.
const FENCE_EVERY: u64 = 16;
/// Fences under way: the host runs that far ahead of the GPU, and no farther.
const FENCES: usize = 4;

/// A Vulkan device that runs the kernel with `step`.
#[derive(Debug)]
pub(crate) struct VulkanSide {
    pub(crate) rig: Rc<VulkanRig>,
    grid: u32,
    step: u32,
    fences: FenceSource,
    submits: u64,
    pending: VecDeque<Fence>,
}

/// A command buffer that may be submitted again while it is pending.
#[derive(Debug)]
pub(crate) struct Recorded {
    rig: Rc<VulkanRig>,
    pub(crate) command: vk::CommandBuffer,
    bounds: Vec<Bound>,
}

impl Recorded {
    /// Records by `record`.
    pub(crate) fn new(
        rig: &Rc<VulkanRig>,
        record: impl FnOnce(vk::CommandBuffer) -> Result<()>,
    ) -> Result<Self> {
        let command = rig.command_buffers(1)?[0];
        let recorded = Self { rig: rig.clone(), command, bounds: Vec::new() };
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE);
        // SAFETY: the command buffer is new, of a pool that this thread alone uses.
        unsafe { rig.device().begin_command_buffer(command, &info) }?;
        record(command)?;
        // SAFETY: it is being recorded.
        unsafe { rig.device().end_command_buffer(command) }?;
        Ok(recorded)
    }

    /// Keeps what the commands use.
    pub(crate) fn with(mut self, bounds: Vec<Bound>) -> Self {
        self.bounds = bounds;
        self
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // Nothing may be in flight when it goes; a lost device has nothing in flight.
        let _ = self.rig.vulkan.wait_idle();
        self.bounds.drain(..).for_each(|bound| self.rig.unbind(bound));
        self.rig.free_command_buffers(&[self.command]);
    }
}

impl VulkanSide {
    pub(crate) fn new(rig: Rc<VulkanRig>, grid: u32, step: u32) -> Result<Self> {
        let fences = FenceSource::new(&rig.endpoint)?;
        Ok(Self { rig, grid, step, fences, submits: 0, pending: VecDeque::new() })
    }

    fn family(&self) -> u32 {
        self.rig.vulkan.queue_family()
    }

    /// Fills `buffer` and leaves it outside Vulkan, as if the other side had released it.
    pub(crate) fn fill_and_release(&self, buffer: &Buffer, seed: u32) -> Result<()> {
        let bound = self.rig.bind(buffer.handle(), buffer.desc().size)?;
        let used = [BufferAccess::compute(buffer)];
        self.rig.run(|command| {
            self.rig.record(command, Kernel::Fill { seed }, &bound, 0);
            // SAFETY: the command buffer is being recorded for this family; the buffer outlives `run`,
            // which waits.
            unsafe { self.rig.endpoint.record_release(command, self.family(), &used) }?;
            Ok(())
        })?;
        self.rig.unbind(bound);
        Ok(())
    }

    /// Records once: take `buffers` over, run the kernel on each, give them back. One barrier before all
    /// and one after: between them the kernels may overlap.
    pub(crate) fn record_turn(&self, buffers: &[Buffer]) -> Result<Recorded> {
        let bind = |buffer: &Buffer| self.rig.bind(buffer.handle(), buffer.desc().size);
        let bounds = buffers.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let used: Vec<_> = buffers.iter().map(BufferAccess::compute).collect();
        let recorded = Recorded::new(&self.rig, |command| {
            // SAFETY: the command buffer is being recorded for this family; the rungs keep the buffers until
            // the device is idle.
            unsafe { self.rig.endpoint.record_acquire(command, self.family(), &used[..]) }?;
            for bound in &bounds {
                self.rig.record(command, Kernel::PingPong { step: self.step }, bound, self.grid);
            }
            // SAFETY: as above.
            unsafe { self.rig.endpoint.record_release(command, self.family(), &used[..]) }?;
            Ok(())
        })?;
        Ok(recorded.with(bounds))
    }

    /// Records the kernel, between whatever else the queue does with the same payload.
    pub(crate) fn record_kernel(&self, bound: &Bound) -> Result<Recorded> {
        Recorded::new(&self.rig, |command| {
            self.rig.record_barrier(command);
            self.rig.record(command, Kernel::PingPong { step: self.step }, bound, self.grid);
            Ok(())
        })
    }

    /// Records a copy of `range`, between whatever else the queue does and for the host to see.
    pub(crate) fn record_copy(
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
        let device = self.rig.device();
        Recorded::new(&self.rig, |command| {
            self.rig.record_barrier(command);
            // SAFETY: the command buffer is being recorded, and both buffers are as long as the range.
            unsafe {
                device.cmd_copy_buffer(command, from, to, &[region]);
                device.cmd_pipeline_barrier(command, copy, host, none, &[visible], &[], &[]);
            }
            Ok(())
        })
    }

    /// Submits a turn that was recorded by [`record_turn`](Self::record_turn). The first of all has no
    /// ticket.
    pub(crate) fn turn(
        &mut self,
        ticket: Option<Ticket>,
        acquirer: &mut Acquirer<Endpoint>,
        releaser: &mut Releaser<Endpoint>,
        recorded: &Recorded,
    ) -> Result<Ticket> {
        let mut part = match ticket {
            Some(ticket) => acquirer.wait(ticket)?,
            None => SubmitPart::default(),
        };
        let (ticket, signals) = releaser.signal()?;
        part.merge(signals)?;
        self.submit(&[recorded.command], part)?;
        Ok(ticket)
    }

    /// Submits `commands` with `part`, and waits where the host is too far ahead.
    pub(crate) fn submit(
        &mut self,
        commands: &[vk::CommandBuffer],
        mut part: SubmitPart,
    ) -> Result<()> {
        self.submits += 1;
        let fence = match self.submits.is_multiple_of(FENCE_EVERY) {
            true => Some(self.fences.next(&mut part)?),
            false => None,
        };
        self.rig.vulkan.with_queue(|queue| {
            // SAFETY: the queue is guarded; the command buffers are executable, and they and all that they
            // use live until the rung has waited.
            unsafe { part.submit(&self.rig.endpoint, queue, commands) }
        })?;
        self.pending.extend(fence);
        if self.pending.len() <= FENCES {
            return Ok(());
        }
        Ok(self.pending.pop_front().map_or(Ok(()), |oldest| oldest.wait(PATIENCE))?)
    }

    /// Records a turn for each `batch` slots of a ring that lie side by side.
    pub(crate) fn record_station(
        &self,
        station: &Station<Endpoint>,
        batch: usize,
    ) -> Result<Vec<Recorded>> {
        station.buffers().chunks(batch).map(|buffers| self.record_turn(buffers)).collect()
    }

    /// Takes the next `batch` slots, runs the kernel on each and passes them on, all in one submit.
    /// `recorded` is what [`record_station`](Self::record_station) recorded for batches of that size. Tells
    /// `did` each slot's number.
    pub(crate) fn station_turn(
        &mut self,
        station: &mut Station<Endpoint>,
        recorded: &[Recorded],
        batch: usize,
        mut did: impl FnMut(usize),
    ) -> Result<()> {
        let taken = station.take_recorded(Wait::UpTo(PATIENCE), batch..=batch)?;
        let (slots, mut part) = taken.context("it waited for slots")?;
        let first = slots.iter().next().context("a batch has slots")?.index();
        // Slots go round in their order, and the ring's depth is a multiple of the batch.
        let in_order = slots.iter().zip(first..).all(|(slot, index)| slot.index() == index);
        ensure!(in_order && first.is_multiple_of(batch), "slots came out of order");
        slots.iter().for_each(|slot| did(slot.index()));
        let (added, passing) = station.release_recorded(slots)?;
        part.merge(added)?;
        self.submit(&[recorded[first / batch].command], part)?;
        passing.send();
        Ok(())
    }

    /// Waits until all that was submitted is done.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.pending.clear();
        Ok(self.rig.vulkan.wait_idle()?)
    }

    /// Takes `buffer` over for good.
    pub(crate) fn take_back(
        &mut self,
        ticket: Ticket,
        acquirer: &mut Acquirer<Endpoint>,
        buffer: &Buffer,
    ) -> Result<()> {
        let part = acquirer.wait(ticket)?;
        self.take_buffers(std::slice::from_ref(buffer), part)
    }

    /// Takes `buffers` over for good, waiting for what `part` says.
    pub(crate) fn take_buffers(&mut self, buffers: &[Buffer], part: SubmitPart) -> Result<()> {
        let used: Vec<_> = buffers.iter().map(everything).collect();
        let recorded = Recorded::new(&self.rig, |command| {
            // SAFETY: the command buffer is being recorded for this family; the rung keeps the buffers.
            unsafe { self.rig.endpoint.record_acquire(command, self.family(), &used[..]) }?;
            Ok(())
        })?;
        self.submit(&[recorded.command], part)?;
        self.finish()
    }
}

/// A buffer as kernels and copies use it.
fn everything(buffer: &Buffer) -> BufferAccess<'_> {
    let (compute, transfer) = (BufferAccess::compute(buffer), BufferAccess::transfer(buffer));
    BufferAccess {
        buffer,
        stage: compute.stage | transfer.stage,
        access: compute.access | transfer.access,
    }
}
