//! A slot that a stage holds, a batch of slots, and slots that a submit takes or releases.

use std::sync::Arc;

use smallvec::SmallVec;

use super::queue::{Arrivals, Queue};
use crate::handoff::{Channel, Ticket};
use crate::vulkan::AfterSubmit;

/// A slot of a ring, held by a stage, which may use its buffer.
///
/// Slots are taken and released in a [`Batch`]. Dropping a slot returns it to the same stage, to be
/// taken again; its buffer keeps its content.
///
/// A slot is neither `Copy` nor `Clone`: once released, it can't be used any more.
///
/// ```no_run
/// use gpu_interop::ring::{RingStage, Slot, SlotCommands};
/// use gpu_interop::vulkan::{Endpoint, SubmitSync};
///
/// fn release(
///     stage: &mut RingStage<Endpoint>,
///     slot: Slot,
///     commands: SlotCommands,
/// ) -> gpu_interop::Result<SubmitSync> {
///     let buffer = stage.buffer(&slot)?;
///     buffer.handle(); // ... is used in the commands ...
///     stage.release(slot, commands)
/// }
/// ```
///
/// After the release the slot is gone:
///
/// ```compile_fail,E0382
/// # use gpu_interop::ring::{RingStage, Slot, SlotCommands};
/// # use gpu_interop::vulkan::{Endpoint, SubmitSync};
/// # fn release(
/// #     stage: &mut RingStage<Endpoint>,
/// #     slot: Slot,
/// #     commands: SlotCommands,
/// # ) -> gpu_interop::Result<SubmitSync> {
/// let released = stage.release(slot, commands);
/// stage.buffer(&slot)?; // the next stage has it
/// # released
/// # }
/// ```
///
/// and so is a buffer that was borrowed before:
///
/// ```compile_fail,E0502
/// # use gpu_interop::ring::{RingStage, Slot, SlotCommands};
/// # use gpu_interop::vulkan::{Endpoint, SubmitSync};
/// # fn release(
/// #     stage: &mut RingStage<Endpoint>,
/// #     slot: Slot,
/// #     commands: SlotCommands,
/// # ) -> gpu_interop::Result<SubmitSync> {
/// let buffer = stage.buffer(&slot)?;
/// let released = stage.release(slot, commands);
/// buffer.handle(); // the next stage has it
/// # released
/// # }
/// ```
///
/// and it can't be duplicated:
///
/// ```compile_fail,E0599
/// # use gpu_interop::ring::Slot;
/// # fn twice(slot: Slot) -> (Slot, Slot) {
/// (slot.clone(), slot)
/// # }
/// ```
///
/// A slot of another stage is refused at run time, and so is a release out of order with binary
/// semaphores.
#[derive(Debug)]
#[must_use = "release it to the next stage; dropping it returns it to this one"]
pub struct Slot {
    pub(crate) index: usize,
    pub(crate) ring: u64,
    pub(crate) is_new: bool,
    /// The queue to which a drop returns it; `None` once it is released.
    pub(crate) home: Option<Arc<Queue>>,
}

impl Slot {
    /// Returns the slot's index, from 0 to the ring's depth - 1.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns whether no other stage has held the slot since this one, so that there is nothing to
    /// acquire: initially, and after it was taken and dropped.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Consumes a slot that is released. The caller removes it from the queue's held slots.
    pub(crate) fn into_index(mut self) -> usize {
        self.home = None;
        self.index
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.return_slot(self.index);
        }
    }
}

/// Slots that a stage takes together and releases together, in order.
///
/// A batch pays the handoff cost once, which makes small payloads fast if each switch to the other
/// API is expensive.
///
/// A batch of one has a [`single`](Self::single) slot. The slots of a batch can be released
/// individually, and several slots can be collected into a batch.
#[derive(Debug, Default)]
#[must_use = "release it to the next stage; dropping it returns it to this one"]
pub struct Batch {
    pub(crate) slots: Vec<Slot>,
}

impl Batch {
    /// Returns the number of slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether there are no slots.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the slot of a batch of one, and `None` for any other.
    pub fn single(&self) -> Option<&Slot> {
        match self.slots.as_slice() {
            [slot] => Some(slot),
            _ => None,
        }
    }

    /// Returns the slots in the order in which they arrived.
    pub fn iter(&self) -> std::slice::Iter<'_, Slot> {
        self.slots.iter()
    }
}

impl From<Slot> for Batch {
    fn from(slot: Slot) -> Self {
        Self { slots: vec![slot] }
    }
}

impl FromIterator<Slot> for Batch {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        Self { slots: slots.into_iter().collect() }
    }
}

impl Extend<Slot> for Batch {
    fn extend<I: IntoIterator<Item = Slot>>(&mut self, slots: I) {
        self.slots.extend(slots);
    }
}

impl IntoIterator for Batch {
    type Item = Slot;
    type IntoIter = std::vec::IntoIter<Slot>;

    fn into_iter(self) -> Self::IntoIter {
        self.slots.into_iter()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Slot;
    type IntoIter = std::slice::Iter<'a, Slot>;

    fn into_iter(self) -> Self::IntoIter {
        self.slots.iter()
    }
}

/// Slots whose release is recorded. The submit passes them to the next stage; if it is never made,
/// they return to their own stage.
#[derive(Debug)]
pub struct PendingRelease {
    /// Empty once the next stage has them.
    pub(crate) slots: Arrivals,
    /// The queue that the slots came from.
    pub(crate) home: Arc<Queue>,
    /// The queue that they go to.
    pub(crate) next: Arc<Queue>,
}

impl AfterSubmit for PendingRelease {
    fn submitted(&mut self) {
        self.next.push(self.slots.drain(..));
    }
}

impl Drop for PendingRelease {
    fn drop(&mut self) {
        // Their tickets are dropped: the releases were never submitted.
        for slot in self.slots.drain(..) {
            self.home.return_slot(slot.index);
        }
    }
}

/// Slots whose acquire is recorded. If it is never submitted, their tickets return to the stage.
#[derive(Debug)]
pub struct PendingTake {
    /// The channel of the handoff through which they arrived.
    pub(crate) channel: Arc<Channel>,
    /// The queue in which they arrived.
    pub(crate) home: Arc<Queue>,
    /// Their indices, and the numbers of their releases. Empty once the acquire is submitted.
    pub(crate) slots: SmallVec<[(usize, u64); 4]>,
}

impl AfterSubmit for PendingTake {
    fn submitted(&mut self) {
        self.slots.clear();
    }
}

impl Drop for PendingTake {
    fn drop(&mut self) {
        for (index, number) in self.slots.drain(..) {
            if let Some(ticket) = Ticket::recover(&self.channel, number) {
                self.home.return_ticket(index, ticket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::super::queue::{Arrival, Wait};
    use super::*;

    fn batch(queue: &Arc<Queue>, how_many: RangeInclusive<usize>) -> Batch {
        let mut taken = queue.take(Wait::No, &how_many).unwrap().unwrap();
        let slot = |arrival: Arrival| Slot {
            index: arrival.index,
            ring: 0,
            is_new: true,
            home: Some(queue.clone()),
        };
        std::mem::take(&mut taken.arrivals).into_iter().map(slot).collect()
    }

    #[test]
    fn a_dropped_batch_returns_in_order() {
        let queue = Queue::new((0..3).map(|index| Arrival { index, ticket: None }));
        let all = batch(&queue, 3..=3);
        assert_eq!((all.len(), queue.len()), (3, 0));
        drop(all);
        let again: Vec<_> = batch(&queue, 1..=8).iter().map(Slot::index).collect();
        assert_eq!(again, [0, 1, 2]);
    }

    #[test]
    fn only_a_batch_of_one_has_a_single_slot() {
        let queue = Queue::new((0..3).map(|index| Arrival { index, ticket: None }));
        assert_eq!(batch(&queue, 1..=1).single().map(Slot::index), Some(0));
        assert!(batch(&queue, 2..=2).single().is_none());
        assert!(Batch::default().single().is_none());
    }

    #[test]
    fn a_released_slot_does_not_come_back() {
        let queue = Queue::new((0..2).map(|index| Arrival { index, ticket: None }));
        let released: Vec<_> = batch(&queue, 1..=1).into_iter().map(Slot::into_index).collect();
        assert_eq!((released, queue.len()), (vec![0], 1));
    }
}
