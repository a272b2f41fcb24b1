//! A command buffer with a pool of its own, for programs that rarely record.

use std::fmt;

use ash::vk;

use super::error;
use super::vulkan::Vulkan;
use crate::error::Result;
use crate::vulkan::{Endpoint, SubmitSync};

/// A recorded primary command buffer. It can be submitted any number of times, but not again before
/// it has completed.
///
/// If it was submitted, dropping it first waits up to 5 seconds for the queue's work. If the work
/// does not end by then, the command buffer is leaked, which `tracing` reports.
#[must_use = "commands do nothing until they are submitted"]
pub struct Commands {
    vulkan: Vulkan,
    pool: vk::CommandPool,
    handle: vk::CommandBuffer,
    is_submitted: bool,
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Vulkan {
    /// Records a command buffer for the device's queue, and returns it with the value of `record`,
    /// which is called between `vkBeginCommandBuffer` and `vkEndCommandBuffer`.
    ///
    /// # Errors
    /// The error of `record`, or [`Driver`](crate::Error::Driver) if the driver is out of memory.
    #[doc(alias("vkBeginCommandBuffer", "vkEndCommandBuffer"))]
    pub fn record<T>(
        &self,
        record: impl FnOnce(vk::CommandBuffer) -> Result<T>,
    ) -> Result<(Commands, T)> {
        let device = self.device();
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(self.queue_family());
        // SAFETY: the device is alive and has a queue of this family.
        let pool = unsafe { device.create_command_pool(&info, None) }
            .map_err(error::vulkan("vkCreateCommandPool"))?;
        let mut commands = Commands {
            vulkan: self.clone(),
            pool,
            handle: vk::CommandBuffer::null(),
            is_submitted: false,
        };
        let info =
            vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is alive and used by this function alone.
        let allocated = unsafe { device.allocate_command_buffers(&info) }
            .map_err(error::vulkan("vkAllocateCommandBuffers"))?;
        commands.handle = allocated[0];
        let begin = vk::CommandBufferBeginInfo::default();
        // SAFETY: the command buffer is in the initial state and used by this function alone.
        unsafe { device.begin_command_buffer(commands.handle, &begin) }
            .map_err(error::vulkan("vkBeginCommandBuffer"))?;
        let recorded = record(commands.handle)?;
        // SAFETY: recording was begun above. That the commands are valid is promised by the unsafe
        // calls with which `record` recorded them.
        unsafe { device.end_command_buffer(commands.handle) }
            .map_err(error::vulkan("vkEndCommandBuffer"))?;
        Ok((commands, recorded))
    }
}

impl Commands {
    /// Returns the command buffer.
    pub fn handle(&self) -> vk::CommandBuffer {
        self.handle
    }

    /// Submits the commands to the device's queue, with the waits and signals of `sync`.
    ///
    /// # Safety
    /// Same as [`SubmitSync::submit`], except for the queue's external synchronisation and the
    /// lifetime of the command buffer, which are ensured here. An earlier submit of these commands
    /// has finished.
    ///
    /// # Errors
    /// Same as [`SubmitSync::submit`].
    #[doc(alias = "vkQueueSubmit")]
    pub unsafe fn submit(&mut self, endpoint: &Endpoint, sync: SubmitSync) -> Result<()> {
        self.is_submitted = true;
        let Self { vulkan, handle, .. } = self;
        // SAFETY: the caller's promise; `with_queue` synchronises the queue, and `drop` keeps the
        // command buffer until it has executed.
        vulkan.with_queue(|queue| unsafe { sync.submit(endpoint, queue, &[*handle]) })
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if self.is_submitted && !self.vulkan.is_done_soon() {
            tracing::warn!("submitted commands do not end; their command buffer is leaked");
            return;
        }
        let device = self.vulkan.device();
        // SAFETY: the pool is owned by this structure alone, and its command buffer is not pending:
        // it was never submitted, has executed, or the device is lost.
        unsafe { device.destroy_command_pool(self.pool, None) };
    }
}
