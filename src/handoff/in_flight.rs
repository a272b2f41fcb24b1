//! The releases of one way: their numbers, and which of them are not acquired yet.

use std::collections::VecDeque;
use std::ops::Range;

use crate::error::{Invalid, Result};

/// Which releases there were.
///
/// A count would not do: tickets may be acquired in any order, or never, and a binary semaphore can't
/// be signalled again before it was waited for.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The number of the last one.
    released: u64,
    /// Those that are not acquired, ascending. Its memory is kept from one release to the next.
    under_way: VecDeque<u64>,
}

impl InFlight {
    /// The numbers of the next `count` releases, if so many more may be under way among `limit`.
    pub(crate) fn next(&self, count: u64, limit: u64) -> Result<Range<u64>> {
        let (first, last) = (self.released + 1, self.released.saturating_add(count));
        if count > limit {
            let what = format!("{count} payloads at a time, where {limit} may be in flight");
            return Err(Invalid::new("release", what)
                .help("release fewer, or open the handoff with more in_flight")
                .into());
        }
        if let Some(oldest) = self.under_way.front().filter(|oldest| last - **oldest >= limit) {
            let what = format!("number {last} while number {oldest} is not yet acquired");
            return Err(Invalid::new("release", what)
                .help(format!(
                    "acquire it first: {limit} may be in flight; or open the handoff with more \
                     in_flight"
                ))
                .into());
        }
        Ok(first..last + 1)
    }

    /// The releases `numbers`, which [`next`](Self::next) gave, were made.
    pub(crate) fn release(&mut self, numbers: Range<u64>) {
        self.released = self.released.max(numbers.end.saturating_sub(1));
        self.under_way.extend(numbers);
    }

    /// A release was acquired.
    pub(crate) fn arrive(&mut self, number: u64) {
        if self.under_way.front() == Some(&number) {
            self.under_way.pop_front();
        } else if let Ok(at) = self.under_way.binary_search(&number) {
            self.under_way.remove(at);
        }
    }

    /// Takes a release back that never happened.
    pub(crate) fn withdraw(&mut self, number: u64) {
        self.arrive(number);
        if self.released == number {
            self.released -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use proptest::prelude::*;

    fn released(course: &mut InFlight, count: u64, limit: u64) -> Result<Range<u64>> {
        let numbers = course.next(count, limit)?;
        course.release(numbers.clone());
        Ok(numbers)
    }

    #[test]
    fn as_many_as_the_limit_are_under_way_and_no_more() {
        let mut course = InFlight::default();
        assert_eq!(released(&mut course, 2, 3), Ok(1..3));
        assert_eq!(released(&mut course, 1, 3), Ok(3..4));
        let refused = course.next(1, 3).unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
        // Not the oldest: a binary semaphore of number 1 is still signalled.
        course.arrive(2);
        assert!(course.next(1, 3).is_err());
        course.arrive(1);
        assert_eq!(course.next(1, 3), Ok(4..5));
        assert!(course.next(3, 3).is_err());
        assert_eq!(course.next(2, 3), Ok(4..6));
        assert!(course.next(4, 3).is_err());
    }

    #[test]
    fn what_is_withdrawn_never_happened() {
        let mut course = InFlight::default();
        released(&mut course, 2, 2).unwrap();
        assert!(course.next(1, 2).is_err());
        course.withdraw(2);
        course.withdraw(1);
        assert_eq!(course.next(2, 2), Ok(1..3));
    }

    proptest! {
        /// Whatever is done, no two releases that share a semaphore are under way together, which
        /// is what a limit is for.
        #[test]
        fn a_semaphore_is_never_signalled_twice(
            limit in 1u64..6,
            steps in prop::collection::vec((0u8..3, 1u64..4, any::<prop::sample::Index>()), 0..60),
        ) {
            let mut course = InFlight::default();
            let mut tickets: Vec<u64> = Vec::new();
            for (what, count, which) in steps {
                if what == 0 {
                    if let Ok(numbers) = released(&mut course, count, limit) {
                        tickets.extend(numbers);
                    }
                } else if !tickets.is_empty() {
                    let number = tickets.remove(which.index(tickets.len()));
                    // Only the last release can be taken back and its number given again.
                    if what == 1 { course.arrive(number) } else { course.withdraw(number) }
                }
                let mut used: Vec<_> = tickets.iter().map(|number| (number - 1) % limit).collect();
                used.sort_unstable();
                used.dedup();
                prop_assert_eq!(used.len(), tickets.len(), "{:?}", tickets);
            }
        }
    }
}
