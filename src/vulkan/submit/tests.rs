use std::sync::{Arc, Mutex};

use super::super::submit_end::{Half, SubmitHandoff};
use super::*;
use crate::vulkan::BufferAccess;
use crate::vulkan::fake::{self, Call};

#[test]
fn lists_are_joined_in_order() {
    let mut list = Vec::new();
    append(&mut list, vec![1, 2]);
    append(&mut list, vec![3]);
    append(&mut list, Vec::new());
    assert_eq!(list, [1, 2, 3]);
}

/// The calls that a handoff received.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn push(&self, call: &str, half: &Half) {
        self.0.lock().unwrap().push(format!("{call} {half:?}"));
    }
}

impl SubmitHandoff for Log {
    fn check(&self, _: &Half) -> Result<()> {
        Ok(())
    }

    fn submitted(&self, half: &Half) {
        self.push("submitted", half);
    }

    fn abandoned(&self, half: &Half) {
        self.push("abandoned", half);
    }
}

const RELEASE: Half = Half::Release(1..2);
const ACQUIRE: Half = Half::Acquire(7);

/// An end of a handoff that names `buffer`.
fn sync_of(log: &Arc<Log>, half: Half, buffer: &crate::vulkan::Buffer) -> Result<SubmitSync> {
    let mut sync = SubmitSync::default();
    let used = BufferAccess::compute(buffer).into();
    sync.add_end(SubmitEnd::new(buffer.endpoint(), log.clone(), 8, half, &used)?);
    Ok(sync)
}

fn submit(sync: SubmitSync, endpoint: &Endpoint, queue: u64) -> Result<()> {
    // SAFETY: the fake driver only records the call.
    unsafe { sync.submit(endpoint, vk::Handle::from_raw(queue), &[]) }
}

/// The signals and the fence of the one submit.
fn submitted() -> (Vec<(vk::Semaphore, u64)>, vk::Fence) {
    match &mut *fake::take_calls() {
        [Call::Submit(signals, fence)] => (std::mem::take(signals), *fence),
        other => panic!("{other:?}"),
    }
}

fn is_last(buffer: &crate::vulkan::Buffer) -> bool {
    buffer.0.is_last()
}

#[test]
fn what_a_submit_uses_is_kept_until_its_work_is_done() {
    for (timelines, half) in [(true, RELEASE), (true, ACQUIRE), (false, RELEASE), (false, ACQUIRE)]
    {
        fake::set_work_done(false);
        let endpoint = fake::endpoint_of(1, timelines);
        let (log, buffer) = (Arc::new(Log::default()), fake::buffer(&endpoint, 7));
        submit(sync_of(&log, half.clone(), &buffer).unwrap(), &endpoint, 5).unwrap();
        let (signals, fence) = submitted();
        assert_eq!(
            (signals.len(), fence == vk::Fence::null()),
            (usize::from(timelines), timelines)
        );
        assert_eq!(log.take(), [format!("submitted {half:?}")]);
        endpoint.wait_for_end(8, std::time::Duration::ZERO);
        assert!(!is_last(&buffer), "dropped while the GPU uses it");
        fake::set_work_done(true);
        endpoint.wait_for_end(8, std::time::Duration::ZERO);
        assert!(is_last(&buffer), "kept although the GPU is done with it");
        drop(endpoint);
        let calls = fake::take_calls();
        let destroyed = match &calls[..] {
            [Call::DestroySemaphore(semaphore)] => *semaphore == signals[0].0,
            [Call::DestroyFence(destroyed)] => *destroyed == fence,
            _ => false,
        };
        assert!(destroyed, "{calls:?}");
    }
}

#[test]
fn what_endless_work_uses_is_leaked_and_not_destroyed() {
    fake::set_work_done(false);
    let endpoint = fake::endpoint();
    let (log, buffer) = (Arc::new(Log::default()), fake::buffer(&endpoint, 7));
    submit(sync_of(&log, RELEASE, &buffer).unwrap(), &endpoint, 5).unwrap();
    submitted();
    drop(endpoint);
    assert!(!is_last(&buffer) && fake::take_calls().is_empty());
}

#[test]
fn without_a_submit_the_handoff_is_cancelled() {
    let endpoint = fake::endpoint();
    let (log, buffer) = (Arc::new(Log::default()), fake::buffer(&endpoint, 7));
    drop(sync_of(&log, RELEASE, &buffer).unwrap());
    assert_eq!(log.take(), ["abandoned Release(1..2)"]);
    fake::set_submits_fail(true);
    assert!(submit(sync_of(&log, RELEASE, &buffer).unwrap(), &endpoint, 5).is_err());
    fake::set_submits_fail(false);
    assert_eq!(log.take(), ["abandoned Release(1..2)"]);
    // An error of the caller's own submit cancels it, too.
    // SAFETY: nothing is submitted.
    let refused: Result<(), Error> = unsafe {
        let sync = sync_of(&log, ACQUIRE, &buffer).unwrap();
        sync.submit_with(&endpoint, vk::Queue::null(), |parts| {
            assert_eq!(parts.signals.len(), 1, "the signal that shows when it is done");
            Err(crate::error::Invalid::new("test", "fails").into())
        })
    };
    assert!(refused.is_err());
    assert_eq!(log.take(), ["abandoned Acquire(7)"]);
    assert!(is_last(&buffer), "kept for work that was never submitted");
}

#[test]
fn a_buffer_is_released_once_until_it_is_acquired() {
    fake::set_work_done(true);
    let endpoint = fake::endpoint();
    let (log, buffer) = (Arc::new(Log::default()), fake::buffer(&endpoint, 7));
    let release = || sync_of(&log, RELEASE, &buffer);
    let first = release().unwrap();
    let refused = release().unwrap_err().to_string();
    assert!(refused.contains("released already, through handoff 4"), "{refused}");
    // It is not released: there was no submit.
    drop(first);
    submit(release().unwrap(), &endpoint, 5).unwrap();
    assert!(release().is_err());
    // An acquire that is not submitted changes nothing.
    drop(sync_of(&log, ACQUIRE, &buffer).unwrap());
    assert!(release().is_err());
    submit(sync_of(&log, ACQUIRE, &buffer).unwrap(), &endpoint, 5).unwrap();
    submit(release().unwrap(), &endpoint, 5).unwrap();
    buffer.reclaim();
    drop(release().unwrap());
    drop(endpoint);
    fake::take_calls();
}

#[test]
fn the_values_of_each_queue_increase_in_the_order_of_its_submits() {
    fake::set_work_done(true);
    let endpoint = fake::endpoint();
    let (log, buffer) = (Arc::new(Log::default()), fake::buffer(&endpoint, 7));
    let signalled = |queue| {
        submit(sync_of(&log, ACQUIRE, &buffer).unwrap(), &endpoint, queue).unwrap();
        submitted().0[0]
    };
    let (one, other, again) = (signalled(5), signalled(6), signalled(5));
    assert_eq!((one.1, other.1, again.1), (1, 1, 2));
    assert!(one.0 == again.0 && one.0 != other.0);
    drop(endpoint);
    fake::take_calls();
}

#[test]
fn the_gpu_is_queried_rarely_and_everything_is_dropped_in_the_end() {
    fake::set_work_done(true);
    let endpoint = fake::endpoint();
    let (log, buffer) = (Arc::new(Log::default()), fake::buffer(&endpoint, 7));
    let mut kept = Vec::new();
    for _ in 0..40 {
        submit(sync_of(&log, ACQUIRE, &buffer).unwrap(), &endpoint, 5).unwrap();
        kept.push(buffer.0.clones());
    }
    assert_eq!(kept.iter().max(), Some(&17), "{kept:?}");
    // What nothing else holds is dropped with the next submit.
    let short_lived = fake::buffer(&endpoint, 8);
    let weak = short_lived.clone();
    endpoint.wait_for_end(8, std::time::Duration::ZERO);
    submit(sync_of(&log, ACQUIRE, &short_lived).unwrap(), &endpoint, 5).unwrap();
    drop(short_lived);
    assert_eq!(weak.0.clones(), 2);
    drop(endpoint);
    assert_eq!((weak.0.clones(), buffer.0.clones()), (1, 1));
    fake::take_calls();
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
    fake::set_work_done(false);
    let (endpoint, sync, fence) = fence();
    submit(sync, &endpoint, 5).unwrap();
    assert_ne!(submitted().1, vk::Fence::null());
    assert!(!fence.is_signaled().unwrap());
    drop(fence);
    assert!(fake::take_calls().is_empty(), "destroyed while a submit uses it");
    fake::set_work_done(true);
    drop(endpoint);
    assert!(matches!(fake::take_calls()[..], [Call::DestroyFence(_)]));
}

#[test]
fn a_fence_that_was_not_submitted_is_destroyed_at_once() {
    let (_endpoint, sync, fence) = fence();
    drop((sync, fence));
    assert!(matches!(fake::take_calls()[..], [Call::DestroyFence(_)]));
}

#[test]
fn a_merged_submit_waits_and_signals_for_both() {
    fake::set_work_done(true);
    let endpoint = fake::endpoint();
    let timeline = || endpoint.create_private_timeline().unwrap();
    let (one, other) = (timeline(), timeline());
    let (mut sync, mut more) = (SubmitSync::default(), SubmitSync::default());
    sync.add_signal(&one, Some(3));
    more.add_signal(&other, Some(4));
    more.add_wait(&one, Some(2));
    sync.merge(more);
    let waits = sync.waits().iter().map(|wait| (wait.semaphore.handle(), wait.value, wait.stage));
    let all = vk::PipelineStageFlags::ALL_COMMANDS;
    assert_eq!(waits.collect::<Vec<_>>(), [(one.handle(), Some(2), all)]);
    submit(sync, &endpoint, 5).unwrap();
    assert_eq!(submitted().0, [(one.handle(), 3), (other.handle(), 4)]);
}

#[test]
fn two_fences_of_one_submit_are_one() {
    fake::set_work_done(false);
    let (endpoint, mut sync, fence) = fence();
    let mut other_sync = SubmitSync::default();
    let other = FencePool::new(&endpoint).unwrap().next(&mut other_sync).unwrap();
    assert!(!fence.is_same(&other));
    sync.merge(other_sync);
    assert!(fence.is_same(&other) && other.is_same(&fence));
    submit(sync, &endpoint, 5).unwrap();
    let (_, raw) = submitted();
    assert_eq!((fence.handle(), other.handle()), (raw, raw));
    fake::set_work_done(true);
    assert!(other.is_signaled().unwrap());
    drop((endpoint, fence, other));
    assert_eq!(fake::take_calls().len(), 2, "both are destroyed");
}
