//! Vulkan's station: slots are acquired and released in the user's command buffer.

use std::time::Duration;

use ash::vk;

use super::queue::Wait;
use super::slot::{Passing, Slot};
use super::station::{RingPeer, Station};
use crate::error::{ImportResult, Result};
use crate::payload::BufferPayload;
use crate::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FenceSource, SubmitPart};

/// How long a station that goes waits for its last submit. A device that takes longer is lost, or
/// waits for a semaphore that nobody signals.
const PATIENCE: Duration = Duration::from_secs(60);

/// The last submit of a station, as the host sees it.
#[derive(Debug, Default)]
pub struct VulkanWork {
    fences: Option<FenceSource>,
    last: Option<Fence>,
}

impl VulkanWork {
    /// Makes the submit of `part` the last one.
    fn follow(&mut self, endpoint: &Endpoint, part: &mut SubmitPart) -> Result<()> {
        let fences = match self.fences.take() {
            Some(fences) => fences,
            None => FenceSource::new(endpoint)?,
        };
        let next = fences.next(part);
        self.fences = Some(fences);
        self.last = Some(next?);
        Ok(())
    }
}

impl RingPeer for Endpoint {
    type Buffer = Buffer;
    type Work = VulkanWork;

    fn import_slot(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.import_buffer(payload)
    }

    fn finish(&self, work: &VulkanWork) -> Result<()> {
        work.last.as_ref().map_or(Ok(()), |last| last.wait(PATIENCE))
    }
}

impl Station<Endpoint> {
    /// Takes the next slot and records its acquire before the commands that will use it as `used`
    /// says ([`BufferAccess::compute`], say). `None` where no slot has arrived and `wait` says not to
    /// wait.
    ///
    /// # Safety
    /// As [`Endpoint::record_acquire`], and the returned part is added to the submit.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) where no slot arrived in time, or the host waited too long
    /// for the station before: the ring stays usable. [`Invalid`](crate::error::Invalid) where a
    /// station of the ring is gone.
    pub unsafe fn take(
        &mut self,
        wait: Wait,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl FnOnce(&Buffer) -> BufferAccess<'_>,
    ) -> Result<Option<(Slot, SubmitPart)>> {
        self.take_with(wait, |acquirer, ticket, buffer| {
            // SAFETY: the caller's promise; the station keeps the buffer until its work is done.
            unsafe { acquirer.acquire(ticket, command_buffer, queue_family, &[used(buffer)]) }
        })
    }

    /// Records the release of a slot after the commands that used it as `used` says.
    ///
    /// Add the part to the submit; once that is made, [`Passing::send`] gives the slot to the next
    /// station.
    ///
    /// # Safety
    /// As [`Endpoint::record_release`].
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a slot of another station.
    pub unsafe fn release(
        &mut self,
        slot: Slot,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl FnOnce(&Buffer) -> BufferAccess<'_>,
    ) -> Result<(SubmitPart, Passing)> {
        self.require_own(&slot)?;
        let access = used(&self.buffers[slot.index]);
        // SAFETY: the caller's promise; the station keeps the buffer until its work is done.
        let (ticket, mut part) =
            unsafe { self.releaser.release(command_buffer, queue_family, &[access]) }?;
        self.work.follow(&self.endpoint, &mut part)?;
        let next = self.next.clone();
        Ok((part, Passing { index: slot.pass(), ticket, next }))
    }
}
