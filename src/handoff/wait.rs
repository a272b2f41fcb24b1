//! Waiting on the host for the work of the releasing side.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::vulkan;

/// How the host waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitMode {
    /// Sleeps until the driver wakes the thread.
    #[default]
    Block,
    /// Polls without sleeping: reacts sooner, but keeps a core busy.
    Spin,
}

/// How the host waits, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct HostWait {
    pub(crate) mode: WaitMode,
    pub(crate) timeout: Duration,
}

impl HostWait {
    /// Waits by calling `block` or by polling `is_done`.
    pub(crate) fn run(
        self,
        block: impl FnOnce(Duration) -> Result<()>,
        is_done: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let Self { mode, timeout } = self;
        if mode == WaitMode::Block {
            return block(timeout);
        }
        let start = Instant::now();
        while !is_done()? {
            if start.elapsed() >= timeout {
                let what = "the releasing side's work".into();
                return Err(Error::Timeout { what, waited: timeout });
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Waits for all of `fences`, for at most one timeout in total. The fences of one batch are
    /// equal and are waited for once.
    pub(crate) fn run_all<'f>(self, fences: impl Iterator<Item = &'f HostFence>) -> Result<()> {
        let mut previous: Option<&HostFence> = None;
        let distinct =
            fences.filter(|&fence| !previous.replace(fence).is_some_and(|one| one.is_same(fence)));
        self.each(distinct, |fence, wait| {
            wait.run(|timeout| fence.block(timeout), || fence.is_signaled())
        })
    }

    /// Calls `wait` for each of `items` with the remaining time. A timeout error reports the whole
    /// timeout.
    fn each<T>(
        self,
        items: impl Iterator<Item = T>,
        mut wait: impl FnMut(T, HostWait) -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        for item in items {
            let timeout = self.timeout.saturating_sub(start.elapsed());
            wait(item, HostWait { timeout, ..self }).map_err(|error| match error {
                Error::Timeout { what, .. } => Error::Timeout { what, waited: self.timeout },
                other => other,
            })?;
        }
        Ok(())
    }
}

/// Work of the releasing side that the host can wait for. Cheap to clone.
#[derive(Clone, Debug)]
pub enum HostFence {
    /// A submit.
    Vulkan(vulkan::Fence),
    /// Work on a stream.
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Fence),
    /// Nothing: the release has waited already.
    #[cfg(feature = "gl")]
    Done,
}

impl HostFence {
    /// Returns whether both are the same work, for which one wait is enough.
    fn is_same(&self, other: &HostFence) -> bool {
        match (self, other) {
            (Self::Vulkan(fence), Self::Vulkan(other)) => fence.is_same(other),
            #[cfg(feature = "cuda")]
            (Self::Cuda(fence), Self::Cuda(other)) => fence.is_same(other),
            #[cfg(feature = "gl")]
            (Self::Done, Self::Done) => true,
            #[cfg(any(feature = "cuda", feature = "gl"))]
            _ => false,
        }
    }

    fn block(&self, timeout: Duration) -> Result<()> {
        match self {
            Self::Vulkan(fence) => fence.wait(timeout),
            #[cfg(feature = "cuda")]
            Self::Cuda(fence) => fence.wait(timeout),
            #[cfg(feature = "gl")]
            Self::Done => Ok(()),
        }
    }

    fn is_signaled(&self) -> Result<bool> {
        match self {
            Self::Vulkan(fence) => fence.is_signaled(),
            #[cfg(feature = "cuda")]
            Self::Cuda(fence) => fence.is_signaled(),
            #[cfg(feature = "gl")]
            Self::Done => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(60);
    const BLOCK: HostWait = HostWait { mode: WaitMode::Block, timeout: TIMEOUT };

    #[test]
    fn several_fences_share_one_timeout() {
        let start = Instant::now();
        let mut left = Vec::new();
        // Each takes 25 ms, or times out sooner.
        let waited = BLOCK.each(0..10, |_, wait| {
            left.push(wait.timeout);
            let work = Duration::from_millis(25);
            std::thread::sleep(work.min(wait.timeout));
            let what = "a fence".into();
            if work > wait.timeout {
                Err(Error::Timeout { what, waited: wait.timeout })
            } else {
                Ok(())
            }
        });
        assert_eq!(waited, Err(Error::Timeout { what: "a fence".into(), waited: TIMEOUT }));
        assert!(left.len() <= 3 && left.is_sorted_by(|a, b| a > b), "{left:?}");
        assert!(start.elapsed() < 10 * TIMEOUT, "each waited the whole timeout");
    }

    #[test]
    fn an_error_other_than_a_timeout_is_returned_unchanged() {
        let broken = Error::from(crate::error::Invalid::new("fence", "is broken"));
        let waited = BLOCK.each(0..2, |_, _| Err(broken.clone()));
        assert_eq!(waited, Err(broken));
    }

    #[test]
    fn polling_ends_when_the_work_is_done_or_the_time_is_up() {
        let spin = HostWait { mode: WaitMode::Spin, timeout: Duration::from_millis(5) };
        let never = |_| -> Result<()> { panic!("a poll does not block") };
        assert_eq!(spin.run(never, || Ok(true)), Ok(()));
        let late = spin.run(never, || Ok(false));
        assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
    }
}
