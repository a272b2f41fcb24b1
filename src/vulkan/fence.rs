//! The fence of a submit: a value of a timeline semaphore, or a `VkFence`.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ash::vk;

use super::conv::{VkResultExt, nanoseconds};
use super::endpoint::Endpoint;
use super::semaphore::Semaphore;
use crate::error::{Error, Result};

/// A fence that is signalled when a submit is done. Cheap to clone; `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct Fence(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Timeline { semaphore: Semaphore, value: u64 },
    Fence(Arc<RawFence>),
}

struct RawFence {
    handle: vk::Fence,
    /// The fence that the submit uses instead, if two with a fence each were merged.
    replaced_by: OnceLock<Arc<RawFence>>,
    // Last: it may destroy the device.
    endpoint: Endpoint,
}

impl RawFence {
    /// The fence that the submit uses.
    fn submitted(self: &Arc<Self>) -> &Arc<Self> {
        self.replaced_by.get().map_or(self, Self::submitted)
    }
}

impl fmt::Debug for RawFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawFence").field(&self.handle).finish()
    }
}

impl Drop for RawFence {
    fn drop(&mut self) {
        // SAFETY: created here, owned by this structure alone. No submit uses it
        // (VUID-vkDestroyFence-fence-01120): it was not submitted, or it is signalled, since the
        // endpoint keeps a clone of a submitted fence until then.
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
        let (replaced_by, endpoint) = (OnceLock::new(), endpoint.for_object());
        Ok(Self(Kind::Fence(Arc::new(RawFence { handle, replaced_by, endpoint }))))
    }

    /// Returns whether both belong to the same submit.
    pub(crate) fn is_same(&self, other: &Fence) -> bool {
        match (&self.0, &other.0) {
            (
                Kind::Timeline { semaphore, value },
                Kind::Timeline { semaphore: other, value: other_value },
            ) => semaphore.handle() == other.handle() && value == other_value,
            (Kind::Fence(fence), Kind::Fence(other)) => {
                Arc::ptr_eq(fence.submitted(), other.submitted())
            }
            _ => false,
        }
    }

    /// Returns the fence of two merged submits, neither of which is submitted yet.
    pub(super) fn merge(self, other: Self) -> Self {
        match (&self.0, &other.0) {
            (Kind::Fence(fence), Kind::Fence(other)) => {
                let (fence, other) = (fence.submitted(), other.submitted());
                if !Arc::ptr_eq(fence, other) {
                    // It was unset: `submitted` follows the chain to its end.
                    let _ = other.replaced_by.set(fence.clone());
                }
                self
            }
            // Both are signalled by the submit; a `VkFence` only if it is submitted with it.
            (Kind::Timeline { .. }, Kind::Fence(_)) => other,
            _ => self,
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
            Kind::Fence(fence) => fence.submitted(),
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

    /// Returns whether the submit is done, without blocking. Polling it avoids the latency of
    /// waking up a thread.
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
            Kind::Fence(fence) => {
                let fence = fence.submitted();
                // SAFETY: the fence is alive and of this device.
                unsafe { fence.endpoint.device().get_fence_status(fence.handle) }
                    .context("vkGetFenceStatus")
            }
        }
    }

    /// Returns the timeline semaphore and its value, unless it is a `VkFence`.
    pub(super) fn as_timeline(&self) -> Option<(&Semaphore, u64)> {
        match &self.0 {
            Kind::Timeline { semaphore, value } => Some((semaphore, *value)),
            Kind::Fence(_) => None,
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        match &self.0 {
            Kind::Timeline { semaphore, .. } => semaphore.endpoint(),
            Kind::Fence(fence) => &fence.endpoint,
        }
    }

    /// Returns the `VkFence` to submit with, or null.
    pub(super) fn handle(&self) -> vk::Fence {
        match &self.0 {
            Kind::Timeline { .. } => vk::Fence::null(),
            Kind::Fence(fence) => fence.submitted().handle,
        }
    }
}
