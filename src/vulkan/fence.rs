//! One submit, as the host sees it: done or not yet.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ash::vk;

use super::conv::{VkResultExt, nanoseconds};
use super::endpoint::Endpoint;
use super::semaphore::Semaphore;
use crate::error::{Error, Result};

/// Reports when a submit is done. Made by a [`FencePool`](super::FencePool). Cheap to clone; `Send`
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

    /// Whether both are of the same submit.
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
        // SAFETY: the made-up driver only records the call.
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
        // SAFETY: the made-up driver only records the call.
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
