//! What a run of the benchmark measures.

use std::time::Duration;

use super::kind::BenchmarkKind;
use ping_pong::PathKind;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which APIs.
    pub paths: Vec<PathKind>,
    /// Payload sizes in bytes.
    pub sizes: Vec<u64>,
    /// Which benchmarks.
    pub rungs: Vec<BenchmarkKind>,
    /// Batches of each benchmark.
    pub rounds: u32,
    /// How long a batch takes, about.
    pub batch: Duration,
    /// Laps of a ring in a batch, at least: on a GPU, filling and draining it must not weigh.
    pub laps: u32,
}

impl Plan {
    /// The whole ladder as it suits the device: 64 KiB to 1 GiB on a GPU, to 64 MiB on a CPU.
    pub fn whole(is_gpu: bool, paths: Vec<PathKind>) -> Self {
        let largest = if is_gpu { 30 } else { 26 };
        Self {
            paths,
            sizes: (16..=largest).step_by(2).map(|power| 1 << power).collect(),
            rungs: BenchmarkKind::ALL
                .into_iter()
                .filter(|kind| is_gpu || kind.is_basic())
                .collect(),
            rounds: if is_gpu { 50 } else { 5 },
            laps: if is_gpu { 4 } else { 1 },
            batch: Duration::from_millis(if is_gpu { 20 } else { 30 }),
        }
    }
}
