//! CUDA's ends of a handoff: waits and signals on the user's stream.

use cudarc::driver::CudaStream;

use super::lane::{Acquirer, Releaser};
use super::peer::{Peer, sealed};
use super::ticket::{AcquireError, HostPoint, Ticket};
use crate::capabilities::{Capabilities, SyncMethod};
use crate::cuda::{Endpoint, Semaphore};
use crate::error::Result;
use crate::resource::ResourceDesc;
use crate::vulkan;

impl sealed::Sealed for Endpoint {}

impl Peer for Endpoint {
    type Semaphore = Semaphore;
    type Fences = ();

    fn peer_capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities> {
        self.capabilities(desc)
    }

    fn adopt_semaphore(&self, semaphore: &vulkan::Semaphore) -> Result<Semaphore> {
        Ok(self.import_semaphore(semaphore.export()?)?)
    }

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
        let sequence = self.next_sequence()?;
        if self.lane.method == SyncMethod::HostWait {
            let fence = self.endpoint.fence(stream)?;
            return Ok(self.ticket(sequence, Some(HostPoint::Cuda(fence))));
        }
        if let Some(point) = self.gpu_point(sequence) {
            self.endpoint.signal(stream, point.semaphore, point.value)?;
        }
        Ok(self.ticket(sequence, None))
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
        self.take(ticket, |endpoint, point| match point {
            Some(point) => endpoint.wait(stream, point.semaphore, point.value),
            None => Ok(()),
        })
    }
}
