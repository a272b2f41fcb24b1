//! Medians and percentiles.

use std::time::Duration;

/// The value below which `percent` of the samples lie (nearest rank); 0 if there are no samples.
pub fn percentile(samples: &[Duration], percent: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The median; 0 if there are no samples.
pub fn median(samples: &[Duration]) -> Duration {
    percentile(samples, 50.0)
}

/// Billions of bytes per second.
pub fn gb_per_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let samples: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(median(&samples), Duration::from_micros(50));
        assert_eq!(percentile(&samples, 99.0), Duration::from_micros(99));
        assert_eq!(percentile(&samples, 100.0), Duration::from_micros(100));
        assert_eq!(median(&[]), Duration::ZERO);
        assert_eq!(gb_per_s(4_000_000_000, Duration::from_secs(2)), 2.0);
    }
}
