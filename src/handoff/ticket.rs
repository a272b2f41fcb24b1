//! The ticket that goes from the releasing side to the acquiring side.

use std::sync::Arc;

use super::channel::{Channel, Release};
use crate::desc::ImageLayout;
use crate::error::{Error, ImportError, Mismatch};

/// An acquire that failed: the error, and the ticket, to be tried again.
pub type AcquireError = ImportError<Ticket>;

/// One release, to be acquired once.
///
/// It carries which handoff it belongs to, its sequence number, the layouts that images were released
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
    /// Acquired or withdrawn.
    is_done: bool,
}

impl Ticket {
    pub(crate) fn new(channel: Arc<Channel>, release: Release) -> Self {
        Self { channel, release, is_done: false }
    }

    /// Returns the sequence number of this release, starting at 1. If a timeline semaphore
    /// synchronises, it is the value that the release signals.
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

    /// Refuses a ticket of another handoff than `channel`.
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

    /// Takes back a release that never happened.
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

    use super::super::layouts::Layouts;
    use super::super::wait::{HostWait, WaitMode};
    use super::*;
    use crate::capabilities::SyncMethod;

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
