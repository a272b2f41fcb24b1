//! The trait that a handoff requires of a peer, and the semaphores that it passes to the peer.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::channel::Channel;
use super::contents::Contents;
use super::wait::{HostFence, HostWait};
use crate::capabilities::SyncMethod;
use crate::desc::ImageLayout;
use crate::error::Result;
use crate::peer::Peer;
use crate::vulkan::{self, Half};

/// A peer that can be an end of a handoff. Implemented by the crate's endpoints.
///
/// | peer | `Commands` | `Sync` |
/// |---|---|---|
/// | [`vulkan::Endpoint`] | [`VulkanCommands`](super::VulkanCommands): a command buffer, its queue family, the accesses | [`SubmitSync`](vulkan::SubmitSync), to be added to the submit |
/// | `gl::Endpoint` | `GlCommands`: the buffers and textures | `()`: the work is submitted |
/// | `cuda::Endpoint` | `CudaCommands`: the stream | `()`: the work is submitted |
///
/// # Examples
/// Code for every pair of APIs. The caller's `submit` receives Vulkan's `SubmitSync`, or `()` from
/// OpenGL and CUDA:
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
    /// The argument of a release or an acquire: the commands that the release follows or the
    /// acquire precedes, and what they use.
    type Commands<'a>;
    /// What a release or an acquire returns for the caller's submit.
    type Sync: Default;
    /// What the releasing end keeps so that the host can wait.
    #[doc(hidden)]
    type Fences: fmt::Debug;
    /// Whether a release or an acquire is submitted when the call returns.
    #[doc(hidden)]
    const SUBMITS: bool;

    #[doc(hidden)]
    fn adopt_semaphore(&self, semaphore: &vulkan::Semaphore) -> Result<Self::Semaphore> {
        Ok(self.import_semaphore(semaphore.export()?)?)
    }

    #[doc(hidden)]
    fn fences(&self) -> Result<Self::Fences>;

    /// Waits until the work that an end has submitted is done, if its semaphores must be kept until
    /// then.
    #[doc(hidden)]
    fn wait_for_end(&self, _end: u64, _timeout: Duration) {}

    /// Rejects a layout that this peer can't acquire an image in.
    #[doc(hidden)]
    fn check_layout(_layout: ImageLayout) -> Result<()> {
        Ok(())
    }

    /// Returns what a release lists, for its ticket.
    #[doc(hidden)]
    fn contents(commands: &Self::Commands<'_>) -> Contents;

    /// Records or enqueues a release. Nothing is released if it fails.
    #[doc(hidden)]
    fn enqueue_release(
        &self,
        fences: &Self::Fences,
        commands: Self::Commands<'_>,
        completion: Completion<'_, Self::Semaphore>,
        end: End<'_>,
    ) -> Result<(Self::Sync, Option<HostFence>)>;

    /// Records or enqueues an acquire; `waits` is empty if the host has waited. Nothing is acquired
    /// if it fails.
    #[doc(hidden)]
    fn enqueue_acquire(
        &self,
        commands: Self::Commands<'_>,
        contents: &Contents,
        waits: SemaphoreOps<'_, Self::Semaphore>,
        end: End<'_>,
    ) -> Result<Self::Sync>;
}

/// The end of a handoff that an operation belongs to.
#[derive(Debug)]
pub struct End<'a> {
    pub(crate) channel: &'a Arc<Channel>,
    pub(crate) half: Half,
}

impl End<'_> {
    /// Identifies the end.
    pub(crate) fn id(&self) -> u64 {
        2 * self.channel.id + u64::from(matches!(self.half, Half::Acquire(_)))
    }
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// A semaphore and the value that is signalled or waited for; `None` for a binary semaphore.
pub(crate) type SemaphoreOp<'a, S> = (&'a S, Option<u64>);

/// The semaphores of one call: on the stack for a timeline, and for a few binary semaphores.
pub(crate) type SemaphoreOps<'a, S> = SmallVec<[SemaphoreOp<'a, S>; 8]>;

/// How the acquiring side learns that the released work is done.
#[derive(Debug)]
pub enum Completion<'a, S> {
    /// The GPU signals these semaphores.
    Signal(SemaphoreOps<'a, S>),
    /// The host waits.
    HostWait(HostWait),
}

/// Returns the semaphores of the releases `sequences`: one entry with the highest value for a
/// timeline, one entry per release for binary semaphores. Empty if the host waits.
pub(crate) fn semaphore_ops<S>(
    semaphores: &[S],
    method: SyncMethod,
    sequences: impl Iterator<Item = u64>,
) -> SemaphoreOps<'_, S> {
    match method {
        SyncMethod::Timeline => {
            let highest = sequences.max();
            semaphores
                .first()
                .filter(|_| highest.is_some())
                .map(|one| (one, highest))
                .into_iter()
                .collect()
        }
        SyncMethod::Binary => {
            sequences.filter_map(|number| Some((binary(semaphores, number)?, None))).collect()
        }
        SyncMethod::HostWait => SemaphoreOps::new(),
    }
}

/// Returns how the acquiring side learns that the releases `sequences` are done.
pub(crate) fn completion<S>(
    semaphores: &[S],
    method: SyncMethod,
    host: HostWait,
    sequences: Range<u64>,
) -> Completion<'_, S> {
    match method {
        SyncMethod::HostWait => Completion::HostWait(host),
        _ => Completion::Signal(semaphore_ops(semaphores, method, sequences)),
    }
}

/// Returns the semaphore of release number `sequence`, which starts at 1.
fn binary<S>(semaphores: &[S], sequence: u64) -> Option<&S> {
    let slot = sequence.checked_sub(1)?.checked_rem(semaphores.len() as u64)?;
    // The slot is below the count, which came from a length.
    semaphores.get(slot as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(
        semaphores: &[char],
        method: SyncMethod,
        sequences: &[u64],
    ) -> Vec<(char, Option<u64>)> {
        let ops = semaphore_ops(semaphores, method, sequences.iter().copied());
        ops.into_iter().map(|(semaphore, value)| (*semaphore, value)).collect()
    }

    #[test]
    fn the_highest_value_of_a_timeline_stands_for_all() {
        let timeline = |sequences: &[u64]| shown(&['t'], SyncMethod::Timeline, sequences);
        assert_eq!(timeline(&[7]), [('t', Some(7))]);
        assert_eq!(timeline(&[7, 9, 8]), [('t', Some(9))]);
        assert_eq!(timeline(&[]), []);
    }

    #[test]
    fn binary_semaphores_are_used_in_rotation() {
        let binary = |sequences: &[u64]| shown(&['a', 'b', 'c'], SyncMethod::Binary, sequences);
        assert_eq!(binary(&[1]), [('a', None)]);
        assert_eq!(binary(&[3, 4, 5]), [('c', None), ('a', None), ('b', None)]);
    }

    #[test]
    fn the_gpu_waits_for_nothing_if_the_host_waits() {
        assert_eq!(shown(&[], SyncMethod::HostWait, &[1, 2]), []);
    }
}
