//! Timeouts, and the clock that all processes of a machine share.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Text};

/// A timeout that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    started: Instant,
    timeout: Duration,
}

impl Deadline {
    /// Starts a timeout.
    pub(super) fn after(timeout: Duration) -> Self {
        Self { started: Instant::now(), timeout }
    }

    /// Returns how much time is left, or `None` if it has passed.
    pub(super) fn left(&self) -> Option<Duration> {
        self.timeout.checked_sub(self.started.elapsed()).filter(|left| !left.is_zero())
    }

    /// Returns the error for `what` not having happened in time.
    pub(super) fn error(&self, what: impl Into<Text>) -> Error {
        let waited = self.started.elapsed().min(self.timeout);
        Error::Timeout { what: what.into(), waited }
    }
}

/// Returns the time since a moment that is the same for all processes.
///
/// # References
/// clock_gettime(2), `CLOCK_MONOTONIC`. It is shifted between time namespaces.
pub(super) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_passes_once() {
        assert_eq!(Deadline::after(Duration::ZERO).left(), None);
        let long = Deadline::after(Duration::from_secs(60));
        let left = long.left().unwrap();
        assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(30), "{left:?}");
        let Error::Timeout { waited, .. } = long.error("a test") else { panic!() };
        assert!(waited < Duration::from_secs(30), "{waited:?}");
    }

    #[test]
    fn the_clock_advances_with_an_instant() {
        let (before, started) = (monotonic(), Instant::now());
        std::thread::sleep(Duration::from_millis(5));
        let (after, elapsed) = (monotonic(), started.elapsed());
        assert!(after - before >= Duration::from_millis(5));
        assert!(after - before <= elapsed + Duration::from_secs(20));
    }
}
