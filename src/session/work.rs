//! Waiting: timeouts, the clock that all processes of a machine share, and GPU work on a slot.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result, Text, counted};

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

    /// Returns the remaining time, or `None` if the timeout has passed.
    pub(super) fn left(&self) -> Option<Duration> {
        self.timeout.checked_sub(self.started.elapsed()).filter(|left| !left.is_zero())
    }

    /// Returns the error for `what`, which did not happen in time.
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

/// How long a drop waits for GPU work on a slot. After that, what the work uses is leaked.
pub(super) const WORK_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits on the host for GPU work, for at most the given time. Owns what the work uses.
type Wait = Box<dyn FnMut(Duration) -> Result<()> + Send>;

/// GPU work on a slot. What it uses is kept until the work is done.
#[derive(Default)]
pub(super) struct SlotWork(Vec<Wait>);

impl SlotWork {
    pub(super) fn add(&mut self, wait: impl FnMut(Duration) -> Result<()> + Send + 'static) {
        self.0.push(Box::new(wait));
    }

    /// Waits for at most `timeout`, and returns whether all work is done.
    pub(super) fn is_done(&mut self, timeout: Duration) -> bool {
        let deadline = Deadline::after(timeout);
        self.0.retain_mut(|wait| match wait(deadline.left().unwrap_or_default()) {
            Ok(()) => false,
            Err(Error::Timeout { .. }) => true,
            // Most likely a lost device, which no longer executes anything.
            Err(error) => {
                tracing::error!(%error, "waiting for GPU work on a slot");
                false
            }
        });
        self.0.is_empty()
    }

    /// Waits for at most `timeout`. What is used by work that is not done then is leaked, since the
    /// GPU may still access it.
    pub(super) fn end(&mut self, timeout: Duration) {
        if !self.is_done(timeout) {
            let running = counted(self.0.len(), "submission");
            tracing::warn!(%running, ?timeout, "GPU work on a slot does not end; what it uses is leaked");
            std::mem::forget(std::mem::take(&mut self.0));
        }
    }
}

impl Drop for SlotWork {
    fn drop(&mut self) {
        self.end(WORK_TIMEOUT);
    }
}

impl fmt::Debug for SlotWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotWork").field(&self.0.len()).finish()
    }
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

    #[test]
    fn what_work_uses_is_dropped_when_it_is_done_and_leaked_if_it_never_is() {
        let used = std::sync::Arc::new(());
        let mut work = SlotWork::default();
        let (mut steps, kept) = (0, used.clone());
        work.add(move |waited| {
            let _ = &kept;
            steps += 1;
            if steps < 3 { Err(Error::Timeout { what: "a fence".into(), waited }) } else { Ok(()) }
        });
        assert!(!work.is_done(Duration::ZERO) && !work.is_done(Duration::ZERO));
        assert_eq!(std::sync::Arc::strong_count(&used), 2);
        assert!(work.is_done(Duration::ZERO));
        assert_eq!(std::sync::Arc::strong_count(&used), 1);

        let kept = used.clone();
        work.add(move |waited| {
            let _ = &kept;
            Err(Error::Timeout { what: "a fence".into(), waited })
        });
        work.end(Duration::ZERO);
        drop(work);
        assert_eq!(std::sync::Arc::strong_count(&used), 2, "leaked");
    }
}
