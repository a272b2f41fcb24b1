//! Timings of rounds, and the choice among several candidates.

use std::time::Duration;

/// The time per payload, with as many payloads in flight as the configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Timing {
    /// The median of the rounds.
    pub median: Duration,
    /// The 99th percentile of the rounds (nearest rank).
    pub p99: Duration,
    /// The number of measured rounds.
    pub rounds: u32,
    /// The number of payloads per round.
    pub iterations: u32,
}

impl Timing {
    /// Returns the timing of rounds with `iterations` payloads each; `None` without a round.
    pub(crate) fn of(rounds: &[Duration], iterations: u32) -> Option<Self> {
        let mut times: Vec<_> = rounds.iter().map(|round| *round / iterations.max(1)).collect();
        times.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (percent * times.len()).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            median: percentile(50)?,
            p99: percentile(99)?,
            rounds: u32::try_from(times.len()).unwrap_or(u32::MAX),
            iterations,
        })
    }

    /// Returns the number of payloads per second.
    pub fn payloads_per_second(&self) -> f64 {
        1.0 / self.median.as_secs_f64().max(1e-9)
    }
}

/// Returns the index of the first median that is at most `noise` slower than the best.
///
/// Candidates are ordered simplest first; differences within `noise` are ties.
pub(crate) fn select(medians: impl Iterator<Item = Duration> + Clone, noise: f64) -> Option<usize> {
    let best = medians.clone().min()?.as_secs_f64();
    let limit = best * (1.0 + noise.max(0.0));
    let mut medians = medians;
    medians.position(|median| median.as_secs_f64() <= limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(values: &[u64]) -> Vec<Duration> {
        values.iter().copied().map(Duration::from_micros).collect()
    }

    #[test]
    fn medians_and_percentiles_are_nearest_ranks_per_payload() {
        let rounds: Vec<_> =
            (1..=100).rev().map(|round| Duration::from_micros(10 * round)).collect();
        let timing = Timing::of(&rounds, 10).unwrap();
        assert_eq!(timing.median, Duration::from_micros(50));
        assert_eq!(timing.p99, Duration::from_micros(99));
        assert_eq!((timing.rounds, timing.iterations), (100, 10));
        assert_eq!(timing.payloads_per_second().round(), 20_000.0);
        let one = Timing::of(&micros(&[30]), 3).unwrap();
        assert_eq!((one.median, one.p99), (Duration::from_micros(10), Duration::from_micros(10)));
        assert_eq!(Timing::of(&[], 3), None);
    }

    #[test]
    fn the_earlier_candidate_is_chosen_within_the_noise_only() {
        let chosen = |values: &[u64]| select(micros(values).into_iter(), 0.03);
        assert_eq!(chosen(&[1030, 1000]), Some(0));
        assert_eq!(chosen(&[1031, 1000]), Some(1));
        assert_eq!(chosen(&[5000, 1029, 1000]), Some(1));
        assert_eq!(chosen(&[1000, 900, 5000, 899]), Some(1));
        assert_eq!(chosen(&[]), None);
    }

    proptest! {
        #[test]
        fn the_choice_is_the_first_within_the_noise(
            medians in prop::collection::vec(1u64..1_000_000, 1..40),
            noise in 0.0f64..0.5,
        ) {
            let medians = micros(&medians);
            let chosen = select(medians.iter().copied(), noise).unwrap();
            let best = medians.iter().min().unwrap().as_secs_f64();
            let enough = |median: &Duration| median.as_secs_f64() <= best * (1.0 + noise);
            prop_assert!(enough(&medians[chosen]));
            prop_assert!(!medians[..chosen].iter().any(enough));
        }
    }
}
