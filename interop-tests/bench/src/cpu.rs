//! The CPU time of the library's handoffs, compared with the same handoffs by plain API calls.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::build::build;
use super::kind::BenchmarkKind;
use interop_gpu::GpuContexts;
use interop_gpu::statistics::{median, percentile};
use ping_pong::PathKind;
use ping_pong::routes::Grids;
use ping_pong::routes::Setup;
use ping_pong::routes::{Benchmark, time};

/// Size of the payload in bytes: so small that the handoff dominates.
const BYTES: u64 = 4096;
/// Batches of each side, which alternate.
const BATCHES: u32 = 201;
/// Pairs in a batch.
const PAIRS: u32 = 40;

/// CPU time of the submitting thread per handoff.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuCost {
    /// The APIs.
    pub path: String,
    /// How they are synchronised.
    pub handoff: String,
    /// Handoffs of each side that were timed.
    pub handoffs: u32,
    /// Median with the library, in µs.
    pub library_us: f64,
    /// Median with plain API calls, in µs.
    pub raw_us: f64,
    /// The difference of the two, in µs.
    pub difference_us: f64,
    /// The 99th percentiles, in the same order.
    pub p99_us: [f64; 2],
    /// Whether every byte was what the CPU computes.
    pub verified: bool,
}

/// The library's benchmark and its control: with semaphores if this machine can share them, otherwise with a
/// sleeping host wait, because polling would use CPU time throughout the wait.
///
/// # Errors
/// If this machine lacks the path, or if a driver fails.
pub fn cpu_benchmarks(gpus: &GpuContexts, path: PathKind) -> Result<[Box<dyn Benchmark>; 2]> {
    let setup = Setup { gpus, path, bytes: BYTES, grids: Grids::default() };
    let mut reasons = Vec::new();
    for kinds in [
        [BenchmarkKind::Semaphore, BenchmarkKind::RawSemaphore],
        [BenchmarkKind::HostWaitBlock, BenchmarkKind::RawHostWaitBlock],
    ] {
        match (build(&setup, kinds[0])?, build(&setup, kinds[1])?) {
            (Ok(library), Ok(raw)) => return Ok([library, raw]),
            (Err(reason), _) | (_, Err(reason)) => reasons.push(reason),
        }
    }
    bail!("{path}: {}", reasons.join("; "))
}

/// Measures both, alternating.
///
/// # Errors
/// Same as [`cpu_benchmarks`].
pub fn cpu(gpus: &GpuContexts, path: PathKind) -> Result<CpuCost> {
    let mut benchmarks = cpu_benchmarks(gpus, path)?;
    let mut times = [Vec::new(), Vec::new()];
    for batch in 0..=BATCHES {
        for (benchmark, times) in benchmarks.iter_mut().zip(&mut times) {
            // Two handoffs per pair.
            let cpu = time(&mut **benchmark, PAIRS)?.cpu / 2;
            if batch > 0 {
                times.push(cpu);
            }
        }
    }
    let handoff = benchmarks[0].handoff();
    let mut verified = true;
    for benchmark in &mut benchmarks {
        verified &= benchmark.verify()?.is_ok();
    }
    let us = |time: Duration| (time.as_secs_f64() * 1e9).round() / 1e3;
    let [library, raw] = times.each_ref().map(|times| us(median(times)));
    Ok(CpuCost {
        path: path.to_string(),
        handoff,
        handoffs: BATCHES * PAIRS * 2,
        library_us: library,
        raw_us: raw,
        difference_us: ((library - raw) * 1e3).round() / 1e3,
        p99_us: times.each_ref().map(|times| us(percentile(times, 99.0))),
        verified,
    })
}
