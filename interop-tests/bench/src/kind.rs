//! The benchmarks by name.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

/// A way to hand payloads over that the benchmark measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BenchmarkKind {
    /// One API runs both kernels of a pair, for comparison.
    SingleApi(SingleApi),
    /// No sharing: the payload is copied through the host.
    HostCopy,
    /// One shared payload; the host sleeps until the API is done.
    HostWaitBlock,
    /// One shared payload; the host polls until the API is done.
    HostWaitSpin,
    /// One shared payload; semaphores on the GPU.
    Semaphore,
    /// Several shared payloads in flight, some of them handed over at a time.
    Ring {
        /// Payloads in flight.
        depth: u32,
        /// Payloads handed over together, by one signal and one wait.
        batch: u32,
    },
    /// Both kernels in Vulkan's queue, with this number of pairs per command buffer.
    SameQueue(u32),
    /// Same as [`HostWaitBlock`](Self::HostWaitBlock), with plain API calls instead of the library.
    RawHostWaitBlock,
    /// Same as [`HostWaitSpin`](Self::HostWaitSpin), with plain API calls instead of the library.
    RawHostWaitSpin,
    /// Same as [`Semaphore`](Self::Semaphore), with plain API calls instead of the library.
    RawSemaphore,
}

/// The API that works alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SingleApi {
    /// CUDA: two launches per pair in one stream.
    Cuda,
    /// Vulkan: recorded once, with a barrier between the kernels.
    Vulkan,
}

impl BenchmarkKind {
    /// Every benchmark, in the order of the report.
    pub const ALL: [Self; 23] = [
        Self::SingleApi(SingleApi::Cuda),
        Self::SingleApi(SingleApi::Vulkan),
        Self::HostCopy,
        Self::HostWaitBlock,
        Self::RawHostWaitBlock,
        Self::HostWaitSpin,
        Self::RawHostWaitSpin,
        Self::Semaphore,
        Self::RawSemaphore,
        Self::ring(2, 1),
        Self::ring(4, 1),
        Self::ring(8, 1),
        Self::ring(16, 1),
        Self::ring(32, 1),
        Self::ring(4, 2),
        Self::ring(8, 4),
        Self::ring(16, 8),
        Self::ring(32, 8),
        Self::ring(32, 16),
        Self::ring(32, 32),
        Self::ring(64, 32),
        Self::SameQueue(1),
        Self::SameQueue(16),
    ];

    const fn ring(depth: u32, batch: u32) -> Self {
        Self::Ring { depth, batch }
    }

    /// The number of shared payloads in flight.
    pub fn depth(self) -> u32 {
        match self {
            Self::Ring { depth, .. } => depth,
            _ => 1,
        }
    }

    /// Whether it is measured by default on a CPU: of the rings with batches, only a small and a large one.
    pub fn is_basic(self) -> bool {
        match self {
            Self::Ring { batch: 1, .. } => true,
            Self::Ring { .. } => self == Self::ring(8, 4) || self == Self::ring(32, 16),
            _ => true,
        }
    }

    /// The memory that it needs, in payloads.
    pub fn payloads(self) -> u64 {
        match self {
            Self::HostCopy => 2,
            kind => u64::from(kind.depth()),
        }
    }
}

impl fmt::Display for BenchmarkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SingleApi(SingleApi::Cuda) => f.write_str("cuda-alone"),
            Self::SingleApi(SingleApi::Vulkan) => f.write_str("vulkan-alone"),
            Self::HostCopy => f.write_str("host-copy"),
            Self::HostWaitBlock => f.write_str("host-wait-block"),
            Self::HostWaitSpin => f.write_str("host-wait-spin"),
            Self::Semaphore => f.write_str("semaphore"),
            Self::Ring { depth, batch: 1 } => write!(f, "ring-{depth}"),
            Self::Ring { depth, batch } => write!(f, "ring-{depth}x{batch}"),
            Self::SameQueue(pairs) => write!(f, "in-queue-{pairs}"),
            Self::RawHostWaitBlock => f.write_str("raw-host-wait-block"),
            Self::RawHostWaitSpin => f.write_str("raw-host-wait-spin"),
            Self::RawSemaphore => f.write_str("raw-semaphore"),
        }
    }
}

/// A value of `--benchmarks`: a benchmark's name, or a family of benchmarks (`ring`, `in-queue`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(Vec<BenchmarkKind>);

impl Selection {
    /// The selected benchmarks, in the order of the report.
    pub fn kinds(&self) -> &[BenchmarkKind] {
        &self.0
    }
}

impl FromStr for Selection {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let exact = BenchmarkKind::ALL.into_iter().find(|kind| kind.to_string() == text);
        if let Some(kind) = exact {
            return Ok(Self(vec![kind]));
        }
        let family = |kind: &BenchmarkKind| {
            kind.to_string().strip_prefix(text).is_some_and(|rest| rest.starts_with('-'))
        };
        let kinds: Vec<_> = BenchmarkKind::ALL.into_iter().filter(family).collect();
        if kinds.is_empty() {
            let all: Vec<_> = BenchmarkKind::ALL.iter().map(ToString::to_string).collect();
            bail!("unknown benchmark '{text}'; the benchmarks are {}", all.join(", "));
        }
        Ok(Self(kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmark_is_named_alone_or_with_its_family() {
        let kinds = |text: &str| text.parse::<Selection>().map(|selection| selection.0);
        assert_eq!(kinds("semaphore").unwrap(), [BenchmarkKind::Semaphore]);
        assert_eq!(kinds("ring-8").unwrap(), [BenchmarkKind::ring(8, 1)]);
        assert_eq!(
            kinds("in-queue").unwrap(),
            [BenchmarkKind::SameQueue(1), BenchmarkKind::SameQueue(16)]
        );
        assert_eq!(kinds("ring-32x16").unwrap(), [BenchmarkKind::ring(32, 16)]);
        assert_eq!(kinds("ring").unwrap().len(), 12);
        for nonsense in ["", "ri", "ring-", "ring-3", "Semaphore"] {
            assert!(kinds(nonsense).is_err(), "{nonsense}");
        }
    }
}
