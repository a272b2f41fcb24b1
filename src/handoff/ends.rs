//! The two ends of a handoff.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::channel::{AcquireError, Channel, Release, Ticket};
use super::contents::Contents;
use super::peer::{End, HandoffPeer, completion, semaphore_ops};
use super::wait::HostFence;
use crate::capabilities::SyncMethod;
use crate::error::{Error, ImportError, Result};
use crate::vulkan::Half;

/// The releasing end of a handoff.
pub struct Releaser<P: HandoffPeer> {
    pub(crate) endpoint: P,
    pub(crate) semaphores: Vec<P::Semaphore>,
    pub(super) fences: P::Fences,
    pub(crate) channel: Arc<Channel>,
}

/// The acquiring end of a handoff.
pub struct Acquirer<P: HandoffPeer> {
    pub(super) endpoint: P,
    pub(crate) semaphores: Vec<P::Semaphore>,
    pub(super) channel: Arc<Channel>,
}

impl<P: HandoffPeer> fmt::Debug for Releaser<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Releaser").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl<P: HandoffPeer> fmt::Debug for Acquirer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquirer").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl<P: HandoffPeer> Drop for Releaser<P> {
    fn drop(&mut self) {
        let end = End { channel: &self.channel, half: Half::Release(0..0) };
        self.endpoint.wait_for_end(end.id(), self.channel.host.timeout);
    }
}

impl<P: HandoffPeer> Drop for Acquirer<P> {
    fn drop(&mut self) {
        let end = End { channel: &self.channel, half: Half::Acquire(0) };
        self.endpoint.wait_for_end(end.id(), self.channel.host.timeout);
    }
}

impl<P: HandoffPeer> Releaser<P> {
    /// Returns the endpoint that releases.
    pub fn endpoint(&self) -> &P {
        &self.endpoint
    }

    /// Returns the method of synchronisation.
    pub fn method(&self) -> SyncMethod {
        self.channel.method
    }

    /// Releases the resources of `commands` to the acquiring side, and returns a ticket.
    ///
    /// For Vulkan, `commands` is a [`VulkanCommands`](super::VulkanCommands): the release is
    /// recorded, and the returned [`SubmitSync`](crate::vulkan::SubmitSync) must be added to the
    /// submit, after which the ticket may be sent. If it is dropped instead, nothing is released.
    /// For OpenGL, `commands` is a `GlCommands` or a list of buffers or textures, and the release
    /// follows the OpenGL commands issued so far. For CUDA, `commands` is a stream, and the release
    /// follows the work enqueued on it so far. OpenGL and CUDA submit at once and return `()` with
    /// the ticket.
    ///
    /// If the method is a host wait and OpenGL releases, the wait happens here: an OpenGL fence can
    /// be queried only while the context is current, so the ticket can't carry it.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) if `in_flight` releases are in flight already, if a
    /// resource is released already, if an image is listed in a layout that it can't have or that
    /// the acquiring API lacks, or if the OpenGL context is not current;
    /// [`Mismatch`](crate::error::Mismatch) for a resource or a stream from another endpoint;
    /// [`Timeout`](crate::Error::Timeout) if a host wait took too long. After an error nothing is
    /// released.
    pub fn release<'a>(
        &mut self,
        commands: impl Into<P::Commands<'a>>,
    ) -> Result<(Ticket, P::Sync)> {
        let commands = commands.into();
        let contents = P::contents(&commands);
        self.channel.check_layouts(&contents)?;
        let (sequences, sync, host) = self.enqueue(1, commands)?;
        let release = Release { sequence: sequences.start, host, contents };
        Ok((Ticket::new(self.channel.clone(), release), sync))
    }

    /// Returns new tickets for submitted releases whose ticket was dropped or whose acquire was
    /// never submitted, oldest first. Acquire each of them.
    pub fn lost_tickets(&mut self) -> Vec<Ticket> {
        lost_tickets(&self.channel)
    }

    /// Releases `count` payloads together, and returns a ticket for each.
    pub(crate) fn release_many(
        &mut self,
        count: usize,
        commands: P::Commands<'_>,
    ) -> Result<(impl ExactSizeIterator<Item = Ticket> + use<P>, P::Sync)> {
        let (sequences, sync, host) = self.enqueue(count, commands)?;
        let channel = self.channel.clone();
        let tickets = (0..count).map(move |number| {
            let (sequence, host) = (sequences.start + number as u64, host.clone());
            Ticket::new(channel.clone(), Release { sequence, host, contents: Contents::UNKNOWN })
        });
        Ok((tickets, sync))
    }

    /// Enqueues and records the next `count` releases.
    fn enqueue(
        &mut self,
        count: usize,
        commands: P::Commands<'_>,
    ) -> Result<(Range<u64>, P::Sync, Option<HostFence>)> {
        let channel = &self.channel;
        let sequences = channel.reserve(count, P::SUBMITS)?;
        let completion =
            completion(&self.semaphores, channel.method, channel.host, sequences.clone());
        let end = End { channel, half: Half::Release(sequences.clone()) };
        match self.endpoint.enqueue_release(&self.fences, commands, completion, end) {
            Ok((sync, host)) => Ok((sequences, sync, host)),
            Err(error) => {
                channel.in_flight().unreserve(&sequences);
                Err(error)
            }
        }
    }

    /// Leaks what is still used by work that may never finish.
    pub(crate) fn leak(&self) {
        std::mem::forget(self.semaphores.clone());
    }
}

impl<P: HandoffPeer> Acquirer<P> {
    /// Returns the endpoint that acquires.
    pub fn endpoint(&self) -> &P {
        &self.endpoint
    }

    /// Returns the method of synchronisation.
    pub fn method(&self) -> SyncMethod {
        self.channel.method
    }

    /// Acquires what was released with `ticket`: the work that follows waits for the release and
    /// sees what was written before it. A host wait happens here.
    ///
    /// `commands` is of the same type as for this peer's [`release`](Releaser::release). List
    /// everything that was released, images and textures in the releasing side's order. Layouts
    /// that are left out default to those of the release, or to `VK_IMAGE_LAYOUT_GENERAL` after a
    /// release by CUDA, which has no layouts, or a prerecorded release.
    ///
    /// # Errors
    /// [`Mismatch`](crate::error::Mismatch) for a ticket from another handoff, for a resource or a
    /// stream of another endpoint, if the number of buffers or images differs from the release, or
    /// if an image is listed in a layout other than the one it was released in;
    /// [`Invalid`](crate::error::Invalid) if the release was never submitted or, unless the host
    /// waits, is not submitted yet, and if the OpenGL context is not current;
    /// [`Timeout`](crate::Error::Timeout) if a host wait took too long. After an error nothing is
    /// acquired, and the ticket is returned.
    pub fn acquire<'a>(
        &mut self,
        ticket: Ticket,
        commands: impl Into<P::Commands<'a>>,
    ) -> Result<P::Sync, AcquireError> {
        let contents = &ticket.release().contents;
        match self.enqueue(std::iter::once(&ticket), contents, commands.into()) {
            Ok(sync) => {
                self.acquired(ticket.sequence(), std::iter::once(ticket));
                Ok(sync)
            }
            Err(error) => Err(ImportError::new(ticket, error)),
        }
    }

    /// Returns new tickets for submitted releases whose ticket was dropped or whose acquire was
    /// never submitted, oldest first. Acquire each of them.
    pub fn lost_tickets(&mut self) -> Vec<Ticket> {
        lost_tickets(&self.channel)
    }

    /// Enqueues the acquires of all of `tickets`, or of none. After `Ok`, the caller passes them to
    /// [`acquired`](Self::acquired).
    pub(crate) fn enqueue<'t>(
        &self,
        tickets: impl Iterator<Item = &'t Ticket> + Clone,
        contents: &Contents,
        commands: P::Commands<'_>,
    ) -> Result<P::Sync> {
        self.check(tickets.clone())?;
        let (channel, sequences) = (&self.channel, tickets.map(Ticket::sequence));
        let half = Half::Acquire(sequences.clone().min().unwrap_or(0));
        let waits = semaphore_ops(&self.semaphores, channel.method, sequences);
        self.endpoint.enqueue_acquire(commands, contents, waits, End { channel, half })
    }

    /// Rejects tickets of another handoff and of releases that are not submitted. A host wait
    /// happens here.
    pub(crate) fn check<'t>(
        &self,
        tickets: impl Iterator<Item = &'t Ticket> + Clone,
    ) -> Result<()> {
        let channel = &self.channel;
        let sequences = tickets.clone().map(Ticket::sequence);
        for ticket in tickets.clone() {
            ticket.check_of(channel)?;
            channel.check_submitted(ticket.sequence())?;
        }
        if channel.method == SyncMethod::HostWait {
            let fences = tickets.filter_map(|ticket| ticket.release().host.as_ref());
            channel.host.run_all(fences).map_err(|error| explain(channel, &sequences, error))?;
        }
        Ok(())
    }

    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Consumes tickets that were acquired; `first` is the lowest of their sequence numbers.
    pub(crate) fn acquired(&self, first: u64, tickets: impl Iterator<Item = Ticket>) {
        let mut in_flight = self.channel.in_flight();
        for release in tickets.map(Ticket::finish) {
            if P::SUBMITS {
                in_flight.acquire(release.sequence);
            } else {
                in_flight.begin_acquire(first, release);
            }
        }
    }

    /// Leaks what is still used by work that may never finish.
    pub(crate) fn leak(&self) {
        std::mem::forget(self.semaphores.clone());
    }
}

/// Adds to a timeout that the release was not submitted.
fn explain(
    channel: &Channel,
    sequences: &(impl Iterator<Item = u64> + Clone),
    error: Error,
) -> Error {
    let Error::Timeout { waited, .. } = error else { return error };
    for number in sequences.clone() {
        match channel.check_submitted(number) {
            Ok(true) => {}
            Ok(false) => {
                let what = format!(
                    "the submit of release {number}, whose SubmitSync is not submitted yet,"
                );
                return Error::Timeout { what: what.into(), waited };
            }
            Err(never) => return never,
        }
    }
    error
}

fn lost_tickets(channel: &Arc<Channel>) -> Vec<Ticket> {
    let lost = channel.in_flight().drain_lost();
    lost.into_iter().map(|release| Ticket::new(channel.clone(), release)).collect()
}
