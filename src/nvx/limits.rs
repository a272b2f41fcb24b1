//! How large a launch can be.

use ash::vk;

use super::launch::Launch;
use crate::error::{Invalid, Result};

/// The device's limits for launches, which are those for its compute shaders.
///
/// # References
/// `VkCudaLaunchInfoNV` bounds the grid by `maxComputeWorkGroupCount` and the dynamic shared memory
/// by `maxComputeSharedMemorySize`. CUDA's own limits for a block are what NVIDIA's driver tells as
/// `maxComputeWorkGroupSize` and `maxComputeWorkGroupInvocations`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    grid: [u32; 3],
    block: [u32; 3],
    threads: u32,
    shared_bytes: u32,
}

impl Limits {
    /// `kept` bytes of shared memory are not a launch's to have.
    pub(crate) fn of(limits: &vk::PhysicalDeviceLimits, kept: u32) -> Self {
        Self {
            grid: limits.max_compute_work_group_count,
            block: limits.max_compute_work_group_size,
            threads: limits.max_compute_work_group_invocations,
            shared_bytes: limits.max_compute_shared_memory_size.saturating_sub(kept),
        }
    }

    /// Refuses what the device can't launch.
    pub(crate) fn check(&self, launch: &Launch) -> Result<()> {
        check_extent("launch.grid", launch.grid, self.grid)?;
        check_extent("launch.block", launch.block, self.block)?;
        let threads = launch.block.iter().map(|&size| u64::from(size)).product::<u64>();
        if threads > self.threads.into() {
            let what = format!("has {threads} threads, and a block at most {}", self.threads);
            return Err(Invalid::new("launch.block", what)
                .help("launch more blocks of fewer threads")
                .into());
        }
        let (bytes, limit) = (launch.dynamic_shared_bytes, self.shared_bytes);
        if bytes > limit {
            let what = format!("{bytes}, and a block has at most {limit}");
            return Err(Invalid::new("launch.dynamic_shared_bytes", what)
                .help("what CUDA gives beyond that on request can't be requested here")
                .into());
        }
        Ok(())
    }
}

fn check_extent(parameter: &'static str, extent: [u32; 3], limit: [u32; 3]) -> Result<()> {
    if extent.contains(&0) {
        return Err(Invalid::new(parameter, format!("{extent:?} has a size of 0"))
            .help("a dimension that is not used has size 1")
            .into());
    }
    if extent.iter().zip(limit).any(|(&size, limit)| size > limit) {
        let what = format!("{extent:?}, and the device has at most {limit:?}");
        return Err(Invalid::new(parameter, what).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const LIMITS: Limits = Limits {
        grid: [u32::MAX >> 1, 65_535, 65_535],
        block: [1024, 1024, 64],
        threads: 1024,
        shared_bytes: 48 << 10,
    };

    #[test]
    fn a_launch_within_the_limits_is_taken() {
        LIMITS.check(&Launch::linear(1, 1)).unwrap();
        LIMITS.check(&Launch::linear(u32::MAX >> 1, 1024)).unwrap();
        let launch = Launch {
            grid: [1, 65_535, 65_535],
            block: [4, 4, 64],
            dynamic_shared_bytes: LIMITS.shared_bytes,
        };
        LIMITS.check(&launch).unwrap();
    }

    #[test]
    fn a_launch_beyond_the_limits_is_refused_by_name() {
        let usual = Launch::linear(4, 256);
        for (launch, parameter, says) in [
            (Launch { grid: [0, 1, 1], ..usual }, "launch.grid", "size of 0"),
            (Launch { grid: [1, 65_536, 1], ..usual }, "launch.grid", "65535"),
            (Launch { grid: [u32::MAX, 1, 1], ..usual }, "launch.grid", "at most"),
            (Launch { block: [1, 1, 0], ..usual }, "launch.block", "size of 0"),
            (Launch { block: [1, 1, 65], ..usual }, "launch.block", "64]"),
            (Launch { block: [1025, 1, 1], ..usual }, "launch.block", "1024"),
            (Launch { block: [1024, 1024, 64], ..usual }, "launch.block", "67108864 threads"),
            (
                Launch { dynamic_shared_bytes: LIMITS.shared_bytes + 1, ..usual },
                "launch.dynamic_shared_bytes",
                "49152",
            ),
        ] {
            match LIMITS.check(&launch) {
                Err(Error::Invalid(invalid)) => {
                    assert_eq!(invalid.parameter, parameter);
                    assert!(invalid.problem.contains(says), "{invalid}");
                }
                other => panic!("{launch:?}: {other:?}"),
            }
        }
    }
}
