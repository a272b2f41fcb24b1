//! A frame that a consumer holds.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{self, Deadline};
use super::producer_connection::ProducerConnection;
use crate::error::{Error, Result};
use crate::ipc::wire::{FrameToken, Layouts, TimelinePoint};

/// How long a wait for a semaphore goes on before the session is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A slot that contains a frame. The producer does not write to it until it is released.
///
/// Dropping the frame releases the slot too, but does not report whether the frame was valid to the
/// end.
#[derive(Debug)]
#[must_use = "release the frame when all work on it is done; the producer runs out of slots otherwise"]
pub struct Frame {
    token: FrameToken,
    connection: Arc<ProducerConnection>,
    released: bool,
}

impl Frame {
    pub(super) fn new(token: FrameToken, connection: Arc<ProducerConnection>) -> Self {
        Self { token, connection, released: false }
    }

    /// Returns the index of the slot, from 0. Its payload is the one at this index of
    /// [`Ring::slots`](super::Ring::slots).
    pub fn slot(&self) -> usize {
        self.token.slot as usize
    }

    /// Returns the sequence number of the frame in the session, starting at 1.
    pub fn sequence(&self) -> u64 {
        self.token.sequence
    }

    /// Returns what must be waited for before the slot is used, or `None` if the frame is complete.
    ///
    /// Wait on the host, for example with [`wait`](Self::wait). A producer that dies never signals; a
    /// wait that was submitted to the GPU would then never end.
    pub fn point(&self) -> Option<TimelinePoint> {
        self.token.point
    }

    /// Returns the layouts of the producer's release. The acquire of the slot's image must use the same
    /// two.
    pub fn layouts(&self) -> Option<Layouts> {
        self.token.layouts
    }

    /// Returns the number that the producer's app gave to the frame.
    pub fn tag(&self) -> u64 {
        self.token.tag
    }

    /// Returns the time since the frame was published.
    ///
    /// # References
    /// `CLOCK_MONOTONIC`, which all processes of a machine share unless they are in different time
    /// namespaces.
    pub fn age(&self) -> Duration {
        clock::monotonic().saturating_sub(Duration::from_nanos(self.token.published))
    }

    /// Waits for the frame's [`point`](Self::point), if it has one, but not after the session has ended.
    ///
    /// `semaphore` waits on the host until the imported semaphore has the value, and returns
    /// [`Error::Timeout`] if it does not within the given time.
    ///
    /// # Errors
    /// - [`Error::Timeout`]: the value was not reached in time.
    /// - [`Error::Closed`]: the session has ended, and the frame is not valid.
    /// - Any other error that `semaphore` returns.
    pub fn wait(
        &self,
        timeout: Duration,
        mut semaphore: impl FnMut(TimelinePoint, Duration) -> Result<()>,
    ) -> Result<()> {
        let Some(point) = self.token.point else { return self.check() };
        let deadline = Deadline::after(timeout);
        loop {
            let left = deadline.left().unwrap_or_default();
            match semaphore(point, left.min(CHECK_INTERVAL)) {
                Err(Error::Timeout { .. }) => self.check()?,
                other => return other,
            }
            if deadline.left().is_none() {
                return Err(deadline.error("the completion of a frame"));
            }
        }
    }

    /// Checks that the frame is still valid: everything that was read until now was not written over.
    ///
    /// # Errors
    /// [`Error::Closed`] if the consumer was evicted, or the connection ended without *leave*. The
    /// producer may have written to the slot at any time; discard what was read.
    pub fn check(&self) -> Result<()> {
        self.connection.check()
    }

    /// Releases the slot, and checks that the frame was valid to the end.
    ///
    /// All use of the slot must be over *on the host*: if the GPU read it, its fence was waited for. The
    /// producer writes to the slot once all consumers have released it.
    ///
    /// # Errors
    /// The errors of [`check`](Self::check). The slot is released in any case.
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
            tracing::debug!(frame = self.token.sequence, %error, "a frame was dropped");
        }
    }
}
