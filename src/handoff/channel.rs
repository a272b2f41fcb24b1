//! What the two ends of a handoff share: its method, the releases in flight, and their tickets.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layouts::Layouts;
use super::wait::{HostFence, HostWait};
use crate::capabilities::SyncMethod;
use crate::desc::ImageLayout;
use crate::error::{Error, ImportError, Invalid, Mismatch, Result};

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
        Self { id, method, host, limit, check_layout, in_flight: Mutex::default() }
    }

    pub(crate) fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        // Nothing panics while it is locked.
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sequence numbers of the next `count` releases, if that many more may be in flight.
    pub(crate) fn next(&self, count: usize) -> Result<Range<u64>> {
        self.in_flight().next(count as u64, self.limit)
    }

    /// Rejects a release in a layout that the acquiring API doesn't support.
    pub(crate) fn check_layouts(&self, layouts: &Layouts) -> Result<()> {
        layouts.handed_over().try_for_each(self.check_layout)
    }
}

/// A release as its ticket carries it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Release {
    /// Starts at 1.
    pub(crate) sequence: u64,
    /// What the host waits for, if it waits. The same for all releases of a batch.
    pub(crate) host: Option<HostFence>,
    pub(crate) layouts: Layouts,
}

/// The releases of one handoff.
///
/// A counter is not enough: tickets may be acquired in any order, or never, and a binary semaphore
/// can't be signalled again before its wait.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The sequence number of the last one.
    released: u64,
    /// Those not acquired yet, in ascending order. The allocation is reused.
    pending: VecDeque<u64>,
    /// The subset of them whose tickets were dropped.
    lost: Vec<Release>,
}

impl InFlight {
    /// Returns the sequence numbers of the next `count` releases, if that many more may be in
    /// flight within `limit`.
    pub(crate) fn next(&self, count: u64, limit: u64) -> Result<Range<u64>> {
        let (first, last) = (self.released + 1, self.released.saturating_add(count));
        if count > limit {
            let problem = format!("{count} payloads at a time, but only {limit} may be in flight");
            return Err(Invalid::new("release", problem)
                .help("release fewer, or open the handoff with a larger in_flight")
                .into());
        }
        let Some(oldest) = self.pending.front().filter(|oldest| last - **oldest >= limit) else {
            return Ok(first..last + 1);
        };
        let is_lost = self.lost.iter().any(|lost| lost.sequence == *oldest);
        let (problem, help) = if is_lost {
            (
                format!("number {last} while the ticket of number {oldest} was dropped"),
                "get it back from `lost_tickets` and acquire it; withdraw it if its submit failed"
                    .into(),
            )
        } else {
            (
                format!("number {last} while number {oldest} is not yet acquired"),
                format!(
                    "acquire it first: {limit} may be in flight; or open the handoff with more \
                     in_flight"
                ),
            )
        };
        Err(Invalid::new("release", problem).help(help).into())
    }

    /// Records the releases `numbers`, which [`next`](Self::next) returned.
    pub(crate) fn release(&mut self, numbers: Range<u64>) {
        self.released = self.released.max(numbers.end.saturating_sub(1));
        self.pending.extend(numbers);
    }

    /// Removes a release that was acquired.
    pub(crate) fn acquire(&mut self, number: u64) {
        if self.pending.front() == Some(&number) {
            self.pending.pop_front();
        } else if let Ok(at) = self.pending.binary_search(&number) {
            self.pending.remove(at);
        }
    }

    /// Removes a release that was never submitted.
    pub(crate) fn withdraw(&mut self, number: u64) {
        self.acquire(number);
        if self.released == number {
            self.released -= 1;
        }
    }

    /// Keeps a release whose ticket was dropped.
    pub(crate) fn lose(&mut self, release: Release) {
        self.lost.push(release);
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
/// It identifies its handoff and carries the sequence number, the layouts that images were released
/// in and, if the host waits, what it waits for. Send it to the acquiring side once the release is
/// submitted: a binary semaphore must not be waited for before its signal is submitted. If the submit
/// failed, give it to [`Releaser::withdraw`](super::Releaser::withdraw).
///
/// A dropped ticket is not lost: the handoff keeps the release, which stays in flight, and
/// [`Releaser::lost_tickets`](super::Releaser::lost_tickets) and
/// [`Acquirer::lost_tickets`](super::Acquirer::lost_tickets) return a ticket for it.
#[derive(Debug)]
#[must_use = "the other side acquires with the ticket; until then neither side owns the payload"]
pub struct Ticket {
    channel: Arc<Channel>,
    release: Release,
    /// Whether it was acquired or withdrawn.
    is_done: bool,
}

impl Ticket {
    pub(crate) fn new(channel: Arc<Channel>, release: Release) -> Self {
        Self { channel, release, is_done: false }
    }

    /// Returns the sequence number of this release, starting at 1. With a timeline semaphore, it is
    /// also the value that the release signals.
    pub fn sequence(&self) -> u64 {
        self.release.sequence
    }

    /// Returns the layout in which each image is handed over, in the order in which the releasing side
    /// listed them. Empty for a release by CUDA, which has no layouts, and for one that was recorded
    /// earlier.
    pub fn image_layouts(&self) -> impl Iterator<Item = ImageLayout> {
        self.release.layouts.handed_over()
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
            .help("acquire at the other end of the handoff that released, withdraw at the same end")
            .into())
    }

    /// Ends the ticket, and returns its sequence number, which the caller removes from those in
    /// flight.
    pub(crate) fn finish(mut self) -> u64 {
        self.is_done = true;
        self.release.sequence
    }

    /// Withdraws a release that was never submitted.
    pub(crate) fn withdraw(self) {
        let channel = self.channel.clone();
        channel.in_flight().withdraw(self.finish());
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

    use super::super::layouts::Layouts;
    use super::super::wait::{HostWait, WaitMode};
    use super::*;
    use crate::capabilities::SyncMethod;
    use crate::error::Error;

    fn released(in_flight: &mut InFlight, count: u64, limit: u64) -> Result<Range<u64>> {
        let numbers = in_flight.next(count, limit)?;
        in_flight.release(numbers.clone());
        Ok(numbers)
    }

    #[test]
    fn as_many_as_the_limit_are_in_flight_and_no_more() {
        let mut in_flight = InFlight::default();
        assert_eq!(released(&mut in_flight, 2, 3), Ok(1..3));
        assert_eq!(released(&mut in_flight, 1, 3), Ok(3..4));
        let refused = in_flight.next(1, 3).unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)), "{refused}");
        // Not the oldest: a binary semaphore of number 1 is still signalled.
        in_flight.acquire(2);
        assert!(in_flight.next(1, 3).is_err());
        in_flight.acquire(1);
        assert_eq!(in_flight.next(1, 3), Ok(4..5));
        assert!(in_flight.next(3, 3).is_err());
        assert_eq!(in_flight.next(2, 3), Ok(4..6));
        assert!(in_flight.next(4, 3).is_err());
    }

    #[test]
    fn a_withdrawn_release_never_happened() {
        let mut in_flight = InFlight::default();
        released(&mut in_flight, 2, 2).unwrap();
        assert!(in_flight.next(1, 2).is_err());
        in_flight.withdraw(2);
        in_flight.withdraw(1);
        assert_eq!(in_flight.next(2, 2), Ok(1..3));
    }

    #[test]
    fn a_dropped_ticket_is_found_again_and_the_refusal_says_how() {
        let mut in_flight = InFlight::default();
        released(&mut in_flight, 2, 2).unwrap();
        for sequence in [2, 1] {
            in_flight.lose(Release { sequence, ..Release::default() });
        }
        let refused = in_flight.next(1, 2).unwrap_err().to_string();
        assert!(refused.contains("number 1 was dropped"), "{refused}");
        assert!(refused.contains("lost_tickets"), "{refused}");
        let found: Vec<_> = in_flight.drain_lost().iter().map(|lost| lost.sequence).collect();
        assert_eq!(found, [1, 2]);
        assert!(in_flight.drain_lost().is_empty());
        in_flight.acquire(1);
        in_flight.withdraw(2);
        assert_eq!(in_flight.next(2, 2), Ok(2..4));
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
                    if let Ok(numbers) = released(&mut in_flight, count, limit) {
                        tickets.extend(numbers);
                    }
                } else if !tickets.is_empty() {
                    let number = tickets.remove(which.index(tickets.len()));
                    // Only the last release can be withdrawn and its number reused.
                    if what == 1 { in_flight.acquire(number) } else { in_flight.withdraw(number) }
                }
                let mut used: Vec<_> = tickets.iter().map(|number| (number - 1) % limit).collect();
                used.sort_unstable();
                used.dedup();
                prop_assert_eq!(used.len(), tickets.len(), "{:?}", tickets);
            }
        }
    }

    fn channel() -> Arc<Channel> {
        let host = HostWait { mode: WaitMode::Block, timeout: Duration::ZERO };
        Arc::new(Channel::new(SyncMethod::Timeline, host, 1, |_| Ok(())))
    }

    fn release(channel: &Arc<Channel>) -> Ticket {
        let sequences = channel.next(1).unwrap();
        channel.in_flight().release(sequences.clone());
        let (sequence, layouts) = (sequences.start, Layouts::of_vulkan([(None, None)].into_iter()));
        Ticket::new(channel.clone(), Release { sequence, host: None, layouts })
    }

    #[test]
    fn a_dropped_ticket_keeps_its_release_in_flight_until_it_is_found() {
        let channel = channel();
        let ticket = release(&channel);
        let layouts: Vec<_> = ticket.image_layouts().collect();
        assert_eq!((ticket.sequence(), &layouts[..]), (1, &[ImageLayout::GENERAL][..]));
        drop(ticket);
        assert!(channel.next(1).is_err(), "it is still in flight");
        let found = channel.in_flight().drain_lost().pop().unwrap();
        let ticket = Ticket::new(channel.clone(), found);
        assert_eq!((ticket.sequence(), ticket.image_layouts().count()), (1, 1));
        let number = ticket.finish();
        channel.in_flight().acquire(number);
        assert_eq!(channel.next(1), Ok(2..3));
        assert!(channel.in_flight().drain_lost().is_empty());
    }

    #[test]
    fn a_withdrawn_ticket_leaves_its_number_to_the_next() {
        let channel = channel();
        release(&channel).withdraw();
        assert_eq!(release(&channel).sequence(), 1);
    }

    #[test]
    fn a_ticket_of_another_handoff_is_refused() {
        let (one, other) = (channel(), channel());
        let ticket = release(&one);
        assert_eq!(ticket.check_of(&one), Ok(()));
        let refused = ticket.check_of(&other).unwrap_err().to_string();
        assert!(refused.contains("other end"), "{refused}");
        ticket.withdraw();
    }
}
