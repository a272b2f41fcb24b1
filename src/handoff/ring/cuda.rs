//! CUDA's station.

use cudarc::driver::CudaStream;

use super::PATIENCE;
use super::queue::{Arrival, Wait};
use super::slot::Slot;
use super::station::{RingPeer, Station};
use crate::cuda::{Buffer, Endpoint, Fence};
use crate::error::{ImportResult, Result};
use crate::payload::BufferPayload;

impl RingPeer for Endpoint {
    type Buffer = Buffer;
    /// The last release.
    type Work = Option<Fence>;

    fn import_slot(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.import_buffer(payload)
    }

    fn finish(&self, work: &Option<Fence>) -> Result<()> {
        work.as_ref().map_or(Ok(()), |last| last.wait(PATIENCE))
    }
}

impl Station<Endpoint> {
    /// Takes the next slot; the work that follows on `stream` waits for the station before. `None`
    /// where no slot has arrived and `wait` says not to wait.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) where no slot arrived in time, or the host waited too long
    /// for the station before: the ring stays usable. [`Invalid`](crate::error::Invalid) where a
    /// station of the ring is gone.
    pub fn take(&mut self, wait: Wait, stream: &CudaStream) -> Result<Option<Slot>> {
        let taken = self.take_with(wait, |acquirer, ticket, _| acquirer.acquire(ticket, stream))?;
        Ok(taken.map(|(slot, ())| slot))
    }

    /// Gives a slot to the next station, after the work on `stream` so far: the stream that it was
    /// taken on, or one that waits for that.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a slot of another station or a stream of another
    /// context. The slot then goes back to this station.
    pub fn release(&mut self, slot: Slot, stream: &CudaStream) -> Result<()> {
        self.require_releasable(&slot)?;
        // The fence first: what follows can't fail half-way.
        let fence = self.endpoint.fence(stream)?;
        let ticket = self.releaser.release(stream)?;
        self.work = Some(fence);
        self.next.push(Arrival { index: slot.pass(), ticket: Some(ticket) });
        Ok(())
    }
}
