//! Vulkan's ends of a handoff: recorded into the user's command buffer, added to the user's submit.

use ash::vk;
use smallvec::SmallVec;

use super::channel::{AcquireError, Ticket};
use super::ends::Releaser;
use super::layouts::{Layouts, acquired_by_vulkan};
use super::peer::{Completion, HandoffPeer, SemaphoreOps, sealed};
use super::wait::HostFence;
use crate::capabilities::SyncMethod;
use crate::error::{ImportError, Result};
use crate::vulkan::{
    Accesses, Endpoint, Fence, FencePool, ImageAccess, Semaphore, SemaphoreSignal, SemaphoreWait,
    SubmitSync,
};

/// A command buffer that a release or an acquire is recorded into, and what its commands use.
#[derive(Clone, Copy, Debug)]
pub struct VulkanCommands<'a> {
    /// The command buffer and its queue family; `None` if the barriers are recorded already.
    record: Option<(vk::CommandBuffer, u32)>,
    used: Accesses<'a>,
}

impl<'a> VulkanCommands<'a> {
    /// Records into `command_buffer`: a release after the commands that used `used`, an acquire before
    /// the commands that will use it. `used` is a list of buffers, of images, or
    /// [`Accesses`] of both.
    ///
    /// # Safety
    /// - `command_buffer` is being recorded, outside a render pass, for a queue of `queue_family` of the
    ///   endpoint's device.
    /// - For a release, `queue_family` owns the resources, and the images are in their `old_layout`.
    /// - For an acquire, the images are those of the release, in the same order. If the ticket has no
    ///   layouts (a release by CUDA, or one recorded earlier), the images are in those that `used` names.
    /// - The [`SubmitSync`] that the release or the acquire returns is added to the submit of the command
    ///   buffer.
    /// - The resources live until the command buffer has executed.
    pub unsafe fn record(
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: impl Into<Accesses<'a>>,
    ) -> Self {
        Self { record: Some((command_buffer, queue_family)), used: used.into() }
    }

    /// Records nothing: the barriers ([`Endpoint::record_release`], [`Endpoint::record_acquire`]) are in
    /// command buffers that were recorded earlier, for repeated submission. Image layouts are neither
    /// carried nor compared.
    pub fn recorded() -> Self {
        Self { record: None, used: Accesses::default() }
    }
}

impl sealed::Sealed for Endpoint {}

impl HandoffPeer for Endpoint {
    type Commands<'a> = VulkanCommands<'a>;
    type Sync = SubmitSync;
    type Fences = FencePool;

    fn adopt_semaphore(&self, semaphore: &Semaphore) -> Result<Semaphore> {
        if semaphore.is_of(self) {
            return Ok(semaphore.clone());
        }
        Ok(self.import_semaphore(semaphore.export()?)?)
    }

    fn fences(&self) -> Result<FencePool> {
        FencePool::new(self)
    }

    fn leak(fences: &FencePool) {
        fences.leak();
    }

    fn released_layouts(commands: &VulkanCommands<'_>) -> Layouts {
        match commands.record {
            Some(_) => Layouts::of_vulkan(
                commands.used.images.iter().map(|used| (used.old_layout, used.new_layout)),
            ),
            None => Layouts::UNKNOWN,
        }
    }

    fn enqueue_release(
        &self,
        fences: &FencePool,
        commands: VulkanCommands<'_>,
        completion: Completion<'_, Semaphore>,
    ) -> Result<(SubmitSync, Option<HostFence>)> {
        let mut sync = SubmitSync::default();
        let host = match completion {
            Completion::HostWait(_) => Some(HostFence::Vulkan(fences.next(&mut sync)?)),
            Completion::Signal(ops) => {
                let signal = |(semaphore, value): (&Semaphore, _)| SemaphoreSignal {
                    semaphore: semaphore.clone(),
                    value,
                };
                sync.signals.extend(ops.into_iter().map(signal));
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
        layouts: &Layouts,
        waits: SemaphoreOps<'_, Semaphore>,
    ) -> Result<SubmitSync> {
        if let Some((command_buffer, family)) = commands.record {
            let Accesses { buffers, images } = commands.used;
            let released = layouts.of_each(images.len())?;
            let images = images.iter().zip(released).map(|(used, released)| {
                let (old, new) = acquired_by_vulkan(released, (used.old_layout, used.new_layout))?;
                Ok(used.with_layouts(old, new))
            });
            let images: SmallVec<[ImageAccess<'_>; 2]> = images.collect::<Result<_>>()?;
            // SAFETY: the promise of `VulkanCommands::record`; the other side has released the resources,
            // the images with these layouts, because the ticket exists; the submit waits for the release
            // with what is returned here, or the host has waited.
            unsafe {
                let used = Accesses { buffers, images: &images };
                self.record_acquire(command_buffer, family, used)
            }?;
        }
        let wait = |(semaphore, value): (&Semaphore, _)| SemaphoreWait {
            semaphore: semaphore.clone(),
            value,
            // All: only the user's command buffer knows which commands come first.
            stage: vk::PipelineStageFlags::ALL_COMMANDS,
        };
        Ok(SubmitSync { waits: waits.into_iter().map(wait).collect(), ..SubmitSync::default() })
    }
}

impl Releaser<Endpoint> {
    /// Withdraws a release that was not submitted, for example because the submit failed. The payload
    /// stays with this side, and the handoff continues as if nothing had been released.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a ticket from another handoff, which is returned.
    pub fn withdraw(&mut self, ticket: Ticket) -> Result<(), AcquireError> {
        match self.check_own(&ticket) {
            Ok(()) => {
                ticket.withdraw();
                Ok(())
            }
            Err(error) => Err(ImportError::new(ticket, error)),
        }
    }

    /// Returns a fence for the submit of `ticket`'s release, if what the other side waits for can be
    /// queried: a binary semaphore can't.
    pub(crate) fn fence_of(&self, ticket: &Ticket) -> Option<Fence> {
        match (self.method(), &ticket.release().host) {
            (_, Some(HostFence::Vulkan(fence))) => Some(fence.clone()),
            (SyncMethod::Timeline, _) => {
                let timeline = self.semaphores.first()?;
                Some(Fence::timeline(timeline, ticket.sequence()))
            }
            _ => None,
        }
    }
}
