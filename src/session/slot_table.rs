//! Which slot is whose. Pure: no socket, no clock but the caller's.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::error::{Invalid, Mismatch, Result};
use crate::ipc::wire::ReleaseToken;

/// A slot of the ring that the producer may write to, and nobody else has.
///
/// It goes to the consumers with [`Producer::publish`](super::Producer::publish). Dropping it makes it
/// free again.
#[derive(Debug)]
#[must_use = "publish it, or no consumer gets to see it"]
pub struct Slot {
    index: usize,
    alive: Arc<()>,
}

impl Slot {
    /// Its number, from 0: the place of its payload in [`Ring::slots`](super::Ring::slots).
    pub fn index(&self) -> usize {
        self.index
    }
}

#[derive(Debug)]
enum State {
    Free,
    /// The producer's, until its [`Slot`] is dropped.
    Writing(Weak<()>),
    /// With so many consumers.
    Sent(usize),
}

/// The slots of a ring.
#[derive(Debug)]
pub(super) struct SlotTable {
    slots: Vec<State>,
    /// The slots that are free, the one that has been for longest first.
    free: VecDeque<usize>,
}

impl SlotTable {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| State::Free).collect(), free: (0..slots).collect() }
    }

    /// A slot that nobody has; `None` where there is none.
    pub(super) fn take(&mut self) -> Option<Slot> {
        for (index, state) in self.slots.iter_mut().enumerate() {
            if matches!(state, State::Writing(slot) if slot.strong_count() == 0) {
                *state = State::Free;
                self.free.push_back(index);
            }
        }
        let index = self.free.pop_front()?;
        let alive = Arc::new(());
        self.slots[index] = State::Writing(Arc::downgrade(&alive));
        Some(Slot { index, alive })
    }

    /// Checks that the slot is one that this ledger gave out.
    pub(super) fn check_own(&self, slot: &Slot) -> Result<()> {
        match self.slots.get(slot.index) {
            Some(State::Writing(own)) if own.as_ptr() == Arc::as_ptr(&slot.alive) => Ok(()),
            _ => Err(Mismatch::new("the slot's session", "this one", "another one")
                .help("publish a slot with the producer that it was taken from")
                .into()),
        }
    }

    /// The slot is with so many consumers from now on.
    pub(super) fn sent(&mut self, slot: &Slot, holders: usize) {
        self.slots[slot.index] = State::Sent(holders);
        if holders == 0 {
            self.release(slot.index, 0);
        }
    }

    /// A consumer no longer has the slot.
    pub(super) fn given_back(&mut self, index: usize) {
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

    /// Whether consumers have any slot.
    pub(super) fn is_any_sent(&self) -> bool {
        self.slots.iter().any(|state| matches!(state, State::Sent(_)))
    }
}

/// The slots that one consumer has.
#[derive(Debug)]
pub(super) struct Held {
    /// The frame that each slot was sent with.
    frames: Vec<Option<u64>>,
    count: usize,
    /// When it last gave one back, or got the first.
    since: Instant,
}

impl Held {
    pub(super) fn new(slots: usize) -> Self {
        Self { frames: vec![None; slots], count: 0, since: Instant::now() }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How long it has had slots and given none back; `None` where it has none.
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

    /// Takes a slot back.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) for a slot that it does not have, or had with another frame.
    pub(super) fn take_back(&mut self, release: &ReleaseToken) -> Result<usize> {
        let ReleaseToken { slot, sequence } = *release;
        let index = slot as usize;
        let problem = match self.frames.get_mut(index) {
            Some(frame) if *frame == Some(sequence) => {
                *frame = None;
                self.count -= 1;
                self.since = Instant::now();
                return Ok(index);
            }
            Some(Some(other)) => format!("slot {slot} was sent with frame {other}, not {sequence}"),
            Some(None) => format!("slot {slot} is not the consumer's"),
            None => format!("the ring has no slot {slot}"),
        };
        Err(Invalid::new("release", problem).help("give each frame back once").into())
    }

    /// The slots that it has.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        let held = |(slot, frame): (usize, &Option<u64>)| frame.is_some().then_some(slot);
        self.frames.iter().enumerate().filter_map(held)
    }
}
