//! A release that is recorded but not submitted yet.

use std::sync::{Arc, Mutex, PoisonError};

use super::queue::{Arrivals, Queue};
use crate::vulkan::Fence;

/// The fence of the last submit that a stage made.
pub(crate) type LastSubmit = Arc<Mutex<Option<Fence>>>;

/// Slots whose release is recorded but not submitted yet.
///
/// Call [`submitted`](Self::submitted) once the submit is made: a binary semaphore must not be waited
/// for before its signal is submitted. Dropping it instead means that the submit did not happen: the
/// slots go back to their stage.
#[derive(Debug)]
#[must_use = "call `submitted` when the submit is made; dropping it takes the release back"]
pub struct PendingRelease {
    /// Empty once the next stage has them.
    pub(crate) slots: Arrivals,
    /// Where the slots came from.
    pub(crate) home: Arc<Queue>,
    /// Where they go.
    pub(crate) next: Arc<Queue>,
    /// What the stage waits for at its end.
    pub(crate) fence: Option<(LastSubmit, Fence)>,
}

impl PendingRelease {
    /// Gives the slots to the next stage. The submit has been made.
    pub fn submitted(mut self) {
        if let Some((last, fence)) = self.fence.take() {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(fence);
        }
        self.next.push(self.slots.drain(..));
    }
}

impl Drop for PendingRelease {
    fn drop(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        // The last release first, so that all numbers are free again.
        for ticket in self.slots.iter_mut().rev().filter_map(|slot| slot.ticket.take()) {
            ticket.withdraw();
        }
        self.home.push(self.slots.drain(..));
    }
}
