//! Vulkan's stage.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::handoff::{Acquirer, Releaser, Ticket, VulkanCommands};
use gpu_interop::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FencePool, SubmitSync};

use super::stage::{Stage, Work};
use interop_gpu::Kernel;
use interop_gpu::vulkan::{Bound, PrivateBuffer, VulkanContext};

/// Turns that may be submitted and not yet done.
const COMMAND_BUFFERS: u32 = 8;
/// Far longer than any turn takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A Vulkan device that shares the payload.
#[derive(Debug)]
pub(super) struct VulkanStage {
    gpu: Rc<VulkanContext>,
    acquirer: Acquirer<Endpoint>,
    releaser: Releaser<Endpoint>,
    slots: Vec<Slot>,
    next: usize,
    fences: FencePool,
    bound: Bound,
    private_bound: Bound,
    // The buffers go after what was bound to them.
    buffer: Buffer,
    _private: PrivateBuffer,
}

/// A command buffer, and the submit that used it last.
#[derive(Debug)]
struct Slot {
    command: vk::CommandBuffer,
    last: Option<Fence>,
}

impl VulkanStage {
    pub(super) fn new(
        gpu: Rc<VulkanContext>,
        buffer: Buffer,
        acquirer: Acquirer<Endpoint>,
        releaser: Releaser<Endpoint>,
    ) -> Result<Self> {
        let bytes = buffer.desc().size;
        let bound = gpu.bind(buffer.handle(), bytes)?;
        let private = PrivateBuffer::device(&gpu.vulkan, bytes)?;
        let private_bound = gpu.bind(private.buffer, bytes)?;
        gpu.run(|command| {
            gpu.record(command, Kernel::Fill { seed: 77 }, &private_bound, 0);
            Ok(())
        })?;
        let commands = gpu.command_buffers(COMMAND_BUFFERS)?;
        let slots = commands.into_iter().map(|command| Slot { command, last: None }).collect();
        let fences = FencePool::new(&gpu.endpoint)?;
        let _private = private;
        let next = 0;
        Ok(Self {
            gpu,
            acquirer,
            releaser,
            slots,
            next,
            fences,
            bound,
            private_bound,
            buffer,
            _private,
        })
    }

    /// Fills the payload, which no one has worked on yet.
    pub(super) fn fill(&self, seed: u32) -> Result<()> {
        self.gpu.run(|command| {
            self.gpu.record(command, Kernel::Fill { seed }, &self.bound, 0);
            Ok(())
        })
    }

    /// Records by `record` into the next free command buffer and submits it with what `record` adds.
    fn submit<T>(
        &mut self,
        record: impl FnOnce(&mut Self, vk::CommandBuffer, &mut SubmitSync) -> Result<T>,
    ) -> Result<T> {
        let index = self.next % self.slots.len();
        self.next += 1;
        let Slot { command, last } = &mut self.slots[index];
        let command = *command;
        if let Some(last) = last.take() {
            last.wait(TIMEOUT)?;
        }
        self.gpu.begin(command)?;
        let mut part = SubmitSync::default();
        let recorded = record(self, command, &mut part)?;
        let done = self.fences.next(&mut part)?;
        self.gpu.submit(command, &part)?;
        self.slots[index].last = Some(done);
        Ok(recorded)
    }

    fn record_acquire(
        &mut self,
        ticket: Ticket,
        command: vk::CommandBuffer,
        part: &mut SubmitSync,
    ) -> Result<()> {
        let family = self.gpu.vulkan.queue_family();
        let used = [everything(&self.buffer)];
        // SAFETY: the command buffer is being recorded for a queue of that family, outside a render
        // pass; the buffer lives as long as the stage, which waits before it goes.
        part.merge(
            self.acquirer
                .acquire(ticket, unsafe { VulkanCommands::record(command, family, &used) })?,
        )?;
        Ok(())
    }

    fn record_release(
        &mut self,
        command: vk::CommandBuffer,
        part: &mut SubmitSync,
    ) -> Result<Ticket> {
        let family = self.gpu.vulkan.queue_family();
        let used = [everything(&self.buffer)];
        // SAFETY: as above.
        let (ticket, added) =
            self.releaser.release(unsafe { VulkanCommands::record(command, family, &used) })?;
        part.merge(added)?;
        Ok(ticket)
    }
}

/// The payload as kernels and copies use it.
fn everything(buffer: &Buffer) -> BufferAccess<'_> {
    BufferAccess::compute(buffer) | BufferAccess::transfer(buffer)
}

impl Stage for VulkanStage {
    fn api(&self) -> &'static str {
        "vulkan"
    }

    fn turn(&mut self, ticket: Option<Ticket>, work: Work) -> Result<Ticket> {
        self.submit(|stage, command, part| {
            if let Some(ticket) = ticket {
                stage.record_acquire(ticket, command, part)?;
            }
            match work {
                Work::Whole(kernel, groups) => {
                    stage.gpu.record(command, kernel, &stage.bound, groups);
                }
                Work::Touch(kernel) => stage.gpu.record_touch(command, kernel, &stage.bound),
                Work::Nothing => {}
            }
            stage.record_release(command, part)
        })
    }

    fn acquire(&mut self, ticket: Ticket) -> Result<()> {
        self.submit(|stage, command, part| stage.record_acquire(ticket, command, part))
    }

    fn release(&mut self) -> Result<Ticket> {
        self.submit(|stage, command, part| stage.record_release(command, part))
    }

    fn time_shared(&mut self, kernel: Kernel, groups: u32) -> Result<Duration> {
        self.gpu.time(kernel, &self.bound, groups)
    }

    fn time_private(&mut self, kernel: Kernel, groups: u32) -> Result<Duration> {
        self.gpu.time(kernel, &self.private_bound, groups)
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        self.gpu.download(self.buffer.handle(), 0, self.buffer.desc().size)
    }

    fn finish(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            if let Some(last) = slot.last.take() {
                last.wait(TIMEOUT)?;
            }
        }
        Ok(())
    }
}

impl Drop for VulkanStage {
    fn drop(&mut self) {
        // Nothing may be in flight when the buffers go; a lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        let none = Bound::default;
        self.gpu.unbind(std::mem::replace(&mut self.bound, none()));
        self.gpu.unbind(std::mem::replace(&mut self.private_bound, none()));
        let commands: Vec<_> = self.slots.iter().map(|slot| slot.command).collect();
        self.gpu.free_command_buffers(&commands);
    }
}
