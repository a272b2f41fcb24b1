//! Holding a queue back, and how much memory is in use: for what happens to a ring in flight.

use std::fs;

use anyhow::{Context, Result};
use gpu_interop::ash::{self, vk};

use crate::harness::TestGpu;
use interop_gpu::vulkan::VulkanContext;

/// A queue that does nothing of what it is given until it is let go: it waits for a timeline
/// semaphore that the host signals.
pub(crate) struct Held<'a> {
    gpu: &'a VulkanContext,
    gate: StalledQueue,
}

/// What the queue waits for.
#[derive(Clone)]
pub(crate) struct StalledQueue {
    device: ash::Device,
    semaphore: vk::Semaphore,
}

impl StalledQueue {
    pub(crate) fn is_open(&self) -> Result<bool> {
        // SAFETY: alive as long as `Held`, which the cases keep until the end.
        Ok(unsafe { self.device.get_semaphore_counter_value(self.semaphore) }? > 0)
    }

    pub(crate) fn open(&self) -> Result<()> {
        if !self.is_open()? {
            let signal = vk::SemaphoreSignalInfo::default().semaphore(self.semaphore).value(1);
            // SAFETY: as above; the value grows, once.
            unsafe { self.device.signal_semaphore(&signal) }?;
        }
        Ok(())
    }
}

impl<'a> Held<'a> {
    pub(crate) fn hold(gpu: &'a VulkanContext) -> Result<Self> {
        let device = gpu.device();
        let mut ty = vk::SemaphoreTypeCreateInfo::default()
            .semaphore_type(vk::SemaphoreType::TIMELINE)
            .initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut ty);
        // SAFETY: a valid device with timeline semaphores, as `headless` enables them.
        let semaphore = unsafe { device.create_semaphore(&info, None) }?;
        let held = Self { gpu, gate: StalledQueue { device: device.clone(), semaphore } };
        let (gates, values) = ([semaphore], [1]);
        let mut timeline =
            vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&values);
        let wait = vk::SubmitInfo::default()
            .wait_semaphores(&gates)
            .wait_dst_stage_mask(&[vk::PipelineStageFlags::ALL_COMMANDS])
            .push_next(&mut timeline);
        gpu.vulkan.with_queue(|queue| {
            // SAFETY: the queue is guarded; the semaphore lives until `drop` has waited.
            unsafe { device.queue_submit(queue, &[wait], vk::Fence::null()) }
        })?;
        Ok(held)
    }

    pub(crate) fn gate(&self) -> StalledQueue {
        self.gate.clone()
    }

    pub(crate) fn let_go_and_wait(&self) -> Result<()> {
        self.gate.open()?;
        Ok(self.gpu.vulkan.wait_idle()?)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.let_go_and_wait();
        // SAFETY: owned here, and idle; nobody asks the gate any more.
        unsafe { self.gpu.device().destroy_semaphore(self.gate.semaphore, None) };
    }
}

/// Bytes of GPU memory in use: as the driver tells this process, else those mapped from the files that
/// software drivers share memory by.
pub(crate) fn memory(machine: &TestGpu) -> Result<u64> {
    let vulkan = &machine.vulkan().vulkan;
    let (instance, physical) = (vulkan.instance(), vulkan.physical_device());
    // SAFETY: valid handles.
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }?;
    let name = ash::ext::memory_budget::NAME;
    if extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name)) {
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: valid handles, and the physical device has the extension of the structure.
        unsafe { instance.get_physical_device_memory_properties2(physical, &mut properties) };
        return Ok(budget.heap_usage.iter().sum());
    }
    let maps = fs::read_to_string("/proc/self/maps").context("/proc/self/maps")?;
    let mut bytes = 0;
    for line in maps.lines().filter(|line| line.contains("memory fd")) {
        let (range, _) = line.split_once(' ').context("a range and more")?;
        let (from, to) = range.split_once('-').context("two addresses")?;
        bytes += u64::from_str_radix(to, 16)? - u64::from_str_radix(from, 16)?;
    }
    Ok(bytes)
}
