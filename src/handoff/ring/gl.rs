//! OpenGL's station. It stays on the context's thread.

use super::PATIENCE;
use super::queue::{Arrival, Wait};
use super::slot::Slot;
use super::station::{RingPeer, Station};
use crate::error::{ImportResult, Result};
use crate::gl::{Buffer, Endpoint};
use crate::payload::BufferPayload;

impl RingPeer for Endpoint {
    type Buffer = Buffer;
    /// All that was told to the context so far is waited for.
    type Work = ();

    fn import_slot(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.import_buffer(payload)
    }

    fn finish(&self, (): &()) -> Result<()> {
        self.fence()?.wait(PATIENCE)
    }
}

impl Station<Endpoint> {
    /// Takes the next slot; the OpenGL commands that follow wait for the station before and see what
    /// it wrote. `None` where no slot has arrived and `wait` says not to wait.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) where no slot arrived in time, or the host waited too long
    /// for the station before: the ring stays usable. [`Invalid`](crate::error::Invalid) where a
    /// station of the ring is gone, or the context is not current.
    pub fn take(&mut self, wait: Wait) -> Result<Option<Slot>> {
        let taken = self
            .take_with(wait, |acquirer, ticket, buffer| acquirer.acquire(ticket, &[buffer], &[]))?;
        Ok(taken.map(|(slot, ())| slot))
    }

    /// Gives a slot to the next station, after the OpenGL commands so far.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a slot of another station,
    /// [`Invalid`](crate::error::Invalid) where the context is not current. The slot then goes back
    /// to this station.
    pub fn release(&mut self, slot: Slot) -> Result<()> {
        self.require_releasable(&slot)?;
        let ticket = self.releaser.release(&[&self.buffers[slot.index]], &[])?;
        self.next.push(Arrival { index: slot.pass(), ticket: Some(ticket) });
        Ok(())
    }
}
