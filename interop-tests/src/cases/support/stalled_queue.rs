//! A queue whose work waits until the case releases it.

use anyhow::Result;
use gpu_interop::ash::{self, vk};

use interop_gpu::vulkan::VulkanContext;

/// A queue that waits for a timeline semaphore, which the host signals, before it executes what is
/// submitted. Its drop releases it, and waits.
pub(crate) struct StalledQueue<'a> {
    gpu: &'a VulkanContext,
    gate: Gate,
}

/// The semaphore that the queue waits for.
#[derive(Clone)]
pub(crate) struct Gate {
    device: ash::Device,
    semaphore: vk::Semaphore,
}

impl Gate {
    pub(crate) fn is_open(&self) -> Result<bool> {
        // SAFETY: alive as long as the `StalledQueue`, which the cases keep until the end.
        Ok(unsafe { self.device.get_semaphore_counter_value(self.semaphore) }? > 0)
    }

    pub(crate) fn open(&self) -> Result<()> {
        if !self.is_open()? {
            let signal = vk::SemaphoreSignalInfo::default().semaphore(self.semaphore).value(1);
            // SAFETY: as above; the value grows once.
            unsafe { self.device.signal_semaphore(&signal) }?;
        }
        Ok(())
    }
}

impl<'a> StalledQueue<'a> {
    pub(crate) fn new(gpu: &'a VulkanContext) -> Result<Self> {
        let device = gpu.device();
        let mut ty = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut ty);
        // SAFETY: a valid device with timeline semaphores, as `headless` enables them.
        let semaphore = unsafe { device.create_semaphore(&info, None) }?;
        let stalled = Self { gpu, gate: Gate { device: device.clone(), semaphore } };
        let (semaphores, values) = ([semaphore], [1]);
        let mut timeline =
            vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&values);
        let wait = vk::SubmitInfo::default()
            .wait_semaphores(&semaphores)
            .wait_dst_stage_mask(&[vk::PipelineStageFlags::ALL_COMMANDS])
            .push_next(&mut timeline);
        gpu.vulkan.with_queue(|queue| {
            // SAFETY: the queue is locked; the semaphore lives until `drop` has waited.
            unsafe { device.queue_submit(queue, &[wait], vk::Fence::null()) }
        })?;
        Ok(stalled)
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    pub(crate) fn release_and_wait(&self) -> Result<()> {
        self.gate.open()?;
        Ok(self.gpu.vulkan.wait_idle()?)
    }
}

impl Drop for StalledQueue<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.release_and_wait();
        // SAFETY: owned here, and idle; no case uses the gate any more.
        unsafe { self.gpu.device().destroy_semaphore(self.gate.semaphore, None) };
    }
}
