//! What lies between two stations: slots that were passed and not yet taken.

use std::collections::VecDeque;
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
pub(super) struct Arrival {
    pub(super) index: usize,
    /// `None` where nobody has worked on it since this station had it.
    pub(super) ticket: Option<Ticket>,
}

/// Slots on their way to one station, and those that it holds.
#[derive(Debug, Default)]
pub(super) struct Queue {
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

impl Queue {
    pub(super) fn new(arrivals: impl Iterator<Item = Arrival>) -> Arc<Self> {
        let arrivals = arrivals.collect();
        let state = Mutex::new(State { arrivals, ..State::default() });
        Arc::new(Self { state, changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a slot behind the others.
    pub(super) fn push(&self, arrival: Arrival) {
        self.state().arrivals.push_back(arrival);
        self.changed.notify_one();
    }

    /// Puts a slot back before the others: it was taken and could not be acquired.
    pub(super) fn put_back(&self, arrival: Arrival) {
        let mut state = self.state();
        state.held.retain(|held| *held != arrival.index);
        state.arrivals.push_front(arrival);
        drop(state);
        self.changed.notify_one();
    }

    /// No more slots will come: a station is gone.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Takes the first slot; `None` where there is none and `wait` says not to wait.
    pub(super) fn take(&self, wait: Wait) -> Result<Option<Arrival>> {
        let mut state = self.state();
        let start = Instant::now();
        loop {
            if let Some(arrival) = state.arrivals.pop_front() {
                state.held.push(arrival.index);
                return Ok(Some(arrival));
            }
            if state.closed {
                return Err(Invalid::new("ring", "another station of it is gone")
                    .help("open a new ring")
                    .into());
            }
            let Wait::UpTo(timeout) = wait else { return Ok(None) };
            let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
            else {
                return Err(Error::Timeout { what: "a slot of the ring".into(), waited: timeout });
            };
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The station no longer holds a slot.
    pub(super) fn forget(&self, index: usize) {
        self.state().held.retain(|held| *held != index);
    }

    /// The slot that the station has held longest.
    pub(super) fn oldest_held(&self) -> Option<usize> {
        self.state().held.first().copied()
    }

    /// How many slots have arrived.
    pub(super) fn len(&self) -> usize {
        self.state().arrivals.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(index: usize) -> Arrival {
        Arrival { index, ticket: None }
    }

    #[test]
    fn slots_come_in_order_and_one_put_back_comes_first() {
        let queue = Queue::new((0..2).map(arrival));
        queue.push(arrival(2));
        let first = queue.take(Wait::No).unwrap().unwrap();
        assert_eq!((first.index, queue.len()), (0, 2));
        queue.put_back(first);
        let order: Vec<_> =
            std::iter::from_fn(|| queue.take(Wait::No).unwrap()).map(|slot| slot.index).collect();
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn an_empty_queue_says_so_or_times_out_and_works_again() {
        let queue = Queue::new(std::iter::empty());
        assert!(queue.take(Wait::No).unwrap().is_none());
        let late = queue.take(Wait::UpTo(Duration::from_millis(5)));
        assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
        queue.push(arrival(7));
        assert_eq!(queue.take(Wait::No).unwrap().unwrap().index, 7);
    }

    #[test]
    fn who_waits_is_woken_by_a_slot_and_by_the_end() {
        let queue = Queue::new(std::iter::empty());
        let patient = Wait::UpTo(Duration::from_secs(30));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.take(patient).map(|slot| slot.map(|s| s.index)));
            queue.push(arrival(3));
            assert_eq!(waiting.join().unwrap(), Ok(Some(3)));
            let waiting = scope.spawn(|| queue.take(patient));
            queue.close();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Invalid(_))));
        });
    }
}
