//! What a handoff adds to the user's submit, and the fence that shows when it is done.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ash::vk;
use smallvec::SmallVec;

use super::conv::{VkResultExt, nanoseconds};
use super::endpoint::Endpoint;
use super::semaphore::Semaphore;
use crate::error::{Error, Invalid, Mismatch, Result};

/// A semaphore to wait for.
#[derive(Clone)]
pub struct SemaphoreWait {
    /// The semaphore.
    pub semaphore: Semaphore,
    /// The value to wait for; `None` for a binary semaphore.
    pub value: Option<u64>,
    /// The stages that wait.
    pub stage: vk::PipelineStageFlags,
}

impl fmt::Debug for SemaphoreWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreWait")
            .field("semaphore", &self.semaphore)
            .field("value", &self.value)
            .field("stage", &format_args!("{:#x}", self.stage.as_raw()))
            .finish()
    }
}

/// A semaphore to signal.
#[derive(Clone, Debug)]
pub struct SemaphoreSignal {
    /// The semaphore.
    pub semaphore: Semaphore,
    /// The value to set; `None` for a binary semaphore.
    pub value: Option<u64>,
}

/// What to add to the submit of the command buffer that a release or an acquire was recorded in.
///
/// [`merge`](Self::merge) joins those of several handoffs. [`submit`](Self::submit) makes the whole
/// submit; to submit in another way (`vkQueueSubmit2`, an engine's own queue), read the fields.
#[derive(Clone, Debug, Default)]
#[must_use = "the handoff is incomplete until this is added to the submit"]
pub struct SubmitSync {
    /// Semaphores to wait for.
    pub waits: Vec<SemaphoreWait>,
    /// Semaphores to signal.
    pub signals: Vec<SemaphoreSignal>,
    /// A `VkFence` to submit with, if the device has no timeline semaphores.
    pub fence: Option<Fence>,
}

/// A list of one submit, on the stack if it is short: a handoff each way and a fence, twice, fit.
type List<T> = SmallVec<[T; 8]>;

impl SubmitSync {
    /// Adds what another handoff of the same submit needs.
    ///
    /// # Errors
    /// [`Invalid`] if both need a fence: a submit has only one.
    pub fn merge(&mut self, other: SubmitSync) -> Result<()> {
        if self.fence.is_some() && other.fence.is_some() {
            return Err(Invalid::new("fence", "both need one, and a submit has only one")
                .help("enable timelineSemaphore, or submit twice")
                .into());
        }
        append(&mut self.waits, other.waits);
        append(&mut self.signals, other.signals);
        self.fence = self.fence.take().or(other.fence);
        Ok(())
    }

    /// Submits `command_buffers` to `queue` with these waits, signals and fence.
    ///
    /// # Safety
    /// The requirements of `vkQueueSubmit`: `queue` belongs to `endpoint`'s device and is externally
    /// synchronised, and the command buffers are executable. They, the semaphores, and the buffers
    /// and images that they use live until the work is done. So does the endpoint, which keeps a
    /// submitted fence until it is signalled.
    ///
    /// # Errors
    /// Before anything is submitted, [`Invalid`] for a timeline semaphore without a value or a
    /// binary one with a value, and [`Mismatch`] for a semaphore or fence of another device;
    /// [`Driver`](crate::Error::Driver) if `vkQueueSubmit` fails.
    ///
    /// # References
    /// `vkQueueSubmit`, `VkTimelineSemaphoreSubmitInfo`.
    #[doc(alias = "vkQueueSubmit")]
    pub unsafe fn submit(
        &self,
        endpoint: &Endpoint,
        queue: vk::Queue,
        command_buffers: &[vk::CommandBuffer],
    ) -> Result<()> {
        self.check(endpoint)?;
        let waits: List<_> = self.waits.iter().map(|wait| wait.semaphore.handle()).collect();
        let stages: List<_> = self.waits.iter().map(|wait| wait.stage).collect();
        let signals: List<_> = self.signals.iter().map(|s| s.semaphore.handle()).collect();
        // Vulkan ignores the values of binary semaphores, but counts them.
        let wait_values: List<_> = self.waits.iter().map(|wait| wait.value.unwrap_or(0)).collect();
        let signal_values: List<_> = self.signals.iter().map(|s| s.value.unwrap_or(0)).collect();
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let mut info = vk::SubmitInfo::default()
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .command_buffers(command_buffers);
        if endpoint.features().timeline_semaphore {
            info = info.push_next(&mut timeline);
        }
        let fence = self.fence.as_ref().map_or(vk::Fence::null(), Fence::to_submit);
        // SAFETY: the caller promises queue, command buffers and lifetimes. Semaphores and fence are
        // of this device, and timeline semaphores have values (`check`). The arrays of waits have
        // one length, those of signals too, and all outlive the call.
        unsafe { endpoint.device().queue_submit(queue, &[info], fence) }.context("vkQueueSubmit")
    }

    /// Rejects waits and signals that would make a submit to `endpoint`'s device undefined behaviour.
    fn check(&self, endpoint: &Endpoint) -> Result<()> {
        let waits = self.waits.iter().map(|wait| (&wait.semaphore, wait.value));
        let signals = self.signals.iter().map(|signal| (&signal.semaphore, signal.value));
        for (semaphore, value) in waits.chain(signals) {
            semaphore.kind().check_value(value)?;
            check_device("the semaphore's VkDevice", endpoint, semaphore.endpoint())?;
        }
        let fence = self.fence.as_ref();
        fence.map_or(Ok(()), |f| check_device("the fence's VkDevice", endpoint, f.endpoint()))
    }
}

/// Adds `more` to `list`. An empty list becomes `more`, without an allocation.
fn append<T>(list: &mut Vec<T>, more: Vec<T>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.extend(more);
    }
}

fn check_device(field: &'static str, endpoint: &Endpoint, other: &Endpoint) -> Result<()> {
    if endpoint.is_same_device(other) {
        return Ok(());
    }
    let (expected, found) = (endpoint.device().handle(), other.device().handle());
    Err(Mismatch::new(field, format!("{expected:?}"), format!("{found:?}"))
        .help("submit with the endpoint of that device, or export it and import it here")
        .into())
}

/// Makes [`Fence`]s for the submits to one queue, in the order of the submits.
///
/// Uses one timeline semaphore of its own, or a new `VkFence` per submit if the device has none.
#[derive(Debug)]
pub struct FencePool {
    endpoint: Endpoint,
    timeline: Option<(Semaphore, AtomicU64)>,
}

impl FencePool {
    /// Creates a pool for the submits to one queue of `endpoint`'s device.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if memory runs out.
    pub fn new(endpoint: &Endpoint) -> Result<Self> {
        let timeline = match endpoint.features().timeline_semaphore {
            true => Some((endpoint.create_private_timeline()?, AtomicU64::new(0))),
            false => None,
        };
        Ok(Self { endpoint: endpoint.clone(), timeline })
    }

    /// Returns a fence that the submit of `sync` will signal. Submit in the order of the calls.
    ///
    /// If the device has no timeline semaphores and `sync` has a fence already, that fence is
    /// returned, since a submit has only one.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if memory runs out.
    #[doc(alias = "vkCreateFence")]
    pub fn next(&self, sync: &mut SubmitSync) -> Result<Fence> {
        if let Some((semaphore, last)) = &self.timeline {
            let value = last.fetch_add(1, Ordering::Relaxed) + 1;
            let signal = SemaphoreSignal { semaphore: semaphore.clone(), value: Some(value) };
            sync.signals.push(signal);
            return Ok(Fence::timeline(semaphore, value));
        }
        if let Some(fence) = &sync.fence {
            return Ok(fence.clone());
        }
        let fence = Fence::create(&self.endpoint)?;
        sync.fence = Some(fence.clone());
        Ok(fence)
    }

    /// Leaks the semaphore, since a submit that may never finish still signals it.
    pub(crate) fn leak(&self) {
        if let Some((semaphore, _)) = &self.timeline {
            std::mem::forget(semaphore.clone());
        }
    }
}

/// Reports when a submit is done. Made by a [`FencePool`]. Cheap to clone; `Send`
/// and `Sync`.
#[derive(Clone, Debug)]
pub struct Fence(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Timeline { semaphore: Semaphore, value: u64 },
    Fence(Arc<RawFence>),
}

struct RawFence {
    handle: vk::Fence,
    /// Whether a submit may use it.
    submitted: AtomicBool,
    // Last: it may destroy the device.
    endpoint: Endpoint,
}

impl fmt::Debug for RawFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawFence").field(&self.handle).finish()
    }
}

impl Drop for RawFence {
    fn drop(&mut self) {
        if *self.submitted.get_mut() {
            // A submit may still use it, and a fence in use must not be destroyed
            // (VUID-vkDestroyFence-fence-01120). The endpoint keeps it until it is signalled.
            // SAFETY: created here, owned by this structure alone, and submitted.
            return unsafe { self.endpoint.retire_fence(self.handle) };
        }
        // SAFETY: created here, owned by this structure alone, and used by no submit: only
        // `Fence::to_submit` returns the handle.
        unsafe { self.endpoint.device().destroy_fence(self.handle, None) };
    }
}

impl Fence {
    /// The fence of a submit that signals `value` of `semaphore`, a timeline.
    pub(crate) fn timeline(semaphore: &Semaphore, value: u64) -> Self {
        Self(Kind::Timeline { semaphore: semaphore.clone(), value })
    }

    /// Creates a `VkFence`, unsignalled.
    pub(super) fn create(endpoint: &Endpoint) -> Result<Self> {
        let info = vk::FenceCreateInfo::default();
        // SAFETY: the device is alive (Endpoint::new) and the structure has no chain.
        let handle =
            unsafe { endpoint.device().create_fence(&info, None) }.context("vkCreateFence")?;
        let (submitted, endpoint) = (AtomicBool::new(false), endpoint.clone());
        Ok(Self(Kind::Fence(Arc::new(RawFence { handle, submitted, endpoint }))))
    }

    /// Whether both belong to the same submit.
    pub(crate) fn is_same(&self, other: &Fence) -> bool {
        match (&self.0, &other.0) {
            (
                Kind::Timeline { semaphore, value },
                Kind::Timeline { semaphore: other, value: other_value },
            ) => semaphore.handle() == other.handle() && value == other_value,
            (Kind::Fence(fence), Kind::Fence(other)) => Arc::ptr_eq(fence, other),
            _ => false,
        }
    }

    /// Blocks until the submit is done.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `timeout`; [`Driver`](crate::Error::Driver) if the device is lost.
    ///
    /// # References
    /// `vkWaitSemaphores`, `vkWaitForFences`.
    #[doc(alias = "vkWaitForFences")]
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let fence = match &self.0 {
            Kind::Timeline { semaphore, value } => return semaphore.wait(*value, timeout),
            Kind::Fence(fence) => fence,
        };
        let (device, timeout_ns) = (fence.endpoint.device(), nanoseconds(timeout));
        // SAFETY: the fence is alive and of this device.
        match unsafe { device.wait_for_fences(&[fence.handle], true, timeout_ns) } {
            Err(vk::Result::TIMEOUT) => {
                Err(Error::Timeout { what: "vkWaitForFences".into(), waited: timeout })
            }
            other => other.context("vkWaitForFences"),
        }
    }

    /// Returns whether the submit is done, without blocking. Polling it avoids the latency of waking
    /// up a thread.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if the device is lost.
    ///
    /// # References
    /// `vkGetSemaphoreCounterValue`, `vkGetFenceStatus`.
    #[doc(alias = "vkGetFenceStatus")]
    pub fn is_signaled(&self) -> Result<bool> {
        match &self.0 {
            Kind::Timeline { semaphore, value } => Ok(semaphore.value()? >= *value),
            // SAFETY: the fence is alive and of this device.
            Kind::Fence(fence) => unsafe { fence.endpoint.device().get_fence_status(fence.handle) }
                .context("vkGetFenceStatus"),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        match &self.0 {
            Kind::Timeline { semaphore, .. } => semaphore.endpoint(),
            Kind::Fence(fence) => &fence.endpoint,
        }
    }

    /// Returns the `VkFence`, or null, and marks it submitted.
    pub(super) fn to_submit(&self) -> vk::Fence {
        match &self.0 {
            Kind::Timeline { .. } => vk::Fence::null(),
            Kind::Fence(fence) => {
                fence.submitted.store(true, Ordering::Relaxed);
                fence.handle
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vulkan::fake::{self, Call};
    use crate::vulkan::{FencePool, SubmitSync};

    #[test]
    fn lists_are_joined_in_order() {
        let mut list = Vec::new();
        append(&mut list, vec![1, 2]);
        append(&mut list, vec![3]);
        append(&mut list, Vec::new());
        assert_eq!(list, [1, 2, 3]);
    }

    /// A fence, and the endpoint of a device without timeline semaphores.
    fn fence() -> (Endpoint, SubmitSync, Fence) {
        let endpoint = fake::endpoint_of(1, false);
        let mut sync = SubmitSync::default();
        let fence = FencePool::new(&endpoint).unwrap().next(&mut sync).unwrap();
        (endpoint, sync, fence)
    }

    #[test]
    fn a_submitted_fence_is_destroyed_only_when_it_is_signalled() {
        fake::set_fences_signaled(false);
        let (endpoint, sync, fence) = fence();
        // SAFETY: the fake driver only records the call.
        unsafe { sync.submit(&endpoint, vk::Queue::null(), &[]) }.unwrap();
        assert!(matches!(fake::take_calls()[..], [Call::Submit(raw)] if raw != vk::Fence::null()));
        assert!(!fence.is_signaled().unwrap());
        drop((sync, fence));
        assert!(fake::take_calls().is_empty(), "destroyed while a submit uses it");
        fake::set_fences_signaled(true);
        drop(endpoint);
        assert!(
            matches!(fake::take_calls()[..], [Call::DestroyFence(raw)] if raw != vk::Fence::null())
        );
    }

    #[test]
    fn a_fence_that_is_never_signalled_is_leaked() {
        fake::set_fences_signaled(false);
        let (endpoint, sync, fence) = fence();
        // SAFETY: the fake driver only records the call.
        unsafe { sync.submit(&endpoint, vk::Queue::null(), &[]) }.unwrap();
        drop((sync, fence, endpoint));
        assert!(matches!(fake::take_calls()[..], [Call::Submit(_)]));
    }

    #[test]
    fn a_fence_that_was_not_submitted_is_destroyed_at_once() {
        let (_endpoint, sync, fence) = fence();
        drop((sync, fence));
        assert!(
            matches!(fake::take_calls()[..], [Call::DestroyFence(raw)] if raw != vk::Fence::null())
        );
    }
}
