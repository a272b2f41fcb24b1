//! The semaphores that one release or acquire, or several at a time, signals or waits for.

use std::ops::Range;

use smallvec::SmallVec;

use super::wait::HostWait;
use crate::capabilities::SyncMethod;

/// A semaphore and the value that is signalled or waited for; `None` for a binary semaphore.
pub(crate) type SemaphoreOp<'a, S> = (&'a S, Option<u64>);

/// The semaphores of one call: on the stack for a timeline, and for a few binary semaphores.
pub(crate) type SemaphoreOps<'a, S> = SmallVec<[SemaphoreOp<'a, S>; 8]>;

/// How the acquiring side learns that the released work is done.
#[derive(Debug)]
pub enum Completion<'a, S> {
    /// The GPU signals these semaphores.
    Signal(SemaphoreOps<'a, S>),
    /// The host waits.
    HostWait(HostWait),
}

/// Returns the semaphores of the releases `sequences`: for a timeline the highest value stands for
/// all of them, binary semaphores are one each. Empty if the host waits.
pub(crate) fn semaphore_ops<S>(
    semaphores: &[S],
    method: SyncMethod,
    sequences: impl Iterator<Item = u64>,
) -> SemaphoreOps<'_, S> {
    match method {
        SyncMethod::Timeline => {
            let highest = sequences.max();
            semaphores
                .first()
                .filter(|_| highest.is_some())
                .map(|one| (one, highest))
                .into_iter()
                .collect()
        }
        SyncMethod::Binary => {
            sequences.filter_map(|number| Some((binary(semaphores, number)?, None))).collect()
        }
        SyncMethod::HostWait => SemaphoreOps::new(),
    }
}

/// Returns how the releases `sequences` are completed.
pub(crate) fn completion<S>(
    semaphores: &[S],
    method: SyncMethod,
    host: HostWait,
    sequences: Range<u64>,
) -> Completion<'_, S> {
    match method {
        SyncMethod::HostWait => Completion::HostWait(host),
        _ => Completion::Signal(semaphore_ops(semaphores, method, sequences)),
    }
}

/// Returns the semaphore of release number `sequence`, which starts at 1.
fn binary<S>(semaphores: &[S], sequence: u64) -> Option<&S> {
    let slot = sequence.checked_sub(1)?.checked_rem(semaphores.len() as u64)?;
    // The slot is below the count, which came from a length.
    semaphores.get(slot as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(
        semaphores: &[char],
        method: SyncMethod,
        sequences: &[u64],
    ) -> Vec<(char, Option<u64>)> {
        let ops = semaphore_ops(semaphores, method, sequences.iter().copied());
        ops.into_iter().map(|(semaphore, value)| (*semaphore, value)).collect()
    }

    #[test]
    fn the_highest_value_of_a_timeline_stands_for_all() {
        let timeline = |sequences: &[u64]| shown(&['t'], SyncMethod::Timeline, sequences);
        assert_eq!(timeline(&[7]), [('t', Some(7))]);
        assert_eq!(timeline(&[7, 9, 8]), [('t', Some(9))]);
        assert_eq!(timeline(&[]), []);
    }

    #[test]
    fn binary_semaphores_are_used_in_rotation() {
        let binary = |sequences: &[u64]| shown(&['a', 'b', 'c'], SyncMethod::Binary, sequences);
        assert_eq!(binary(&[1]), [('a', None)]);
        assert_eq!(binary(&[3, 4, 5]), [('c', None), ('a', None), ('b', None)]);
    }

    #[test]
    fn the_gpu_waits_for_nothing_if_the_host_waits() {
        assert_eq!(shown(&[], SyncMethod::HostWait, &[1, 2]), []);
    }
}
