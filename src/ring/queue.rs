//! What lies between two stations: slots that were passed and not yet taken.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Invalid, Result};
use crate::handoff::Ticket;

/// What to do when no slot has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Say so at once.
    No,
    /// Wait so long, then fail with [`Error::Timeout`]. The ring stays usable.
    UpTo(Duration),
}

/// A slot on its way.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) index: usize,
    /// `None` where nobody has worked on it since this station had it.
    pub(crate) ticket: Option<Ticket>,
}

/// Slots on their way to one station, and those that it holds.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrivals: VecDeque<Arrival>,
    /// Taken and not yet passed on, the oldest first.
    held: Vec<usize>,
    closed: bool,
}

impl State {
    fn forget(&mut self, index: usize) {
        // Mostly the first: slots are passed on in the order in which they were taken.
        if let Some(at) = self.held.iter().position(|held| *held == index) {
            self.held.remove(at);
        }
    }
}

impl Queue {
    pub(crate) fn new(arrivals: impl Iterator<Item = Arrival>) -> Arc<Self> {
        let arrivals = arrivals.collect();
        let state = Mutex::new(State { arrivals, ..State::default() });
        Arc::new(Self { state, changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds slots behind the others.
    pub(crate) fn push(&self, arrivals: impl IntoIterator<Item = Arrival>) {
        self.state().arrivals.extend(arrivals);
        self.changed.notify_one();
    }

    /// Puts slots back before the others: they were taken and could not be acquired.
    pub(crate) fn put_back(&self, arrivals: &mut Vec<Arrival>) {
        let mut state = self.state();
        while let Some(arrival) = arrivals.pop() {
            state.forget(arrival.index);
            state.arrivals.push_front(arrival);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// No more slots will come: a station is gone.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Moves the first slots to `taken`, as many as `how_many` allows; `false` where there are too few
    /// and `wait` says not to wait. Where no more will come, those that are left are enough.
    pub(crate) fn take(
        &self,
        wait: Wait,
        how_many: &RangeInclusive<usize>,
        taken: &mut Vec<Arrival>,
    ) -> Result<bool> {
        let mut state = self.state();
        // The clock is asked only where there is something to wait for.
        let mut start = None;
        loop {
            let arrived = state.arrivals.len();
            if arrived >= *how_many.start() || (state.closed && arrived > 0) {
                let count = arrived.min(*how_many.end());
                let State { arrivals, held, .. } = &mut *state;
                held.extend(arrivals.iter().take(count).map(|arrival| arrival.index));
                taken.extend(arrivals.drain(..count));
                return Ok(true);
            }
            if state.closed {
                return Err(Invalid::new("ring", "another station of it is gone")
                    .help("open a new ring")
                    .into());
            }
            let Wait::UpTo(timeout) = wait else { return Ok(false) };
            let start = *start.get_or_insert_with(Instant::now);
            let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
            else {
                let what = match how_many.start() {
                    1 => "a slot of the ring".into(),
                    least => format!("{least} slots of the ring").into(),
                };
                return Err(Error::Timeout { what, waited: timeout });
            };
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The station no longer holds these slots.
    pub(crate) fn forget(&self, indices: impl Iterator<Item = usize>) {
        let mut state = self.state();
        indices.for_each(|index| state.forget(index));
    }

    /// Puts a slot that was held behind the others.
    pub(crate) fn give_up(&self, index: usize) {
        let mut state = self.state();
        state.forget(index);
        state.arrivals.push_back(Arrival { index, ticket: None });
        drop(state);
        self.changed.notify_one();
    }

    /// Whether `slots` are those that the station has held longest, in their order; else the one that
    /// it has held longest.
    pub(crate) fn are_oldest(
        &self,
        slots: impl Iterator<Item = usize>,
    ) -> Result<(), Option<usize>> {
        let state = self.state();
        let mut held = state.held.iter().copied();
        for slot in slots {
            if held.next() != Some(slot) {
                return Err(state.held.first().copied());
            }
        }
        Ok(())
    }

    /// How many slots have arrived.
    pub(crate) fn len(&self) -> usize {
        self.state().arrivals.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(index: usize) -> Arrival {
        Arrival { index, ticket: None }
    }

    /// The slots that are taken now.
    fn taken(queue: &Queue, wait: Wait, how_many: RangeInclusive<usize>) -> Result<Vec<usize>> {
        let mut taken = Vec::new();
        queue.take(wait, &how_many, &mut taken)?;
        Ok(taken.into_iter().map(|arrival| arrival.index).collect())
    }

    #[test]
    fn slots_come_in_order_and_those_put_back_come_first() {
        let queue = Queue::new((0..3).map(arrival));
        queue.push([arrival(3)]);
        let mut first = Vec::new();
        assert_eq!(queue.take(Wait::No, &(1..=2), &mut first), Ok(true));
        assert_eq!((first.len(), queue.len()), (2, 2));
        queue.put_back(&mut first);
        assert!(first.is_empty());
        assert_eq!(taken(&queue, Wait::No, 1..=64), Ok(vec![0, 1, 2, 3]));
        assert_eq!(taken(&queue, Wait::No, 1..=64), Ok(vec![]));
    }

    #[test]
    fn too_few_are_none_until_no_more_will_come() {
        let queue = Queue::new((0..3).map(arrival));
        assert_eq!(taken(&queue, Wait::No, 4..=8), Ok(vec![]));
        let short = Wait::UpTo(Duration::from_millis(5));
        let late = taken(&queue, short, 4..=8);
        assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
        queue.close();
        assert_eq!(taken(&queue, Wait::No, 4..=8), Ok(vec![0, 1, 2]));
        assert!(matches!(taken(&queue, Wait::No, 1..=1), Err(Error::Invalid(_))));
    }

    #[test]
    fn what_is_held_has_an_order() {
        let queue = Queue::new((0..4).map(arrival));
        taken(&queue, Wait::No, 4..=4).unwrap();
        assert_eq!(queue.are_oldest([0, 1].into_iter()), Ok(()));
        assert_eq!(queue.are_oldest([1, 0].into_iter()), Err(Some(0)));
        queue.forget([0].into_iter());
        assert_eq!(queue.are_oldest([1].into_iter()), Ok(()));
        queue.give_up(1);
        assert_eq!(queue.are_oldest([2, 3].into_iter()), Ok(()));
        assert_eq!(queue.are_oldest([2, 3, 1].into_iter()), Err(Some(2)));
        assert_eq!(taken(&queue, Wait::No, 1..=1), Ok(vec![1]));
    }

    #[test]
    fn an_empty_queue_says_so_or_times_out_and_works_again() {
        let queue = Queue::new(std::iter::empty());
        assert_eq!(taken(&queue, Wait::No, 1..=1), Ok(vec![]));
        let late = taken(&queue, Wait::UpTo(Duration::from_millis(5)), 1..=1);
        assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
        queue.push([arrival(7)]);
        assert_eq!(taken(&queue, Wait::No, 1..=1), Ok(vec![7]));
    }

    #[test]
    fn who_waits_is_woken_by_a_slot_and_by_the_end() {
        let queue = Queue::new(std::iter::empty());
        let patient = Wait::UpTo(Duration::from_secs(30));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| taken(&queue, patient, 1..=1));
            queue.push([arrival(3)]);
            assert_eq!(waiting.join().unwrap(), Ok(vec![3]));
            let waiting = scope.spawn(|| taken(&queue, patient, 2..=2));
            queue.push([arrival(4)]);
            queue.push([arrival(5)]);
            assert_eq!(waiting.join().unwrap(), Ok(vec![4, 5]));
            let waiting = scope.spawn(|| taken(&queue, patient, 1..=1));
            queue.close();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Invalid(_))));
        });
    }
}
