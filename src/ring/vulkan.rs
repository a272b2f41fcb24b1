//! Vulkan's station: slots are acquired and released in the user's command buffer.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;

use super::TIMEOUT;
use super::queue::{Arrival, Queue, Wait};
use super::slot::{Batch, Slot};
use super::stage::{RingPeer, RingStage, arrivals};
use crate::capabilities::SyncMethod;
use crate::error::Result;
use crate::handoff::Releaser;
use crate::handoff::channel::Channel;
use crate::vulkan::{Buffer, BufferAccess, Endpoint, Fence, FencePool, SubmitSync};

/// What a station has submitted, as the host sees it.
#[derive(Debug, Default)]
pub struct VulkanWork {
    /// Where binary semaphores synchronise, which the host can't ask.
    fences: Option<FencePool>,
    /// The last submit that was made.
    last: Last,
}

type Last = Arc<Mutex<Option<Fence>>>;

impl VulkanWork {
    /// A fence that the submit of `part` will signal.
    fn fence(&mut self, endpoint: &Endpoint, part: &mut SubmitSync) -> Result<Fence> {
        let fences = match self.fences.take() {
            Some(fences) => fences,
            None => FencePool::new(endpoint)?,
        };
        let fence = fences.next(part);
        self.fences = Some(fences);
        fence
    }
}

impl RingPeer for Endpoint {
    type Work = VulkanWork;

    fn finish(_: &Releaser<Endpoint>, work: &VulkanWork) -> Result<()> {
        let last = work.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let finished = last.map_or(Ok(()), |last| last.wait(TIMEOUT));
        if let (Err(_), Some(fences)) = (&finished, &work.fences) {
            fences.leak();
        }
        finished
    }
}

/// Slots whose release is recorded but not submitted yet.
///
/// [`send`](Self::send) it once the submit is made: a binary semaphore must not be waited for before
/// its signal is submitted. Dropping it instead means that the submit did not happen: the slots go
/// back to their station.
#[derive(Debug)]
#[must_use = "send it when the submit is made, or the slots stay with their station"]
pub struct PendingRelease {
    /// Empty once they were sent.
    slots: Vec<Arrival>,
    fence: Fence,
    last: Last,
    lane: Arc<Channel>,
    home: Arc<Queue>,
    next: Arc<Queue>,
}

impl PendingRelease {
    /// Gives the slots to the next station. The submit has been made.
    pub fn send(mut self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.fence.clone());
        self.next.push(self.slots.drain(..));
    }
}

impl Drop for PendingRelease {
    fn drop(&mut self) {
        // The last first, so that the numbers are free again.
        for ticket in self.slots.iter().rev().filter_map(|slot| slot.ticket.as_ref()) {
            self.lane.withdraw(ticket.sequence());
        }
        if !self.slots.is_empty() {
            let new = |slot: Arrival| Arrival { index: slot.index, ticket: None };
            self.home.push(self.slots.drain(..).map(new));
        }
    }
}

impl RingStage<Endpoint> {
    /// The buffers of all slots, by their index: to bind them, and to record command buffers that use
    /// them, beforehand. What is in a buffer is only its slot's holder's to use.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

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
    ) -> Result<Option<(Slot, SubmitSync)>> {
        let part = self.take_with(wait, 1..=1, |acquirer, arrived| {
            let used = arrived.buffers().next().map(used);
            // SAFETY: the caller's promise; the station keeps the buffer until the work it has
            // released is done, and the caller keeps the station for the rest.
            acquirer.acquire_all(arrived.tickets(), |endpoint| unsafe {
                endpoint.record_acquire(command_buffer, queue_family, used.as_slice())
            })
        })?;
        Ok(part.and_then(|part| Some((self.taken_slot()?, part))))
    }

    /// Takes several slots at a time, acquired by one barrier and one wait. `how_many` says how many
    /// must have arrived, and how many to take at most; fewer come only where a station of the ring
    /// is gone.
    ///
    /// # Safety
    /// As [`take`](Self::take).
    ///
    /// # Errors
    /// As [`take`](Self::take), and [`Invalid`](crate::error::Invalid) for more than the ring has.
    pub unsafe fn take_many(
        &mut self,
        wait: Wait,
        how_many: RangeInclusive<usize>,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Fn(&Buffer) -> BufferAccess<'_>,
    ) -> Result<Option<(Batch, SubmitSync)>> {
        let part = self.take_with(wait, how_many, |acquirer, arrived| {
            let used: Vec<_> = arrived.buffers().map(used).collect();
            // SAFETY: as in `take`.
            acquirer.acquire_all(arrived.tickets(), |endpoint| unsafe {
                endpoint.record_acquire(command_buffer, queue_family, used.as_slice())
            })
        })?;
        Ok(part.map(|part| (self.taken_batch(), part)))
    }

    /// As [`take_many`](Self::take_many), for command buffers that were recorded beforehand, with the
    /// acquires ([`Endpoint::record_acquire`]) in them: nothing is recorded here.
    ///
    /// A slot that [is new](Slot::is_new) has nothing to acquire: submit it with commands that have no
    /// acquire barrier. The part is added to a submit that the commands of all these slots are in, or
    /// come after.
    ///
    /// # Errors
    /// As [`take_many`](Self::take_many).
    pub fn take_recorded(
        &mut self,
        wait: Wait,
        how_many: RangeInclusive<usize>,
    ) -> Result<Option<(Batch, SubmitSync)>> {
        let part = self.take_with(wait, how_many, |acquirer, arrived| {
            acquirer.acquire_all(arrived.tickets(), |_| Ok(()))
        })?;
        Ok(part.map(|part| (self.taken_batch(), part)))
    }

    /// Records the release of a slot after the commands that used it as `used` says.
    ///
    /// Add the part to the submit; once that is made, [`PendingRelease::send`] gives the slot to the next
    /// station.
    ///
    /// # Safety
    /// As [`Endpoint::record_release`].
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a slot of another station,
    /// [`Invalid`](crate::error::Invalid) for one out of turn with binary semaphores. The slot then
    /// goes back to this station.
    pub unsafe fn release(
        &mut self,
        slot: Slot,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl FnOnce(&Buffer) -> BufferAccess<'_>,
    ) -> Result<(SubmitSync, PendingRelease)> {
        let batch = Batch::from(slot);
        self.check_releasable(&batch.slots)?;
        let used = batch.iter().next().map(|slot| used(&self.buffers[slot.index]));
        // SAFETY: the caller's promise; the station keeps the buffer until its work is done.
        unsafe { self.endpoint.record_release(command_buffer, queue_family, used.as_slice()) }?;
        self.signal(batch)
    }

    /// Records the release of several slots by one barrier; they are passed on by one signal.
    ///
    /// # Safety
    /// As [`release`](Self::release).
    ///
    /// # Errors
    /// As [`release`](Self::release), and [`Invalid`](crate::error::Invalid) for an empty batch. The
    /// slots then go back to this station.
    pub unsafe fn release_many(
        &mut self,
        batch: Batch,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Fn(&Buffer) -> BufferAccess<'_>,
    ) -> Result<(SubmitSync, PendingRelease)> {
        self.check_releasable(&batch.slots)?;
        let used: Vec<_> = batch.iter().map(|slot| used(&self.buffers[slot.index])).collect();
        // SAFETY: as in `release`.
        unsafe { self.endpoint.record_release(command_buffer, queue_family, used.as_slice()) }?;
        self.signal(batch)
    }

    /// As [`release_many`](Self::release_many), for command buffers that were recorded beforehand,
    /// with the releases ([`Endpoint::record_release`]) in them: nothing is recorded here.
    ///
    /// # Errors
    /// As [`release_many`](Self::release_many).
    pub fn release_recorded(&mut self, batch: Batch) -> Result<(SubmitSync, PendingRelease)> {
        self.check_releasable(&batch.slots)?;
        self.signal(batch)
    }

    /// What the submit of the releases signals.
    fn signal(&mut self, batch: Batch) -> Result<(SubmitSync, PendingRelease)> {
        let (tickets, mut part) = self.releaser.signal_many(batch.len())?;
        let lane = self.releaser.lane.clone();
        self.arrivals.forget(batch.iter().map(Slot::index));
        let slots: Vec<_> = arrivals(batch.slots, tickets).collect();
        // What tells the next station tells this one too when its work is done. Only a binary
        // semaphore can't be asked.
        let own = match lane.method {
            SyncMethod::Binary => None,
            _ => slots
                .last()
                .and_then(|slot| slot.ticket.as_ref())
                .and_then(|ticket| self.releaser.fence_of(ticket)),
        };
        let fence = match own {
            Some(fence) => Ok(fence),
            None => self.work.fence(&self.endpoint, &mut part),
        };
        let (last, home, next) = (self.work.last.clone(), self.arrivals.clone(), self.next.clone());
        match fence {
            Ok(fence) => Ok((part, PendingRelease { slots, fence, last, lane, home, next })),
            Err(error) => {
                for ticket in slots.iter().rev().filter_map(|slot| slot.ticket.as_ref()) {
                    lane.withdraw(ticket.sequence());
                }
                home.push(slots.into_iter().map(|slot| Arrival { ticket: None, ..slot }));
                Err(error)
            }
        }
    }
}
