//! OpenGL's station. It stays on the context's thread.

use std::ops::RangeInclusive;

use super::TIMEOUT;
use super::queue::Wait;
use super::slot::{Batch, Slot};
use super::stage::{RingPeer, RingStage};
use crate::error::Result;
use crate::gl::Endpoint;
use crate::handoff::Releaser;

impl RingPeer for Endpoint {
    /// All that was told to the context so far is waited for.
    type Work = ();

    fn finish(releaser: &Releaser<Endpoint>, (): &()) -> Result<()> {
        releaser.endpoint().fence()?.wait(TIMEOUT)
    }
}

impl RingStage<Endpoint> {
    /// Takes the next slot; the OpenGL commands that follow wait for the station before and see what
    /// it wrote. `None` where no slot has arrived and `wait` says not to wait.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) where no slot arrived in time, or the host waited too long
    /// for the station before: the ring stays usable. [`Invalid`](crate::error::Invalid) where a
    /// station of the ring is gone, or the context is not current.
    pub fn take(&mut self, wait: Wait) -> Result<Option<Slot>> {
        let taken = self.acquire(wait, 1..=1)?;
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
    ) -> Result<Option<Batch>> {
        let taken = self.acquire(wait, how_many)?;
        Ok(taken.map(|()| self.taken_batch()))
    }

    fn acquire(&mut self, wait: Wait, how_many: RangeInclusive<usize>) -> Result<Option<()>> {
        self.take_with(wait, how_many, |acquirer, arrived| {
            let buffers: Vec<_> = arrived.buffers().collect();
            acquirer.acquire_all(arrived.tickets(), &buffers)
        })
    }

    /// Gives a slot to the next station, after the OpenGL commands so far.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a slot of another station,
    /// [`Invalid`](crate::error::Invalid) where the context is not current. The slot then goes back
    /// to this station.
    pub fn release(&mut self, slot: Slot) -> Result<()> {
        self.release_many(slot.into())
    }

    /// Gives several slots to the next station, after the OpenGL commands so far, by one signal.
    ///
    /// # Errors
    /// As [`release`](Self::release), and [`Invalid`](crate::error::Invalid) for an empty batch. The
    /// slots then go back to this station.
    pub fn release_many(&mut self, batch: Batch) -> Result<()> {
        self.check_releasable(&batch.slots)?;
        let buffers: Vec<_> = batch.iter().map(|slot| &self.buffers[slot.index]).collect();
        let tickets = self.releaser.release_many(&buffers)?;
        self.pass(batch.slots, tickets);
        Ok(())
    }
}
