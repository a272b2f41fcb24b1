//! Vulkan's ends of a handoff: recorded into the user's command buffer, added to the user's submit.

use std::ops::Range;

use ash::vk;

use super::channel::{Acquirer, Points, Releaser};
use super::layouts::Layouts;
use super::ticket::{AcquireError, HostFence, Ticket};
use crate::capabilities::SyncMethod;
use crate::error::Result;
use crate::vulkan::{
    Accesses, Endpoint, Fence, Semaphore, SemaphoreSignal, SemaphoreWait, SubmitSync,
};

impl Releaser<Endpoint> {
    /// Records the release of `used`, buffers and images, after the commands that used them, and
    /// says what to add to the submit. The ticket carries the images' layouts; pass it on once the
    /// submit is made.
    ///
    /// # Safety
    /// As [`Endpoint::record_release`].
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where as many releases are under way as may be, and as
    /// [`Endpoint::record_release`]; nothing is released then.
    pub unsafe fn release<'a>(
        &mut self,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Result<(Ticket, SubmitSync)> {
        let used = used.into();
        // Before the release is counted: what fails here is not under way.
        used.check(&self.endpoint)?;
        let (mut ticket, part) = self.signal()?;
        ticket.layouts = Layouts::of_vulkan(&used);
        // SAFETY: the caller's promise.
        unsafe { self.endpoint.record_release(command_buffer, queue_family, used) }?;
        Ok((ticket, part))
    }

    /// Takes a release back whose submit did not happen: it failed, say. The payload stays with this
    /// side, and the handoff goes on as if nothing had been released.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a ticket of another handoff, which comes back.
    pub fn withdraw(&mut self, ticket: Ticket) -> Result<(), AcquireError> {
        let ticket = self.check_own(ticket)?;
        self.lane.withdraw(ticket.sequence);
        Ok(())
    }

    /// The ticket and submit part of a release whose barriers are recorded already, for command
    /// buffers that are recorded once and submitted often.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where as many releases are under way as may be.
    pub fn signal(&mut self) -> Result<(Ticket, SubmitSync)> {
        let sequences = self.next_sequences(1)?;
        let (part, host) = self.signals(sequences.clone())?;
        Ok((self.ticket(sequences, host), part))
    }

    /// As [`signal`](Self::signal), for `count` payloads of one submit.
    pub(crate) fn signal_many(
        &mut self,
        count: usize,
    ) -> Result<(impl ExactSizeIterator<Item = Ticket> + use<>, SubmitSync)> {
        let sequences = self.next_sequences(count)?;
        let (part, host) = self.signals(sequences.clone())?;
        Ok((self.tickets(sequences, host), part))
    }

    /// A fence that tells when the submit of `ticket`'s release is done, where what the other side
    /// waits for can tell: a binary semaphore can't.
    pub(crate) fn fence_of(&self, ticket: &Ticket) -> Option<Fence> {
        match (self.lane.method, &ticket.host) {
            (_, Some(HostFence::Vulkan(fence))) => Some(fence.clone()),
            (SyncMethod::Timeline, _) => {
                let timeline = self.semaphores.first()?;
                Some(Fence::timeline(timeline, ticket.sequence))
            }
            _ => None,
        }
    }

    /// What the submit signals for the releases `sequences`, and what the host waits for.
    fn signals(&self, sequences: Range<u64>) -> Result<(SubmitSync, Option<HostFence>)> {
        let mut part = SubmitSync::default();
        if self.lane.method == SyncMethod::HostWait {
            let fence = self.fences.next(&mut part)?;
            return Ok((part, Some(HostFence::Vulkan(fence))));
        }
        part.signals.extend(self.points(sequences).map(|point| SemaphoreSignal {
            semaphore: point.semaphore.clone(),
            value: point.value,
        }));
        Ok((part, None))
    }
}

impl Acquirer<Endpoint> {
    /// Records the acquire of `used`, buffers and images, before the commands that will use them, and
    /// says what to add to the submit. Where the host waits, it waits here.
    ///
    /// # Safety
    /// As [`Endpoint::record_acquire`], and the returned part is added to the submit.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a ticket of another handoff, or images that are not
    /// as many, or not in the layouts, as they were released;
    /// [`Timeout`](crate::Error::Timeout) where the host waited too long; and as
    /// [`Endpoint::record_acquire`]. The ticket comes back, and nothing is recorded.
    pub unsafe fn acquire<'a>(
        &mut self,
        ticket: Ticket,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Result<SubmitSync, AcquireError> {
        let used = used.into();
        let acquired = Layouts::of_vulkan(&used);
        self.take_images(ticket, &acquired, |endpoint, points| {
            // SAFETY: the caller's promise.
            unsafe { endpoint.record_acquire(command_buffer, queue_family, used) }?;
            Ok(wait_for(points))
        })
    }

    /// Acquires what `tickets` stand for, all of it or nothing, and says what to add to the submit.
    /// `record` records the acquires, when the host has waited where it does.
    pub(crate) fn acquire_all<'t>(
        &mut self,
        tickets: impl Iterator<Item = &'t Ticket> + Clone,
        record: impl FnOnce(&Endpoint) -> Result<()>,
    ) -> Result<SubmitSync> {
        self.take_all(tickets, |endpoint, points| {
            record(endpoint)?;
            Ok(wait_for(points))
        })
    }

    /// The submit part of an acquire whose barriers are recorded already. The layouts that they name
    /// are not compared with those of the release.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn wait(&mut self, ticket: Ticket) -> Result<SubmitSync, AcquireError> {
        self.take(ticket, |_, points| Ok(wait_for(points)))
    }
}

/// What the submit waits for.
fn wait_for(points: Points<'_, '_, Semaphore>) -> SubmitSync {
    let waits = points.map(|point| SemaphoreWait {
        semaphore: point.semaphore.clone(),
        value: point.value,
        // All: which commands come first only the user's command buffer knows.
        stage: vk::PipelineStageFlags::ALL_COMMANDS,
    });
    SubmitSync { waits: waits.collect(), ..SubmitSync::default() }
}
