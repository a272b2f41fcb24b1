//! Vulkan's worker: fills by `vkCmdFillBuffer`, in command buffers of its own, submitted by the user.

use std::fmt;

use ash::vk;

use super::{TIMEOUT, Worker, sealed};
use crate::error::Result;
use crate::ring::{RingStage, Wait};
use crate::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FencePool, SubmitSync};

/// Submits a command buffer with what a handoff adds.
type Submit<'a> = dyn FnMut(&SubmitSync, vk::CommandBuffer) -> Result<()> + 'a;

/// A Vulkan device that fills payloads. It records; the user's closure submits.
pub struct VulkanWorker<'a> {
    endpoint: Endpoint,
    queue_family: u32,
    submit: Box<Submit<'a>>,
    fences: FencePool,
    pool: vk::CommandPool,
    /// Command buffers, and what the last submit of each signals.
    commands: Vec<(vk::CommandBuffer, Option<Fence>)>,
    next: usize,
}

/// How the worker's commands use a payload.
fn used(buffer: &Buffer) -> BufferAccess<'_> {
    BufferAccess::transfer(buffer)
}

/// Submits that may be under way: as many as a ring can be deep.
const COMMAND_BUFFERS: u32 = 64;

impl fmt::Debug for VulkanWorker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VulkanWorker")
            .field("endpoint", &self.endpoint)
            .field("queue_family", &self.queue_family)
            .finish_non_exhaustive()
    }
}

impl<'a> VulkanWorker<'a> {
    /// A worker of `endpoint`'s device. `submit` is given a recorded command buffer and what to add to
    /// its submit; [`SubmitSync::submit`] does it.
    ///
    /// # Safety
    /// `submit` submits to a queue of `queue_family` of `endpoint`'s device, always the same one, as
    /// [`SubmitSync::submit`] does, and returns an error only where nothing was submitted. The family
    /// has graphics, compute or transfer, which is what `vkCmdFillBuffer` takes.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) where the driver is out of memory.
    ///
    /// # References
    /// `vkCreateCommandPool`, `vkAllocateCommandBuffers`, `vkCmdFillBuffer`.
    pub unsafe fn new(
        endpoint: &Endpoint,
        queue_family: u32,
        submit: impl FnMut(&SubmitSync, vk::CommandBuffer) -> Result<()> + 'a,
    ) -> Result<Self> {
        let fences = FencePool::new(endpoint)?;
        let device = endpoint.device();
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(queue_family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the device is alive (`Endpoint::new`), and the family one of its own (the caller).
        let pool = unsafe { device.create_command_pool(&info, None) };
        let pool = pool.map_err(|result| failed("vkCreateCommandPool", result))?;
        // From here on dropping it destroys the pool.
        let mut worker = Self {
            endpoint: endpoint.clone(),
            queue_family,
            submit: Box::new(submit),
            fences,
            pool,
            commands: Vec::new(),
            next: 0,
        };
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .command_buffer_count(COMMAND_BUFFERS);
        // SAFETY: the pool was made above.
        let commands = unsafe { endpoint.device().allocate_command_buffers(&info) };
        let commands = commands.map_err(|result| failed("vkAllocateCommandBuffers", result))?;
        worker.commands = commands.into_iter().map(|command| (command, None)).collect();
        Ok(worker)
    }

    /// The next command buffer, when its last submit is done; it is being recorded.
    fn begin(&mut self) -> Result<usize> {
        let index = self.next % self.commands.len();
        self.next = self.next.wrapping_add(1);
        let (command, last) = &mut self.commands[index];
        if let Some(last) = last.take() {
            last.wait(TIMEOUT)?;
        }
        let info = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let (command, device) = (*command, self.endpoint.device());
        let none = vk::CommandBufferResetFlags::empty();
        // SAFETY: of a pool with RESET_COMMAND_BUFFER, and not pending. A turn that failed may have
        // left it half recorded.
        let begun = unsafe {
            device
                .reset_command_buffer(command, none)
                .and_then(|()| device.begin_command_buffer(command, &info))
        };
        begun.map_err(|result| failed("vkBeginCommandBuffer", result))?;
        Ok(index)
    }
}

impl sealed::Sealed for VulkanWorker<'_> {}

impl Worker for VulkanWorker<'_> {
    type Peer = Endpoint;

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn turn(&mut self, station: &mut RingStage<Endpoint>, count: usize) -> Result<usize> {
        if station.arrived() < count {
            return Ok(0);
        }
        let index = self.begin()?;
        let (command, family) = (self.commands[index].0, self.queue_family);
        // SAFETY: the command buffer is being recorded for that family, outside a render pass; the
        // part is added to its submit, and the caller keeps the station until `finish`.
        let taken = unsafe { station.take_many(Wait::No, count..=count, command, family, used) }?;
        let Some((batch, mut part)) = taken else { return Ok(0) };
        for slot in &batch {
            let buffer = station.buffer(slot)?.handle();
            // SAFETY: as above; the buffer is alive, has TRANSFER_DST (`BufferDesc::storage`), and
            // what is left over of four bytes is left out (VK_WHOLE_SIZE).
            unsafe {
                let device = self.endpoint.device();
                device.cmd_fill_buffer(command, buffer, 0, vk::WHOLE_SIZE, slot.index() as u32);
            }
        }
        let taken = batch.len();
        // SAFETY: as above.
        let (added, passing) = unsafe { station.release_many(batch, command, family, used) }?;
        part.merge(added)?;
        let done = self.fences.next(&mut part)?;
        // SAFETY: it is being recorded.
        let ended = unsafe { self.endpoint.device().end_command_buffer(command) };
        ended.map_err(|result| failed("vkEndCommandBuffer", result))?;
        (self.submit)(&part, command)?;
        passing.send();
        self.commands[index].1 = Some(done);
        Ok(taken)
    }

    fn finish(&mut self) -> Result<()> {
        self.commands
            .iter_mut()
            .filter_map(|(_, last)| last.take())
            .try_for_each(|last| last.wait(TIMEOUT))
    }
}

impl Drop for VulkanWorker<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "a command pool is left alive: what it submitted is not done");
            self.fences.abandon();
            return;
        }
        // SAFETY: made here, and nothing of it is pending any more.
        unsafe { self.endpoint.device().destroy_command_pool(self.pool, None) };
    }
}

fn failed(call: &'static str, result: vk::Result) -> crate::Error {
    let (code, name) = (i64::from(result.as_raw()), format!("VK_{result:?}").into());
    crate::error::DriverError { api: crate::Api::Vulkan, call, code, name }.into()
}
