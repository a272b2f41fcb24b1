//! What the GPU waits for or signals, for one release or for several at a time.

use crate::capabilities::SyncMethod;

/// What a release signals and an acquire waits for on the GPU.
pub(crate) struct SemaphoreOp<'a, S> {
    pub(crate) semaphore: &'a S,
    /// `None` for a binary semaphore.
    pub(crate) value: Option<u64>,
}

/// The semaphores of the releases `sequences`: with a timeline the highest value stands for all of
/// them, binary semaphores are one each. None where the host waits.
pub(crate) fn points<'a, S>(
    semaphores: &'a [S],
    method: SyncMethod,
    sequences: impl Iterator<Item = u64> + Clone + 'a,
) -> impl Iterator<Item = SemaphoreOp<'a, S>> + 'a {
    let highest = match method {
        SyncMethod::Timeline => sequences.clone().max(),
        _ => None,
    };
    let signalled = move |sequence: &u64| highest.is_none_or(|highest| highest == *sequence);
    sequences.filter(signalled).filter_map(move |sequence| gpu_point(semaphores, method, sequence))
}

/// The semaphore of release number `sequence`; `None` where the host waits.
fn gpu_point<S>(semaphores: &[S], method: SyncMethod, sequence: u64) -> Option<SemaphoreOp<'_, S>> {
    let count = semaphores.len() as u64;
    let slot = sequence.checked_sub(1)?.checked_rem(count)?;
    let value = (method == SyncMethod::Timeline).then_some(sequence);
    // The slot is below the count, which came from a length.
    semaphores.get(slot as usize).map(|semaphore| SemaphoreOp { semaphore, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(
        semaphores: &[char],
        method: SyncMethod,
        sequences: &[u64],
    ) -> Vec<(char, Option<u64>)> {
        points(semaphores, method, sequences.iter().copied())
            .map(|point| (*point.semaphore, point.value))
            .collect()
    }

    #[test]
    fn of_a_timeline_the_highest_value_stands_for_all() {
        let timeline = |sequences: &[u64]| shown(&['t'], SyncMethod::Timeline, sequences);
        assert_eq!(timeline(&[7]), [('t', Some(7))]);
        assert_eq!(timeline(&[7, 9, 8]), [('t', Some(9))]);
        assert_eq!(timeline(&[]), []);
    }

    #[test]
    fn binary_semaphores_are_used_in_turn() {
        let binary = |sequences: &[u64]| shown(&['a', 'b', 'c'], SyncMethod::Binary, sequences);
        assert_eq!(binary(&[1]), [('a', None)]);
        assert_eq!(binary(&[3, 4, 5]), [('c', None), ('a', None), ('b', None)]);
    }

    #[test]
    fn where_the_host_waits_the_gpu_does_not() {
        assert_eq!(shown(&[], SyncMethod::HostWait, &[1, 2]), []);
    }
}
