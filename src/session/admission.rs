//! Which processes may join, and when: peers that had to be disconnected wait before they may join
//! again, and no flood of connections keeps a producer from its consumers.

use std::time::{Duration, Instant};

use crate::fd::PeerCredentials;

/// How long a process waits after its first offence. Each further one doubles it.
const FIRST_BACK_OFF: Duration = Duration::from_millis(250);

/// The longest that a process waits.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// The time between two joins of processes of a user on probation, after one offence. Each further
/// one doubles it.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);

/// The longest time between two such joins: 16 of them take less than a consumer's join timeout.
const LONGEST_INTERVAL: Duration = Duration::from_millis(100);

/// How long a process's or a user's offences count, after the last one.
const PROBATION: Duration = Duration::from_secs(60);

/// Maximum number of processes and users that are remembered. The longest ago is forgotten first.
const MAX_OFFENDERS: usize = 256;

/// Maximum number of connections that are accepted in one [`ACCEPT_INTERVAL`].
pub(super) const MAX_ACCEPTED: usize = 16;

/// Together with [`MAX_ACCEPTED`], this limits a flood to 400 connections per second, which take a
/// small part of a processor.
pub(super) const ACCEPT_INTERVAL: Duration = Duration::from_millis(40);

/// Maximum number of connections that have not sent *join*. When another one arrives, the oldest is
/// closed: at the rate above it had at least 160 milliseconds.
pub(super) const MAX_UNJOINED: usize = 64;

/// How long a consumer that joins has its place to itself, even if others need it.
pub(super) const JOIN_GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Process { pid: u32, uid: u32 },
    User(u32),
}

#[derive(Debug)]
struct Offender {
    who: Who,
    offences: u32,
    last: Instant,
    /// When the next process of this user may join.
    turn: Instant,
}

/// What a producer remembers of peers that it had to disconnect: that were evicted, did not join in
/// time, or violated the protocol.
///
/// This process itself is exempt: its threads are no other process.
#[derive(Debug, Default)]
pub(super) struct Offenders(Vec<Offender>);

impl Offenders {
    /// Records an offence of a process, and of its user.
    pub(super) fn record(&mut self, peer: PeerCredentials, now: Instant) {
        let PeerCredentials { pid, uid } = peer;
        if pid == std::process::id() {
            return;
        }
        self.0.retain(|known| now.saturating_duration_since(known.last) < PROBATION);
        for who in [Who::Process { pid, uid }, Who::User(uid)] {
            let at = self.0.iter().position(|known| known.who == who);
            let known = at.map(|at| self.0.remove(at));
            let (offences, turn) = known.map_or((0, now), |known| (known.offences, known.turn));
            if self.0.len() == MAX_OFFENDERS {
                self.0.remove(0);
            }
            self.0.push(Offender { who, offences: offences.saturating_add(1), last: now, turn });
        }
    }

    fn find(&mut self, who: Who, now: Instant) -> Option<&mut Offender> {
        let recent = |known: &&mut Offender| now.saturating_duration_since(known.last) < PROBATION;
        self.0.iter_mut().find(|known| known.who == who).filter(recent)
    }

    /// Returns how long a process must still wait before it may connect again; `None` if it may.
    pub(super) fn back_off(&mut self, peer: PeerCredentials, now: Instant) -> Option<Duration> {
        let PeerCredentials { pid, uid } = peer;
        let known = self.find(Who::Process { pid, uid }, now)?;
        let wait = doubled(FIRST_BACK_OFF, known.offences, LONGEST_BACK_OFF);
        let left = wait.saturating_sub(now.saturating_duration_since(known.last));
        (!left.is_zero()).then_some(left)
    }

    /// Whether processes of this user were disconnected recently.
    pub(super) fn is_on_probation(&self, peer: PeerCredentials, now: Instant) -> bool {
        let is_known = |known: &Offender| {
            let is_recent = now.saturating_duration_since(known.last) < PROBATION;
            known.who == Who::User(peer.uid) && is_recent
        };
        peer.pid != std::process::id() && self.0.iter().any(is_known)
    }

    /// Whether a process that asks to join is answered now. If its user is on probation, the next one
    /// is answered some time later.
    pub(super) fn may_join(&mut self, peer: PeerCredentials, now: Instant) -> bool {
        if peer.pid == std::process::id() {
            return true;
        }
        let Some(known) = self.find(Who::User(peer.uid), now) else { return true };
        if known.turn > now {
            return false;
        }
        known.turn = now + doubled(FIRST_INTERVAL, known.offences, LONGEST_INTERVAL);
        true
    }

    /// Returns the time until [`may_join`](Self::may_join) can be true for some user.
    pub(super) fn next_turn(&self, now: Instant) -> Option<Duration> {
        let turns = self.0.iter().map(|known| known.turn.saturating_duration_since(now));
        turns.filter(|left| !left.is_zero()).min()
    }
}

/// `first`, doubled for each offence after the first one, but at most `longest`.
fn doubled(first: Duration, offences: u32, longest: Duration) -> Duration {
    let factor = 1u32.checked_shl(offences.saturating_sub(1)).unwrap_or(u32::MAX);
    first.checked_mul(factor.max(1)).unwrap_or(longest).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerCredentials = PeerCredentials { pid: u32::MAX, uid: 7 };
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_process_waits_longer_after_each_offence_and_is_forgotten() {
        let (mut offenders, now) = (Offenders::default(), Instant::now());
        assert_eq!(offenders.back_off(PEER, now), None);
        for (count, wait) in [(1, 250), (2, 500), (3, 1000)] {
            offenders.record(PEER, now);
            assert_eq!(offenders.back_off(PEER, now), Some(wait * MS), "{count} offences");
            assert_eq!(offenders.back_off(PEER, now + wait * MS), None);
        }
        for _ in 0..100 {
            offenders.record(PEER, now);
        }
        assert_eq!(offenders.back_off(PEER, now), Some(LONGEST_BACK_OFF));
        let other = PeerCredentials { pid: 1, uid: 7 };
        assert_eq!(offenders.back_off(other, now), None);
        assert!(offenders.is_on_probation(other, now), "a process of the same user");
        assert!(!offenders.is_on_probation(PeerCredentials { pid: 1, uid: 8 }, now));
        assert!(!offenders.is_on_probation(other, now + PROBATION));
        assert_eq!(offenders.back_off(PEER, now + PROBATION), None);
        offenders.record(PEER, now + PROBATION);
        assert_eq!(offenders.back_off(PEER, now + PROBATION), Some(FIRST_BACK_OFF));
    }

    #[test]
    fn processes_of_a_user_on_probation_join_one_after_the_other() {
        let (mut offenders, now) = (Offenders::default(), Instant::now());
        assert!(offenders.may_join(PEER, now) && offenders.may_join(PEER, now));
        offenders.record(PEER, now);
        assert!(offenders.may_join(PEER, now) && !offenders.may_join(PEER, now));
        assert_eq!(offenders.next_turn(now), Some(FIRST_INTERVAL));
        assert!(offenders.may_join(PEER, now + FIRST_INTERVAL));
        assert!(offenders.may_join(PEER, now + PROBATION));
        assert_eq!(offenders.next_turn(now + PROBATION), None);
    }

    #[test]
    fn no_more_than_the_limit_are_remembered_and_this_process_never_is() {
        let (mut offenders, now) = (Offenders::default(), Instant::now());
        offenders.record(PeerCredentials { pid: std::process::id(), uid: 7 }, now);
        assert!(offenders.0.is_empty());
        for pid in 0..1000 {
            offenders.record(PeerCredentials { pid: u32::MAX - pid, uid: pid }, now);
        }
        assert_eq!(offenders.0.len(), MAX_OFFENDERS);
        assert!(offenders.is_on_probation(PeerCredentials { pid: 1, uid: 999 }, now));
    }
}
