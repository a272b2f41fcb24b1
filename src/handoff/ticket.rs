//! The ticket that goes from the releasing side to the acquiring side.

use std::time::{Duration, Instant};

use super::layouts::Layouts;
use crate::error::{Error, ImportError, Result};
use crate::vulkan;

/// An acquire that failed: why, and the ticket, to be tried again.
pub type AcquireError = ImportError<Ticket>;

/// One release, to be acquired once.
///
/// It says which handoff it belongs to, its place in the order of releases, the layouts that images
/// were released with, and, where the host waits, what for. Pass it on once the release is submitted:
/// a binary semaphore must not be waited for before its signal is on its way. Where the submit failed,
/// take it back with [`Releaser::withdraw`](super::Releaser::withdraw). Dropping it leaves the payload
/// with nobody; a binary semaphore then stays signalled, and the release that would use it again,
/// `in_flight` later, is refused.
#[derive(Debug)]
#[must_use = "the other side acquires with the ticket; without it the payload belongs to nobody"]
pub struct Ticket {
    pub(crate) lane: u64,
    pub(crate) sequence: u64,
    /// Shared by those that were released together.
    pub(crate) host: Option<HostFence>,
    pub(crate) layouts: Layouts,
}

impl Ticket {
    /// The how manieth release of its handoff this is, from 1. Where a timeline semaphore
    /// synchronises, this is the value that the release signals.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// How the host waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitMode {
    /// Asleep until the driver wakes the thread.
    #[default]
    Block,
    /// Asking over and over: wakes up sooner, and keeps a core busy.
    Spin,
}

/// Work of the releasing side, as the host sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum HostFence {
    Vulkan(vulkan::Fence),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Fence),
    /// Waited for already, at the release.
    #[cfg(feature = "gl")]
    Done,
}

impl WaitMode {
    /// Waits in this mode for what `block` sleeps for and `is_done` tells.
    pub(crate) fn wait(
        self,
        timeout: Duration,
        block: impl FnOnce(Duration) -> Result<()>,
        is_done: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        if self == Self::Block {
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
}

impl HostFence {
    /// Whether both are the same work, for which it is enough to wait once.
    pub(crate) fn is_same(&self, other: &HostFence) -> bool {
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

    pub(crate) fn block(&self, timeout: Duration) -> Result<()> {
        match self {
            Self::Vulkan(fence) => fence.wait(timeout),
            #[cfg(feature = "cuda")]
            Self::Cuda(fence) => fence.wait(timeout),
            #[cfg(feature = "gl")]
            Self::Done => Ok(()),
        }
    }

    pub(crate) fn is_signaled(&self) -> Result<bool> {
        match self {
            Self::Vulkan(fence) => fence.is_signaled(),
            #[cfg(feature = "cuda")]
            Self::Cuda(fence) => fence.is_signaled(),
            #[cfg(feature = "gl")]
            Self::Done => Ok(true),
        }
    }
}
