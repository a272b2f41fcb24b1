//! What a handoff adds to the application's submit, and what the submit does to the handoff.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use ash::vk;
use smallvec::SmallVec;

use super::commands::Commands;
use super::conv::VkResultExt;
use super::endpoint::Endpoint;
use super::fence::Fence;
use super::kept::{Kept, KeptList, Object, Objects};
use super::semaphore::{Semaphore, SemaphoreSignal, SemaphoreWait};
use super::submit_end::{SubmitEnd, check_device};
use crate::error::{Error, Result};

/// What to add to the submit of the command buffer into which a release or an acquire was recorded.
///
/// [`merge`](Self::merge) combines those of several handoffs. [`submit`](Self::submit) calls
/// `vkQueueSubmit`; to submit in another way (`vkQueueSubmit2`, an engine's own queue), use
/// [`submit_with`](Self::submit_with) or [`into_parts`](Self::into_parts).
///
/// Once submitted, the endpoint keeps the handoffs' buffers, images and semaphores until the GPU is
/// done with them. If this is dropped without a submit, by an early return or a panic for instance,
/// the handoffs are cancelled: a release counts as never made, and its ticket is refused; what was
/// acquired can be acquired again with the ticket that `lost_tickets` returns.
#[derive(Debug, Default)]
#[must_use = "the handoff is incomplete until this is submitted; dropping it cancels the handoff"]
pub struct SubmitSync {
    waits: Vec<SemaphoreWait>,
    signals: Vec<SemaphoreSignal>,
    /// A fence that the submit signals, if there is one already.
    fence: Option<Fence>,
    ends: Vec<SubmitEnd>,
    after: Vec<Box<dyn AfterSubmit>>,
    /// The library's own command buffer.
    commands: Option<Commands>,
}

/// The semaphores and the fence of a submit, for code that calls `vkQueueSubmit` itself.
#[derive(Debug)]
pub struct SubmitParts {
    /// Semaphores to wait for.
    pub waits: Vec<SemaphoreWait>,
    /// Semaphores to signal.
    pub signals: Vec<SemaphoreSignal>,
    /// The `VkFence` to submit with; null if the device has timeline semaphores.
    pub fence: vk::Fence,
}

/// A list of one submit, on the stack if it is short: two handoffs in each direction and their
/// fences fit.
type List<T> = SmallVec<[T; 8]>;

impl SubmitSync {
    /// Returns the waits and signals of a submit that belongs to no handoff.
    pub fn new(waits: Vec<SemaphoreWait>, signals: Vec<SemaphoreSignal>) -> Self {
        Self { waits, signals, ..Self::default() }
    }

    /// Returns the semaphores that the submit waits for.
    pub fn waits(&self) -> &[SemaphoreWait] {
        &self.waits
    }

    /// Returns the semaphores that the submit signals, except those added by the submit itself.
    pub fn signals(&self) -> &[SemaphoreSignal] {
        &self.signals
    }

    /// Adds another handoff of the same submit.
    pub fn merge(&mut self, other: SubmitSync) {
        append(&mut self.waits, other.waits);
        append(&mut self.signals, other.signals);
        self.fence = match (self.fence.take(), other.fence) {
            (Some(fence), Some(other)) => Some(fence.merge(other)),
            (fence, other) => fence.or(other),
        };
        append(&mut self.ends, other.ends);
        append(&mut self.after, other.after);
        self.commands = self.commands.take().or(other.commands);
    }

    /// Submits `command_buffers` to `queue` with these waits, signals and fence.
    ///
    /// # Safety
    /// The requirements of `vkQueueSubmit`: `queue` belongs to `endpoint`'s device and is
    /// externally synchronised, and the command buffers are executable. They, and whatever they use
    /// besides the handoffs' resources, live until the work is done.
    ///
    /// # Errors
    /// Before anything is submitted, [`Invalid`](crate::error::Invalid) for a timeline semaphore
    /// without a value, a binary one with a value, and a release that is older than a submitted one
    /// of the same handoff; [`Mismatch`](crate::error::Mismatch) for a semaphore or fence of
    /// another device; [`Driver`](Error::Driver) if `vkQueueSubmit` fails. The handoffs are then
    /// cancelled.
    ///
    /// # References
    /// `vkQueueSubmit`, `VkTimelineSemaphoreSubmitInfo`.
    #[doc(alias = "vkQueueSubmit")]
    pub unsafe fn submit(
        self,
        endpoint: &Endpoint,
        queue: vk::Queue,
        command_buffers: &[vk::CommandBuffer],
    ) -> Result<()> {
        let (prepared, fence) = self.prepare(endpoint, queue)?;
        let (mut semaphores, mut stages, mut wait_values) = (List::new(), List::new(), List::new());
        let (mut signalled, mut signal_values) = (List::new(), List::new());
        // Vulkan ignores the values of binary semaphores, but counts them.
        for wait in &prepared.waits {
            semaphores.push(wait.semaphore.handle());
            wait_values.push(wait.value.unwrap_or(0));
            stages.push(wait.stage);
        }
        for signal in &prepared.signals {
            signalled.push(signal.semaphore.handle());
            signal_values.push(signal.value.unwrap_or(0));
        }
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let mut info = vk::SubmitInfo::default()
            .wait_semaphores(&semaphores)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signalled)
            .command_buffers(command_buffers);
        if endpoint.features().timeline_semaphore {
            info = info.push_next(&mut timeline);
        }
        let raw = fence.as_ref().map_or(vk::Fence::null(), Fence::handle);
        // SAFETY: the caller promises queue, command buffers and lifetimes. Semaphores and fence
        // are of this device, timeline semaphores have values (`prepare`), and the endpoint keeps
        // them. The arrays of waits have one length, those of signals too, and all outlive the
        // call.
        unsafe { endpoint.device().queue_submit(queue, &[info], raw) }.context("vkQueueSubmit")?;
        prepared.submitted(endpoint, fence);
        Ok(())
    }

    /// Calls `submit`, which must submit work to `queue` with these waits, signals and fence, for
    /// example through an engine.
    ///
    /// # Safety
    /// If `submit` returns `Ok`, it has made one `vkQueueSubmit` or `vkQueueSubmit2` to `queue`
    /// with all of the waits and signals, the fence, and the commands of the handoffs; or several,
    /// if the commands execute after all of the waits and before all of the signals and the fence.
    /// If it returns an error, it has made none. `queue` belongs to `endpoint`'s device and is
    /// externally synchronised meanwhile. Whatever the commands use besides the handoffs' resources
    /// lives until the work is done.
    ///
    /// # Errors
    /// Same as [`submit`](Self::submit), converted to `E`; otherwise the error that `submit`
    /// returns.
    #[doc(alias = "vkQueueSubmit2")]
    pub unsafe fn submit_with<T, E: From<Error>>(
        self,
        endpoint: &Endpoint,
        queue: vk::Queue,
        submit: impl FnOnce(&SubmitParts) -> Result<T, E>,
    ) -> Result<T, E> {
        let (mut prepared, fence) = self.prepare(endpoint, queue)?;
        let parts = SubmitParts {
            waits: std::mem::take(&mut prepared.waits),
            signals: std::mem::take(&mut prepared.signals),
            fence: fence.as_ref().map_or(vk::Fence::null(), Fence::handle),
        };
        let value = submit(&parts)?;
        (prepared.waits, prepared.signals) = (parts.waits, parts.signals);
        prepared.submitted(endpoint, fence);
        Ok(value)
    }

    /// Returns the semaphores and the fence, for a submit to `queue` that is made later. The
    /// handoffs count as submitted from now on. Prefer [`submit_with`](Self::submit_with), which
    /// cancels them if the submit fails.
    ///
    /// # Safety
    /// The next submit to `queue` has all of the waits and signals, the fence, and the commands of
    /// the handoffs. If it is never made, the handoffs' resources are never freed. Whatever else
    /// the commands use lives until the work is done.
    ///
    /// # Errors
    /// Same as [`submit`](Self::submit), except that nothing is submitted.
    pub unsafe fn into_parts(self, endpoint: &Endpoint, queue: vk::Queue) -> Result<SubmitParts> {
        let copy = |parts: &SubmitParts| {
            let (waits, signals) = (parts.waits.clone(), parts.signals.clone());
            Ok::<_, Error>(SubmitParts { waits, signals, fence: parts.fence })
        };
        // SAFETY: the caller's promise.
        unsafe { self.submit_with(endpoint, queue, copy) }
    }

    /// Submits the library's own command buffer.
    ///
    /// # Safety
    /// `queue` belongs to `endpoint`'s device, is of the family that the command buffer was
    /// recorded for, and is externally synchronised.
    pub(crate) unsafe fn submit_own(self, endpoint: &Endpoint, queue: vk::Queue) -> Result<()> {
        let commands = self.commands.as_ref().map(Commands::handle);
        // SAFETY: the caller's promise; the command buffer was recorded, and the endpoint keeps it.
        unsafe { self.submit(endpoint, queue, commands.as_slice()) }
    }

    /// Checks everything before a submit, and adds a fence if something must be kept.
    fn prepare(mut self, endpoint: &Endpoint, queue: vk::Queue) -> Result<(Self, Option<Fence>)> {
        self.check(endpoint)?;
        if self.fence.is_none()
            && !(self.waits.is_empty() && self.signals.is_empty() && self.ends.is_empty())
        {
            let (fence, signal) = KeptList::of(endpoint).fence(endpoint, queue)?;
            self.signals.extend(signal);
            self.fence = Some(fence);
        }
        let fence = self.fence.take();
        Ok((self, fence))
    }

    /// Rejects anything that would make a submit to `endpoint`'s device undefined behaviour.
    fn check(&self, endpoint: &Endpoint) -> Result<()> {
        let waits = self.waits.iter().map(|wait| (&wait.semaphore, wait.value));
        let signals = self.signals.iter().map(|signal| (&signal.semaphore, signal.value));
        for (semaphore, value) in waits.chain(signals) {
            semaphore.kind().check_value(value)?;
            check_device("the semaphore's VkDevice", endpoint, semaphore.endpoint())?;
        }
        let fence = self.fence.as_ref();
        fence.map_or(Ok(()), |f| check_device("the fence's VkDevice", endpoint, f.endpoint()))?;
        self.ends.iter().try_for_each(|end| end.check(endpoint))
    }

    /// Called after the submit: keeps what it uses, and completes the handoffs.
    fn submitted(self, endpoint: &Endpoint, fence: Option<Fence>) {
        let Self { waits, signals, mut ends, after, commands, .. } = self;
        let mut objects = Objects::new();
        ends.iter_mut().for_each(|end| end.submitted(&mut objects));
        if let Some(fence) = fence {
            let waits = waits.into_iter().map(|wait| wait.semaphore);
            let signals = signals.into_iter().map(|signal| signal.semaphore);
            objects.extend(waits.chain(signals).map(Object::Semaphore));
            objects.extend(commands.map(|commands| Object::Commands(Box::new(commands))));
            let ends = ends.iter().map(|end| end.id).collect();
            KeptList::of(endpoint).push(Kept { fence, ends, objects });
        }
        after.into_iter().for_each(|mut after| after.submitted());
    }

    /// Adds a signal whose value or `VkFence` shows when the submit is done.
    pub(crate) fn add_signal(&mut self, semaphore: &Semaphore, value: Option<u64>) {
        self.signals.push(SemaphoreSignal { semaphore: semaphore.clone(), value });
        // Only the library signals the semaphore of a handoff.
        if let (None, Some(value)) = (&self.fence, value) {
            self.fence = Some(Fence::timeline(semaphore, value));
        }
    }

    /// Adds a wait.
    pub(crate) fn add_wait(&mut self, semaphore: &Semaphore, value: Option<u64>) {
        // All stages: only the application's command buffer knows which commands come first.
        let stage = vk::PipelineStageFlags::ALL_COMMANDS;
        self.waits.push(SemaphoreWait { semaphore: semaphore.clone(), value, stage });
    }

    /// Adds an end of a handoff.
    pub(crate) fn add_end(&mut self, end: SubmitEnd) {
        self.ends.push(end);
    }

    /// Adds what the submit completes.
    pub(crate) fn after_submit(&mut self, after: impl AfterSubmit + 'static) {
        self.after.push(Box::new(after));
    }

    /// Adds the library's own command buffer, to be submitted by [`submit_own`](Self::submit_own).
    pub(crate) fn set_commands(&mut self, commands: Commands) {
        self.commands = Some(commands);
    }
}

/// Something that a submit completes. If it is dropped without `submitted` being called, it cancels
/// itself.
pub(crate) trait AfterSubmit: fmt::Debug + Send + Sync {
    /// Called after the submit.
    fn submitted(&mut self);
}

/// Adds `more` to `list`. An empty list becomes `more`, without an allocation.
fn append<T>(list: &mut Vec<T>, mut more: Vec<T>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.append(&mut more);
    }
}

/// Creates [`Fence`]s for the submits to one queue, in the order of the submits.
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
            sync.add_signal(semaphore, Some(value));
            return Ok(Fence::timeline(semaphore, value));
        }
        if let Some(fence) = &sync.fence {
            return Ok(fence.clone());
        }
        let fence = Fence::create(&self.endpoint)?;
        sync.fence = Some(fence.clone());
        Ok(fence)
    }
}

#[cfg(test)]
mod tests;
