//! CUDA's ends of a handoff: waits and signals on the user's stream.

use std::ops::Range;

use cudarc::driver::CudaStream;

use super::channel::{Acquirer, Points, Releaser};
use super::peer::{HandoffPeer, sealed};
use super::semaphore_ops::SemaphoreOp;
use super::ticket::{AcquireError, HostFence, Ticket};
use crate::capabilities::SyncMethod;
use crate::cuda::{Endpoint, Fence, Semaphore};
use crate::error::Result;

impl sealed::Sealed for Endpoint {}

impl HandoffPeer for Endpoint {
    type Fences = ();

    fn fences(&self) -> Result<()> {
        Ok(())
    }
}

impl Releaser<Endpoint> {
    /// Releases what the work on `stream` so far has done.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where as many releases are under way as may be, or the
    /// stream is of another context.
    pub fn release(&mut self, stream: &CudaStream) -> Result<Ticket> {
        let sequences = self.next_sequences(1)?;
        let host = self.signal(stream, sequences.clone())?;
        Ok(self.ticket(sequences, host))
    }

    /// Releases `count` payloads that the work on `stream` so far has done with, by one signal. The
    /// fence is there where the host waits.
    pub(crate) fn release_many(
        &mut self,
        stream: &CudaStream,
        count: usize,
    ) -> Result<(impl ExactSizeIterator<Item = Ticket> + use<>, Option<Fence>)> {
        let sequences = self.next_sequences(count)?;
        let host = self.signal(stream, sequences.clone())?;
        let fence = match &host {
            Some(HostFence::Cuda(fence)) => Some(fence.clone()),
            _ => None,
        };
        Ok((self.tickets(sequences, host), fence))
    }

    /// Signals on `stream` for the releases `sequences`, or tells what the host waits for.
    fn signal(&self, stream: &CudaStream, sequences: Range<u64>) -> Result<Option<HostFence>> {
        if self.lane.method == SyncMethod::HostWait {
            return Ok(Some(HostFence::Cuda(self.endpoint.fence(stream)?)));
        }
        let mut points = self.points(sequences);
        let Some(SemaphoreOp { semaphore, value }) = points.next() else { return Ok(None) };
        match others((semaphore, value), &mut points) {
            None => self.endpoint.signal(stream, semaphore, value)?,
            Some(signals) => self.endpoint.signal_many(stream, &signals)?,
        }
        Ok(None)
    }
}

impl Acquirer<Endpoint> {
    /// Makes the work that follows on `stream` wait for the release of `ticket`. Where the host
    /// waits, it waits here.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a ticket of another handoff,
    /// [`Invalid`](crate::error::Invalid) where the stream is of another context,
    /// [`Timeout`](crate::Error::Timeout) where the host waited too long; the ticket comes back.
    pub fn acquire(&mut self, ticket: Ticket, stream: &CudaStream) -> Result<(), AcquireError> {
        self.take(ticket, |endpoint, points| wait(endpoint, stream, points))
    }

    /// As [`acquire`](Self::acquire), for several tickets at a time: all of them or none.
    pub(crate) fn acquire_all<'t>(
        &mut self,
        tickets: impl Iterator<Item = &'t Ticket> + Clone,
        stream: &CudaStream,
    ) -> Result<()> {
        self.take_all(tickets, |endpoint, points| wait(endpoint, stream, points))
    }
}

fn wait(endpoint: &Endpoint, stream: &CudaStream, points: Points<'_, '_, Semaphore>) -> Result<()> {
    let Some(SemaphoreOp { semaphore, value }) = points.next() else { return Ok(()) };
    match others((semaphore, value), points) {
        None => endpoint.wait(stream, semaphore, value),
        Some(waits) => endpoint.wait_many(stream, &waits),
    }
}

/// `first` and the rest, where there are more: for the one point of a timeline nothing is allocated.
fn others<'a>(
    first: (&'a Semaphore, Option<u64>),
    rest: Points<'_, 'a, Semaphore>,
) -> Option<Vec<(&'a Semaphore, Option<u64>)>> {
    let second = rest.next()?;
    let mut all = vec![first, (second.semaphore, second.value)];
    all.extend(rest.map(|point| (point.semaphore, point.value)));
    Some(all)
}
