//! Records and submits the work on one Vulkan buffer, with two command buffers in alternation.

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Buffer, Fence, FencePool, SubmitSync};

use interop_gpu::Kernel;
use interop_gpu::vulkan::{Bound, VulkanContext};

/// How long a submit may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Records the work on a Vulkan buffer: the acquire, the kernels and the release of one turn go into one
/// command buffer.
pub(crate) struct Recorder<'a> {
    gpu: &'a VulkanContext,
    bound: Option<Bound>,
    fences: FencePool,
    /// Alternating: one is executed while the other is recorded.
    commands: [(vk::CommandBuffer, Option<Fence>); 2],
    /// What to submit `commands[0]` with, while it is being recorded.
    recording: Option<SubmitSync>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(gpu: &'a VulkanContext, buffer: &Buffer) -> Result<Self> {
        let bound = Some(gpu.bind(buffer.handle(), buffer.desc().size)?);
        let fences = FencePool::new(&gpu.endpoint)?;
        let commands = gpu.command_buffers(2)?;
        let commands = [(commands[0], None), (commands[1], None)];
        Ok(Self { gpu, bound, fences, commands, recording: None })
    }

    /// Returns the command buffer that is being recorded, and begins one if necessary.
    pub(super) fn command(&mut self) -> Result<vk::CommandBuffer> {
        let (command, fence) = &mut self.commands[0];
        if self.recording.is_none() {
            if let Some(fence) = fence.take() {
                fence.wait(TIMEOUT)?;
            }
            self.gpu.begin(*command)?;
            self.recording = Some(SubmitSync::default());
        }
        Ok(*command)
    }

    /// Records `kernel` over the buffer, after everything before.
    pub(super) fn run(&mut self, kernel: Kernel) -> Result<()> {
        let command = self.command()?;
        self.gpu.record_barrier(command);
        let bound = self.bound.as_ref().context("bound until it is dropped")?;
        self.gpu.record(command, kernel, bound, 0);
        Ok(())
    }

    pub(super) fn add(&mut self, sync: SubmitSync) -> Result<()> {
        self.recording.as_mut().context("nothing is being recorded")?.merge(sync);
        Ok(())
    }

    pub(super) fn submit(&mut self) -> Result<()> {
        let Some(mut sync) = self.recording.take() else { return Ok(()) };
        self.commands[0].1 = Some(self.fences.next(&mut sync)?);
        self.gpu.submit(self.commands[0].0, sync)?;
        self.commands.swap(0, 1);
        Ok(())
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        if let Some(bound) = self.bound.take() {
            self.gpu.unbind(bound);
        }
        self.gpu.free_command_buffers(&self.commands.each_ref().map(|(command, _)| *command));
    }
}
