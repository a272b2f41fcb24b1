//! State shared by the two ends of a handoff: the method, the releases in flight, and their
//! tickets.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::contents::Contents;
use super::wait::{HostFence, HostWait};
use crate::capabilities::SyncMethod;
use crate::desc::ImageLayout;
use crate::error::{Error, ImportError, Invalid, Mismatch, Result};
use crate::vulkan::{Half, SubmitHandoff};

/// State shared by the two ends of a handoff and its tickets.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Identifies the handoff in errors.
    pub(crate) id: u64,
    pub(crate) method: SyncMethod,
    pub(crate) host: HostWait,
    limit: u64,
    /// Rejects a layout that the acquiring API doesn't support.
    check_layout: fn(ImageLayout) -> Result<()>,
    in_flight: Mutex<InFlight>,
    /// The highest sequence number submitted so far.
    last_submitted: AtomicU64,
}

impl Channel {
    pub(crate) fn new(
        method: SyncMethod,
        host: HostWait,
        limit: u32,
        check_layout: fn(ImageLayout) -> Result<()>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (id, limit) = (NEXT.fetch_add(1, Ordering::Relaxed), u64::from(limit));
        let (in_flight, last_submitted) = Default::default();
        Self { id, method, host, limit, check_layout, in_flight, last_submitted }
    }

    pub(crate) fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        // No code panics while it holds the lock.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next `count` releases, if that many more may be in flight, and returns their
    /// sequence numbers. `is_submitted`: the peer submits them at once.
    pub(crate) fn reserve(&self, count: usize, is_submitted: bool) -> Result<Range<u64>> {
        self.in_flight().reserve(count as u64, self.limit, is_submitted)
    }

    /// Rejects a release in a layout that the acquiring API doesn't support.
    pub(crate) fn check_layouts(&self, contents: &Contents) -> Result<()> {
        contents.layouts().try_for_each(self.check_layout)
    }

    /// Rejects the acquire of a release that can't be waited for: it was never submitted, or, if
    /// the GPU waits, is not submitted yet. Returns whether it is submitted.
    pub(crate) fn check_submitted(&self, number: u64) -> Result<bool> {
        let state = self.in_flight().state(number);
        match state {
            None => Err(Invalid::new("ticket", format!("release {number} was never submitted"))
                .help("its SubmitSync was dropped or its submit failed: release again")
                .into()),
            Some(State::Recorded) if self.method != SyncMethod::HostWait => {
                Err(Invalid::new("ticket", format!("release {number} is not submitted yet"))
                    .help("submit the SubmitSync of the release before the acquire")
                    .into())
            }
            Some(state) => Ok(state != State::Recorded),
        }
    }
}

impl SubmitHandoff for Channel {
    fn check(&self, half: &Half) -> Result<()> {
        let Half::Release(numbers) = half else { return Ok(()) };
        let last = self.last_submitted.load(Ordering::Acquire);
        if self.method == SyncMethod::Binary || last < numbers.start {
            return Ok(());
        }
        let problem = format!("release {} after release {last}", numbers.start);
        Err(Invalid::new("submit", problem)
            .vuid("VUID-VkSubmitInfo-pSignalSemaphores-03242")
            .help("submit the releases of a handoff in the order in which they were made")
            .into())
    }

    fn submitted(&self, half: &Half) {
        match half {
            Half::Release(numbers) => {
                self.last_submitted.fetch_max(numbers.end.saturating_sub(1), Ordering::AcqRel);
                self.in_flight().submitted(numbers);
            }
            Half::Acquire(first) => self.in_flight().end_acquire(*first),
        }
    }

    fn abandoned(&self, half: &Half) {
        match half {
            Half::Release(numbers) => self.in_flight().abandon(numbers),
            Half::Acquire(first) => self.in_flight().abandon_acquire(*first),
        }
    }
}

/// A release, as its ticket describes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Release {
    /// Starts at 1.
    pub(crate) sequence: u64,
    /// What the host waits for, in a host wait. The same for all releases of a batch.
    pub(crate) host: Option<HostFence>,
    pub(crate) contents: Contents,
}

/// The state of a release in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its work is not submitted yet.
    Recorded,
    Submitted,
    /// It is acquired, but the acquire is not submitted yet. Releases that are acquired together
    /// share the lowest of their sequence numbers.
    Acquiring(u64),
}

/// A release in flight.
#[derive(Debug)]
struct Pending {
    number: u64,
    state: State,
    /// What its ticket described, if the ticket was dropped or the acquire is not submitted yet.
    release: Option<Release>,
}

impl Pending {
    /// Returns whether the ticket was dropped.
    fn is_lost(&self) -> bool {
        self.release.is_some() && !matches!(self.state, State::Acquiring(_))
    }
}

/// The releases of one handoff.
///
/// A counter is not enough: tickets may be acquired in any order, or never, and a binary semaphore
/// can't be signalled again before its wait.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The sequence number of the last one.
    released: u64,
    /// The releases whose acquire is not submitted yet, in ascending order. The allocation is
    /// reused.
    pending: VecDeque<Pending>,
}

impl InFlight {
    /// Begins the next `count` releases, if that many more may be in flight within `limit`.
    pub(crate) fn reserve(
        &mut self,
        count: u64,
        limit: u64,
        is_submitted: bool,
    ) -> Result<Range<u64>> {
        let (first, last) = (self.released + 1, self.released.saturating_add(count));
        if count > limit {
            let problem = format!("{count} payloads at a time, but only {limit} may be in flight");
            return Err(Invalid::new("release", problem)
                .help("release fewer, or open the handoff with a larger in_flight")
                .into());
        }
        if let Some(oldest) = self.pending.front().filter(|oldest| last - oldest.number >= limit) {
            return Err(refuse(last, oldest, limit).into());
        }
        let state = if is_submitted { State::Submitted } else { State::Recorded };
        let numbers = first..last + 1;
        for number in numbers.clone() {
            self.pending.push_back(Pending { number, state, release: None });
        }
        self.released = last;
        Ok(numbers)
    }

    fn position(&self, number: u64) -> Option<usize> {
        match self.pending.front() {
            Some(first) if first.number == number => Some(0),
            _ => self.pending.binary_search_by_key(&number, |pending| pending.number).ok(),
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut Pending> {
        self.position(number).map(|at| &mut self.pending[at])
    }

    /// Returns the state of a release; `None` if it is acquired or was never submitted.
    pub(crate) fn state(&self, number: u64) -> Option<State> {
        self.position(number).map(|at| self.pending[at].state)
    }

    /// Removes a release that was acquired.
    pub(crate) fn acquire(&mut self, number: u64) {
        if let Some(at) = self.position(number) {
            self.pending.remove(at);
        }
    }

    /// Marks these releases as submitted.
    pub(crate) fn submitted(&mut self, numbers: &Range<u64>) {
        for number in numbers.clone() {
            if let Some(pending) = self.find(number) {
                pending.state = State::Submitted;
            }
        }
    }

    /// Removes releases that will never be submitted. Their numbers are not used again.
    pub(crate) fn abandon(&mut self, numbers: &Range<u64>) {
        numbers.clone().for_each(|number| self.acquire(number));
    }

    /// Removes releases that failed before they had a ticket. Their numbers are used again.
    pub(crate) fn unreserve(&mut self, numbers: &Range<u64>) {
        self.abandon(numbers);
        if self.released + 1 == numbers.end {
            self.released = numbers.start - 1;
        }
    }

    /// Marks a release as acquired by work that is not submitted yet. `first` is the lowest
    /// sequence number of those that are acquired together.
    pub(crate) fn begin_acquire(&mut self, first: u64, release: Release) {
        if let Some(pending) = self.find(release.sequence) {
            pending.state = State::Acquiring(first);
            pending.release = Some(release);
        }
    }

    /// Marks an acquire as submitted.
    pub(crate) fn end_acquire(&mut self, first: u64) {
        let acquiring = State::Acquiring(first);
        // They are usually the oldest, and then the others need not be moved.
        while self.pending.front().is_some_and(|pending| pending.state == acquiring) {
            self.pending.pop_front();
        }
        self.pending.retain(|pending| pending.state != acquiring);
    }

    /// Cancels an acquire that will never be submitted: its releases are lost until their tickets
    /// are recovered.
    pub(crate) fn abandon_acquire(&mut self, first: u64) {
        for pending in &mut self.pending {
            if pending.state == State::Acquiring(first) {
                pending.state = State::Submitted;
            }
        }
    }

    /// Keeps a release whose ticket was dropped, if it can still be acquired.
    pub(crate) fn lose(&mut self, release: Release) {
        if let Some(pending) = self.find(release.sequence) {
            pending.release = Some(release);
        }
    }

    /// Removes and returns a release whose ticket was dropped.
    pub(crate) fn take_lost(&mut self, number: u64) -> Option<Release> {
        self.find(number).filter(|pending| pending.is_lost())?.release.take()
    }

    /// Removes and returns the releases whose tickets were dropped, oldest first.
    pub(crate) fn drain_lost(&mut self) -> Vec<Release> {
        let lost = self.pending.iter_mut().filter(|pending| pending.is_lost());
        lost.filter_map(|pending| pending.release.take()).collect()
    }
}

/// Explains why release `last` can't follow yet.
fn refuse(last: u64, oldest: &Pending, limit: u64) -> Invalid {
    let (problem, help) = match oldest.state {
        _ if oldest.is_lost() => (
            "the ticket of number {} was dropped",
            "get a new one from `lost_tickets` and acquire it",
        ),
        State::Recorded => (
            "number {} is not submitted yet",
            "submit its SubmitSync, or drop it, which cancels the release",
        ),
        State::Submitted => ("number {} is not yet acquired", "acquire it first"),
        State::Acquiring(_) => (
            "the acquire of number {} is not submitted yet",
            "submit its SubmitSync, or drop it and get the ticket from `lost_tickets`",
        ),
    };
    let problem = problem.replace("{}", &oldest.number.to_string());
    let more = format!("{limit} may be in flight; or open the handoff with more in_flight");
    Invalid::new("release", format!("number {last} while {problem}"))
        .help(format!("{help}: {more}"))
}

/// A failed acquire: the error, and the ticket for another attempt.
pub type AcquireError = ImportError<Ticket>;

/// A release, to be acquired once.
///
/// It identifies the handoff, and carries the sequence number, what was released, the layouts of
/// images and, for a host wait, what to wait for. Send it to the acquiring side once the release is
/// submitted. If the release is never submitted, because the submit failed or the
/// [`SubmitSync`](crate::vulkan::SubmitSync) was dropped, the ticket is refused and can be dropped.
///
/// Dropping the ticket of a submitted release doesn't lose the release: it stays in flight, and
/// [`Releaser::lost_tickets`](super::Releaser::lost_tickets) and
/// [`Acquirer::lost_tickets`](super::Acquirer::lost_tickets) return a new ticket for it.
#[derive(Debug)]
#[must_use = "the other side acquires with the ticket; until then neither side owns the payload"]
pub struct Ticket {
    channel: Arc<Channel>,
    release: Release,
    /// Whether the release was acquired.
    is_done: bool,
}

impl Ticket {
    pub(crate) fn new(channel: Arc<Channel>, release: Release) -> Self {
        Self { channel, release, is_done: false }
    }

    /// Returns the sequence number of this release, starting at 1. With a timeline semaphore, it is
    /// also the value that the release signals. The numbers of releases that are never submitted
    /// are skipped.
    pub fn sequence(&self) -> u64 {
        self.release.sequence
    }

    /// Returns the layout in which each image is handed over, in the order in which the releasing
    /// side listed the images. Empty for a release by CUDA, which has no layouts, and for a
    /// prerecorded release.
    pub fn image_layouts(&self) -> impl Iterator<Item = ImageLayout> {
        self.release.contents.layouts()
    }

    pub(crate) fn release(&self) -> &Release {
        &self.release
    }

    /// Rejects a ticket from a handoff other than `channel`.
    pub(crate) fn check_of(&self, channel: &Arc<Channel>) -> Result<(), Error> {
        if Arc::ptr_eq(&self.channel, channel) {
            return Ok(());
        }
        Err(Mismatch::new("the ticket's handoff", channel.id, self.channel.id)
            .help("acquire at the other end of the handoff that released")
            .into())
    }

    /// Returns a new ticket for a release whose ticket was dropped.
    pub(crate) fn recover(channel: &Arc<Channel>, number: u64) -> Option<Self> {
        let release = channel.in_flight().take_lost(number)?;
        Some(Self::new(channel.clone(), release))
    }

    /// Consumes the ticket and returns its release, which the caller removes from those in flight.
    pub(crate) fn finish(mut self) -> Release {
        self.is_done = true;
        std::mem::take(&mut self.release)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_done {
            self.channel.in_flight().lose(std::mem::take(&mut self.release));
        }
    }
}

#[cfg(test)]
mod tests;
