//! Command buffers of the library's own, for code that controls no submit.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::vk;

use super::conv::VkResultExt;
use super::endpoint::Endpoint;
use crate::error::Result;

/// The command buffers for the queues of one family. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct OwnCommands(Arc<Shared>);

struct Shared {
    family: u32,
    /// The command buffers that no submit uses.
    free: Mutex<Vec<Raw>>,
    // Last: it may destroy the device.
    endpoint: Endpoint,
}

/// A command buffer with a pool of its own, so that recording needs no lock.
#[derive(Clone, Copy)]
struct Raw {
    pool: vk::CommandPool,
    handle: vk::CommandBuffer,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Vec<Raw>> {
        // No code panics while it holds the lock.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for Raw { pool, .. } in self.free().drain(..) {
            // SAFETY: created here, owned by this structure alone. The command buffer is not
            // pending: the endpoint keeps it until its submit is done.
            unsafe { self.endpoint.device().destroy_command_pool(pool, None) };
        }
    }
}

/// A command buffer. The endpoint drops it when its submit is done, after which it is used again.
pub(crate) struct Commands {
    raw: Raw,
    home: Arc<Shared>,
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Commands").field(&self.raw.handle).finish()
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.home.free().push(self.raw);
    }
}

impl OwnCommands {
    pub(super) fn new(endpoint: &Endpoint, family: u32) -> Self {
        let (free, endpoint) = (Mutex::default(), endpoint.for_object());
        Self(Arc::new(Shared { family, free, endpoint }))
    }

    pub(super) fn family(&self) -> u32 {
        self.0.family
    }

    /// Begins a command buffer that no submit uses.
    pub(super) fn begin(&self) -> Result<Commands> {
        let device = self.0.endpoint.device();
        let free = self.0.free().pop();
        let raw = free.map_or_else(|| self.allocate(), Ok)?;
        let commands = Commands { raw, home: self.0.clone() };
        let begin = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: neither is in use: no submit has the command buffer (`Commands`), and this
        // function alone has taken it. A pool that is reset returns its command buffer to the
        // initial state.
        unsafe {
            device
                .reset_command_pool(raw.pool, vk::CommandPoolResetFlags::empty())
                .context("vkResetCommandPool")?;
            device.begin_command_buffer(raw.handle, &begin).context("vkBeginCommandBuffer")?;
        }
        Ok(commands)
    }

    fn allocate(&self) -> Result<Raw> {
        let device = self.0.endpoint.device();
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::TRANSIENT)
            .queue_family_index(self.0.family);
        // SAFETY: the device is alive, and the caller names a family that it has queues of.
        let pool =
            unsafe { device.create_command_pool(&info, None) }.context("vkCreateCommandPool")?;
        let info =
            vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is alive and used by this function alone.
        match unsafe { device.allocate_command_buffers(&info) } {
            Ok(handles) => Ok(Raw { pool, handle: handles[0] }),
            Err(error) => {
                // SAFETY: it has no command buffer.
                unsafe { device.destroy_command_pool(pool, None) };
                Err(error).context("vkAllocateCommandBuffers")
            }
        }
    }
}

impl Commands {
    /// Returns the handle.
    pub(crate) fn handle(&self) -> vk::CommandBuffer {
        self.raw.handle
    }

    /// Ends recording.
    ///
    /// # Safety
    /// The commands that were recorded are valid.
    pub(crate) unsafe fn end(&self) -> Result<()> {
        // SAFETY: `begin` has begun it; the caller promises the rest.
        unsafe { self.home.endpoint.device().end_command_buffer(self.handle()) }
            .context("vkEndCommandBuffer")
    }
}
