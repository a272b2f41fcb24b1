use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::handoff::WaitMode;

#[test]
fn no_more_releases_than_the_limit_are_in_flight() {
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
    for sequence in [2, 1] {
        in_flight.begin_acquire(1, Release { sequence, ..Release::default() });
    }
    let refused = in_flight.reserve(1, 2, true).unwrap_err().to_string();
    assert!(refused.contains("the acquire of number 1 is not submitted"), "{refused}");
    in_flight.abandon_acquire(1);
    let found = in_flight.drain_lost();
    assert_eq!(found.iter().map(|lost| lost.sequence).collect::<Vec<_>>(), [1, 2]);
    found.into_iter().for_each(|release| in_flight.begin_acquire(1, release));
    in_flight.end_acquire(1);
    assert_eq!(in_flight.reserve(2, 2, true), Ok(3..5));
}

#[test]
fn a_dropped_ticket_is_recovered_as_the_refusal_explains() {
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
    /// The limit ensures that no two releases that share a semaphore are in flight together.
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
fn a_dropped_ticket_keeps_its_release_in_flight_until_it_is_recovered() {
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
fn only_a_submitted_release_is_acquired_on_the_gpu() {
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
fn releases_are_submitted_in_order_unless_each_has_its_own_semaphore() {
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
