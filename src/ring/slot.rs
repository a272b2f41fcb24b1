//! A slot that a station holds, and several that it took together.

use std::sync::Arc;

use super::queue::Queue;

/// A slot of a ring, held by a station: the right to its buffer.
///
/// It is given on with the station's `release`. Dropping it puts it back before the station, to be
/// taken again; what it holds then is whatever was last written.
///
/// It is neither `Copy` nor `Clone`: who has given it on can't use it any more.
///
/// ```no_run
/// use gpu_interop::ash::vk;
/// use gpu_interop::ring::{Passing, Slot, Station};
/// use gpu_interop::vulkan::{BufferAccess, Endpoint, SubmitSync};
///
/// fn pass_on(
///     station: &mut Station<Endpoint>,
///     slot: Slot,
///     commands: vk::CommandBuffer,
/// ) -> gpu_interop::Result<(SubmitSync, Passing)> {
///     let buffer = station.buffer(&slot)?;
///     buffer.handle(); // ... is used in the commands ...
///     unsafe { station.release(slot, commands, 0, |buffer| BufferAccess::compute(buffer)) }
/// }
/// ```
///
/// After the release neither the slot is there:
///
/// ```compile_fail,E0382
/// # use gpu_interop::ash::vk;
/// # use gpu_interop::ring::{Passing, Slot, Station};
/// # use gpu_interop::vulkan::{BufferAccess, Endpoint, SubmitSync};
/// # fn pass_on(
/// #     station: &mut Station<Endpoint>,
/// #     slot: Slot,
/// #     commands: vk::CommandBuffer,
/// # ) -> gpu_interop::Result<(SubmitSync, Passing)> {
/// let passed =
///     unsafe { station.release(slot, commands, 0, |buffer| BufferAccess::compute(buffer)) };
/// station.buffer(&slot)?; // the next station has it
/// # passed
/// # }
/// ```
///
/// nor a buffer that was asked for before:
///
/// ```compile_fail,E0502
/// # use gpu_interop::ash::vk;
/// # use gpu_interop::ring::{Passing, Slot, Station};
/// # use gpu_interop::vulkan::{BufferAccess, Endpoint, SubmitSync};
/// # fn pass_on(
/// #     station: &mut Station<Endpoint>,
/// #     slot: Slot,
/// #     commands: vk::CommandBuffer,
/// # ) -> gpu_interop::Result<(SubmitSync, Passing)> {
/// let buffer = station.buffer(&slot)?;
/// let passed =
///     unsafe { station.release(slot, commands, 0, |buffer| BufferAccess::compute(buffer)) };
/// buffer.handle(); // the next station has it
/// # passed
/// # }
/// ```
///
/// and nobody has two of one:
///
/// ```compile_fail,E0599
/// # use gpu_interop::ring::Slot;
/// # fn twice(slot: Slot) -> (Slot, Slot) {
/// (slot.clone(), slot)
/// # }
/// ```
///
/// A slot of another station, and one that is released out of turn with binary semaphores, are
/// refused when the program runs.
#[derive(Debug)]
#[must_use = "release it to the next station, or nobody gets to work on it"]
pub struct Slot {
    pub(crate) index: usize,
    pub(crate) ring: u64,
    pub(crate) is_new: bool,
    /// Where it goes when it is dropped; `None` once it was passed on.
    pub(crate) home: Option<Arc<Queue>>,
}

impl Slot {
    /// Its number, from 0 up to the ring's depth.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether no other station had it since this one: at the very beginning, and where it was taken
    /// and dropped. Then there is nothing to acquire.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Ends the hold, because the slot goes on. The caller tells the queue.
    pub(crate) fn pass(mut self) -> usize {
        self.home = None;
        self.index
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give_up(self.index);
        }
    }
}

/// Slots that a station took together and passes on together, in their order.
///
/// What the GPU, or the host, has to do for a handoff it does once a batch: one wait, one signal, one
/// submit. Where every switch to the other side costs, that is what makes small payloads fast.
///
/// Slots can be taken out of a batch and passed on by themselves, and slots that were taken by
/// themselves can be collected into one.
#[derive(Debug, Default)]
#[must_use = "release it to the next station, or nobody gets to work on it"]
pub struct Batch {
    pub(crate) slots: Vec<Slot>,
}

impl Batch {
    /// How many slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slots in the order in which they arrived.
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

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::super::queue::{Arrival, Wait};
    use super::*;

    fn batch(queue: &Arc<Queue>, how_many: RangeInclusive<usize>) -> Batch {
        let mut taken = Vec::new();
        queue.take(Wait::No, &how_many, &mut taken).unwrap();
        let slot = |arrival: Arrival| Slot {
            index: arrival.index,
            ring: 0,
            is_new: true,
            home: Some(queue.clone()),
        };
        taken.into_iter().map(slot).collect()
    }

    #[test]
    fn a_batch_that_is_dropped_goes_back_in_its_order() {
        let queue = Queue::new((0..3).map(|index| Arrival { index, ticket: None }));
        let all = batch(&queue, 3..=3);
        assert_eq!((all.len(), queue.len()), (3, 0));
        drop(all);
        let again: Vec<_> = batch(&queue, 1..=8).iter().map(Slot::index).collect();
        assert_eq!(again, [0, 1, 2]);
    }

    #[test]
    fn a_slot_that_is_passed_on_does_not_come_back() {
        let queue = Queue::new((0..2).map(|index| Arrival { index, ticket: None }));
        let passed: Vec<_> = batch(&queue, 1..=1).into_iter().map(Slot::pass).collect();
        assert_eq!((passed, queue.len()), (vec![0], 1));
    }
}
