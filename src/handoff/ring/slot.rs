//! A slot that a station holds.

use std::sync::Arc;

use super::queue::{Arrival, Queue};
use crate::handoff::Ticket;

/// A slot of a ring, held by a station: the right to its buffer.
///
/// It is given on with the station's `release`. Dropping it puts it back before the station, to be
/// taken again; what it holds then is whatever was last written.
#[derive(Debug)]
#[must_use = "release it to the next station, or nobody gets to work on it"]
pub struct Slot {
    pub(super) index: usize,
    pub(super) ring: u64,
    /// Where it goes when it is dropped; `None` once it was passed on.
    pub(super) home: Option<Arc<Queue>>,
}

impl Slot {
    /// Its number, from 0 up to the ring's depth.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Ends the hold, because the slot goes on.
    pub(super) fn pass(mut self) -> usize {
        self.home = None;
        self.index
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.push(Arrival { index: self.index, ticket: None });
        }
    }
}

/// A slot whose release is recorded but not submitted yet.
///
/// [`send`](Self::send) it once the submit is made: a binary semaphore must not be waited for before
/// its signal is submitted. Dropping it instead is right only where the submit never happened; the
/// slot then stays with nobody.
#[derive(Debug)]
#[must_use = "send it when the submit is made, or the next station never gets the slot"]
pub struct Passing {
    pub(super) index: usize,
    pub(super) ticket: Ticket,
    pub(super) next: Arc<Queue>,
}

impl Passing {
    /// Gives the slot to the next station. The submit has been made.
    pub fn send(self) {
        self.next.push(Arrival { index: self.index, ticket: Some(self.ticket) });
    }
}
