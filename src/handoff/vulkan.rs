//! Vulkan's ends of a handoff: recorded into the application's command buffer, added to the
//! application's submit.

use std::time::Duration;

use ash::vk;
use smallvec::SmallVec;

use super::channel::{AcquireError, Ticket};
use super::contents::{Contents, acquired_by_vulkan};
use super::ends::{Acquirer, Releaser};
use super::peer::{Completion, End, HandoffPeer, SemaphoreOps, sealed};
use super::wait::HostFence;
use crate::error::{ImportError, Result};
use crate::vulkan::{
    Accesses, Commands, Endpoint, FencePool, ImageAccess, Semaphore, SubmitEnd, SubmitSync,
};

/// A command buffer that a release or an acquire is recorded into, and what its commands use.
#[derive(Clone, Copy, Debug)]
pub struct VulkanCommands<'a> {
    /// The command buffer and its queue family; `None` if the barriers are prerecorded.
    record: Option<(vk::CommandBuffer, u32)>,
    used: Accesses<'a>,
}

impl<'a> VulkanCommands<'a> {
    /// Records the barrier into `command_buffer`: a release after the commands that used `used`, an
    /// acquire before the commands that will use it. `used` is one
    /// [`BufferAccess`](crate::vulkan::BufferAccess) or [`ImageAccess`], a list of them, or
    /// [`Accesses`] of both. From the submit on, the endpoint keeps the resources until the command
    /// buffer has executed.
    ///
    /// # Safety
    /// - `command_buffer` is being recorded, outside a render pass, for a queue of `queue_family`
    ///   of the endpoint's device.
    /// - For a release, `queue_family` owns the resources, and the images are in their
    ///   `old_layout`.
    /// - For an acquire, the images are those of the release, in the same order. If the ticket has
    ///   no layouts (a release by CUDA, or a prerecorded one), they are in the layouts that `used`
    ///   names.
    /// - The [`SubmitSync`] that the release or the acquire returns is added to the submit of the
    ///   command buffer. If it is dropped instead, so is the command buffer, or it is recorded
    ///   again.
    pub unsafe fn record(
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Self {
        Self { record: Some((command_buffer, queue_family)), used: used.into() }
    }

    /// Records nothing, because the barriers ([`Endpoint::record_release`],
    /// [`Endpoint::record_acquire`]) are in prerecorded command buffers that are submitted
    /// repeatedly. The ticket carries no image layouts.
    pub fn recorded() -> Self {
        Self { record: None, used: Accesses::default() }
    }

    /// Names the resources of the prerecorded barriers, so that the endpoint keeps them until the
    /// command buffer has executed.
    #[must_use]
    pub fn covering(self, used: impl Into<Accesses<'a>>) -> Self {
        Self { used: used.into(), ..self }
    }
}

impl sealed::Sealed for Endpoint {}

impl HandoffPeer for Endpoint {
    type Commands<'a> = VulkanCommands<'a>;
    type Sync = SubmitSync;
    type Fences = FencePool;
    const SUBMITS: bool = false;

    fn adopt_semaphore(&self, semaphore: &Semaphore) -> Result<Semaphore> {
        if semaphore.is_of(self) {
            return Ok(semaphore.clone());
        }
        Ok(self.import_semaphore(semaphore.export()?)?)
    }

    fn fences(&self) -> Result<FencePool> {
        FencePool::new(self)
    }

    fn wait_for_end(&self, end: u64, timeout: Duration) {
        Endpoint::wait_for_end(self, end, timeout);
    }

    fn contents(commands: &VulkanCommands<'_>) -> Contents {
        let used = &commands.used;
        match commands.record {
            Some(_) => Contents::of_vulkan(
                used.buffers().len(),
                used.images().iter().map(|used| (used.old_layout, used.new_layout)),
            ),
            None => Contents::UNKNOWN,
        }
    }

    fn enqueue_release(
        &self,
        fences: &FencePool,
        commands: VulkanCommands<'_>,
        completion: Completion<'_, Semaphore>,
        end: End<'_>,
    ) -> Result<(SubmitSync, Option<HostFence>)> {
        let mut sync = SubmitSync::default();
        sync.add_end(submit_end(self, &end, &commands.used)?);
        let host = match completion {
            Completion::HostWait(_) => Some(HostFence::Vulkan(fences.next(&mut sync)?)),
            Completion::Signal(ops) => {
                ops.into_iter().for_each(|(semaphore, value)| sync.add_signal(semaphore, value));
                None
            }
        };
        if let Some((command_buffer, family)) = commands.record {
            // SAFETY: the promise of `VulkanCommands::record`.
            unsafe { self.record_release(command_buffer, family, commands.used) }?;
        }
        Ok((sync, host))
    }

    fn enqueue_acquire(
        &self,
        commands: VulkanCommands<'_>,
        contents: &Contents,
        waits: SemaphoreOps<'_, Semaphore>,
        end: End<'_>,
    ) -> Result<SubmitSync> {
        let mut sync = SubmitSync::default();
        sync.add_end(submit_end(self, &end, &commands.used)?);
        if let Some((command_buffer, family)) = commands.record {
            let used = commands.used;
            let released = contents.of_each(used.buffers().len(), used.images().len())?;
            let images = used.images().iter().zip(released).map(|(used, released)| {
                let (old, new) = acquired_by_vulkan(released, (used.old_layout, used.new_layout))?;
                Ok(used.with_layouts(old, new))
            });
            let images: SmallVec<[ImageAccess<'_>; 2]> = images.collect::<Result<_>>()?;
            // SAFETY: the promise of `VulkanCommands::record`; the other side has released the
            // resources, the images with these layouts, because the ticket exists; the submit waits
            // for the release with what is returned here, or the host has waited.
            unsafe { self.record_acquire(command_buffer, family, used.with_images(&images)) }?;
        }
        waits.into_iter().for_each(|(semaphore, value)| sync.add_wait(semaphore, value));
        Ok(sync)
    }
}

fn submit_end(endpoint: &Endpoint, end: &End<'_>, used: &Accesses<'_>) -> Result<SubmitEnd> {
    SubmitEnd::new(endpoint, end.channel.clone(), end.id(), end.half.clone(), used)
}

/// Releases for code that controls no submit, such as an engine's plugin.
impl Releaser<Endpoint> {
    /// Releases `used`: records a command buffer of the library's own and submits it to `queue`.
    ///
    /// # Safety
    /// - `queue` is a queue of `queue_family` of the endpoint's device. It is externally
    ///   synchronised during this call: hold the engine's lock for it.
    /// - `queue_family` owns the resources, and the images are in their `old_layout`. The commands
    ///   that used them were submitted to `queue` before, or it waits for them.
    ///
    /// # Errors
    /// Same as [`release`](Self::release) and [`SubmitSync::submit`]. After an error nothing is
    /// released.
    ///
    /// # References
    /// `vkQueueSubmit`, `vkCmdPipelineBarrier`.
    #[doc(alias = "vkQueueSubmit")]
    pub unsafe fn release_on<'a>(
        &mut self,
        queue: vk::Queue,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Result<Ticket> {
        let commands = self.endpoint.own_commands(queue_family)?;
        // SAFETY: the command buffer is being recorded for that family, outside a render pass, and
        // is submitted with what is returned; the rest is the caller's promise.
        let record = unsafe { VulkanCommands::record(commands.handle(), queue_family, used) };
        let (ticket, sync) = self.release(record)?;
        // SAFETY: the caller's promise.
        unsafe { submit_own(&self.endpoint, queue, commands, sync) }?;
        Ok(ticket)
    }
}

/// Acquires for code that controls no submit, such as an engine's plugin.
impl Acquirer<Endpoint> {
    /// Acquires `used`: records a command buffer of the library's own and submits it to `queue`.
    /// Work submitted to `queue` afterwards sees what the other side wrote.
    ///
    /// # Safety
    /// - `queue` is a queue of `queue_family` of the endpoint's device. It is externally
    ///   synchronised during this call: hold the engine's lock for it.
    /// - The images are those of the release, in the same order. If the ticket has no layouts (a
    ///   release by CUDA, or a prerecorded one), they are in the layouts that `used` names.
    ///
    /// # Errors
    /// Same as [`acquire`](Self::acquire) and [`SubmitSync::submit`]. After an error nothing is
    /// acquired, and the ticket is returned.
    ///
    /// # References
    /// `vkQueueSubmit`, `vkCmdPipelineBarrier`.
    #[doc(alias = "vkQueueSubmit")]
    pub unsafe fn acquire_on<'a>(
        &mut self,
        ticket: Ticket,
        queue: vk::Queue,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Result<(), AcquireError> {
        // SAFETY: the caller's promise.
        match unsafe { self.try_acquire_on(&ticket, queue, queue_family, used.into()) } {
            Ok(()) => {
                self.channel().in_flight().acquire(ticket.finish().sequence);
                Ok(())
            }
            Err(error) => Err(ImportError::new(ticket, error)),
        }
    }

    /// # Safety
    /// Same as [`acquire_on`](Self::acquire_on).
    unsafe fn try_acquire_on(
        &self,
        ticket: &Ticket,
        queue: vk::Queue,
        queue_family: u32,
        used: Accesses<'_>,
    ) -> Result<()> {
        let commands = self.endpoint().own_commands(queue_family)?;
        // SAFETY: the command buffer is being recorded for that family, outside a render pass, and
        // is submitted with what is returned; the rest is the caller's promise.
        let record = unsafe { VulkanCommands::record(commands.handle(), queue_family, used) };
        let sync = self.enqueue(std::iter::once(ticket), &ticket.release().contents, record)?;
        // SAFETY: the caller's promise.
        unsafe { submit_own(self.endpoint(), queue, commands, sync) }
    }
}

/// # Safety
/// `queue` is of the family that `commands` are being recorded for, and externally synchronised.
unsafe fn submit_own(
    endpoint: &Endpoint,
    queue: vk::Queue,
    commands: Commands,
    mut sync: SubmitSync,
) -> Result<()> {
    // SAFETY: the commands are one barrier, which was checked.
    unsafe { commands.end() }?;
    sync.set_commands(commands);
    // SAFETY: the caller's promise.
    unsafe { sync.submit_own(endpoint, queue) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use ash::vk::Handle;

    use super::*;
    use crate::handoff::{self, Handoff, HandoffOptions};
    use crate::vulkan::{BufferAccess, fake};

    /// Another thread looks for lost tickets meanwhile.
    #[test]
    fn a_submit_that_fails_returns_its_own_ticket() {
        let endpoint = fake::endpoint();
        let (buffer, queue) = (fake::buffer(&endpoint, 7), vk::Queue::from_raw(1));
        let used = BufferAccess::compute(&buffer);
        let options = HandoffOptions { in_flight: 2, ..Default::default() };
        let opened = handoff::open(&endpoint, &endpoint, &endpoint, options);
        let Handoff { mut release, mut acquire, .. } = opened.unwrap();
        fake::set_work_done(true);
        // SAFETY: the fake driver only records the calls.
        let ticket = unsafe { release.release_on(queue, 0, used) }.unwrap();
        fake::set_submits_fail(true);
        let is_over = AtomicBool::new(false);
        let (ticket, found) = thread::scope(|scope| {
            let found = scope.spawn(|| {
                let mut found = 0;
                while !is_over.load(Ordering::Relaxed) {
                    found += release.lost_tickets().len();
                }
                found
            });
            let mut ticket = Some(ticket);
            for _ in 0..10_000 {
                // SAFETY: as above.
                let acquired = ticket.map(|own| unsafe { acquire.acquire_on(own, queue, 0, used) });
                ticket = acquired.and_then(Result::err).map(ImportError::into_payload);
            }
            // Nothing above panics, so that the other thread ends.
            is_over.store(true, Ordering::Relaxed);
            (ticket.unwrap(), found.join().unwrap())
        });
        assert_eq!(found, 0);
        assert_eq!(ticket.sequence(), 1);
        fake::set_submits_fail(false);
        // SAFETY: as above.
        unsafe { acquire.acquire_on(ticket, queue, 0, used) }.unwrap();
        assert!(acquire.lost_tickets().is_empty());
    }
}
