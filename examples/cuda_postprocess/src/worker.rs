//! Vulkan's command buffer: recorded, timed by timestamps, submitted, waited for.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Fence, FencePool, SubmitSync};
use interop_gpu::vulkan::VulkanContext;

/// Timestamps of one submit.
const STAMPS: u32 = 8;
/// How long the host polls before it sleeps: waking up takes tens of microseconds.
const SPINNING: Duration = Duration::from_millis(20);
/// Far longer than any frame takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One command buffer that is reused.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) gpu: Rc<VulkanContext>,
    command: vk::CommandBuffer,
    fences: FencePool,
    last: Option<Fence>,
    queries: vk::QueryPool,
    stamped: u32,
}

/// A command buffer that is being recorded.
#[derive(Debug)]
pub(crate) struct Recording<'a> {
    pub(crate) command: vk::CommandBuffer,
    pub(crate) sync: SubmitSync,
    gpu: &'a VulkanContext,
    queries: vk::QueryPool,
    stamped: u32,
}

impl Recording<'_> {
    /// Records a timestamp after all earlier commands.
    pub(crate) fn stamp(&mut self) {
        if self.gpu.vulkan.timestamp_valid_bits() == 0 || self.stamped == STAMPS {
            return;
        }
        let stage = vk::PipelineStageFlags::BOTTOM_OF_PIPE;
        // SAFETY: the command buffer is being recorded, the query was reset in it and is used once.
        unsafe {
            let device = self.gpu.device();
            device.cmd_write_timestamp(self.command, stage, self.queries, self.stamped);
        }
        self.stamped += 1;
    }
}

impl Worker {
    pub(crate) fn new(gpu: &Rc<VulkanContext>) -> Result<Self> {
        let command = gpu.command_buffers(1)?[0];
        let fences = FencePool::new(&gpu.endpoint)?;
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(STAMPS);
        // SAFETY: a valid device.
        let queries = unsafe { gpu.device().create_query_pool(&info, None) }?;
        Ok(Self { gpu: gpu.clone(), command, fences, last: None, queries, stamped: 0 })
    }

    /// Records commands by `record` and submits them. Does not wait.
    pub(crate) fn submit<T>(
        &mut self,
        record: impl FnOnce(&mut Recording<'_>) -> Result<T>,
    ) -> Result<T> {
        self.wait()?;
        let gpu = self.gpu.clone();
        gpu.begin(self.command)?;
        let (command, queries) = (self.command, self.queries);
        // SAFETY: the command buffer is being recorded; no submitted work uses the queries.
        unsafe { gpu.device().cmd_reset_query_pool(command, queries, 0, STAMPS) };
        let sync = SubmitSync::default();
        let mut recording = Recording { command, sync, gpu: &gpu, queries, stamped: 0 };
        let made = record(&mut recording)?;
        let Recording { mut sync, stamped, .. } = recording;
        let done = self.fences.next(&mut sync)?;
        gpu.submit(command, sync)?;
        (self.last, self.stamped) = (Some(done), stamped);
        Ok(made)
    }

    /// Waits until what was submitted is done.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let Some(fence) = self.last.take() else { return Ok(()) };
        let start = Instant::now();
        while start.elapsed() < SPINNING {
            if fence.is_signaled()? {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        Ok(fence.wait(TIMEOUT)?)
    }

    /// The times between timestamps, on the GPU. The work must be done.
    pub(crate) fn times<const N: usize>(&mut self) -> Result<[Duration; N]> {
        self.wait()?;
        if self.stamped == 0 {
            return Ok([Duration::ZERO; N]);
        }
        if self.stamped as usize != N + 1 {
            bail!("{} timestamps for {N} stages", self.stamped);
        }
        let mut ticks = vec![0u64; N + 1];
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        // SAFETY: so many queries were written by the submit that was waited for.
        unsafe { self.gpu.device().get_query_pool_results(self.queries, 0, &mut ticks, flags) }?;
        let vulkan = &self.gpu.vulkan;
        let mask = u64::MAX.checked_shr(64 - vulkan.timestamp_valid_bits()).unwrap_or(u64::MAX);
        Ok(std::array::from_fn(|i| {
            let passed = ticks[i + 1].wrapping_sub(ticks[i]) & mask;
            Duration::from_nanos((passed as f64 * f64::from(vulkan.timestamp_period())) as u64)
        }))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.gpu.free_command_buffers(&[self.command]);
        // SAFETY: owned here alone, idle.
        unsafe { self.gpu.device().destroy_query_pool(self.queries, None) };
    }
}
