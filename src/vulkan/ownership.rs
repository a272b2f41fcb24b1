//! Tracks which parts of a shared resource are released, so that none is released twice.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::error::Result;
use crate::peer::released_already;

/// The parts of one resource that handoffs have released and not acquired again. Each API's object
/// of a resource has its own.
#[derive(Debug, Default)]
pub(super) struct Ownership(Mutex<SmallVec<[Released; 1]>>);

#[derive(Debug)]
struct Released {
    by: Half,
    part: Part,
    /// The acquire that is recorded, but not submitted yet.
    acquired_by: Option<Half>,
}

/// One half of a handoff: its end, and a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    /// Twice the number of the handoff, plus 1 for the acquiring end.
    pub(super) end: u64,
    pub(super) number: u64,
}

/// A part of an image: levels and layers. For a buffer, always the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) levels: Range<u32>,
    pub(super) layers: Range<u32>,
}

impl Part {
    /// The whole of any resource.
    pub(super) const WHOLE: Self = Self { levels: 0..u32::MAX, layers: 0..u32::MAX };

    fn overlaps(&self, other: &Part) -> bool {
        let overlap = |a: &Range<u32>, b: &Range<u32>| a.start < b.end && b.start < a.end;
        overlap(&self.levels, &other.levels) && overlap(&self.layers, &other.layers)
    }
}

impl Ownership {
    fn released(&self) -> MutexGuard<'_, SmallVec<[Released; 1]>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the release of `part` of a resource that `parameter` lists.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) if some of it is released already.
    pub(super) fn release(&self, by: Half, part: &Part, parameter: &'static str) -> Result<()> {
        let mut released = self.released();
        let is_away = |one: &&Released| one.acquired_by.is_none() && one.part.overlaps(part);
        if let Some(earlier) = released.iter().find(is_away) {
            return Err(released_already(parameter, earlier.by.end / 2));
        }
        released.push(Released { by, part: part.clone(), acquired_by: None });
        Ok(())
    }

    /// Records the acquire of `part`.
    pub(super) fn acquire(&self, by: Half, part: &Part) {
        for released in self.released().iter_mut().filter(|released| released.part.overlaps(part)) {
            released.acquired_by.get_or_insert(by);
        }
    }

    /// Records that an acquire was submitted.
    pub(super) fn acquired(&self, by: Half) {
        self.released().retain(|released| released.acquired_by != Some(by));
    }

    /// Cancels a release or an acquire that will never be submitted.
    pub(super) fn abandon(&self, half: Half) {
        let mut released = self.released();
        released.retain(|released| released.by != half);
        for released in released.iter_mut().filter(|one| one.acquired_by == Some(half)) {
            released.acquired_by = None;
        }
    }

    /// Records that nothing is released.
    pub(super) fn reclaim(&self) {
        self.released().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A half of handoff 3.
    fn half(number: u64) -> Half {
        Half { end: 6, number }
    }

    #[test]
    fn a_released_part_is_not_released_again_before_it_is_acquired() {
        let buffer = Ownership::default();
        let release = |number| buffer.release(half(number), &Part::WHOLE, "buffers");
        release(1).unwrap();
        let refused = release(2).unwrap_err().to_string();
        assert!(refused.contains("handoff 3") && refused.contains("reclaim"), "{refused}");
        // Acquired and released in one submit, which is made or not.
        for (is_submitted, acquire, next) in [(true, half(7), 2), (false, half(8), 3)] {
            buffer.acquire(acquire, &Part::WHOLE);
            release(next).unwrap();
            if is_submitted {
                buffer.acquired(acquire);
            } else {
                buffer.abandon(half(next));
                buffer.abandon(acquire);
            }
            assert!(release(4).is_err());
        }
        buffer.reclaim();
        assert_eq!(release(4), Ok(()));
    }

    #[test]
    fn parts_of_an_image_are_released_one_by_one() {
        let part = |levels, layers| Part { levels, layers };
        let image = Ownership::default();
        let release = |number, part| image.release(half(number), &part, "images");
        release(1, part(0..1, 0..4)).unwrap();
        release(2, part(1..3, 0..2)).unwrap();
        release(3, part(1..3, 2..4)).unwrap();
        let both = part(2..3, 1..3);
        assert!(release(4, both.clone()).is_err());
        image.acquire(half(7), &part(1..3, 0..2));
        assert!(release(4, both.clone()).is_err());
        image.acquire(half(8), &part(1..3, 2..4));
        assert_eq!(release(4, both), Ok(()));
    }
}
