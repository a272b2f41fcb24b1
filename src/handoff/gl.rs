//! OpenGL's ends of a handoff: waits and signals with lists of buffers and textures.

use super::lane::{Acquirer, Releaser};
use super::layouts::Layouts;
use super::peer::{Peer, sealed};
use super::ticket::{AcquireError, HostPoint, Ticket};
use crate::capabilities::{Capabilities, SyncMethod};
use crate::error::Result;
use crate::gl::{Buffer, Endpoint, Layout, Semaphore};
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
    /// Releases what the OpenGL commands so far have done to `buffers` and `textures`: every shared
    /// one is listed, a texture with the layout that the acquiring side will take it over from. The
    /// ticket carries these layouts.
    ///
    /// Where the host waits, it waits here: an OpenGL fence can be asked only while the context is
    /// current, so it can't travel in the ticket.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where as many releases are under way as may be, or the
    /// context is not current; [`Timeout`](crate::Error::Timeout) where the host waited too long.
    pub fn release(
        &mut self,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, Layout)],
    ) -> Result<Ticket> {
        let sequence = self.next_sequence()?;
        if self.lane.method == SyncMethod::HostWait {
            let fence = self.endpoint.fence()?;
            self.lane.host_wait(|timeout| fence.wait(timeout), || fence.is_signaled())?;
            let ticket = self.ticket(sequence, Some(HostPoint::Done));
            return Ok(Ticket { layouts: layouts_of(textures), ..ticket });
        }
        if let Some(point) = self.gpu_point(sequence) {
            self.endpoint.signal(point.semaphore, point.value, buffers, textures)?;
        }
        Ok(Ticket { layouts: layouts_of(textures), ..self.ticket(sequence, None) })
    }
}

impl Acquirer<Endpoint> {
    /// Makes the OpenGL commands that follow wait for the release of `ticket`, and see what it did to
    /// `buffers` and `textures`: every shared one is listed, a texture with the layout that the
    /// releasing side left it in. Where the host waits, it waits here.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a ticket of another handoff, or textures that are not
    /// as many as the images that were released, or not in the layouts (except [`Layout::None`]),
    /// [`Invalid`](crate::error::Invalid) where the context is not current,
    /// [`Timeout`](crate::Error::Timeout) where the host waited too long; the ticket comes back.
    pub fn acquire(
        &mut self,
        ticket: Ticket,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, Layout)],
    ) -> Result<(), AcquireError> {
        self.take_images(ticket, &layouts_of(textures), |endpoint, point| match point {
            Some(point) => endpoint.wait(point.semaphore, point.value, buffers, textures),
            // What the other side wrote must not be shadowed by anything cached here.
            None => endpoint.memory_barrier(),
        })
    }
}

fn layouts_of(textures: &[(glow::Texture, Layout)]) -> Layouts {
    Layouts::of_gl(textures.iter().map(|(_, layout)| *layout))
}
