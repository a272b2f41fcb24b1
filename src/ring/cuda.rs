//! CUDA's station.

use std::ops::RangeInclusive;

use cudarc::driver::CudaStream;

use super::TIMEOUT;
use super::queue::Wait;
use super::slot::{Batch, Slot};
use super::stage::{RingPeer, RingStage};
use crate::cuda::{Endpoint, Fence};
use crate::error::Result;
use crate::handoff::Releaser;

impl RingPeer for Endpoint {
    /// The last release of each slot, where the host waits; a semaphore knows its uses itself.
    type Work = Vec<Option<Fence>>;

    fn finish(releaser: &Releaser<Endpoint>, work: &Vec<Option<Fence>>) -> Result<()> {
        work.iter().flatten().try_for_each(|last| last.wait(TIMEOUT))?;
        releaser.semaphores.iter().try_for_each(|semaphore| semaphore.wait_for_uses(TIMEOUT))
    }
}

impl RingStage<Endpoint> {
    /// Takes the next slot; the work that follows on `stream` waits for the station before. `None`
    /// where no slot has arrived and `wait` says not to wait.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) where no slot arrived in time, or the host waited too long
    /// for the station before: the ring stays usable. [`Invalid`](crate::error::Invalid) where a
    /// station of the ring is gone.
    pub fn take(&mut self, wait: Wait, stream: &CudaStream) -> Result<Option<Slot>> {
        let taken = self.acquire(wait, 1..=1, stream)?;
        Ok(taken.and_then(|()| self.taken_slot()))
    }

    /// Takes several slots at a time, acquired by one wait. `how_many` says how many must have
    /// arrived, and how many to take at most; fewer come only where a station of the ring is gone.
    ///
    /// # Errors
    /// As [`take`](Self::take), and [`Invalid`](crate::error::Invalid) for more than the ring has.
    pub fn take_many(
        &mut self,
        wait: Wait,
        how_many: RangeInclusive<usize>,
        stream: &CudaStream,
    ) -> Result<Option<Batch>> {
        let taken = self.acquire(wait, how_many, stream)?;
        Ok(taken.map(|()| self.taken_batch()))
    }

    fn acquire(
        &mut self,
        wait: Wait,
        how_many: RangeInclusive<usize>,
        stream: &CudaStream,
    ) -> Result<Option<()>> {
        self.take_with(wait, how_many, |acquirer, arrived| {
            acquirer.acquire_all(arrived.tickets(), stream)
        })
    }

    /// Gives a slot to the next station, after the work on `stream` so far: the stream that it was
    /// taken on, or one that waits for that.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a slot of another station or a stream of another
    /// context. The slot then goes back to this station.
    pub fn release(&mut self, slot: Slot, stream: &CudaStream) -> Result<()> {
        self.release_many(slot.into(), stream)
    }

    /// Gives several slots to the next station, after the work on `stream` so far, by one signal.
    ///
    /// # Errors
    /// As [`release`](Self::release), and [`Invalid`](crate::error::Invalid) for an empty batch. The
    /// slots then go back to this station.
    pub fn release_many(&mut self, batch: Batch, stream: &CudaStream) -> Result<()> {
        self.check_releasable(&batch.slots)?;
        let (tickets, fence) = self.releaser.release_many(stream, batch.len())?;
        if let Some(fence) = fence {
            self.work.resize(self.buffers.len(), None);
            batch.iter().for_each(|slot| self.work[slot.index] = Some(fence.clone()));
        }
        self.pass(batch.slots, tickets);
        Ok(())
    }
}
