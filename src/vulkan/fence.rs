//! Knowing on the host that a submit is done: what a handoff by host wait rests on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ash::vk;

use super::endpoint::{Endpoint, Shared};
use super::error::VkResultExt;
use super::semaphore::Semaphore;
use super::submit::{SemaphoreSignal, SubmitSync};
use crate::error::{Error, Result};
use crate::payload::SemaphoreKind;

/// Makes [`Fence`]s for one queue: one after the other, in the order of the submits.
///
/// A timeline semaphore of the device's own where those are enabled, else a `VkFence` each.
#[derive(Debug)]
pub struct FencePool {
    shared: Arc<Shared>,
    timeline: Option<(Semaphore, AtomicU64)>,
}

/// Done, or not yet: one submit as the host sees it. `Send` and cheap to clone.
#[derive(Clone, Debug)]
pub struct Fence(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Timeline { semaphore: Semaphore, value: u64 },
    Fence(Arc<RawFence>),
}

struct RawFence {
    shared: Arc<Shared>,
    handle: vk::Fence,
    /// A submit may hold it.
    submitted: AtomicBool,
}

impl fmt::Debug for RawFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawFence").field(&self.handle).finish()
    }
}

impl Drop for RawFence {
    fn drop(&mut self) {
        if *self.submitted.get_mut() {
            // A submit may still hold it, and a fence in use must not be destroyed
            // (VUID-vkDestroyFence-fence-01120): it waits in the endpoint until it is signalled.
            return self.shared.retire_fence(self.handle);
        }
        // SAFETY: made here, owned here alone, and given to no submit: the handle leaves this
        // structure only by `Fence::to_submit`.
        unsafe { self.shared.device.destroy_fence(self.handle, None) };
    }
}

impl FencePool {
    /// A source of fences for submits to one queue of `endpoint`'s device.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) where the driver is out of memory.
    pub fn new(endpoint: &Endpoint) -> Result<Self> {
        let shared = endpoint.shared.clone();
        let timeline = match shared.timeline {
            Some(_) => {
                let semaphore = shared.create_semaphore(SemaphoreKind::Timeline, None)?;
                Some((semaphore, AtomicU64::new(0)))
            }
            None => None,
        };
        Ok(Self { shared, timeline })
    }

    /// A fence that the submit `part` is for will signal. Submit in the order of these calls.
    ///
    /// Where the device has no timeline semaphores and `part` has a fence already, it is that one: a
    /// submit has one.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) where the driver is out of memory.
    pub fn next(&self, part: &mut SubmitSync) -> Result<Fence> {
        if let Some((semaphore, last)) = &self.timeline {
            let value = last.fetch_add(1, Ordering::Relaxed) + 1;
            part.signals.push(SemaphoreSignal { semaphore: semaphore.clone(), value: Some(value) });
            return Ok(Fence(Kind::Timeline { semaphore: semaphore.clone(), value }));
        }
        if let Some(fence) = &part.fence {
            return Ok(fence.clone());
        }
        let info = vk::FenceCreateInfo::default();
        // SAFETY: the device is alive (Endpoint::new) and the structure has no chain.
        let handle = unsafe { self.shared.device.create_fence(&info, None) }.of("vkCreateFence")?;
        let (shared, submitted) = (self.shared.clone(), AtomicBool::new(false));
        let fence = Fence(Kind::Fence(Arc::new(RawFence { shared, handle, submitted })));
        part.fence = Some(fence.clone());
        Ok(fence)
    }
}

impl FencePool {
    /// Leaves the semaphore alive for ever: a submit that may never end still signals it.
    pub(crate) fn abandon(&self) {
        if let Some((semaphore, _)) = &self.timeline {
            std::mem::forget(semaphore.clone());
        }
    }
}

impl Fence {
    /// The submit that sets `semaphore`, a timeline, to `value`.
    pub(crate) fn of_timeline(semaphore: &Semaphore, value: u64) -> Self {
        Self(Kind::Timeline { semaphore: semaphore.clone(), value })
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

    /// Waits, blocking, until the submit is done.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `timeout`.
    ///
    /// # References
    /// `vkWaitSemaphores`, `vkWaitForFences`.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        match &self.0 {
            Kind::Timeline { semaphore, value } => semaphore.wait(*value, timeout),
            Kind::Fence(fence) => fence.wait(timeout),
        }
    }

    /// Whether the submit is done; never blocks. Spinning on it saves the wake-up of a thread.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) where the device is lost.
    ///
    /// # References
    /// `vkGetSemaphoreCounterValue`, `vkGetFenceStatus`.
    pub fn is_signaled(&self) -> Result<bool> {
        match &self.0 {
            Kind::Timeline { semaphore, value } => Ok(semaphore.value()? >= *value),
            Kind::Fence(fence) => fence.is_signaled(),
        }
    }

    /// The device it is of.
    pub(crate) fn device(&self) -> vk::Device {
        match &self.0 {
            Kind::Timeline { semaphore, .. } => semaphore.device(),
            Kind::Fence(fence) => fence.shared.device.handle(),
        }
    }

    /// The `VkFence` to submit with, where this is one, which is from now on taken for submitted.
    pub(crate) fn to_submit(&self) -> vk::Fence {
        match &self.0 {
            Kind::Timeline { .. } => vk::Fence::null(),
            Kind::Fence(fence) => {
                fence.submitted.store(true, Ordering::Relaxed);
                fence.handle
            }
        }
    }
}

impl RawFence {
    fn wait(&self, timeout: Duration) -> Result<()> {
        // SAFETY: the fence is alive and of this device.
        let waited = unsafe {
            self.shared.device.wait_for_fences(&[self.handle], true, nanoseconds(timeout))
        };
        match waited {
            Err(vk::Result::TIMEOUT) => {
                Err(Error::Timeout { what: "vkWaitForFences".into(), waited: timeout })
            }
            other => other.of("vkWaitForFences"),
        }
    }

    fn is_signaled(&self) -> Result<bool> {
        // SAFETY: the fence is alive and of this device.
        unsafe { self.shared.device.get_fence_status(self.handle) }.of("vkGetFenceStatus")
    }
}

/// A timeout as Vulkan takes it; what doesn't fit waits for ever, as `u64::MAX` means.
pub(crate) fn nanoseconds(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
}
