//! Vulkan's turns by its own calls: the first API's, and a second device's.

use std::hint;
use std::rc::Rc;
use std::slice;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::handoff::WaitMode;

use super::objects::{RawBuffer, RawTimeline};
use super::{Exported, RawFar};
use crate::ladder::rung::SECOND_STEP;
use crate::ladder::vulkan_side::{PATIENCE, Recorded};
use crate::rig::Kernel;
use crate::rig::vulkan::VulkanRig;

/// A device, the payload as it has it, and two semaphores.
pub(super) struct RawVulkan {
    recorded: Recorded,
    signals: RawTimeline,
    waits: RawTimeline,
    buffer: RawBuffer,
    rig: Rc<VulkanRig>,
}

impl RawVulkan {
    /// Makes the payload and the semaphores.
    pub(super) fn create(
        rig: &Rc<VulkanRig>,
        bytes: u64,
        work: (u32, u32),
        by_host: bool,
    ) -> Result<Self> {
        let signals = RawTimeline::create(rig, !by_host)?;
        let waits = RawTimeline::create(rig, !by_host)?;
        Self::new(rig, RawBuffer::create(rig, bytes)?, [signals, waits], work)
    }

    fn new(
        rig: &Rc<VulkanRig>,
        buffer: RawBuffer,
        [signals, waits]: [RawTimeline; 2],
        (grid, step): (u32, u32),
    ) -> Result<Self> {
        let bound = rig.bind(buffer.handle, buffer.bytes)?;
        let recorded = Recorded::new(rig, |command| {
            record_ownership(rig, command, buffer.handle, false);
            rig.record(command, Kernel::PingPong { step }, &bound, grid);
            record_ownership(rig, command, buffer.handle, true);
            Ok(())
        })?;
        let recorded = recorded.with(vec![bound]);
        Ok(Self { recorded, signals, waits, buffer, rig: rig.clone() })
    }

    pub(super) fn rig(&self) -> &Rc<VulkanRig> {
        &self.rig
    }

    pub(super) fn buffer(&self) -> &RawBuffer {
        &self.buffer
    }

    pub(super) fn fill_and_release(&self, seed: u32) -> Result<()> {
        let bound = self.rig.bind(self.buffer.handle, self.buffer.bytes)?;
        self.rig.run(|command| {
            self.rig.record(command, Kernel::Fill { seed }, &bound, 0);
            record_ownership(&self.rig, command, self.buffer.handle, true);
            Ok(())
        })?;
        self.rig.unbind(bound);
        Ok(())
    }

    pub(super) fn export(&self, by_host: bool) -> Result<Exported> {
        let semaphores = match by_host {
            true => None,
            false => Some([self.signals.export()?, self.waits.export()?]),
        };
        Ok(Exported {
            memory: self.buffer.export()?,
            allocation_size: self.buffer.allocation_size,
            memory_type: self.buffer.memory_type,
            bytes: self.buffer.bytes,
            semaphores,
        })
    }

    /// Submits a turn.
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
        let (device, queue) = (self.rig.device(), self.rig.vulkan.queue());
        // SAFETY: one thread uses the queue; the command buffer is executable, and all that it uses lives
        // until the rung has waited; the values grow.
        Ok(unsafe { device.queue_submit(queue, slice::from_ref(&info), vk::Fence::null()) }?)
    }

    /// Waits for the turn that signals `value`.
    pub(super) fn wait(&self, value: u64, how: WaitMode) -> Result<()> {
        let (device, semaphore) = (self.rig.device(), self.signals.handle);
        if how == WaitMode::Spin {
            // SAFETY: a timeline semaphore of this device.
            while unsafe { device.get_semaphore_counter_value(semaphore) }? < value {
                hint::spin_loop();
            }
            return Ok(());
        }
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let patience = u64::try_from(PATIENCE.as_nanos())?;
        // SAFETY: as above; both arrays have one element.
        Ok(unsafe { device.wait_semaphores(&info, patience) }?)
    }

    /// Takes the payload over for good.
    pub(super) fn take_back(&self, wait: Option<u64>) -> Result<()> {
        let recorded = Recorded::new(&self.rig, |command| {
            record_ownership(&self.rig, command, self.buffer.handle, false);
            Ok(())
        })?;
        self.submit_command(recorded.command, wait, None)?;
        Ok(self.rig.vulkan.wait_idle()?)
    }
}

/// Records the release to outside Vulkan, or the acquire from there.
fn record_ownership(
    rig: &VulkanRig,
    command: vk::CommandBuffer,
    buffer: vk::Buffer,
    release: bool,
) {
    let (family, outside) = (rig.vulkan.queue_family(), vk::QUEUE_FAMILY_EXTERNAL);
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
    // SAFETY: the command buffer is being recorded for that family, and the buffer lives until the rung
    // has waited.
    unsafe {
        rig.device().cmd_pipeline_barrier(command, from, to, none, &[], &[barrier], &[]);
    }
}

/// A second Vulkan device.
pub(in crate::ladder) struct RawSecond {
    vulkan: RawVulkan,
    value: u64,
}

impl RawSecond {
    pub(in crate::ladder) fn new(
        rig: &Rc<VulkanRig>,
        grid: u32,
        mut exported: Exported,
    ) -> Result<Self> {
        let semaphores = match exported.semaphores.take() {
            // What the one side signals the other waits for.
            Some([signals, waits]) => {
                [RawTimeline::import(rig, waits)?, RawTimeline::import(rig, signals)?]
            }
            None => [RawTimeline::create(rig, false)?, RawTimeline::create(rig, false)?],
        };
        let buffer = RawBuffer::import(rig, exported).context("importing")?;
        let vulkan = RawVulkan::new(rig, buffer, semaphores, (grid, SECOND_STEP))?;
        Ok(Self { vulkan, value: 0 })
    }
}

impl RawFar for RawSecond {
    fn turn(&mut self, value: u64) -> Result<()> {
        self.vulkan.submit(Some(value), value)
    }

    fn turn_by_host(&mut self, wait: WaitMode) -> Result<()> {
        self.value += 1;
        self.vulkan.submit(None, self.value)?;
        self.vulkan.wait(self.value, wait)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.vulkan.rig.vulkan.wait_idle()?)
    }
}
