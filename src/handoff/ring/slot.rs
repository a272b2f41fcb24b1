//! A slot that a station holds.

use std::sync::Arc;

use super::queue::{Arrival, Queue};

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
        if let Some(home) = self.home.take() {
            home.forget(self.index);
        }
        self.index
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.forget(self.index);
            home.push(Arrival { index: self.index, ticket: None });
        }
    }
}
