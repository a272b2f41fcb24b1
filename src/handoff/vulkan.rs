//! Vulkan's ends of a handoff: recorded into the user's command buffer, added to the user's submit.

use ash::vk;

use super::lane::{Acquirer, Releaser};
use super::ticket::{AcquireError, HostPoint, Ticket};
use crate::capabilities::SyncMethod;
use crate::error::Result;
use crate::vulkan::{BufferAccess, Endpoint, SemaphoreSignal, SemaphoreWait, SubmitPart};

impl Releaser<Endpoint> {
    /// Records the release of `buffers` after the commands that used them, and says what to add to
    /// the submit.
    ///
    /// # Safety
    /// As [`Endpoint::record_release`].
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where as many releases are under way as may be.
    pub unsafe fn release(
        &mut self,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        buffers: &[BufferAccess<'_>],
    ) -> Result<(Ticket, SubmitPart)> {
        let signalled = self.signal()?;
        // SAFETY: the caller's promise.
        unsafe { self.endpoint.record_release(command_buffer, queue_family, buffers) };
        Ok(signalled)
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
    /// Records the acquire of `buffers` before the commands that will use them, and says what to add
    /// to the submit. Where the host waits, it waits here.
    ///
    /// # Safety
    /// As [`Endpoint::record_acquire`], and the returned part is added to the submit.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a ticket of another handoff,
    /// [`Timeout`](crate::Error::Timeout) where the host waited too long; the ticket comes back.
    pub unsafe fn acquire(
        &mut self,
        ticket: Ticket,
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        buffers: &[BufferAccess<'_>],
    ) -> Result<SubmitPart, AcquireError> {
        let part = self.wait(ticket)?;
        // SAFETY: the caller's promise.
        unsafe { self.endpoint.record_acquire(command_buffer, queue_family, buffers) };
        Ok(part)
    }

    /// The submit part of an acquire whose barriers are recorded already.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn wait(&mut self, ticket: Ticket) -> Result<SubmitPart, AcquireError> {
        self.take(ticket, |_, point| {
            let mut part = SubmitPart::default();
            if let Some(point) = point {
                part.waits.push(SemaphoreWait {
                    semaphore: point.semaphore.clone(),
                    value: point.value,
                    // All: which commands come first only the user's command buffer knows.
                    stage: vk::PipelineStageFlags::ALL_COMMANDS,
                });
            }
            Ok(part)
        })
    }
}
