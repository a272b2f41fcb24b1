//! Vulkan's station: slots are acquired and released in the user's command buffer.

use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;

use super::PATIENCE;
use super::queue::{Arrival, Queue, Wait};
use super::slot::Slot;
use super::station::{RingPeer, Station};
use crate::error::{ImportResult, Result};
use crate::handoff::Ticket;
use crate::handoff::lane::Lane;
use crate::payload::BufferPayload;
use crate::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FenceSource, SubmitPart};

/// What a station has submitted, as the host sees it.
#[derive(Debug, Default)]
pub struct VulkanWork {
    fences: Option<FenceSource>,
    /// The last submit that was made.
    last: Last,
}

type Last = Arc<Mutex<Option<Fence>>>;

impl VulkanWork {
    /// A fence that the submit of `part` will signal.
    fn fence(&mut self, endpoint: &Endpoint, part: &mut SubmitPart) -> Result<Fence> {
        let fences = match self.fences.take() {
            Some(fences) => fences,
            None => FenceSource::new(endpoint)?,
        };
        let fence = fences.next(part);
        self.fences = Some(fences);
        fence
    }
}

impl RingPeer for Endpoint {
    type Buffer = Buffer;
    type Work = VulkanWork;

    fn import_slot(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.import_buffer(payload)
    }

    fn finish(&self, work: &VulkanWork) -> Result<()> {
        let last = work.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let finished = last.map_or(Ok(()), |last| last.wait(PATIENCE));
        if let (Err(_), Some(fences)) = (&finished, &work.fences) {
            fences.abandon();
        }
        finished
    }
}

/// A slot whose release is recorded but not submitted yet.
///
/// [`send`](Self::send) it once the submit is made: a binary semaphore must not be waited for before
/// its signal is submitted. Dropping it instead means that the submit did not happen: the slot goes
/// back to its station.
#[derive(Debug)]
#[must_use = "send it when the submit is made, or the slot stays with its station"]
pub struct Passing {
    index: usize,
    /// `None` once it was sent.
    ticket: Option<Ticket>,
    fence: Fence,
    last: Last,
    lane: Arc<Lane>,
    home: Arc<Queue>,
    next: Arc<Queue>,
}

impl Passing {
    /// Gives the slot to the next station. The submit has been made.
    pub fn send(mut self) {
        let ticket = self.ticket.take();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.fence.clone());
        self.next.push(Arrival { index: self.index, ticket });
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.lane.withdraw(ticket.sequence());
            self.home.push(Arrival { index: self.index, ticket: None });
        }
    }
}

impl Station<Endpoint> {
    /// Takes the next slot and records its acquire before the commands that will use it as `used`
    /// says ([`BufferAccess::compute`], say). `None` where no slot has arrived and `wait` says not to
    /// wait.
    ///
    /// # Safety
    /// As [`Endpoint::record_acquire`]; the returned part is added to the submit, and the station
    /// lives until that submit is done, where the slot is not released in it.
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
            // SAFETY: the caller's promise; the station keeps the buffer until the work it has
            // released is done, and the caller keeps the station for the rest.
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
    /// [`Mismatch`](crate::Error::Mismatch) for a slot of another station,
    /// [`Invalid`](crate::error::Invalid) for one out of turn with binary semaphores.
    pub unsafe fn release(
        &mut self,
        slot: Slot,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl FnOnce(&Buffer) -> BufferAccess<'_>,
    ) -> Result<(SubmitPart, Passing)> {
        self.require_releasable(&slot)?;
        let access = used(&self.buffers[slot.index]);
        // SAFETY: the caller's promise; the station keeps the buffer until its work is done.
        let (ticket, mut part) =
            unsafe { self.releaser.release(command_buffer, queue_family, &[access]) }?;
        let lane = self.releaser.lane.clone();
        let fence = match self.work.fence(&self.endpoint, &mut part) {
            Ok(fence) => fence,
            Err(error) => {
                lane.withdraw(ticket.sequence());
                return Err(error);
            }
        };
        let (last, home, next) = (self.work.last.clone(), self.arrivals.clone(), self.next.clone());
        let passing =
            Passing { index: slot.pass(), ticket: Some(ticket), fence, last, lane, home, next };
        Ok((part, passing))
    }
}
