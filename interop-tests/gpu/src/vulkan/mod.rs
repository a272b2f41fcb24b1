//! The kernels in Vulkan: pipelines, windows of a buffer, staging copies, timestamps.

mod copies;
mod images;
pub mod in_queue;
mod objects;
mod private;
mod samples;
mod samples_objects;
mod shader;

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::ash::{self, vk};
use gpu_interop::headless::Vulkan;
use gpu_interop::vulkan::{Endpoint, SubmitSync};

pub use self::copies::ImageStaging;
pub use self::images::ImageIo;
pub use self::in_queue::SameQueue;
use self::objects::Objects;
pub use self::private::PrivateBuffer;
pub use self::shader::{Bound, Graphics, Resource, ShaderLayout};
use super::kernel::{Kernel, Window};

/// Bytes that one staging copy moves.
const STAGING_BYTES: u64 = 64 << 20;

/// A Vulkan device with the kernels loaded. For use by one thread.
#[derive(Debug)]
pub struct VulkanContext {
    /// The device.
    pub vulkan: Vulkan,
    /// The library's endpoint over it.
    pub endpoint: Endpoint,
    objects: Objects,
    device_time: bool,
}

impl VulkanContext {
    /// Loads the kernels into `vulkan`.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn new(vulkan: Vulkan) -> Result<Self> {
        let endpoint = vulkan.endpoint()?;
        let objects = Objects::new(vulkan.clone())?;
        let device_time = vulkan.timestamp_valid_bits() > 0;
        Ok(Self { vulkan, endpoint, objects, device_time })
    }

    /// The device's function table.
    pub fn device(&self) -> &ash::Device {
        self.vulkan.device()
    }

    /// Binds the first `bytes` bytes of `buffer`.
    ///
    /// # Errors
    /// If the driver is out of descriptors.
    pub fn bind(&self, buffer: vk::Buffer, bytes: u64) -> Result<Bound> {
        self.objects.layout.bind_windows(buffer, bytes, None)
    }

    /// Frees the descriptor sets of `bound`, which no submitted work may use any more.
    pub fn unbind(&self, bound: Bound) {
        let sets: Vec<_> = bound.sets.iter().map(|(_, set)| *set).collect();
        self.objects.layout.free(&sets);
    }

    /// Records `kernel` over all of `bound`, with `groups` work groups per window; 0 for one thread per
    /// element.
    pub fn record(&self, command: vk::CommandBuffer, kernel: Kernel, bound: &Bound, groups: u32) {
        for (window, set) in &bound.sets {
            self.record_window(command, kernel, *window, *set, groups);
        }
    }

    /// Records `kernel` over the first 256 elements only.
    pub fn record_touch(&self, command: vk::CommandBuffer, kernel: Kernel, bound: &Bound) {
        if let Some((window, set)) = bound.sets.first() {
            let window = Window { bytes: window.bytes.min(4096), ..*window };
            self.record_window(command, kernel, window, *set, 1);
        }
    }

    fn record_window(
        &self,
        command: vk::CommandBuffer,
        kernel: Kernel,
        window: Window,
        set: vk::DescriptorSet,
        groups: u32,
    ) {
        let pipeline = match kernel {
            Kernel::Fill { .. } => self.objects.fill,
            Kernel::PingPong { .. } => self.objects.ping_pong,
        };
        let groups = if groups == 0 { window.groups().min(65_535) } else { groups };
        let parameters = [window.first(), window.count(), kernel.argument()];
        let constants = bytemuck::bytes_of(&parameters);
        self.objects.layout.dispatch(command, pipeline, set, constants, (groups, 1));
    }

    /// Records a barrier between compute shaders and copies, and those that follow.
    pub fn record_barrier(&self, command: vk::CommandBuffer) {
        let work = vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER;
        let writes = vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE;
        let all = writes | vk::AccessFlags::SHADER_READ | vk::AccessFlags::TRANSFER_READ;
        let barrier = vk::MemoryBarrier::default().src_access_mask(writes).dst_access_mask(all);
        // SAFETY: the command buffer is being recorded.
        unsafe {
            let none = vk::DependencyFlags::empty();
            self.device().cmd_pipeline_barrier(command, work, work, none, &[barrier], &[], &[]);
        }
    }

    /// Allocates command buffers that can be recorded again and again.
    ///
    /// # Errors
    /// If the driver is out of memory.
    pub fn command_buffers(&self, count: u32) -> Result<Vec<vk::CommandBuffer>> {
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.objects.commands)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(count);
        // SAFETY: the pool is alive and used by this thread alone.
        Ok(unsafe { self.device().allocate_command_buffers(&info) }?)
    }

    /// Frees command buffers that no submitted work uses.
    pub fn free_command_buffers(&self, commands: &[vk::CommandBuffer]) {
        // SAFETY: allocated from this pool, and not in use, as the caller promises.
        unsafe { self.device().free_command_buffers(self.objects.commands, commands) };
    }

    /// Begins recording `command`, which no submitted work uses.
    ///
    /// # Errors
    /// If the driver is out of memory.
    pub fn begin(&self, command: vk::CommandBuffer) -> Result<()> {
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer is of a pool that allows resetting, and not in use.
        Ok(unsafe { self.device().begin_command_buffer(command, &info) }?)
    }

    /// Ends recording and submits with the waits and signals of `part`.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn submit(&self, command: vk::CommandBuffer, part: SubmitSync) -> Result<()> {
        // SAFETY: the command buffer is being recorded.
        unsafe { self.device().end_command_buffer(command) }?;
        self.vulkan.with_queue(|queue| {
            // SAFETY: the queue is guarded; what was recorded lives until the callers have waited.
            unsafe { part.submit(&self.endpoint, queue, &[command]) }
        })?;
        Ok(())
    }

    /// Records commands by `record`, submits them and waits.
    ///
    /// # Errors
    /// Those of `record`, and if the driver fails.
    pub fn run(&self, record: impl FnOnce(vk::CommandBuffer) -> Result<()>) -> Result<()> {
        self.run_with(|command, _| record(command))
    }

    /// Returns how long the commands that `record` records take on the device, measured by timestamps if it
    /// has them.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn time(&self, record: impl FnOnce(vk::CommandBuffer)) -> Result<Duration> {
        let (device, queries) = (self.device(), self.objects.queries);
        if !self.device_time {
            let start = std::time::Instant::now();
            self.run(|command| {
                record(command);
                Ok(())
            })?;
            return Ok(start.elapsed());
        }
        self.run(|command| {
            // SAFETY: the command buffer is being recorded; the pool has two queries.
            unsafe {
                device.cmd_reset_query_pool(command, queries, 0, 2);
                let top = vk::PipelineStageFlags::TOP_OF_PIPE;
                device.cmd_write_timestamp(command, top, queries, 0);
            }
            record(command);
            // SAFETY: as above.
            unsafe {
                let stage = vk::PipelineStageFlags::COMPUTE_SHADER;
                device.cmd_write_timestamp(command, stage, queries, 1);
            }
            Ok(())
        })?;
        let mut ticks = [0u64; 2];
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        // SAFETY: both queries were written by the submit that was waited for.
        unsafe { device.get_query_pool_results(queries, 0, &mut ticks, flags) }?;
        let bits = self.vulkan.timestamp_valid_bits();
        let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(u64::MAX);
        let passed = ticks[1].wrapping_sub(ticks[0]) & mask;
        let nanoseconds = passed as f64 * f64::from(self.vulkan.timestamp_period());
        Ok(Duration::from_nanos(nanoseconds as u64))
    }

    /// Writes `data` to `buffer` at `offset`.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn upload(&self, buffer: vk::Buffer, offset: u64, data: &[u8]) -> Result<()> {
        let staging = PrivateBuffer::host(&self.vulkan, STAGING_BYTES.min(data.len() as u64))?;
        let mut at = offset;
        for part in data.chunks(STAGING_BYTES as usize) {
            staging.with_bytes(part.len(), |bytes| bytes.copy_from_slice(part))?;
            self.copy(staging.buffer, 0, buffer, at, part.len() as u64)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Reads `bytes` bytes of `buffer` at `offset`.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn download(&self, buffer: vk::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let staging = PrivateBuffer::host(&self.vulkan, STAGING_BYTES.min(bytes))?;
        let mut data = vec![0u8; usize::try_from(bytes).context("more than memory can hold")?];
        let mut at = offset;
        for part in data.chunks_mut(STAGING_BYTES as usize) {
            self.copy(buffer, at, staging.buffer, 0, part.len() as u64)?;
            staging.with_bytes(part.len(), |bytes| part.copy_from_slice(bytes))?;
            at += part.len() as u64;
        }
        Ok(data)
    }

    /// Copies `bytes` bytes on the device and waits.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn copy(
        &self,
        from: vk::Buffer,
        from_offset: u64,
        to: vk::Buffer,
        to_offset: u64,
        bytes: u64,
    ) -> Result<()> {
        let region = vk::BufferCopy { src_offset: from_offset, dst_offset: to_offset, size: bytes };
        self.run(|command| {
            self.record_barrier(command);
            // SAFETY: the command buffer is being recorded; the callers pass live buffers and ranges
            // inside them.
            unsafe { self.device().cmd_copy_buffer(command, from, to, &[region]) };
            record_host_barrier(self.device(), command);
            Ok(())
        })
    }
}

/// Makes the writes of copies and compute shaders visible to the host.
pub fn record_host_barrier(device: &ash::Device, command: vk::CommandBuffer) {
    let barrier = vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE | vk::AccessFlags::SHADER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ);
    let work = vk::PipelineStageFlags::TRANSFER | vk::PipelineStageFlags::COMPUTE_SHADER;
    let host = vk::PipelineStageFlags::HOST;
    // SAFETY: the command buffer is being recorded.
    unsafe {
        let none = vk::DependencyFlags::empty();
        device.cmd_pipeline_barrier(command, work, host, none, &[barrier], &[], &[]);
    }
}
