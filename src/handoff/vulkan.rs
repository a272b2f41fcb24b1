//! Vulkan's ends of a handoff: recorded into the user's command buffer, added to the user's submit.

use ash::vk;

use super::lane::{Acquirer, GpuPoint, Releaser};
use super::layouts::Layouts;
use super::ticket::{AcquireError, HostPoint, Ticket};
use crate::capabilities::SyncMethod;
use crate::error::Result;
use crate::vulkan::{Accesses, Endpoint, Semaphore, SemaphoreSignal, SemaphoreWait, SubmitPart};

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
    ) -> Result<(Ticket, SubmitPart)> {
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
        let ticket = self.require_own(ticket)?;
        self.lane.withdraw(ticket.sequence);
        Ok(())
    }

    /// The ticket and submit part of a release whose barriers are recorded already, for command
    /// buffers that are recorded once and submitted often.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where as many releases are under way as may be.
    pub fn signal(&mut self) -> Result<(Ticket, SubmitPart)> {
        let sequence = self.next_sequence()?;
        let mut part = SubmitPart::default();
        let mut host = None;
        if self.lane.method == SyncMethod::HostWait {
            host = Some(HostPoint::Vulkan(self.fences.next(&mut part)?));
        } else if let Some(point) = self.gpu_point(sequence) {
            let semaphore = point.semaphore.clone();
            part.signals.push(SemaphoreSignal { semaphore, value: point.value });
        }
        Ok((self.ticket(sequence, host), part))
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
    ) -> Result<SubmitPart, AcquireError> {
        let used = used.into();
        let acquired = Layouts::of_vulkan(&used);
        self.take_images(ticket, &acquired, |endpoint, point| {
            // SAFETY: the caller's promise.
            unsafe { endpoint.record_acquire(command_buffer, queue_family, used) }?;
            Ok(wait_for(point))
        })
    }

    /// The submit part of an acquire whose barriers are recorded already. The layouts that they name
    /// are not compared with those of the release.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn wait(&mut self, ticket: Ticket) -> Result<SubmitPart, AcquireError> {
        self.take(ticket, |_, point| Ok(wait_for(point)))
    }
}

/// What the submit waits for.
fn wait_for(point: Option<GpuPoint<'_, Semaphore>>) -> SubmitPart {
    let mut part = SubmitPart::default();
    if let Some(point) = point {
        part.waits.push(SemaphoreWait {
            semaphore: point.semaphore.clone(),
            value: point.value,
            // All: which commands come first only the user's command buffer knows.
            stage: vk::PipelineStageFlags::ALL_COMMANDS,
        });
    }
    part
}
