//! Which parts of a shared resource are handed over, so that none is handed over twice.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::error::Result;
use crate::peer::released_already;

/// What handoffs have released of one resource and not acquired again. Each API's object of a resource
/// has its own.
#[derive(Debug, Default)]
pub(crate) struct Ownership(Mutex<SmallVec<[Released; 1]>>);

#[derive(Debug)]
struct Released {
    handoff: u64,
    part: Part,
}

/// A part of an image: its levels and layers. A buffer has only a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) levels: Range<u32>,
    pub(crate) layers: Range<u32>,
}

impl Part {
    /// The whole of any resource.
    pub(crate) const WHOLE: Self = Self { levels: 0..u32::MAX, layers: 0..u32::MAX };

    fn overlaps(&self, other: &Part) -> bool {
        let overlap = |a: &Range<u32>, b: &Range<u32>| a.start < b.end && b.start < a.end;
        overlap(&self.levels, &other.levels) && overlap(&self.layers, &other.layers)
    }
}

impl Ownership {
    fn released(&self) -> MutexGuard<'_, SmallVec<[Released; 1]>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that `handoff` releases `part` of a resource that `parameter` lists.
    ///
    /// # Errors
    /// [`Invalid`] if some of it is released already.
    pub(crate) fn release(&self, handoff: u64, part: &Part, parameter: &'static str) -> Result<()> {
        let mut released = self.released();
        if let Some(earlier) = released.iter().find(|earlier| earlier.part.overlaps(part)) {
            return Err(released_already(parameter, earlier.handoff));
        }
        released.push(Released { handoff, part: part.clone() });
        Ok(())
    }

    /// Records that `part` is back: acquired, or its release was never submitted.
    pub(crate) fn acquire(&self, part: &Part) {
        self.released().retain(|released| !released.part.overlaps(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_is_not_released_again_before_it_is_back() {
        let buffer = Ownership::default();
        buffer.release(3, &Part::WHOLE, "buffers").unwrap();
        let refused = buffer.release(4, &Part::WHOLE, "buffers").unwrap_err().to_string();
        assert!(refused.contains("handoff 3") && refused.contains("reclaim"), "{refused}");
        buffer.acquire(&Part::WHOLE);
        assert_eq!(buffer.release(4, &Part::WHOLE, "buffers"), Ok(()));
    }

    #[test]
    fn parts_of_an_image_are_released_one_by_one() {
        let part = |levels, layers| Part { levels, layers };
        let image = Ownership::default();
        image.release(1, &part(0..1, 0..4), "images").unwrap();
        image.release(2, &part(1..3, 0..2), "images").unwrap();
        image.release(3, &part(1..3, 2..4), "images").unwrap();
        assert!(image.release(4, &part(2..3, 1..3), "images").is_err());
        image.acquire(&part(1..3, 0..2));
        assert!(image.release(4, &part(2..3, 1..3), "images").is_err());
        image.acquire(&part(1..3, 2..4));
        assert_eq!(image.release(4, &part(2..3, 1..3), "images"), Ok(()));
    }
}
