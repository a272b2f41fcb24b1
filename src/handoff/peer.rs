//! What a handoff needs of a peer.

use std::fmt;

use super::layouts::Layouts;
use super::semaphore_ops::{Completion, SemaphoreOps};
use super::wait::HostFence;
use crate::desc::ImageLayout;
use crate::error::Result;
use crate::peer::Peer;
use crate::vulkan;

/// A peer that can be an end of a handoff. Implemented by the crate's endpoints.
///
/// | peer | `Commands` | `Sync` |
/// |---|---|---|
/// | [`vulkan::Endpoint`] | [`VulkanCommands`](super::VulkanCommands): a command buffer, its queue family, the accesses | [`SubmitSync`](vulkan::SubmitSync), to be added to the submit |
/// | `gl::Endpoint` | `GlCommands`: the buffers and textures | `()`: the work is submitted |
/// | `cuda::Endpoint` | `CudaCommands`: the stream | `()`: the work is submitted |
///
/// # Examples
/// Code that is written once for every pair of APIs. The caller's `submit` gets what Vulkan adds to a
/// submit, and `()` from the others:
/// ```
/// use gpu_interop::Result;
/// use gpu_interop::handoff::{Handoff, HandoffPeer};
///
/// fn hand_over<A: HandoffPeer, B: HandoffPeer>(
///     handoff: &mut Handoff<A, B>,
///     released: A::Commands<'_>,
///     acquired: B::Commands<'_>,
///     submit: impl FnOnce(A::Sync) -> Result<()>,
/// ) -> Result<B::Sync> {
///     let (ticket, sync) = handoff.release.release(released)?;
///     submit(sync)?;
///     Ok(handoff.acquire.acquire(ticket, acquired)?)
/// }
/// ```
pub trait HandoffPeer: Peer + sealed::Sealed {
    /// What a release or an acquire is given: which commands it follows or precedes, and what they
    /// use.
    type Commands<'a>;
    /// What a release or an acquire returns for the caller's submit.
    type Sync: Default;
    /// What the releasing end keeps so that the host can wait.
    #[doc(hidden)]
    type Fences: fmt::Debug;

    #[doc(hidden)]
    fn adopt_semaphore(&self, semaphore: &vulkan::Semaphore) -> Result<Self::Semaphore> {
        Ok(self.import_semaphore(semaphore.export()?)?)
    }

    #[doc(hidden)]
    fn fences(&self) -> Result<Self::Fences>;

    /// Keeps alive indefinitely what work that may never end still uses.
    #[doc(hidden)]
    fn leak(_fences: &Self::Fences) {}

    /// Refuses a layout that this peer can't acquire an image in.
    #[doc(hidden)]
    fn check_layout(_layout: ImageLayout) -> Result<()> {
        Ok(())
    }

    /// Returns the layouts for the ticket of a release.
    #[doc(hidden)]
    fn released_layouts(commands: &Self::Commands<'_>) -> Layouts;

    /// Records or enqueues a release. Nothing is released if it fails.
    #[doc(hidden)]
    fn enqueue_release(
        &self,
        fences: &Self::Fences,
        commands: Self::Commands<'_>,
        completion: Completion<'_, Self::Semaphore>,
    ) -> Result<(Self::Sync, Option<HostFence>)>;

    /// Records or enqueues an acquire; `waits` is empty if the host has waited. Nothing is acquired if
    /// it fails.
    #[doc(hidden)]
    fn enqueue_acquire(
        &self,
        commands: Self::Commands<'_>,
        layouts: &Layouts,
        waits: SemaphoreOps<'_, Self::Semaphore>,
    ) -> Result<Self::Sync>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}
