//! One endpoint's place in a ring.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::queue::{Arrival, Queue, Wait};
use super::slot::{Batch, Slot};
use crate::capabilities::SyncMethod;
use crate::error::{Invalid, Mismatch, Result};
use crate::handoff::{Acquirer, HandoffPeer, Releaser, Ticket};

/// An endpoint that can have a station.
pub trait RingPeer: HandoffPeer {
    /// What the station keeps to know that its work is done.
    type Work: fmt::Debug + Default;

    /// Waits for the last work of a station that goes.
    #[doc(hidden)]
    fn finish(releaser: &Releaser<Self>, work: &Self::Work) -> Result<()>;
}

/// One endpoint's place in a ring: takes slots from the station before it and gives them to the next.
pub struct RingStage<P: RingPeer> {
    // The buffers go first, then the semaphores: `drop` has waited for all that uses them.
    pub(crate) buffers: Vec<P::Buffer>,
    pub(crate) acquirer: Acquirer<P>,
    pub(crate) releaser: Releaser<P>,
    pub(crate) work: P::Work,
    pub(crate) endpoint: P,
    pub(crate) ring: u64,
    pub(crate) arrivals: Arc<Queue>,
    pub(crate) next: Arc<Queue>,
    /// Those before every station, to be closed when one goes.
    pub(crate) all: Vec<Arc<Queue>>,
    /// What was taken and is not a slot yet: empty between calls, its memory is kept.
    pub(crate) taken: Vec<Arrival>,
}

impl<P: RingPeer> fmt::Debug for RingStage<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingStage")
            .field("ring", &self.ring)
            .field("depth", &self.buffers.len())
            .field("arrived", &self.arrived())
            .finish_non_exhaustive()
    }
}

impl<P: RingPeer> RingStage<P> {
    /// How many slots the ring has.
    pub fn depth(&self) -> usize {
        self.buffers.len()
    }

    /// How many slots have arrived and can be taken.
    pub fn arrived(&self) -> usize {
        self.arrivals.len()
    }

    /// How this station waits for the one before it.
    pub fn acquires_by(&self) -> SyncMethod {
        self.acquirer.lane.method
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &P {
        &self.endpoint
    }

    /// The buffer of a slot that this station holds.
    ///
    /// # Errors
    /// [`Mismatch`] for a slot of another ring or of another station.
    pub fn buffer(&self, slot: &Slot) -> Result<&P::Buffer> {
        self.check_own(slot)?;
        Ok(&self.buffers[slot.index])
    }

    /// The buffer of a slot that this station holds, to be written through.
    ///
    /// # Errors
    /// As [`buffer`](Self::buffer).
    pub fn buffer_mut(&mut self, slot: &Slot) -> Result<&mut P::Buffer> {
        self.check_own(slot)?;
        Ok(&mut self.buffers[slot.index])
    }

    pub(crate) fn check_own(&self, slot: &Slot) -> Result<()> {
        let held_here = slot.home.as_ref().is_some_and(|home| Arc::ptr_eq(home, &self.arrivals));
        if slot.ring == self.ring && held_here && slot.index < self.buffers.len() {
            return Ok(());
        }
        Err(Mismatch::new("the slot's station", format!("one of ring {}", self.ring), slot.ring)
            .help("only the station that took a slot can use or release it")
            .into())
    }

    /// Checks that slots may be released now.
    ///
    /// Binary semaphores are used in turn, so that slots must go on in the order in which they came:
    /// else one might be signalled again before its wait has executed.
    pub(crate) fn check_releasable(&self, slots: &[Slot]) -> Result<()> {
        if slots.is_empty() {
            return Err(Invalid::new("batch", "has no slot").help("take one first").into());
        }
        slots.iter().try_for_each(|slot| self.check_own(slot))?;
        if self.releaser.lane.method != SyncMethod::Binary {
            return Ok(());
        }
        let indices = slots.iter().map(Slot::index);
        self.arrivals.are_oldest(indices.clone()).map_err(|oldest| {
            let indices: Vec<_> = indices.collect();
            let what = format!("slots {indices:?} while slot {oldest:?} was taken before them");
            Invalid::new("slot", what)
                .help("with binary semaphores, release slots in the order in which they were taken")
                .into()
        })
    }

    /// Takes the next slots and acquires by `acquire` those that come with a ticket. Where this is
    /// `Some`, they are in `taken`.
    ///
    /// Slots that can't be acquired (the host waited too long, say) go back to be tried again.
    pub(crate) fn take_with<T: Default>(
        &mut self,
        wait: Wait,
        how_many: RangeInclusive<usize>,
        acquire: impl FnOnce(&mut Acquirer<P>, Arrived<'_, P::Buffer>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.check_how_many(&how_many)?;
        if !self.taken.is_empty() {
            // The caller's closure panicked the last time.
            self.arrivals.put_back(&mut self.taken);
        }
        if !self.arrivals.take(wait, &how_many, &mut self.taken)? {
            return Ok(None);
        }
        let arrived = Arrived { buffers: &self.buffers, arrivals: &self.taken };
        if arrived.tickets().next().is_none() {
            return Ok(Some(T::default()));
        }
        match acquire(&mut self.acquirer, arrived) {
            Ok(acquired) => Ok(Some(acquired)),
            Err(error) => {
                self.arrivals.put_back(&mut self.taken);
                Err(error)
            }
        }
    }

    fn check_how_many(&self, how_many: &RangeInclusive<usize>) -> Result<()> {
        let depth = self.depth();
        if (1..=depth).contains(how_many.start()) && how_many.start() <= how_many.end() {
            return Ok(());
        }
        let what = format!("{how_many:?} slots of a ring that has {depth}");
        Err(Invalid::new("how_many", what)
            .help("begin with 1 or more, and no more than the ring's depth")
            .into())
    }

    /// The one slot that was taken.
    pub(crate) fn taken_slot(&mut self) -> Option<Slot> {
        let arrival = self.taken.pop()?;
        Some(slot(self.ring, &self.arrivals, arrival))
    }

    /// All slots that were taken.
    pub(crate) fn taken_batch(&mut self) -> Batch {
        let (ring, home) = (self.ring, &self.arrivals);
        self.taken.drain(..).map(|arrival| slot(ring, home, arrival)).collect()
    }

    /// Passes on `slots`, each with its ticket.
    #[cfg(any(feature = "gl", feature = "cuda"))]
    pub(crate) fn pass(&mut self, slots: Vec<Slot>, tickets: impl Iterator<Item = Ticket>) {
        self.arrivals.forget(slots.iter().map(Slot::index));
        self.next.push(arrivals(slots, tickets));
    }
}

/// The slots of a batch on their way, each with its ticket.
pub(crate) fn arrivals(
    slots: Vec<Slot>,
    tickets: impl Iterator<Item = Ticket>,
) -> impl Iterator<Item = Arrival> {
    let pairs = slots.into_iter().zip(tickets);
    pairs.map(|(slot, ticket)| Arrival { index: slot.pass(), ticket: Some(ticket) })
}

fn slot(ring: u64, home: &Arc<Queue>, Arrival { index, ticket }: Arrival) -> Slot {
    Slot { index, ring, is_new: ticket.is_none(), home: Some(home.clone()) }
}

/// Slots that were taken and are to be acquired where they come with a ticket.
pub(crate) struct Arrived<'a, B> {
    buffers: &'a [B],
    arrivals: &'a [Arrival],
}

impl<'a, B> Arrived<'a, B> {
    pub(crate) fn tickets(&self) -> impl Iterator<Item = &'a Ticket> + Clone + use<'a, B> {
        self.arrivals.iter().filter_map(|arrival| arrival.ticket.as_ref())
    }

    /// The buffers of those with a ticket, in the same order.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = &'a B> + use<'a, B> {
        let ticketed = self.arrivals.iter().filter(|arrival| arrival.ticket.is_some());
        let buffers = self.buffers;
        ticketed.map(move |arrival| &buffers[arrival.index])
    }
}

impl<P: RingPeer> Drop for RingStage<P> {
    fn drop(&mut self) {
        self.all.iter().for_each(|queue| queue.close());
        if let Err(error) = P::finish(&self.releaser, &self.work) {
            // Something may still use all of it, and freeing it then would be a fault on the GPU.
            tracing::warn!(%error, "a station of a ring went before its work was done");
            std::mem::forget(std::mem::take(&mut self.buffers));
            self.acquirer.abandon();
            self.releaser.abandon();
        }
    }
}
