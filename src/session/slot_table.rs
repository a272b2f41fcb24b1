//! The state of each slot: free, being written, or held by consumers.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::error::{Invalid, Mismatch, Result};
use crate::ipc::wire::ReleaseToken;

/// A slot of the ring that only the producer uses, and may write to.
///
/// [`Producer::publish`](super::Producer::publish) sends it to the consumers. Dropping it frees the
/// slot.
#[derive(Debug)]
#[must_use = "publish the slot; no consumer sees it otherwise"]
pub struct WritableSlot {
    index: usize,
    alive: Arc<()>,
}

impl WritableSlot {
    /// Returns the index of the slot, from 0. Its payload is the one at this index of
    /// [`Ring::slots`](super::Ring::slots).
    pub fn index(&self) -> usize {
        self.index
    }
}

#[derive(Debug)]
enum State {
    Free,
    /// The producer writes to it until its [`WritableSlot`] is dropped.
    Writing(Weak<()>),
    /// This many consumers hold it.
    Sent(usize),
}

/// The slots of a ring.
#[derive(Debug)]
pub(super) struct SlotTable {
    slots: Vec<State>,
    /// The free slots. The one that has been free for longest comes first.
    free: VecDeque<usize>,
}

impl SlotTable {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| State::Free).collect(), free: (0..slots).collect() }
    }

    /// Returns the slot that has been free for longest, or `None` if no slot is free.
    pub(super) fn take(&mut self) -> Option<WritableSlot> {
        for (index, state) in self.slots.iter_mut().enumerate() {
            if matches!(state, State::Writing(slot) if slot.strong_count() == 0) {
                *state = State::Free;
                self.free.push_back(index);
            }
        }
        let index = self.free.pop_front()?;
        let alive = Arc::new(());
        self.slots[index] = State::Writing(Arc::downgrade(&alive));
        Some(WritableSlot { index, alive })
    }

    /// Checks that the slot was taken from this table.
    pub(super) fn check_own(&self, slot: &WritableSlot) -> Result<()> {
        match self.slots.get(slot.index) {
            Some(State::Writing(own)) if own.as_ptr() == Arc::as_ptr(&slot.alive) => Ok(()),
            _ => Err(Mismatch::new("slot.producer", "this producer", "another producer")
                .help("publish a slot with the producer that it was taken from")
                .into()),
        }
    }

    /// Records that `holders` consumers hold the slot from now on.
    pub(super) fn sent(&mut self, slot: &WritableSlot, holders: usize) {
        self.slots[slot.index] = State::Sent(holders);
        if holders == 0 {
            self.release(slot.index, 0);
        }
    }

    /// Records that a consumer no longer holds the slot.
    pub(super) fn released(&mut self, index: usize) {
        self.release(index, 1);
    }

    fn release(&mut self, index: usize, by: usize) {
        if let Some(state @ State::Sent(_)) = self.slots.get_mut(index) {
            let State::Sent(holders) = state else { return };
            *holders = holders.saturating_sub(by);
            if *holders == 0 {
                *state = State::Free;
                self.free.push_back(index);
            }
        }
    }

    /// Returns whether consumers hold any slot.
    pub(super) fn is_any_sent(&self) -> bool {
        self.slots.iter().any(|state| matches!(state, State::Sent(_)))
    }
}

/// The slots that one consumer holds.
#[derive(Debug)]
pub(super) struct HeldSlots {
    /// The sequence number of the frame in each slot that it holds.
    frames: Vec<Option<u64>>,
    count: usize,
    /// When it last released a slot, or got one while it held none.
    since: Instant,
}

impl HeldSlots {
    pub(super) fn new(slots: usize) -> Self {
        Self { frames: vec![None; slots], count: 0, since: Instant::now() }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns for how long it has released none of its slots, or `None` if it holds none.
    pub(super) fn silent(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.since.elapsed())
    }

    pub(super) fn add(&mut self, slot: usize, sequence: u64) {
        if self.count == 0 {
            self.since = Instant::now();
        }
        if let Some(frame) = self.frames.get_mut(slot) {
            self.count += usize::from(frame.is_none());
            *frame = Some(sequence);
        }
    }

    /// Removes a slot.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) if it does not hold the slot, or holds it with another frame.
    pub(super) fn remove(&mut self, release: &ReleaseToken) -> Result<usize> {
        let ReleaseToken { slot, sequence } = *release;
        let index = slot as usize;
        let problem = match self.frames.get_mut(index) {
            Some(frame) if *frame == Some(sequence) => {
                *frame = None;
                self.count -= 1;
                self.since = Instant::now();
                return Ok(index);
            }
            Some(Some(other)) => format!("slot {slot} holds frame {other}, not {sequence}"),
            Some(None) => format!("slot {slot} is not held by the consumer"),
            None => format!("the ring has no slot {slot}"),
        };
        Err(Invalid::new("release", problem).help("release each frame once").into())
    }

    /// Returns the indices of the slots that it holds.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        let held = |(slot, frame): (usize, &Option<u64>)| frame.is_some().then_some(slot);
        self.frames.iter().enumerate().filter_map(held)
    }
}
