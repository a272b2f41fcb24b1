//! What the two ends of a handoff share: its method, the releases in flight, and their tickets.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::contents::Contents;
use super::wait::{HostFence, HostWait};
use crate::capabilities::SyncMethod;
use crate::desc::ImageLayout;
use crate::error::{Error, ImportError, Invalid, Mismatch, Result};
use crate::vulkan::{Half, SubmitHandoff};

/// What both ends of a handoff, and its tickets, share.
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
    /// The highest sequence number of a release that is submitted.
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
        // Nothing panics while it is locked.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next `count` releases, if that many more may be in flight, and returns their
    /// sequence numbers. They are submitted at once if `is_submitted`.
    pub(crate) fn reserve(&self, count: usize, is_submitted: bool) -> Result<Range<u64>> {
        self.in_flight().reserve(count as u64, self.limit, is_submitted)
    }

    /// Rejects a release in a layout that the acquiring API doesn't support.
    pub(crate) fn check_layouts(&self, contents: &Contents) -> Result<()> {
        contents.layouts().try_for_each(self.check_layout)
    }

    /// Rejects the acquire of a release that can't be waited for: it was never submitted, or, if the GPU
    /// waits, is not submitted yet. Returns whether it is submitted.
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

/// A release as its ticket carries it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Release {
    /// Starts at 1.
    pub(crate) sequence: u64,
    /// What the host waits for, if it waits. The same for all releases of a batch.
    pub(crate) host: Option<HostFence>,
    pub(crate) contents: Contents,
}

/// How far a release in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its submit is not made yet.
    Recorded,
    Submitted,
    /// It is acquired, but the submit of the acquire is not made yet.
    Acquiring,
}

/// The releases of one handoff.
///
/// A counter is not enough: tickets may be acquired in any order, or never, and a binary semaphore
/// can't be signalled again before its wait.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The sequence number of the last one.
    released: u64,
    /// Those whose acquire is not submitted yet, in ascending order. The allocation is reused.
    pending: VecDeque<(u64, State)>,
    /// Acquires that are not submitted yet: the lowest sequence number, and the releases.
    acquiring: Vec<(u64, SmallVec<[Release; 1]>)>,
    /// The releases whose tickets were dropped.
    lost: Vec<Release>,
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
        match self.pending.front() {
            Some((oldest, state)) if last - *oldest >= limit => {
                Err(self.refuse(last, (*oldest, *state), limit).into())
            }
            _ => {
                let state = if is_submitted { State::Submitted } else { State::Recorded };
                let numbers = first..last + 1;
                self.pending.extend(numbers.clone().map(|number| (number, state)));
                self.released = last;
                Ok(numbers)
            }
        }
    }

    /// Explains why number `last` can't follow yet.
    fn refuse(&self, last: u64, (oldest, state): (u64, State), limit: u64) -> Invalid {
        let (problem, help) = if self.lost.iter().any(|lost| lost.sequence == oldest) {
            (
                "the ticket of number {} was dropped",
                "get it back from `lost_tickets` and acquire it",
            )
        } else {
            match state {
                State::Recorded => (
                    "number {} is not submitted yet",
                    "submit its SubmitSync, or drop it, which takes the release back",
                ),
                State::Submitted => ("number {} is not yet acquired", "acquire it first"),
                State::Acquiring => (
                    "the acquire of number {} is not submitted yet",
                    "submit its SubmitSync, or drop it and get the ticket from `lost_tickets`",
                ),
            }
        };
        let problem = problem.replace("{}", &oldest.to_string());
        let more = format!("{limit} may be in flight; or open the handoff with more in_flight");
        Invalid::new("release", format!("number {last} while {problem}"))
            .help(format!("{help}: {more}"))
    }

    fn position(&self, number: u64) -> Option<usize> {
        match self.pending.front() {
            Some((first, _)) if *first == number => Some(0),
            _ => self.pending.binary_search_by_key(&number, |(number, _)| *number).ok(),
        }
    }

    /// Returns how far a release is; `None` if it is acquired or was never submitted.
    pub(crate) fn state(&self, number: u64) -> Option<State> {
        self.position(number).map(|at| self.pending[at].1)
    }

    fn set_state(&mut self, number: u64, state: State) {
        if let Some(at) = self.position(number) {
            self.pending[at].1 = state;
        }
    }

    /// Removes a release that was acquired.
    pub(crate) fn acquire(&mut self, number: u64) {
        if let Some(at) = self.position(number) {
            self.pending.remove(at);
        }
    }

    /// The submit of these releases is made.
    pub(crate) fn submitted(&mut self, numbers: &Range<u64>) {
        numbers.clone().for_each(|number| self.set_state(number, State::Submitted));
    }

    /// Removes releases that are never submitted. Their numbers are not used again.
    pub(crate) fn abandon(&mut self, numbers: &Range<u64>) {
        numbers.clone().for_each(|number| self.acquire(number));
        self.lost.retain(|lost| !numbers.contains(&lost.sequence));
    }

    /// Removes releases that failed before anything about them was known outside.
    pub(crate) fn unreserve(&mut self, numbers: &Range<u64>) {
        self.abandon(numbers);
        if self.released + 1 == numbers.end {
            self.released = numbers.start - 1;
        }
    }

    /// These releases are acquired by a submit that is not made yet.
    pub(crate) fn begin_acquire(&mut self, releases: SmallVec<[Release; 1]>) {
        for release in &releases {
            self.set_state(release.sequence, State::Acquiring);
        }
        if let Some(first) = releases.iter().map(|release| release.sequence).min() {
            self.acquiring.push((first, releases));
        }
    }

    fn take_acquiring(&mut self, first: u64) -> SmallVec<[Release; 1]> {
        let at = self.acquiring.iter().position(|(key, _)| *key == first);
        at.map(|at| self.acquiring.swap_remove(at).1).unwrap_or_default()
    }

    /// The submit of the acquire is made.
    pub(crate) fn end_acquire(&mut self, first: u64) {
        for release in self.take_acquiring(first) {
            self.acquire(release.sequence);
        }
    }

    /// The acquire is never submitted: its releases are lost until their tickets are recovered.
    pub(crate) fn abandon_acquire(&mut self, first: u64) {
        for release in self.take_acquiring(first) {
            self.set_state(release.sequence, State::Submitted);
            self.lost.push(release);
        }
    }

    /// Keeps a release whose ticket was dropped, if it can still be acquired.
    pub(crate) fn lose(&mut self, release: Release) {
        if self.position(release.sequence).is_some() {
            self.lost.push(release);
        }
    }

    /// Takes one of the releases whose tickets were dropped.
    pub(crate) fn take_lost(&mut self, number: u64) -> Option<Release> {
        let at = self.lost.iter().position(|lost| lost.sequence == number)?;
        Some(self.lost.swap_remove(at))
    }

    /// Takes the releases whose tickets were dropped, oldest first.
    pub(crate) fn drain_lost(&mut self) -> Vec<Release> {
        let mut lost = std::mem::take(&mut self.lost);
        lost.sort_by_key(|release| release.sequence);
        lost
    }
}

/// A failed acquire: the error, and the ticket for another attempt.
pub type AcquireError = ImportError<Ticket>;

/// One release, to be acquired once.
///
/// It identifies its handoff and carries the sequence number, what was released, the layouts of images
/// and, if the host waits, what it waits for. Send it to the acquiring side once the release is
/// submitted. If the submit is never made, because it failed or its
/// [`SubmitSync`](crate::vulkan::SubmitSync) was dropped, the ticket is refused, and can be dropped.
///
/// The ticket of a release that was submitted is not lost when it is dropped: the handoff keeps the
/// release, which stays in flight, and [`Releaser::lost_tickets`](super::Releaser::lost_tickets) and
/// [`Acquirer::lost_tickets`](super::Acquirer::lost_tickets) return a ticket for it.
#[derive(Debug)]
#[must_use = "the other side acquires with the ticket; until then neither side owns the payload"]
pub struct Ticket {
    channel: Arc<Channel>,
    release: Release,
    /// Whether it was acquired.
    is_done: bool,
}

impl Ticket {
    pub(crate) fn new(channel: Arc<Channel>, release: Release) -> Self {
        Self { channel, release, is_done: false }
    }

    /// Returns the sequence number of this release, starting at 1. With a timeline semaphore, it is
    /// also the value that the release signals. The numbers of releases that were never submitted are
    /// skipped.
    pub fn sequence(&self) -> u64 {
        self.release.sequence
    }

    /// Returns the layout in which each image is handed over, in the order in which the releasing side
    /// listed them. Empty for a release by CUDA, which has no layouts, and for one that was recorded
    /// earlier.
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

    /// Ends the ticket, and returns its release, which the caller removes from those in flight.
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
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::wait::WaitMode;
    use super::*;

    #[test]
    fn as_many_as_the_limit_are_in_flight_and_no_more() {
        let mut in_flight = InFlight::default();
        assert_eq!(in_flight.reserve(2, 3, true), Ok(1..3));
        assert_eq!(in_flight.reserve(1, 3, true), Ok(3..4));
        let refused = in_flight.reserve(1, 3, true).unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
        // Not the oldest: a binary semaphore of number 1 is still signalled.
        in_flight.acquire(2);
        assert!(in_flight.reserve(1, 3, true).is_err());
        in_flight.acquire(1);
        assert!(in_flight.reserve(3, 3, true).is_err());
        assert!(in_flight.reserve(4, 3, true).is_err());
        assert_eq!(in_flight.reserve(2, 3, true), Ok(4..6));
    }

    #[test]
    fn a_release_that_is_never_submitted_makes_room_and_its_number_is_not_used_again() {
        let mut in_flight = InFlight::default();
        in_flight.reserve(2, 2, false).unwrap();
        let refused = in_flight.reserve(1, 2, false).unwrap_err().to_string();
        assert!(refused.contains("number 1 is not submitted yet"), "{refused}");
        in_flight.abandon(&(1..3));
        assert_eq!(in_flight.state(2), None);
        assert_eq!(in_flight.reserve(2, 2, false), Ok(3..5));
        // One that failed before it had a ticket leaves no gap.
        in_flight.unreserve(&(3..5));
        assert_eq!(in_flight.reserve(2, 2, false), Ok(3..5));
    }

    #[test]
    fn an_acquire_that_is_never_submitted_can_be_repeated() {
        let mut in_flight = InFlight::default();
        in_flight.reserve(2, 2, true).unwrap();
        let releases = [2, 1].map(|sequence| Release { sequence, ..Release::default() });
        in_flight.begin_acquire(releases.into_iter().collect());
        let refused = in_flight.reserve(1, 2, true).unwrap_err().to_string();
        assert!(refused.contains("the acquire of number 1 is not submitted"), "{refused}");
        in_flight.abandon_acquire(1);
        let found = in_flight.drain_lost();
        assert_eq!(found.iter().map(|lost| lost.sequence).collect::<Vec<_>>(), [1, 2]);
        in_flight.begin_acquire(found.into_iter().collect());
        in_flight.end_acquire(1);
        assert_eq!(in_flight.reserve(2, 2, true), Ok(3..5));
    }

    #[test]
    fn a_dropped_ticket_is_found_again_and_the_refusal_says_how() {
        let mut in_flight = InFlight::default();
        in_flight.reserve(2, 2, true).unwrap();
        for sequence in [2, 1, 7] {
            in_flight.lose(Release { sequence, ..Release::default() });
        }
        let refused = in_flight.reserve(1, 2, true).unwrap_err().to_string();
        assert!(refused.contains("the ticket of number 1 was dropped"), "{refused}");
        assert!(refused.contains("lost_tickets"), "{refused}");
        let found: Vec<_> = in_flight.drain_lost().iter().map(|lost| lost.sequence).collect();
        assert_eq!(found, [1, 2], "7 is not in flight");
        assert!(in_flight.drain_lost().is_empty());
        in_flight.acquire(1);
        in_flight.abandon(&(2..3));
        assert_eq!(in_flight.reserve(2, 2, true), Ok(3..5));
    }

    proptest! {
        /// No two releases that share a semaphore are ever in flight together: the limit ensures
        /// it.
        #[test]
        fn a_semaphore_is_never_signalled_twice(
            limit in 1u64..6,
            steps in prop::collection::vec((0u8..3, 1u64..4, any::<prop::sample::Index>()), 0..60),
        ) {
            let mut in_flight = InFlight::default();
            let mut tickets: Vec<u64> = Vec::new();
            for (what, count, which) in steps {
                if what == 0 {
                    if let Ok(numbers) = in_flight.reserve(count, limit, true) {
                        tickets.extend(numbers);
                    }
                } else if !tickets.is_empty() {
                    let number = tickets.remove(which.index(tickets.len()));
                    if what == 1 {
                        in_flight.acquire(number);
                    } else {
                        in_flight.abandon(&(number..number + 1));
                    }
                }
                let mut used: Vec<_> = tickets.iter().map(|number| (number - 1) % limit).collect();
                used.sort_unstable();
                used.dedup();
                prop_assert_eq!(used.len(), tickets.len(), "{:?}", tickets);
            }
        }
    }

    fn channel(method: SyncMethod) -> Arc<Channel> {
        let host = HostWait { mode: WaitMode::Block, timeout: Duration::ZERO };
        Arc::new(Channel::new(method, host, 1, |_| Ok(())))
    }

    fn release(channel: &Arc<Channel>, is_submitted: bool) -> Ticket {
        let sequence = channel.reserve(1, is_submitted).unwrap().start;
        let contents = Contents::of_vulkan(0, [(None, None)].into_iter());
        Ticket::new(channel.clone(), Release { sequence, host: None, contents })
    }

    #[test]
    fn a_dropped_ticket_keeps_its_release_in_flight_until_it_is_found() {
        let channel = channel(SyncMethod::Timeline);
        let ticket = release(&channel, true);
        let layouts: Vec<_> = ticket.image_layouts().collect();
        assert_eq!((ticket.sequence(), &layouts[..]), (1, &[ImageLayout::GENERAL][..]));
        drop(ticket);
        assert!(channel.reserve(1, true).is_err(), "it is still in flight");
        let ticket = Ticket::recover(&channel, 1).unwrap();
        assert_eq!((ticket.sequence(), ticket.image_layouts().count()), (1, 1));
        channel.in_flight().acquire(ticket.finish().sequence);
        assert_eq!(channel.reserve(1, true), Ok(2..3));
        assert!(channel.in_flight().drain_lost().is_empty());
    }

    #[test]
    fn only_a_release_that_is_submitted_is_acquired_on_the_gpu() {
        for method in SyncMethod::ORDER {
            let channel = channel(method);
            let ticket = release(&channel, false);
            let early = channel.check_submitted(1);
            if method == SyncMethod::HostWait {
                assert_eq!(early, Ok(false));
            } else {
                assert!(early.unwrap_err().to_string().contains("not submitted yet"));
            }
            channel.submitted(&Half::Release(1..2));
            assert_eq!(channel.check_submitted(1), Ok(true));
            channel.in_flight().acquire(ticket.finish().sequence);
            let abandoned = release(&channel, false);
            channel.abandoned(&Half::Release(2..3));
            let refused = channel.check_submitted(abandoned.sequence()).unwrap_err().to_string();
            assert!(refused.contains("release 2 was never submitted"), "{refused}");
            drop(abandoned);
            assert!(channel.in_flight().drain_lost().is_empty(), "it can't be acquired");
        }
    }

    #[test]
    fn releases_are_submitted_in_their_order_unless_each_has_a_semaphore() {
        for method in SyncMethod::ORDER {
            let channel = channel(method);
            let half = |number| Half::Release(number..number + 1);
            assert_eq!(channel.check(&half(2)), Ok(()));
            channel.submitted(&half(2));
            assert_eq!(channel.check(&half(1)).is_ok(), method == SyncMethod::Binary);
            assert_eq!(channel.check(&half(3)), Ok(()));
        }
    }

    #[test]
    fn a_ticket_of_another_handoff_is_refused() {
        let (one, other) = (channel(SyncMethod::Timeline), channel(SyncMethod::Timeline));
        let ticket = release(&one, true);
        assert_eq!(ticket.check_of(&one), Ok(()));
        let refused = ticket.check_of(&other).unwrap_err().to_string();
        assert!(refused.contains("other end"), "{refused}");
    }
}
