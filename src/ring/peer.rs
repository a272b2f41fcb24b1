//! What a ring requires of a peer, implemented for the three peers.

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use ash::vk;
use smallvec::SmallVec;

#[cfg(feature = "cuda")]
use super::queue::Arrival;
use super::slot::{LastSubmit, PendingRelease};
use crate::error::Result;
use crate::handoff::{HandoffPeer, Releaser, VulkanCommands};
use crate::vulkan::{self, Buffer, BufferAccess, Fence, FencePool, SubmitSync};

/// How long dropping a stage waits for its last work. Work that takes longer hangs, or waits for a signal
/// that never comes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A peer that can be a stage of a ring. Implemented by the crate's endpoints.
///
/// | peer | `SlotCommands` | `Released` |
/// |---|---|---|
/// | [`vulkan::Endpoint`] | [`SlotCommands`]: a command buffer, its queue family, how it uses each buffer | [`SubmitSync`] for the submit, and the [`PendingRelease`] to be called after it |
/// | `gl::Endpoint` | `()` | `()`: the work is submitted |
/// | `cuda::Endpoint` | `CudaCommands`: the stream | `()`: the work is submitted |
pub trait RingPeer: HandoffPeer {
    /// The argument of `take` and `release`: what to record for the slots.
    type SlotCommands<'a>;
    /// What `release` returns.
    type Released;
    /// What the stage keeps to know that its work is done.
    #[doc(hidden)]
    type Work: fmt::Debug + Default;

    /// Calls `run` with the commands of a handoff of `buffers`.
    #[doc(hidden)]
    fn with_commands<'b, R>(
        buffers: impl Iterator<Item = &'b Self::Buffer>,
        commands: Self::SlotCommands<'_>,
        run: impl FnOnce(Self::Commands<'_>) -> R,
    ) -> R
    where
        Self: 'b;

    /// Records the release of `slots`, and passes them on if they are submitted already.
    #[doc(hidden)]
    fn released(
        releaser: &Releaser<Self>,
        work: &mut Self::Work,
        sync: Self::Sync,
        pending: PendingRelease,
    ) -> Result<Self::Released>;

    /// Waits for the last work of a stage that is being dropped.
    #[doc(hidden)]
    fn finish(releaser: &Releaser<Self>, work: &Self::Work) -> Result<()>;
}

/// What a Vulkan stage records for the slots that it takes or releases.
#[derive(Clone, Copy, Debug)]
pub struct SlotCommands {
    /// `None` if the barriers are recorded already.
    record: Option<(vk::CommandBuffer, u32, AccessOf)>,
}

/// How the commands use the buffer of a slot.
type AccessOf = for<'b> fn(&'b Buffer) -> BufferAccess<'b>;

impl SlotCommands {
    /// Records one barrier for all slots into `command_buffer`: an acquire before the commands that will
    /// use the buffers as `used` says, a release after the commands that did. For example
    /// `|buffer| BufferAccess::compute(buffer)`.
    ///
    /// # Safety
    /// The same as for [`VulkanCommands::record`], except that the stage keeps its buffers until the work
    /// that it has released is done. The caller keeps the stage until all other work is done.
    pub unsafe fn record(
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: for<'b> fn(&'b Buffer) -> BufferAccess<'b>,
    ) -> Self {
        Self { record: Some((command_buffer, queue_family, used)) }
    }

    /// Records nothing, as [`VulkanCommands::recorded`].
    ///
    /// A slot that [is new](super::Slot::is_new) has nothing to acquire: submit it with commands that have
    /// no acquire barrier.
    pub fn recorded() -> Self {
        Self { record: None }
    }
}

/// The host's view of what a Vulkan stage has submitted.
#[derive(Debug, Default)]
pub struct VulkanWork {
    /// `Some` with binary semaphores, which the host can't query.
    fences: Option<FencePool>,
    last: LastSubmit,
}

impl VulkanWork {
    /// Returns a fence that the submit of `sync` will signal.
    fn fence(&mut self, endpoint: &vulkan::Endpoint, sync: &mut SubmitSync) -> Result<Fence> {
        let fences = match self.fences.take() {
            Some(fences) => fences,
            None => FencePool::new(endpoint)?,
        };
        self.fences.insert(fences).next(sync)
    }
}

impl RingPeer for vulkan::Endpoint {
    type SlotCommands<'a> = SlotCommands;
    type Released = (SubmitSync, PendingRelease);
    type Work = VulkanWork;

    fn with_commands<'b, R>(
        buffers: impl Iterator<Item = &'b Buffer>,
        commands: SlotCommands,
        run: impl FnOnce(VulkanCommands<'_>) -> R,
    ) -> R {
        let Some((command_buffer, family, used)) = commands.record else {
            return run(VulkanCommands::recorded());
        };
        let used: SmallVec<[BufferAccess<'_>; 8]> = buffers.map(used).collect();
        // SAFETY: the promise of `SlotCommands::record`.
        run(unsafe { VulkanCommands::record(command_buffer, family, used.as_slice()) })
    }

    fn released(
        releaser: &Releaser<Self>,
        work: &mut VulkanWork,
        mut sync: SubmitSync,
        mut pending: PendingRelease,
    ) -> Result<(SubmitSync, PendingRelease)> {
        // This stage can wait for what the next one waits for, except for a binary semaphore, which
        // can't be queried.
        let last = pending.slots.last().and_then(|slot| slot.ticket.as_ref());
        let fence = match last.and_then(|ticket| releaser.fence_of(ticket)) {
            Some(fence) => fence,
            None => work.fence(releaser.endpoint(), &mut sync)?,
        };
        pending.fence = Some((work.last.clone(), fence));
        Ok((sync, pending))
    }

    fn finish(_: &Releaser<Self>, work: &VulkanWork) -> Result<()> {
        let last = work.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let finished = last.map_or(Ok(()), |last| last.wait(TIMEOUT));
        if let (Err(_), Some(fences)) = (&finished, &work.fences) {
            fences.leak();
        }
        finished
    }
}

#[cfg(feature = "gl")]
impl RingPeer for crate::gl::Endpoint {
    type SlotCommands<'a> = ();
    type Released = ();
    type Work = ();

    fn with_commands<'b, R>(
        buffers: impl Iterator<Item = &'b Self::Buffer>,
        (): (),
        run: impl FnOnce(Self::Commands<'_>) -> R,
    ) -> R {
        let buffers: SmallVec<[&Self::Buffer; 8]> = buffers.collect();
        run(buffers.as_slice().into())
    }

    fn released(_: &Releaser<Self>, (): &mut (), (): (), pending: PendingRelease) -> Result<()> {
        pending.submitted();
        Ok(())
    }

    fn finish(releaser: &Releaser<Self>, (): &()) -> Result<()> {
        // Everything that the context was given so far.
        releaser.endpoint().fence()?.wait(TIMEOUT)
    }
}

#[cfg(feature = "cuda")]
impl RingPeer for crate::cuda::Endpoint {
    type SlotCommands<'a> = crate::handoff::CudaCommands<'a>;
    type Released = ();
    /// The last release of each slot, if the host waits; a semaphore tracks its own uses.
    type Work = Vec<Option<crate::cuda::Fence>>;

    fn with_commands<'b, R>(
        _: impl Iterator<Item = &'b Self::Buffer>,
        commands: crate::handoff::CudaCommands<'_>,
        run: impl FnOnce(Self::Commands<'_>) -> R,
    ) -> R {
        run(commands)
    }

    fn released(
        releaser: &Releaser<Self>,
        work: &mut Self::Work,
        (): (),
        pending: PendingRelease,
    ) -> Result<()> {
        for Arrival { index, ticket } in &pending.slots {
            let Some(fence) = ticket.as_ref().and_then(|ticket| releaser.fence_of(ticket)) else {
                continue;
            };
            if work.len() <= *index {
                work.resize(*index + 1, None);
            }
            work[*index] = Some(fence);
        }
        pending.submitted();
        Ok(())
    }

    fn finish(releaser: &Releaser<Self>, work: &Self::Work) -> Result<()> {
        work.iter().flatten().try_for_each(|last| last.wait(TIMEOUT))?;
        releaser.wait_for_uses(TIMEOUT)
    }
}
