//! What submitted work uses, kept until the GPU is done with it.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ash::vk;
use smallvec::SmallVec;

use super::buffer::Buffer;
use super::commands::{Commands, OwnCommands};
use super::endpoint::{Endpoint, KeptForGpu};
use super::fence::Fence;
use super::image::Image;
use super::semaphore::{Semaphore, SemaphoreSignal};
use crate::error::{Error, Result};

/// What a submit uses.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) fence: Fence,
    /// The ends of handoffs that the submit belongs to.
    pub(super) ends: SmallVec<[u64; 2]>,
    pub(super) objects: Objects,
}

/// The objects of one submit. Two handoffs of a buffer each need no allocation.
pub(super) type Objects = SmallVec<[Object; 4]>;

/// An object that a submit uses.
#[derive(Debug)]
#[expect(dead_code, reason = "some are only kept")]
pub(super) enum Object {
    Buffer(Buffer),
    Image(Image),
    Semaphore(Semaphore),
    /// The library's own command buffer.
    Commands(Box<Commands>),
}

impl Object {
    /// Returns whether this is the last reference to a resource.
    fn is_last(&self) -> bool {
        match self {
            Self::Buffer(buffer) => buffer.0.is_last(),
            Self::Image(image) => image.0.is_last(),
            Self::Semaphore(_) | Self::Commands(_) => false,
        }
    }
}

/// The number of submits that are kept before the GPU is queried for those that are done. A query
/// may be a system call.
const QUERY_AT: usize = 16;

/// What the submits to one device use.
#[derive(Debug, Default)]
pub(super) struct KeptList(Mutex<State>);

#[derive(Debug)]
struct State {
    /// In the order of the submits.
    submits: VecDeque<Kept>,
    /// The number of submits at which the GPU is queried next.
    query_at: usize,
    /// A timeline semaphore for each queue, and the value that was signalled last.
    timelines: SmallVec<[(vk::Queue, Semaphore, u64); 1]>,
    /// The library's own command buffers.
    commands: SmallVec<[OwnCommands; 1]>,
}

impl Default for State {
    fn default() -> Self {
        let (submits, timelines, commands) = Default::default();
        Self { submits, query_at: QUERY_AT, timelines, commands }
    }
}

impl State {
    /// Removes the submits that are done, and returns them, to be dropped while the list is not
    /// locked.
    fn take_done(&mut self) -> Vec<Kept> {
        let (mut done, mut queries) = (Vec::new(), Queries::default());
        for _ in 0..self.submits.len() {
            let Some(submit) = self.submits.pop_front() else { break };
            if queries.is_done(&submit.fence) {
                done.push(submit);
            } else {
                self.submits.push_back(submit);
            }
        }
        self.query_at = (2 * self.submits.len()).max(QUERY_AT);
        done
    }
}

/// The states of fences. Each semaphore is queried once.
#[derive(Default)]
struct Queries(SmallVec<[(vk::Semaphore, u64); 4]>);

impl Queries {
    fn is_done(&mut self, fence: &Fence) -> bool {
        let Some((semaphore, value)) = fence.as_timeline() else {
            return done_or_lost(fence.is_signaled());
        };
        let known = self.0.iter().find(|(known, _)| *known == semaphore.handle());
        let now = match known {
            Some((_, now)) => *now,
            None => {
                let queried = semaphore.value();
                if is_lost(&queried) {
                    return true;
                }
                let now = queried.unwrap_or(0);
                self.0.push((semaphore.handle(), now));
                now
            }
        };
        now >= value
    }
}

/// Returns whether the device is lost, on which nothing runs any more.
fn is_lost<T>(result: &Result<T>) -> bool {
    let lost = i64::from(vk::Result::ERROR_DEVICE_LOST.as_raw());
    matches!(result, Err(Error::Driver(driver)) if driver.code == lost)
}

fn done_or_lost(signaled: Result<bool>) -> bool {
    is_lost(&signaled) || signaled.unwrap_or(false)
}

impl KeptList {
    /// Returns the list of `endpoint`.
    pub(super) fn of(endpoint: &Endpoint) -> &Self {
        let list = endpoint.kept().get_or_init(|| Box::<Self>::default());
        let list: &dyn Any = &**list;
        list.downcast_ref().expect("an endpoint keeps no other type")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a fence for a submit that is made now, and a signal to add to it. The caller
    /// synchronises the queue, so that the values increase in the order of the submits.
    pub(super) fn fence(
        &self,
        endpoint: &Endpoint,
        queue: vk::Queue,
    ) -> Result<(Fence, Option<SemaphoreSignal>)> {
        if !endpoint.features().timeline_semaphore {
            return Ok((Fence::create(endpoint)?, None));
        }
        let mut state = self.state();
        let at = match state.timelines.iter().position(|(known, ..)| *known == queue) {
            Some(at) => at,
            None => {
                state.timelines.push((queue, endpoint.create_private_timeline()?, 0));
                state.timelines.len() - 1
            }
        };
        let (_, semaphore, value) = &mut state.timelines[at];
        *value += 1;
        let signal = SemaphoreSignal { semaphore: semaphore.clone(), value: Some(*value) };
        Ok((Fence::timeline(semaphore, *value), Some(signal)))
    }

    /// Keeps what a submit uses.
    pub(super) fn push(&self, submit: Kept) {
        let mut state = self.state();
        state.submits.push_back(submit);
        if state.submits.len() > state.query_at {
            let done = state.take_done();
            drop(state);
            return drop(done);
        }
        // Objects that nothing else holds are freed soon: this is usually their last use.
        let mut queries = Queries::default();
        while let Some(first) = state.submits.front() {
            let is_last = first.objects.iter().any(Object::is_last);
            if !is_last || !queries.is_done(&first.fence) {
                break;
            }
            let done = state.submits.pop_front();
            drop(state);
            drop(done);
            state = self.state();
        }
    }

    /// Drops what the GPU is done with.
    pub(super) fn collect(&self) {
        let done = self.state().take_done();
        drop(done);
    }

    /// Waits at most `timeout` for the submits that `is_meant` selects, and drops what the GPU is
    /// done with. Returns how many of them are not done. Other threads can submit meanwhile.
    pub(super) fn wait(&self, is_meant: impl Fn(&Kept) -> bool, timeout: Duration) -> usize {
        self.collect();
        let meant = self
            .state()
            .submits
            .iter()
            .filter(|submit| is_meant(submit))
            .map(|submit| submit.fence.clone())
            .collect::<Vec<_>>();
        let start = Instant::now();
        let is_busy = |fence: &&Fence| {
            let waited = fence.wait(timeout.saturating_sub(start.elapsed()));
            waited.is_err() && !is_lost(&waited)
        };
        let busy = meant.iter().filter(is_busy).count();
        self.collect();
        busy
    }
}

impl KeptForGpu for KeptList {
    fn finish(&self, timeout: Duration) {
        let busy = self.wait(|_| true, timeout);
        if busy > 0 {
            tracing::warn!(
                submits = busy,
                ?timeout,
                "a Vulkan endpoint was dropped before its work was done: what the work uses is leaked"
            );
            return;
        }
        let mut state = self.state();
        let (timelines, commands) =
            (std::mem::take(&mut state.timelines), std::mem::take(&mut state.commands));
        drop(state);
        drop((timelines, commands));
    }
}

impl Endpoint {
    /// Drops everything that submits used and the GPU is done with.
    ///
    /// Submits do this only occasionally, since it may take a system call. Call it to free large
    /// resources early, or before counting objects.
    pub fn free_finished(&self) {
        if self.kept().get().is_some() {
            KeptList::of(self).collect();
        }
    }

    /// Begins a command buffer of the library's own for a queue of `family`, and returns it.
    pub(crate) fn own_commands(&self, family: u32) -> Result<Commands> {
        let list = KeptList::of(self);
        list.collect();
        let mut state = list.state();
        let known = state.commands.iter().find(|commands| commands.family() == family);
        let commands = match known {
            Some(known) => known.clone(),
            None => {
                let new = OwnCommands::new(self, family);
                state.commands.push(new.clone());
                new
            }
        };
        drop(state);
        commands.begin()
    }

    /// Waits for the work that the end `end` of a handoff has submitted. What is still in use
    /// afterwards is dropped by a later operation of the endpoint.
    pub(crate) fn wait_for_end(&self, end: u64, timeout: Duration) {
        if self.kept().get().is_none() {
            return;
        }
        let busy = KeptList::of(self).wait(|submit| submit.ends.contains(&end), timeout);
        if busy > 0 {
            tracing::debug!(
                submits = busy,
                ?timeout,
                "a handoff was dropped before its work was done"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vulkan::conv::VkResultExt as _;

    #[test]
    fn work_on_a_lost_device_counts_as_done() {
        let failed = |code: vk::Result| Err::<bool, _>(code).context("vkGetFenceStatus");
        assert!(done_or_lost(failed(vk::Result::ERROR_DEVICE_LOST)));
        assert!(!done_or_lost(failed(vk::Result::ERROR_OUT_OF_HOST_MEMORY)));
        assert!(done_or_lost(Ok(true)) && !done_or_lost(Ok(false)));
    }
}
