//! One endpoint's place in a ring.

use std::fmt;
use std::sync::Arc;

use super::queue::{Arrival, Queue, Wait};
use super::slot::Slot;
use crate::capabilities::SyncMethod;
use crate::error::{ImportResult, Invalid, Mismatch, Result};
use crate::handoff::{Acquirer, Peer, Releaser, Ticket};
use crate::payload::BufferPayload;

/// An endpoint that can have a station.
pub trait RingPeer: Peer {
    /// The peer's own view of a shared buffer.
    type Buffer: fmt::Debug;
    /// What the station keeps to know that its work is done.
    type Work: fmt::Debug + Default;

    #[doc(hidden)]
    fn import_slot(&self, payload: BufferPayload) -> ImportResult<Self::Buffer, BufferPayload>;

    /// Waits for the last work of a station that goes.
    #[doc(hidden)]
    fn finish(&self, work: &Self::Work) -> Result<()>;
}

/// One endpoint's place in a ring: takes slots from the station before it and gives them to the next.
pub struct Station<P: RingPeer> {
    // The buffers go first, then the semaphores: `drop` has waited for all that uses them.
    pub(super) buffers: Vec<P::Buffer>,
    pub(super) acquirer: Acquirer<P>,
    pub(super) releaser: Releaser<P>,
    pub(super) work: P::Work,
    pub(super) endpoint: P,
    pub(super) ring: u64,
    pub(super) arrivals: Arc<Queue>,
    pub(super) next: Arc<Queue>,
    /// Those before every station, to be closed when one goes.
    pub(super) all: Vec<Arc<Queue>>,
}

impl<P: RingPeer> fmt::Debug for Station<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Station")
            .field("ring", &self.ring)
            .field("depth", &self.buffers.len())
            .field("arrived", &self.arrived())
            .finish_non_exhaustive()
    }
}

impl<P: RingPeer> Station<P> {
    /// How many slots the ring has.
    pub fn depth(&self) -> usize {
        self.buffers.len()
    }

    /// How many slots have arrived and can be taken.
    pub fn arrived(&self) -> usize {
        self.arrivals.len()
    }

    /// The buffer of a slot that this station holds.
    ///
    /// # Errors
    /// [`Mismatch`] for a slot of another ring or of another station.
    pub fn buffer(&self, slot: &Slot) -> Result<&P::Buffer> {
        self.require_own(slot)?;
        Ok(&self.buffers[slot.index])
    }

    /// The buffer of a slot that this station holds, to be written through.
    ///
    /// # Errors
    /// As [`buffer`](Self::buffer).
    pub fn buffer_mut(&mut self, slot: &Slot) -> Result<&mut P::Buffer> {
        self.require_own(slot)?;
        Ok(&mut self.buffers[slot.index])
    }

    pub(super) fn require_own(&self, slot: &Slot) -> Result<()> {
        let held_here = slot.home.as_ref().is_some_and(|home| Arc::ptr_eq(home, &self.arrivals));
        if slot.ring == self.ring && held_here && slot.index < self.buffers.len() {
            return Ok(());
        }
        Err(Mismatch::new("the slot's station", format!("one of ring {}", self.ring), slot.ring)
            .help("only the station that took a slot can use or release it")
            .into())
    }

    /// Checks that a slot may be released now.
    ///
    /// Binary semaphores are used in turn, so that slots must go on in the order in which they came:
    /// else one might be signalled again before its wait has executed.
    pub(super) fn require_releasable(&self, slot: &Slot) -> Result<()> {
        self.require_own(slot)?;
        let oldest = self.arrivals.oldest_held();
        if self.releaser.lane.method != SyncMethod::Binary || oldest == Some(slot.index) {
            return Ok(());
        }
        let what = format!("slot {} while slot {oldest:?} was taken before it", slot.index);
        Err(Invalid::new("slot", what)
            .help("with binary semaphores, release slots in the order in which they were taken")
            .into())
    }

    /// Takes the next slot and acquires it by `acquire`, where it comes with a ticket.
    ///
    /// A slot that can't be acquired (the host waited too long, say) goes back to be tried again.
    pub(super) fn take_with<T: Default>(
        &mut self,
        wait: Wait,
        acquire: impl FnOnce(
            &mut Acquirer<P>,
            Ticket,
            &P::Buffer,
        ) -> Result<T, crate::handoff::AcquireError>,
    ) -> Result<Option<(Slot, T)>> {
        let Some(Arrival { index, ticket }) = self.arrivals.take(wait)? else { return Ok(None) };
        let acquired = match ticket {
            None => T::default(),
            Some(ticket) => match acquire(&mut self.acquirer, ticket, &self.buffers[index]) {
                Ok(acquired) => acquired,
                Err(refused) => {
                    let (ticket, error) = refused.into_parts();
                    self.arrivals.put_back(Arrival { index, ticket: Some(ticket) });
                    return Err(error);
                }
            },
        };
        let slot = Slot { index, ring: self.ring, home: Some(self.arrivals.clone()) };
        Ok(Some((slot, acquired)))
    }
}

impl<P: RingPeer> Drop for Station<P> {
    fn drop(&mut self) {
        self.all.iter().for_each(|queue| queue.close());
        if let Err(error) = self.endpoint.finish(&self.work) {
            // Something may still use all of it, and freeing it then would be a fault on the GPU.
            tracing::warn!(%error, "a station of a ring went before its work was done");
            std::mem::forget(std::mem::take(&mut self.buffers));
            self.acquirer.abandon();
            self.releaser.abandon();
        }
    }
}
