//! Vulkan's passes by plain Vulkan calls, for the first API and for a second device.

use std::hint;
use std::rc::Rc;
use std::slice;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::handoff::WaitMode;

use super::objects::{MemoryFd, RawBuffer, RawTimeline};
use super::{Exported, RawSecondApi};
use interop_gpu::Kernel;
use interop_gpu::vulkan::VulkanContext;
use ping_pong::routes::SECOND_STEP;
use ping_pong::{Recorded, TIMEOUT};

/// A device, its buffer for the payload, and two semaphores.
pub(super) struct RawVulkan {
    recorded: Recorded,
    signals: RawTimeline,
    waits: RawTimeline,
    buffer: RawBuffer,
    gpu: Rc<VulkanContext>,
}

impl RawVulkan {
    /// Creates the payload and the semaphores.
    pub(super) fn create(
        gpu: &Rc<VulkanContext>,
        bytes: u64,
        work: (u32, u32),
        by_host: bool,
    ) -> Result<Self> {
        let signals = RawTimeline::create(gpu, !by_host)?;
        let waits = RawTimeline::create(gpu, !by_host)?;
        Self::new(gpu, RawBuffer::create(gpu, bytes)?, [signals, waits], work)
    }

    fn new(
        gpu: &Rc<VulkanContext>,
        buffer: RawBuffer,
        [signals, waits]: [RawTimeline; 2],
        (grid, step): (u32, u32),
    ) -> Result<Self> {
        let bound = gpu.bind(buffer.handle, buffer.bytes)?;
        let recorded = Recorded::new(gpu, |command| {
            record_ownership(gpu, command, buffer.handle, false);
            gpu.record(command, Kernel::PingPong { step }, &bound, grid);
            record_ownership(gpu, command, buffer.handle, true);
            Ok(())
        })?;
        let recorded = recorded.with(vec![bound]);
        Ok(Self { recorded, signals, waits, buffer, gpu: gpu.clone() })
    }

    pub(super) fn gpu(&self) -> &Rc<VulkanContext> {
        &self.gpu
    }

    pub(super) fn buffer(&self) -> &RawBuffer {
        &self.buffer
    }

    pub(super) fn fill_and_release(&self, seed: u32) -> Result<()> {
        let bound = self.gpu.bind(self.buffer.handle, self.buffer.bytes)?;
        self.gpu.run(|command| {
            self.gpu.record(command, Kernel::Fill { seed }, &bound, 0);
            record_ownership(&self.gpu, command, self.buffer.handle, true);
            Ok(())
        })?;
        self.gpu.unbind(bound);
        Ok(())
    }

    pub(super) fn export(&self, by_host: bool) -> Result<Exported> {
        let semaphores = match by_host {
            true => None,
            false => Some([self.signals.export()?, self.waits.export()?]),
        };
        let memory = MemoryFd::new(self.gpu.vulkan.instance(), self.gpu.device());
        Ok(Exported { semaphores, ..self.buffer.export(&memory)? })
    }

    /// Submits a pass.
    pub(super) fn submit(&self, wait: Option<u64>, signal: u64) -> Result<()> {
        self.submit_command(self.recorded.command, wait, Some(signal))
    }

    fn submit_command(
        &self,
        command: vk::CommandBuffer,
        wait: Option<u64>,
        signal: Option<u64>,
    ) -> Result<()> {
        let (waits, signals) = ([self.waits.handle], [self.signals.handle]);
        let (waits, signals) = (&waits[..wait.iter().count()], &signals[..signal.iter().count()]);
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
        let (wait, signal) = (wait.unwrap_or(0), signal.unwrap_or(0));
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&slice::from_ref(&wait)[..waits.len()])
            .signal_semaphore_values(&slice::from_ref(&signal)[..signals.len()]);
        let info = vk::SubmitInfo::default()
            .wait_semaphores(waits)
            .wait_dst_stage_mask(&stages[..waits.len()])
            .signal_semaphores(signals)
            .command_buffers(slice::from_ref(&command))
            .push_next(&mut timeline);
        let (device, queue) = (self.gpu.device(), self.gpu.vulkan.queue());
        // SAFETY: one thread uses the queue; the command buffer is executable, and all that it uses lives
        // until the benchmark has waited; the values grow.
        Ok(unsafe { device.queue_submit(queue, slice::from_ref(&info), vk::Fence::null()) }?)
    }

    /// Waits for the pass that signals `value`.
    pub(super) fn wait(&self, value: u64, how: WaitMode) -> Result<()> {
        let (device, semaphore) = (self.gpu.device(), self.signals.handle);
        if how == WaitMode::Spin {
            // SAFETY: a timeline semaphore of this device.
            while unsafe { device.get_semaphore_counter_value(semaphore) }? < value {
                hint::spin_loop();
            }
            return Ok(());
        }
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let timeout = u64::try_from(TIMEOUT.as_nanos())?;
        // SAFETY: as above; both arrays have one element.
        Ok(unsafe { device.wait_semaphores(&info, timeout) }?)
    }

    /// Acquires the payload for the last time.
    pub(super) fn take_back(&self, wait: Option<u64>) -> Result<()> {
        let recorded = Recorded::new(&self.gpu, |command| {
            record_ownership(&self.gpu, command, self.buffer.handle, false);
            Ok(())
        })?;
        self.submit_command(recorded.command, wait, None)?;
        Ok(self.gpu.vulkan.wait_idle()?)
    }
}

/// Records a release to `VK_QUEUE_FAMILY_EXTERNAL`, or an acquire from it.
fn record_ownership(
    gpu: &VulkanContext,
    command: vk::CommandBuffer,
    buffer: vk::Buffer,
    release: bool,
) {
    let (family, outside) = (gpu.vulkan.queue_family(), vk::QUEUE_FAMILY_EXTERNAL);
    let used = vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE;
    let used =
        used | if release { vk::AccessFlags::empty() } else { vk::AccessFlags::TRANSFER_READ };
    let compute = vk::PipelineStageFlags::COMPUTE_SHADER;
    let barrier = vk::BufferMemoryBarrier::default().buffer(buffer).size(vk::WHOLE_SIZE);
    let (barrier, from, to) = if release {
        let barrier = barrier.src_queue_family_index(family).dst_queue_family_index(outside);
        (barrier.src_access_mask(used), compute, vk::PipelineStageFlags::BOTTOM_OF_PIPE)
    } else {
        let barrier = barrier.src_queue_family_index(outside).dst_queue_family_index(family);
        let to = compute | vk::PipelineStageFlags::TRANSFER;
        (barrier.dst_access_mask(used), vk::PipelineStageFlags::ALL_COMMANDS, to)
    };
    let none = vk::DependencyFlags::empty();
    // SAFETY: the command buffer is being recorded for that family, and the buffer lives until the benchmark
    // has waited.
    unsafe {
        gpu.device().cmd_pipeline_barrier(command, from, to, none, &[], &[barrier], &[]);
    }
}

/// A second Vulkan device.
pub(crate) struct RawSecondVulkan {
    vulkan: RawVulkan,
    value: u64,
}

impl RawSecondVulkan {
    pub(crate) fn new(gpu: &Rc<VulkanContext>, grid: u32, mut exported: Exported) -> Result<Self> {
        let semaphores = match exported.semaphores.take() {
            // One side waits for what the other signals.
            Some([signals, waits]) => {
                [RawTimeline::import(gpu, waits)?, RawTimeline::import(gpu, signals)?]
            }
            None => [RawTimeline::create(gpu, false)?, RawTimeline::create(gpu, false)?],
        };
        let buffer = RawBuffer::import(gpu, exported).context("importing")?;
        let vulkan = RawVulkan::new(gpu, buffer, semaphores, (grid, SECOND_STEP))?;
        Ok(Self { vulkan, value: 0 })
    }
}

impl RawSecondApi for RawSecondVulkan {
    fn pass(&mut self, value: u64) -> Result<()> {
        self.vulkan.submit(Some(value), value)
    }

    fn pass_by_host(&mut self, wait: WaitMode) -> Result<()> {
        self.value += 1;
        self.vulkan.submit(None, self.value)?;
        self.vulkan.wait(self.value, wait)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.vulkan.gpu.vulkan.wait_idle()?)
    }
}
