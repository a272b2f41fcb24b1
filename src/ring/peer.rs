//! The trait that a ring requires of a peer, implemented for the three peers.

use std::fmt;
#[cfg(any(feature = "gl", feature = "cuda"))]
use std::time::Duration;

use ash::vk;
use smallvec::SmallVec;

#[cfg(feature = "cuda")]
use super::queue::Arrival;
use super::slot::{PendingRelease, PendingTake};
use crate::error::Result;
use crate::handoff::{HandoffPeer, Releaser, VulkanCommands};
use crate::vulkan::{self, AfterSubmit as _, Buffer, BufferAccess, SubmitSync};

/// How long dropping an OpenGL or CUDA stage waits for its last work. Work that takes longer is
/// assumed to hang, or to wait for a signal that never comes.
#[cfg(any(feature = "gl", feature = "cuda"))]
const TIMEOUT: Duration = Duration::from_secs(60);

/// A peer that can be a stage of a ring. Implemented by the crate's endpoints.
///
/// | peer | `SlotCommands` | `Sync` |
/// |---|---|---|
/// | [`vulkan::Endpoint`] | [`SlotCommands`]: a command buffer, its queue family, how it uses each buffer | [`SubmitSync`], for the submit |
/// | `gl::Endpoint` | `()` | `()`: the work is submitted |
/// | `cuda::Endpoint` | `CudaCommands`: the stream | `()`: the work is submitted |
pub trait RingPeer: HandoffPeer {
    /// The argument of `take` and `release`: what to record for the slots.
    type SlotCommands<'a>;
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

    /// Called after the acquire of slots was recorded or submitted.
    #[doc(hidden)]
    fn taken(_sync: &mut Self::Sync, mut pending: PendingTake) {
        pending.submitted();
    }

    /// Called after the release of slots was recorded or submitted.
    #[doc(hidden)]
    fn released(
        _releaser: &Releaser<Self>,
        _work: &mut Self::Work,
        _sync: &mut Self::Sync,
        mut pending: PendingRelease,
    ) {
        pending.submitted();
    }

    /// Waits for the last work of a stage that is being dropped.
    #[doc(hidden)]
    fn finish(_releaser: &Releaser<Self>, _work: &Self::Work) -> Result<()> {
        Ok(())
    }
}

/// What a Vulkan stage records for the slots that it takes or releases.
#[derive(Clone, Copy, Debug)]
pub struct SlotCommands {
    /// `None` if the barriers are prerecorded.
    record: Option<(vk::CommandBuffer, u32, AccessOf)>,
}

/// How the commands use the buffer of a slot.
type AccessOf = for<'b> fn(&'b Buffer) -> BufferAccess<'b>;

impl SlotCommands {
    /// Records one barrier for all slots into `command_buffer`: an acquire before the commands that
    /// will use the buffers, a release after the commands that used them. `used` returns how they
    /// use a buffer, for example `|buffer| BufferAccess::compute(buffer)`.
    ///
    /// # Safety
    /// The same as for [`VulkanCommands::record`].
    pub unsafe fn record(
        command_buffer: vk::CommandBuffer,
        queue_family: u32,
        used: for<'b> fn(&'b Buffer) -> BufferAccess<'b>,
    ) -> Self {
        Self { record: Some((command_buffer, queue_family, used)) }
    }

    /// Records nothing, like [`VulkanCommands::recorded`].
    ///
    /// For a slot that [is new](super::Slot::is_new), submit commands without an acquire barrier:
    /// there is nothing to acquire.
    pub fn recorded() -> Self {
        Self { record: None }
    }
}

impl RingPeer for vulkan::Endpoint {
    type SlotCommands<'a> = SlotCommands;
    type Work = ();

    fn with_commands<'b, R>(
        buffers: impl Iterator<Item = &'b Buffer>,
        commands: SlotCommands,
        run: impl FnOnce(VulkanCommands<'_>) -> R,
    ) -> R {
        let used: AccessOf =
            commands.record.map_or(|buffer| BufferAccess::any(buffer), |record| record.2);
        let used: SmallVec<[BufferAccess<'_>; 8]> = buffers.map(used).collect();
        run(match commands.record {
            // SAFETY: the promise of `SlotCommands::record`.
            Some((command_buffer, family, _)) => unsafe {
                VulkanCommands::record(command_buffer, family, used.as_slice())
            },
            None => VulkanCommands::recorded().covering(used.as_slice()),
        })
    }

    fn taken(sync: &mut SubmitSync, pending: PendingTake) {
        sync.after_submit(pending);
    }

    fn released(_: &Releaser<Self>, (): &mut (), sync: &mut SubmitSync, pending: PendingRelease) {
        sync.after_submit(pending);
    }
}

#[cfg(feature = "gl")]
impl RingPeer for crate::gl::Endpoint {
    type SlotCommands<'a> = ();
    type Work = ();

    fn with_commands<'b, R>(
        buffers: impl Iterator<Item = &'b Self::Buffer>,
        (): (),
        run: impl FnOnce(Self::Commands<'_>) -> R,
    ) -> R {
        let buffers: SmallVec<[&Self::Buffer; 8]> = buffers.collect();
        run(buffers.as_slice().into())
    }

    fn finish(releaser: &Releaser<Self>, (): &()) -> Result<()> {
        // After everything that was submitted to the context so far.
        releaser.endpoint().fence()?.wait(TIMEOUT)
    }
}

#[cfg(feature = "cuda")]
impl RingPeer for crate::cuda::Endpoint {
    type SlotCommands<'a> = crate::handoff::CudaCommands<'a>;
    /// The last release of each slot, for a host wait; a semaphore tracks its own uses.
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
        (): &mut (),
        mut pending: PendingRelease,
    ) {
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
    }

    fn finish(releaser: &Releaser<Self>, work: &Self::Work) -> Result<()> {
        work.iter().flatten().try_for_each(|last| last.wait(TIMEOUT))?;
        releaser.wait_for_uses(TIMEOUT)
    }
}
