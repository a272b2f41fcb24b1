//! OpenGL's ends of a handoff: waits and signals with lists of buffers and textures.

use std::ops::Range;

use glow::HasContext as _;

use super::channel::{Acquirer, Points, Releaser};
use super::layouts::Layouts;
use super::peer::{HandoffPeer, sealed};
use super::ticket::{AcquireError, HostFence, Ticket};
use crate::capabilities::SyncMethod;
use crate::desc::ImageLayout;
use crate::error::{ImportError, Mismatch, Result};
use crate::gl::{Buffer, Endpoint, Semaphore};

impl sealed::Sealed for Endpoint {}

impl HandoffPeer for Endpoint {
    type Fences = ();

    fn fences(&self) -> Result<()> {
        Ok(())
    }
}

/// What one side lists: every shared buffer, and every shared texture with its layout.
type Lists<'a> = (&'a [&'a Buffer], &'a [(glow::Texture, ImageLayout)]);

impl Releaser<Endpoint> {
    /// Releases what the OpenGL commands so far have done to `buffers` and `textures`: every shared
    /// one is listed, a texture with the layout that the acquiring side will take it over from. The
    /// ticket carries these layouts.
    ///
    /// Where the host waits, it waits here: an OpenGL fence can be asked only while the context is
    /// current, so it can't travel in the ticket.
    ///
    /// # Errors
    /// [`Mismatch`] for a buffer of another endpoint, or a name that is no texture of this context;
    /// [`Invalid`](crate::error::Invalid) where as many releases are under way as may be, or the
    /// context is not current; [`Timeout`](crate::Error::Timeout) where the host waited too long.
    pub fn release(
        &mut self,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, ImageLayout)],
    ) -> Result<Ticket> {
        let sequences = self.next_sequences(1)?;
        let host = self.signal(sequences.clone(), (buffers, textures))?;
        Ok(Ticket { layouts: layouts_of(textures), ..self.ticket(sequences, host) })
    }

    /// Releases `buffers`, each of which is a payload, by one signal.
    pub(crate) fn release_many(
        &mut self,
        buffers: &[&Buffer],
    ) -> Result<impl ExactSizeIterator<Item = Ticket> + use<>> {
        let sequences = self.next_sequences(buffers.len())?;
        let host = self.signal(sequences.clone(), (buffers, &[]))?;
        Ok(self.tickets(sequences, host))
    }

    /// Signals for the releases `sequences`; where the host waits, waits.
    fn signal(
        &self,
        sequences: Range<u64>,
        (buffers, textures): Lists<'_>,
    ) -> Result<Option<HostFence>> {
        check_own(&self.endpoint, (buffers, textures))?;
        if self.lane.method == SyncMethod::HostWait {
            let fence = self.endpoint.fence()?;
            self.lane.host_wait(|timeout| fence.wait(timeout), || fence.is_signaled())?;
            return Ok(Some(HostFence::Done));
        }
        for point in self.points(sequences) {
            self.endpoint.signal(point.semaphore, point.value, buffers, textures)?;
        }
        Ok(None)
    }
}

impl Acquirer<Endpoint> {
    /// Makes the OpenGL commands that follow wait for the release of `ticket`, and see what it did to
    /// `buffers` and `textures`: every shared one is listed, a texture with the layout that the
    /// releasing side left it in. Where the host waits, it waits here.
    ///
    /// # Errors
    /// [`Mismatch`] for a ticket of another handoff, a buffer of another endpoint, a name that is no
    /// texture of this context, or textures that are not as many as the images that were released,
    /// or not in the layouts (except [`ImageLayout::UNDEFINED`]), [`Invalid`](crate::error::Invalid) where the
    /// context is not current, [`Timeout`](crate::Error::Timeout) where the host waited too long;
    /// the ticket comes back.
    pub fn acquire(
        &mut self,
        ticket: Ticket,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, ImageLayout)],
    ) -> Result<(), AcquireError> {
        let lists = (buffers, textures);
        if let Err(error) = check_own(&self.endpoint, lists) {
            return Err(ImportError::new(ticket, error));
        }
        let acquired = layouts_of(textures);
        self.take_images(ticket, &acquired, |endpoint, points| wait(endpoint, points, lists))
    }

    /// Acquires `buffers`, each a payload that one of `tickets` stands for: all of them or none.
    pub(crate) fn acquire_all<'t>(
        &mut self,
        tickets: impl Iterator<Item = &'t Ticket> + Clone,
        buffers: &[&Buffer],
    ) -> Result<()> {
        self.take_all(tickets, |endpoint, points| wait(endpoint, points, (buffers, &[])))
    }
}

fn wait(
    endpoint: &Endpoint,
    points: Points<'_, '_, Semaphore>,
    (buffers, textures): Lists<'_>,
) -> Result<()> {
    let mut points = points.peekable();
    if points.peek().is_none() {
        // What the other side wrote must not be shadowed by anything cached here.
        return endpoint.memory_barrier();
    }
    for point in points {
        endpoint.wait(point.semaphore, point.value, buffers, textures)?;
    }
    Ok(())
}

/// Refuses what is of another endpoint or context. Where the host waits, no call of OpenGL sees the
/// lists, and what is wrong in them would go unnoticed until the other route is taken.
fn check_own(endpoint: &Endpoint, (buffers, textures): Lists<'_>) -> Result<()> {
    if let Some(at) = buffers.iter().position(|buffer| !buffer.is_of(endpoint)) {
        let found = format!("buffer {at} of {} is another endpoint's", buffers.len());
        return Err(Mismatch::new("the buffers' OpenGL endpoint", "the handoff's", found)
            .help("list buffers that this endpoint (or a clone of it) imported")
            .into());
    }
    if textures.is_empty() {
        return Ok(());
    }
    endpoint.delete_dropped()?;
    for (texture, _) in textures {
        // SAFETY: the context is current: `collect` has asked. Any name may be asked about.
        if !unsafe { endpoint.gl().is_texture(*texture) } {
            let found = format!("texture {}, which it does not know", texture.0);
            return Err(Mismatch::new("the textures' OpenGL context", "the endpoint's", found)
                .help("list textures of the endpoint's own context")
                .into());
        }
    }
    Ok(())
}

fn layouts_of(textures: &[(glow::Texture, ImageLayout)]) -> Layouts {
    Layouts::of_gl(textures.iter().map(|(_, layout)| *layout))
}
