//! The slots that are queued for a stage, and the slots that it holds.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::error::{Error, Invalid, Result};
use crate::handoff::Ticket;

/// What to do if no slot has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Return `None` at once.
    No,
    /// Wait up to this long, then fail with [`Error::Timeout`]. The ring stays usable.
    UpTo(Duration),
}

/// A queued slot.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) index: usize,
    /// `None` if no other stage has held it since this one.
    pub(crate) ticket: Option<Ticket>,
}

/// The slots queued for one stage, and the slots that it holds.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrivals: VecDeque<Arrival>,
    /// Slots that were taken and not yet released, oldest first.
    held: Vec<usize>,
    /// The tickets of held slots whose acquire was never submitted.
    unacquired: Vec<(usize, Ticket)>,
    closed: bool,
}

impl State {
    fn forget(&mut self, index: usize) {
        // Usually the first: slots are released in the order in which they were taken.
        if let Some(at) = self.held.iter().position(|held| *held == index) {
            self.held.remove(at);
        }
    }
}

/// The slots of one batch, usually few.
pub(crate) type Arrivals = SmallVec<[Arrival; 4]>;

/// Slots that were taken and are not acquired yet. Dropping this puts them back at the front.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    queue: &'a Queue,
    pub(crate) arrivals: Arrivals,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.arrivals.is_empty() {
            return;
        }
        let mut state = self.queue.state();
        while let Some(arrival) = self.arrivals.pop() {
            state.forget(arrival.index);
            state.arrivals.push_front(arrival);
        }
        drop(state);
        self.queue.changed.notify_one();
    }
}

impl Queue {
    pub(crate) fn new(arrivals: impl Iterator<Item = Arrival>) -> Arc<Self> {
        let arrivals = arrivals.collect();
        let state = Mutex::new(State { arrivals, ..State::default() });
        Arc::new(Self { state, changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends slots.
    pub(crate) fn push(&self, arrivals: impl IntoIterator<Item = Arrival>) {
        self.state().arrivals.extend(arrivals);
        self.changed.notify_one();
    }

    /// Closes the queue: a stage was dropped, so no more slots will come.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Takes slots from the front, as many as `how_many` allows; `None` if there are too few and
    /// `wait` is [`Wait::No`]. A closed queue returns the slots that are left, even if they are too
    /// few.
    pub(crate) fn take(
        &self,
        wait: Wait,
        how_many: &RangeInclusive<usize>,
    ) -> Result<Option<Taken<'_>>> {
        let mut state = self.state();
        // The clock is read only if there is something to wait for.
        let mut start = None;
        loop {
            let arrived = state.arrivals.len();
            if arrived >= *how_many.start() || (state.closed && arrived > 0) {
                let count = arrived.min(*how_many.end());
                let State { arrivals, held, .. } = &mut *state;
                held.extend(arrivals.iter().take(count).map(|arrival| arrival.index));
                return Ok(Some(Taken {
                    queue: self,
                    arrivals: arrivals.drain(..count).collect(),
                }));
            }
            if state.closed {
                return Err(Invalid::new("ring", "another of its stages was dropped")
                    .help("open a new ring")
                    .into());
            }
            let Wait::UpTo(timeout) = wait else { return Ok(None) };
            let start = *start.get_or_insert_with(Instant::now);
            let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
            else {
                let what = match how_many.start() {
                    1 => "the arrival of a slot of the ring".into(),
                    least => format!("the arrival of {least} slots of the ring").into(),
                };
                return Err(Error::Timeout { what, waited: timeout });
            };
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Removes these slots from those that the stage holds.
    pub(crate) fn forget(&self, indices: impl Iterator<Item = usize>) {
        let mut state = self.state();
        indices.for_each(|index| state.forget(index));
    }

    /// Queues a held slot again.
    pub(crate) fn return_slot(&self, index: usize) {
        let mut state = self.state();
        state.forget(index);
        let at = state.unacquired.iter().position(|(held, _)| *held == index);
        let ticket = at.map(|at| state.unacquired.swap_remove(at).1);
        state.arrivals.push_back(Arrival { index, ticket });
        drop(state);
        self.changed.notify_one();
    }

    /// Gives a slot its ticket back, because its acquire was never submitted.
    pub(crate) fn return_ticket(&self, index: usize, ticket: Ticket) {
        let mut state = self.state();
        match state.arrivals.iter_mut().find(|arrival| arrival.index == index) {
            Some(returned) => returned.ticket = Some(ticket),
            None => state.unacquired.push((index, ticket)),
        }
    }

    /// Returns whether the acquire of one of these slots was never submitted.
    pub(crate) fn is_unacquired(&self, mut slots: impl Iterator<Item = usize>) -> bool {
        let state = self.state();
        !state.unacquired.is_empty()
            && slots.any(|slot| state.unacquired.iter().any(|(held, _)| *held == slot))
    }

    /// Checks that `slots` are the slots that the stage has held longest, in order; otherwise
    /// returns the one that it has held longest.
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

    /// Returns how many slots have arrived.
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

    /// Returns the slots that can be taken now.
    fn taken(queue: &Queue, wait: Wait, how_many: RangeInclusive<usize>) -> Result<Vec<usize>> {
        let taken = queue.take(wait, &how_many)?;
        let arrivals = taken.into_iter().flat_map(|mut taken| std::mem::take(&mut taken.arrivals));
        Ok(arrivals.map(|arrival| arrival.index).collect())
    }

    #[test]
    fn slots_come_in_order_and_those_put_back_come_first() {
        let queue = Queue::new((0..3).map(arrival));
        queue.push([arrival(3)]);
        let first = queue.take(Wait::No, &(1..=2)).unwrap().unwrap();
        assert_eq!((first.arrivals.len(), queue.len()), (2, 2));
        drop(first);
        assert_eq!(taken(&queue, Wait::No, 1..=64), Ok(vec![0, 1, 2, 3]));
        assert_eq!(taken(&queue, Wait::No, 1..=64), Ok(vec![]));
    }

    #[test]
    fn too_few_slots_are_taken_only_if_no_more_will_come() {
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
    fn held_slots_have_an_order() {
        let queue = Queue::new((0..4).map(arrival));
        taken(&queue, Wait::No, 4..=4).unwrap();
        assert_eq!(queue.are_oldest([0, 1].into_iter()), Ok(()));
        assert_eq!(queue.are_oldest([1, 0].into_iter()), Err(Some(0)));
        queue.forget([0].into_iter());
        assert_eq!(queue.are_oldest([1].into_iter()), Ok(()));
        queue.return_slot(1);
        assert_eq!(queue.are_oldest([2, 3].into_iter()), Ok(()));
        assert_eq!(queue.are_oldest([2, 3, 1].into_iter()), Err(Some(2)));
        assert_eq!(taken(&queue, Wait::No, 1..=1), Ok(vec![1]));
    }

    #[test]
    fn an_empty_queue_returns_none_or_times_out_and_works_again() {
        let queue = Queue::new(std::iter::empty());
        assert_eq!(taken(&queue, Wait::No, 1..=1), Ok(vec![]));
        let late = taken(&queue, Wait::UpTo(Duration::from_millis(5)), 1..=1);
        assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
        queue.push([arrival(7)]);
        assert_eq!(taken(&queue, Wait::No, 1..=1), Ok(vec![7]));
    }

    #[test]
    fn a_waiting_thread_is_woken_by_a_slot_and_by_the_end() {
        let queue = Queue::new(std::iter::empty());
        let long = Wait::UpTo(Duration::from_secs(30));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| taken(&queue, long, 1..=1));
            queue.push([arrival(3)]);
            assert_eq!(waiting.join().unwrap(), Ok(vec![3]));
            let waiting = scope.spawn(|| taken(&queue, long, 2..=2));
            queue.push([arrival(4)]);
            queue.push([arrival(5)]);
            assert_eq!(waiting.join().unwrap(), Ok(vec![4, 5]));
            let waiting = scope.spawn(|| taken(&queue, long, 1..=1));
            queue.close();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Invalid(_))));
        });
    }
}
