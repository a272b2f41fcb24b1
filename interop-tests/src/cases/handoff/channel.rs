//! Handoffs between Vulkan devices that submit no commands, only the waits and signals.

use std::cell::RefCell;

use anyhow::{Context, Result};
use gpu_interop::Error;
use gpu_interop::ash::vk;
use gpu_interop::handoff::{self, Handoff, HandoffOptions, Ticket, VulkanCommands};
use gpu_interop::vulkan::{Endpoint, SubmitSync};

use crate::harness::TestGpu;
use interop_gpu::vulkan::VulkanContext;

/// Submits to one device. Its drop waits for all of them.
pub(crate) struct Submits<'a> {
    gpu: &'a VulkanContext,
    commands: RefCell<Vec<vk::CommandBuffer>>,
}

impl<'a> Submits<'a> {
    pub(crate) fn to(gpu: &'a VulkanContext) -> Self {
        Self { gpu, commands: RefCell::default() }
    }

    /// Submits an empty command buffer with the waits and signals of `sync`. If there are waits, the host
    /// waits until they are done: only then may a binary semaphore be signalled again.
    pub(crate) fn submit(&self, sync: SubmitSync) -> Result<()> {
        let commands = self.gpu.command_buffers(1)?;
        self.commands.borrow_mut().extend(&commands);
        self.gpu.begin(commands[0])?;
        let waits = !sync.waits().is_empty();
        self.gpu.submit(commands[0], sync)?;
        if waits {
            self.gpu.vulkan.wait_idle()?;
        }
        Ok(())
    }
}

impl Drop for Submits<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.gpu.free_command_buffers(&self.commands.borrow());
    }
}

/// A handoff from the suite's first device to its second.
pub(super) struct Channel<'a> {
    // Dropped before the semaphores: their drop waits.
    from: Submits<'a>,
    to: Submits<'a>,
    pub(super) handoff: Handoff<Endpoint, Endpoint>,
}

impl<'a> Channel<'a> {
    pub(super) fn open(test_gpu: &'a TestGpu, options: HandoffOptions) -> Result<Self> {
        let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
        let owner = &first.endpoint;
        let handoff = handoff::open(owner, owner, &second.endpoint, options)?;
        Ok(Self { from: Submits::to(first), to: Submits::to(second), handoff })
    }

    /// Releases, and submits.
    pub(super) fn release(&mut self) -> Result<Ticket> {
        let (ticket, sync) = self.handoff.release.release(VulkanCommands::recorded())?;
        self.from.submit(sync)?;
        Ok(ticket)
    }

    /// Acquires, and submits.
    pub(super) fn acquire(&mut self, ticket: Ticket) -> Result<()> {
        let sync = self.handoff.acquire.acquire(ticket, VulkanCommands::recorded())?;
        self.to.submit(sync)
    }

    /// Returns the error of a release that must be refused, else the error `what`.
    pub(super) fn refused_release(&mut self, what: &'static str) -> Result<Error> {
        self.handoff.release.release(VulkanCommands::recorded()).err().context(what)
    }
}
