//! The trait of all benchmarks, and how they are timed and checked.

use std::time::{Duration, Instant};

use anyhow::Result;
use gpu_interop::ash::vk;
use interop_gpu::oracle::{self, Passes, Wrong};
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

/// The step of the kernel that the first API of a pair runs.
pub const FIRST_STEP: u32 = 0x1357_9bdf;
/// The step of the kernel that the second API runs: it does not commute with the first.
pub const SECOND_STEP: u32 = 0x0246_8ace;

/// A way to hand payloads over, ready to run: payloads are filled, and command buffers recorded.
pub trait Benchmark {
    /// Submits `pairs` pairs, a multiple of [`fewest_pairs`](Self::fewest_pairs), without waiting for the
    /// last of them.
    ///
    /// # Errors
    /// If a driver fails.
    fn submit(&mut self, pairs: u32) -> Result<()>;

    /// Waits until all are done.
    ///
    /// # Errors
    /// If a driver fails.
    fn finish(&mut self) -> Result<()>;

    /// Returns the smallest number of pairs that can be submitted. Others are multiples of it.
    fn fewest_pairs(&self) -> u32 {
        1
    }

    /// How the two APIs are synchronised, in words.
    fn handoff(&self) -> String;

    /// Checks every byte of every payload against what the CPU computes for all pairs so far. Nothing may be
    /// submitted afterwards.
    ///
    /// # Errors
    /// If a driver fails. Wrong bytes are the inner error.
    fn verify(&mut self) -> Result<Result<(), Wrong>>;
}

/// The time of a batch, divided by its pairs.
#[derive(Clone, Copy, Debug)]
pub struct PairTime {
    /// From the first call to the last pair's end.
    pub wall: Duration,
    /// CPU time of this thread, without the wait for the end: some drivers sleep there, others poll.
    pub cpu: Duration,
}

/// Runs and times a batch.
///
/// # Errors
/// If a driver fails.
pub fn time(benchmark: &mut dyn Benchmark, pairs: u32) -> Result<PairTime> {
    let (start, cpu) = (Instant::now(), thread_cpu());
    benchmark.submit(pairs)?;
    let cpu = thread_cpu().saturating_sub(cpu);
    benchmark.finish()?;
    let wall = start.elapsed();
    Ok(PairTime { wall: wall / pairs, cpu: cpu / pairs })
}

/// Returns the CPU time used by this thread.
pub fn thread_cpu() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable; the clock exists on every Linux, so that the call can't fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Bytes read back at a time.
const PART_BYTES: u64 = 64 << 20;

/// Checks the first `bytes` bytes of `buffer`, which Vulkan owns and no work uses. It reads them part by
/// part, because a ring of large payloads does not fit into host memory.
///
/// # Errors
/// If the driver fails. Wrong bytes are the inner error.
pub fn check(
    gpu: &VulkanContext,
    buffer: vk::Buffer,
    bytes: u64,
    seed: u32,
    passes: &Passes,
) -> Result<Result<(), Wrong>> {
    let staging = PrivateBuffer::host(&gpu.vulkan, PART_BYTES.min(bytes))?;
    let (mut wrong, mut at) = (Ok(()), 0);
    while at < bytes && wrong.is_ok() {
        let part = PART_BYTES.min(bytes - at);
        gpu.copy(buffer, at, staging.buffer, 0, part)?;
        let first_word = (at / 4) as u32;
        staging.with_bytes(usize::try_from(part)?, |data| {
            wrong = oracle::check_from(data, first_word, seed, passes);
        })?;
        at += part;
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_takes_no_processor_time_and_working_does() {
        let before = thread_cpu();
        std::thread::sleep(Duration::from_millis(30));
        let slept = thread_cpu() - before;
        assert!(slept < Duration::from_millis(15), "{slept:?}");
        let (start, before) = (Instant::now(), thread_cpu());
        while thread_cpu() - before < Duration::from_millis(5) {}
        assert!(start.elapsed() >= Duration::from_millis(4));
    }
}
