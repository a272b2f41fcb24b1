//! A frame that a consumer has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::connection::Connection;
use super::producer::left;
use crate::error::{Error, Result};
use crate::ipc::wire::{FrameToken, Layouts, TimelinePoint};

/// How long a wait for a semaphore goes on without a look at the session.
const LOOK: Duration = Duration::from_millis(50);

/// A slot with a frame in it, which nobody writes to until it is given back.
///
/// Dropping it gives it back as well, but does not tell whether it was the consumer's to the end.
#[derive(Debug)]
#[must_use = "release it when all work on it is done, or the producer runs out of slots"]
pub struct Frame {
    token: FrameToken,
    connection: Arc<Connection>,
    released: bool,
}

impl Frame {
    pub(super) fn new(token: FrameToken, connection: Arc<Connection>) -> Self {
        Self { token, connection, released: false }
    }

    /// Which slot of the ring it lies in, from 0: the place of its payload in
    /// [`Ring::slots`](super::Ring::slots).
    pub fn slot(&self) -> usize {
        self.token.slot as usize
    }

    /// The how manieth frame of the session it is, from 1.
    pub fn sequence(&self) -> u64 {
        self.token.sequence
    }

    /// What must be waited for before the slot is used; `None` where its work is done.
    ///
    /// A producer that dies never signals. So wait on the host, by [`wait`](Self::wait) say; who has the
    /// GPU wait instead has work in its queue that never ends when the producer dies.
    pub fn point(&self) -> Option<TimelinePoint> {
        self.token.point
    }

    /// The layouts of the release from which the slot's image is to be acquired.
    pub fn layouts(&self) -> Option<Layouts> {
        self.token.layouts
    }

    /// The producer's app's own.
    pub fn tag(&self) -> u64 {
        self.token.tag
    }

    /// How long ago the frame was published. By `CLOCK_MONOTONIC`, which all processes of a machine
    /// share, unless they are in different time namespaces.
    pub fn age(&self) -> Duration {
        clock::monotonic().saturating_sub(Duration::from_nanos(self.token.published))
    }

    /// Waits for the frame's [`point`](Self::point), where it has one, and no longer than the session
    /// lasts.
    ///
    /// `semaphore` waits on the host for the value of that semaphore, as the importing endpoint's
    /// semaphore does, and returns [`Error::Timeout`] where it is not reached in the time given.
    ///
    /// # Errors
    /// [`Error::Timeout`] where it is not reached in time, [`Error::Closed`] where the session has ended
    /// meanwhile (the frame is not good then), and whatever else `semaphore` returns.
    pub fn wait(
        &self,
        timeout: Duration,
        mut semaphore: impl FnMut(TimelinePoint, Duration) -> Result<()>,
    ) -> Result<()> {
        let Some(point) = self.token.point else { return self.check() };
        let started = Instant::now();
        loop {
            let step = left(timeout, started).unwrap_or_default().min(LOOK);
            match semaphore(point, step) {
                Err(Error::Timeout { .. }) => self.check()?,
                other => return other,
            }
            if started.elapsed() >= timeout {
                return Err(Error::Timeout { what: "the frame's work".into(), waited: timeout });
            }
        }
    }

    /// Whether the slot is still the consumer's: what was read up to now was not written over.
    ///
    /// # Errors
    /// [`Error::Closed`] where the consumer was evicted, or the producer ended without a word: then the
    /// slot may have been written to at any time, and what was read is not to be trusted.
    pub fn check(&self) -> Result<()> {
        self.connection.check()
    }

    /// Gives the slot back, and tells whether it was the consumer's to the end.
    ///
    /// All use of the slot is over, *as the host has seen it*: where the GPU read it, a fence was waited
    /// for. The producer writes to it as soon as all consumers have given it back.
    ///
    /// # Errors
    /// As [`check`](Self::check). The slot is given back in any case.
    pub fn release(mut self) -> Result<()> {
        self.released = true;
        self.connection.release(&self.token)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if !self.released
            && let Err(error) = self.connection.release(&self.token)
        {
            tracing::debug!(frame = self.token.sequence, %error, "dropped");
        }
    }
}
