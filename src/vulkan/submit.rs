//! What a handoff adds to the user's submit.

use std::fmt;

use ash::vk;

use super::endpoint::Endpoint;
use super::error::VkResultExt;
use super::fence::Fence;
use super::semaphore::Semaphore;
use crate::error::{Invalid, Mismatch, Result};

/// A semaphore to wait for.
#[derive(Clone)]
pub struct SemaphoreWait {
    /// Which.
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
    /// Which.
    pub semaphore: Semaphore,
    /// The value to set; `None` for a binary semaphore.
    pub value: Option<u64>,
}

/// What to add to the submit of the command buffer that a release or an acquire was recorded in.
///
/// Parts of several handoffs are joined by [`merge`](Self::merge). [`submit`](Self::submit) does it
/// all; who submits otherwise (`vkQueueSubmit2`, an engine's own queue) reads the fields.
#[derive(Clone, Debug, Default)]
#[must_use = "a handoff happens only when its part is added to the submit"]
pub struct SubmitSync {
    /// Semaphores to wait for.
    pub waits: Vec<SemaphoreWait>,
    /// Semaphores to signal.
    pub signals: Vec<SemaphoreSignal>,
    /// A `VkFence` to submit with, where the device has no timeline semaphores.
    pub fence: Option<Fence>,
}

impl SubmitSync {
    /// Adds what another handoff of the same submit needs.
    ///
    /// # Errors
    /// [`Invalid`] where both need a fence: a submit has one.
    pub fn merge(&mut self, other: SubmitSync) -> Result<()> {
        if self.fence.is_some() && other.fence.is_some() {
            return Err(Invalid::new("fence", "both parts need one, and a submit has one")
                .help("enable timelineSemaphore, or submit twice")
                .into());
        }
        append(&mut self.waits, other.waits);
        append(&mut self.signals, other.signals);
        self.fence = self.fence.take().or(other.fence);
        Ok(())
    }

    /// Submits `command_buffers` to `queue` with all waits and signals of this part.
    ///
    /// # Safety
    /// As `vkQueueSubmit`: `queue` is of `endpoint`'s device and externally synchronised, the
    /// command buffers are executable, and they, the semaphores and the fence of this part and the
    /// buffers and images they use live until the work is done. For the fence it is enough that the
    /// endpoint lives, which keeps a fence that was dropped until it is signalled.
    ///
    /// # Errors
    /// Before anything is submitted, [`Invalid`] for a timeline semaphore without a value or a
    /// binary one with a value, and [`Mismatch`] for a semaphore or fence of another device;
    /// [`Driver`](crate::Error::Driver) where the driver refuses or the device is lost.
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
        let none = vk::Semaphore::null();
        let waits = Few::new(none, &self.waits, |wait| wait.semaphore.handle());
        let stages = Few::new(vk::PipelineStageFlags::empty(), &self.waits, |wait| wait.stage);
        let signals = Few::new(none, &self.signals, |signal| signal.semaphore.handle());
        // The values of binary semaphores are ignored, but counted.
        let wait_values = Few::new(0, &self.waits, |wait| wait.value.unwrap_or(0));
        let signal_values = Few::new(0, &self.signals, |signal| signal.value.unwrap_or(0));
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let mut info = vk::SubmitInfo::default()
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .command_buffers(command_buffers);
        if endpoint.shared.timeline.is_some() {
            info = info.push_next(&mut timeline);
        }
        let fence = self.fence.as_ref().map_or(vk::Fence::null(), Fence::to_submit);
        // SAFETY: the caller's promise covers queue, command buffers and lifetimes; semaphores and
        // fence are of this device, and timeline semaphores have values (`check`); the arrays have
        // the lengths of each other and outlive the call.
        unsafe { endpoint.shared.device.queue_submit(queue, &[info], fence) }.of("vkQueueSubmit")
    }

    /// Checks what a submit to `endpoint`'s device would be undefined with.
    fn check(&self, endpoint: &Endpoint) -> Result<()> {
        let waits = self.waits.iter().map(|wait| (&wait.semaphore, wait.value));
        let signals = self.signals.iter().map(|signal| (&signal.semaphore, signal.value));
        for (semaphore, value) in waits.chain(signals) {
            semaphore.kind().check_value(value)?;
            check_device("the semaphore's VkDevice", endpoint, semaphore.device())?;
        }
        self.fence
            .as_ref()
            .map_or(Ok(()), |fence| check_device("the fence's VkDevice", endpoint, fence.device()))
    }
}

/// Adds `more` to `list`; a list that is empty becomes `more`, and nothing is allocated.
fn append<T>(list: &mut Vec<T>, more: Vec<T>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.extend(more);
    }
}

/// A list that is on the stack while it is short, as those of a submit are: a submit is made for every
/// handoff.
struct Few<T> {
    short: [T; FEW],
    long: Vec<T>,
    len: usize,
}

/// What a handoff each way and a fence take, twice.
const FEW: usize = 8;

impl<T: Copy> Few<T> {
    fn new<S>(empty: T, list: &[S], get: impl Fn(&S) -> T) -> Self {
        let (mut short, mut long, len) = ([empty; FEW], Vec::new(), list.len());
        if len > FEW {
            long.extend(list.iter().map(get));
        } else {
            short.iter_mut().zip(list).for_each(|(to, from)| *to = get(from));
        }
        Self { short, long, len }
    }
}

impl<T> std::ops::Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        if self.len > FEW { &self.long } else { &self.short[..self.len] }
    }
}

fn check_device(field: &'static str, endpoint: &Endpoint, device: vk::Device) -> Result<()> {
    let expected = endpoint.shared.device.handle();
    if device == expected {
        return Ok(());
    }
    Err(Mismatch::new(field, format!("{expected:?}"), format!("{device:?}"))
        .help("submit with the endpoint it is of, or export it and import it here")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_as_long_as_what_it_was_made_of() {
        for len in [0, 1, FEW - 1, FEW, FEW + 1, 64] {
            let list: Vec<_> = (0..len as u64).collect();
            let few = Few::new(u64::MAX, &list, |number| number + 1);
            assert!(few.iter().copied().eq(1..=len as u64), "{len}: {:?}", &few[..]);
        }
    }

    #[test]
    fn lists_are_joined_in_order() {
        let mut list = Vec::new();
        append(&mut list, vec![1, 2]);
        append(&mut list, vec![3]);
        append(&mut list, Vec::new());
        assert_eq!(list, [1, 2, 3]);
    }
}
