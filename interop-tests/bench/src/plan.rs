//! What a run measures.

use std::time::Duration;

use super::kind::BenchmarkKind;
use ping_pong::PathKind;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The APIs.
    pub paths: Vec<PathKind>,
    /// Payload sizes in bytes.
    pub sizes: Vec<u64>,
    /// Which benchmarks.
    pub benchmarks: Vec<BenchmarkKind>,
    /// Batches of each benchmark.
    pub rounds: u32,
    /// Approximate duration of a batch.
    pub batch: Duration,
    /// Minimum number of times that a batch goes through all slots of a ring, so that filling and draining it
    /// do not matter on a GPU.
    pub laps: u32,
}

impl Plan {
    /// The default plan for the device: 64 KiB to 1 GiB on a GPU, to 64 MiB on a CPU.
    pub fn whole(is_gpu: bool, paths: Vec<PathKind>) -> Self {
        let largest = if is_gpu { 30 } else { 26 };
        Self {
            paths,
            sizes: (16..=largest).step_by(2).map(|power| 1 << power).collect(),
            benchmarks: BenchmarkKind::ALL
                .into_iter()
                .filter(|kind| is_gpu || kind.is_basic())
                .collect(),
            rounds: if is_gpu { 50 } else { 5 },
            laps: if is_gpu { 4 } else { 1 },
            batch: Duration::from_millis(if is_gpu { 20 } else { 30 }),
        }
    }
}
