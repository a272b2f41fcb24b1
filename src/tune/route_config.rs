//! What a calibration tries: a route, so many payloads in flight, so many of them a submit.

use std::fmt;
use std::str::FromStr;

use super::route::Route;
use crate::error::{Error, Invalid, Result};
use crate::handoff::WaitMode;
use crate::payload::SemaphoreKind;
use crate::ring::MAX_DEPTH;

/// A way to pass payloads on that can be measured.
///
/// Prints and parses as `timeline:32` and `timeline:32x8`: 32 payloads in flight, 8 of them passed on
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RouteConfig {
    /// The route.
    pub route: Route,
    /// Payloads in flight: the slots of a ring, 1 to 64.
    pub depth: u32,
    /// Payloads that are passed on together: slots of a [`Batch`](crate::ring::Batch), at
    /// most as many as the ring has; in the queue the pairs of kernels of one submit, 1 to 64.
    pub batch: u32,
}

/// Depths and batches of the usual candidates, those that take least memory first.
const USUAL: [(u32, u32); 9] =
    [(1, 1), (2, 1), (4, 1), (8, 1), (8, 4), (16, 1), (16, 8), (32, 1), (32, 16)];

impl RouteConfig {
    /// `route` with `depth` payloads in flight, passed on one by one.
    ///
    /// # Errors
    /// [`Invalid`] for a depth that is not 1 to 64.
    pub fn new(route: Route, depth: u32) -> Result<Self> {
        if (1..=MAX_DEPTH).contains(&depth) {
            return Ok(Self { route, depth, batch: 1 });
        }
        let what = format!("{depth} payloads in flight");
        Err(Invalid::new("depth", what).help(format!("give 1 to {MAX_DEPTH}")).into())
    }

    /// The same with `batch` payloads at a time.
    ///
    /// # Errors
    /// [`Invalid`] for none, or more than there can be.
    pub fn batched(self, batch: u32) -> Result<Self> {
        let most = if self.route == Route::SameQueue { MAX_DEPTH } else { self.depth };
        if (1..=most).contains(&batch) {
            return Ok(Self { batch, ..self });
        }
        let what = format!("{batch} payloads at a time");
        Err(Invalid::new("batch", what).help(format!("give 1 to {most}")).into())
    }

    /// Candidates that are worth trying anywhere, the simplest first: less memory before more, and
    /// then in the order of [`Route::ALL`].
    pub fn usual() -> Vec<Self> {
        let routes = [
            Route::Semaphore(SemaphoreKind::Timeline),
            Route::Semaphore(SemaphoreKind::Binary),
            Route::HostWait(WaitMode::Block),
            Route::HostWait(WaitMode::Spin),
        ];
        let in_queue = |batch| Self { route: Route::SameQueue, depth: 1, batch };
        let mut all = Vec::new();
        for (depth, batch) in USUAL {
            all.extend(routes.map(|route| Self { route, depth, batch }));
            if depth == 1 {
                all.extend([in_queue(1), in_queue(16)]);
            }
        }
        all
    }
}

impl fmt::Display for RouteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.route, self.depth)?;
        if self.batch > 1 { write!(f, "x{}", self.batch) } else { Ok(()) }
    }
}

impl FromStr for RouteConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Invalid::new("candidate", format!("'{text}' is none"))
                .help("give a route, payloads in flight and, with an x, those passed on together: timeline:32x8")
        };
        let (route, numbers) = text.split_once(':').ok_or_else(refuse)?;
        let (depth, batch) = numbers.split_once('x').unwrap_or((numbers, "1"));
        let number = |text: &str| text.parse().map_err(|_| refuse());
        Self::new(route.parse()?, number(depth)?)?.batched(number(batch)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_and_batch_have_limits() {
        let timeline = Route::Semaphore(SemaphoreKind::Timeline);
        for depth in [0, 65] {
            assert!(matches!(RouteConfig::new(timeline, depth), Err(Error::Invalid(_))));
        }
        let four = RouteConfig::new(timeline, 4).unwrap();
        assert!(four.batched(4).is_ok() && four.batched(5).is_err() && four.batched(0).is_err());
        let in_queue = RouteConfig::new(Route::SameQueue, 1).unwrap();
        assert!(in_queue.batched(64).is_ok() && in_queue.batched(65).is_err());
        for wrong in ["timeline", "timeline:", "timeline:4x5", "timeline:0", "pigeon:4", ""] {
            assert!(matches!(wrong.parse::<RouteConfig>(), Err(Error::Invalid(_))), "{wrong}");
        }
    }

    #[test]
    fn the_usual_ones_are_valid_different_and_ordered_by_memory() {
        let usual = RouteConfig::usual();
        for (at, candidate) in usual.iter().enumerate() {
            assert_eq!(candidate.to_string().parse(), Ok(*candidate));
            assert!(!usual[..at].contains(candidate), "{candidate} twice");
        }
        assert!(usual.is_sorted_by_key(|candidate| candidate.depth));
    }

    proptest! {
        #[test]
        fn a_candidate_survives_printing(route in 0usize..5, depth in 1u32..=64, batch in 1u32..=64) {
            let candidate = RouteConfig::new(Route::ALL[route], depth).unwrap();
            let candidate = candidate.batched(batch.min(depth)).unwrap();
            prop_assert_eq!(candidate.to_string().parse::<RouteConfig>(), Ok(candidate));
        }
    }
}
