//! CUDA's ends of a handoff: waits and signals on the application's stream.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::CudaStream;

use super::channel::Ticket;
use super::contents::Contents;
use super::ends::Releaser;
use super::peer::{Completion, End, HandoffPeer, SemaphoreOps, sealed};
use super::wait::HostFence;
use crate::cuda::{Endpoint, Fence, Semaphore};
use crate::error::Result;

/// The stream on which a release or an acquire is enqueued. A release follows the work already on
/// the stream; an acquire precedes the work enqueued later. Converts from `&CudaStream`. A stream
/// that is being captured into a graph is refused, and its capture stays valid: see
/// [`GraphHandoff`](super::GraphHandoff).
#[derive(Clone, Copy, Debug)]
pub struct CudaCommands<'a> {
    /// A stream of the endpoint's context.
    pub stream: &'a CudaStream,
}

impl<'a> From<&'a CudaStream> for CudaCommands<'a> {
    fn from(stream: &'a CudaStream) -> Self {
        Self { stream }
    }
}

impl<'a> From<&'a Arc<CudaStream>> for CudaCommands<'a> {
    fn from(stream: &'a Arc<CudaStream>) -> Self {
        Self { stream }
    }
}

impl sealed::Sealed for Endpoint {}

impl HandoffPeer for Endpoint {
    type Commands<'a> = CudaCommands<'a>;
    type Sync = ();
    type Fences = ();
    const SUBMITS: bool = true;

    fn fences(&self) -> Result<()> {
        Ok(())
    }

    fn contents(_commands: &CudaCommands<'_>) -> Contents {
        Contents::UNKNOWN
    }

    fn enqueue_release(
        &self,
        (): &(),
        CudaCommands { stream }: CudaCommands<'_>,
        completion: Completion<'_, Semaphore>,
        _end: End<'_>,
    ) -> Result<((), Option<HostFence>)> {
        match completion {
            Completion::HostWait(_) => Ok(((), Some(HostFence::Cuda(self.fence(stream)?)))),
            Completion::Signal(ops) => Ok((self.signal_many(stream, &ops)?, None)),
        }
    }

    fn enqueue_acquire(
        &self,
        CudaCommands { stream }: CudaCommands<'_>,
        _contents: &Contents,
        waits: SemaphoreOps<'_, Semaphore>,
        _end: End<'_>,
    ) -> Result<()> {
        self.wait_many(stream, &waits)
    }
}

impl Releaser<Endpoint> {
    /// Returns the ticket's fence, if the method is a host wait.
    pub(crate) fn fence_of(&self, ticket: &Ticket) -> Option<Fence> {
        match &ticket.release().host {
            Some(HostFence::Cuda(fence)) => Some(fence.clone()),
            _ => None,
        }
    }

    /// Waits until the GPU is done with the semaphores.
    pub(crate) fn wait_for_uses(&self, timeout: Duration) -> Result<()> {
        self.semaphores.iter().try_for_each(|semaphore| semaphore.wait_for_uses(timeout))
    }
}
