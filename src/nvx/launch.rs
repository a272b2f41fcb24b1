//! The size of a launch, and the device's limits for it.

use ash::vk;

use crate::error::{Invalid, Result};

/// The number of threads that run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Launch {
    /// Blocks in x, y and z; each at least 1.
    pub grid: [u32; 3],
    /// Threads per block in x, y and z; each at least 1.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory per block: `extern __shared__` in the kernel.
    pub dynamic_shared_bytes: u32,
}

impl Launch {
    /// A one-dimensional launch of `blocks` blocks of `threads` threads, without dynamic shared memory.
    pub const fn linear(blocks: u32, threads: u32) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], dynamic_shared_bytes: 0 }
    }
}

/// The device's limits for launches, which are those for its compute shaders.
///
/// # References
/// `VkCudaLaunchInfoNV` limits the grid by `maxComputeWorkGroupCount` and the dynamic shared memory by
/// `maxComputeSharedMemorySize`. NVIDIA's driver reports CUDA's own limits for a block as
/// `maxComputeWorkGroupSize` and `maxComputeWorkGroupInvocations`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    grid: [u32; 3],
    block: [u32; 3],
    threads: u32,
    shared_bytes: u32,
}

impl Limits {
    /// `reserved` bytes of shared memory are not available to a launch.
    pub(crate) fn of(limits: &vk::PhysicalDeviceLimits, reserved: u32) -> Self {
        Self {
            grid: limits.max_compute_work_group_count,
            block: limits.max_compute_work_group_size,
            threads: limits.max_compute_work_group_invocations,
            shared_bytes: limits.max_compute_shared_memory_size.saturating_sub(reserved),
        }
    }

    /// Refuses a launch beyond the limits.
    pub(crate) fn check(&self, launch: &Launch) -> Result<()> {
        check_extent("launch.grid", launch.grid, self.grid)?;
        check_extent("launch.block", launch.block, self.block)?;
        let threads = launch.block.iter().map(|&size| u64::from(size)).product::<u64>();
        if threads > self.threads.into() {
            let what = format!("has {threads} threads; the limit is {} per block", self.threads);
            return Err(Invalid::new("launch.block", what)
                .help("launch more blocks of fewer threads")
                .into());
        }
        let (bytes, limit) = (launch.dynamic_shared_bytes, self.shared_bytes);
        if bytes > limit {
            let what = format!("is {bytes}; the limit is {limit} per block");
            return Err(Invalid::new("launch.dynamic_shared_bytes", what)
                .help("use less; CUDA's larger opt-in limit can't be requested in a Vulkan queue")
                .into());
        }
        Ok(())
    }
}

fn check_extent(parameter: &'static str, extent: [u32; 3], limit: [u32; 3]) -> Result<()> {
    if extent.contains(&0) {
        return Err(Invalid::new(parameter, format!("{extent:?} has a size of 0"))
            .help("give unused dimensions the size 1")
            .into());
    }
    if extent.iter().zip(limit).any(|(&size, limit)| size > limit) {
        let what = format!("is {extent:?}; the device's limit is {limit:?}");
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
    fn a_launch_within_the_limits_is_accepted() {
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
    fn a_launch_beyond_a_limit_is_refused_with_the_limit() {
        let usual = Launch::linear(4, 256);
        for (launch, parameter, text) in [
            (Launch { grid: [0, 1, 1], ..usual }, "launch.grid", "size of 0"),
            (Launch { grid: [1, 65_536, 1], ..usual }, "launch.grid", "65535"),
            (Launch { grid: [u32::MAX, 1, 1], ..usual }, "launch.grid", "limit"),
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
                    assert!(invalid.problem.contains(text), "{invalid}");
                }
                other => panic!("{launch:?}: {other:?}"),
            }
        }
    }
}
