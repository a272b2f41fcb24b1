//! What the library costs: the CPU time of a handoff and the time of a payload's creation and drop, each
//! compared with plain API calls, and the throughput of rings of small payloads.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use gpu_interop::capabilities::plan_all;
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, Peer};
use serde::Serialize;

use super::build::build;
use super::kind::BenchmarkKind;
use super::raw::{BufferFunctions, MemoryFd, RawBuffer, RawCudaBuffer, RawGlBuffer};
use super::report::Report;
use super::run::{Plan, Progress, run};
use interop_gpu::GpuContexts;
use interop_gpu::statistics::{median, percentile};
use ping_pong::PathKind;
use ping_pong::routes::Grids;
use ping_pong::routes::Setup;
use ping_pong::routes::{Benchmark, time};

/// Size of the payload that is handed over, in bytes: so small that the handoff dominates.
const HANDOFF_BYTES: u64 = 4096;
/// Size of the payloads of rings, and of those that are created and dropped, in bytes.
const SMALL_BYTES: u64 = 64 << 10;
/// Batches of each side, which alternate.
const BATCHES: u32 = 201;
/// Pairs in a batch of handoffs.
const PAIRS: u32 = 40;
/// Payloads in a batch of creations.
const PAYLOADS: u32 = 10;

/// The three costs.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// CPU time of the submitting thread per handoff.
    pub handoff_cpu: Vec<HandoffCost>,
    /// Time to create, export, import and drop a payload of 64 KiB.
    pub create_and_drop: Vec<PayloadCost>,
    /// Rings of payloads of 64 KiB.
    pub rings: Report,
}

/// The library compared with plain API calls, in µs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Median with the library.
    pub library_us: f64,
    /// Median with plain API calls.
    pub raw_us: f64,
    /// The difference of the two.
    pub difference_us: f64,
    /// The 99th percentiles, in the same order.
    pub p99_us: [f64; 2],
}

/// CPU time of the submitting thread per handoff.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HandoffCost {
    /// The APIs.
    pub path: String,
    /// How they are synchronised.
    pub handoff: String,
    /// Handoffs of each side that were timed.
    pub handoffs: u32,
    /// The times.
    #[serde(flatten)]
    pub time: Comparison,
    /// Whether every byte was what the CPU computes.
    pub verified: bool,
}

/// The time to create a buffer in Vulkan, export it, import it in the second API and drop both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PayloadCost {
    /// The APIs.
    pub path: String,
    /// Size of a payload in bytes.
    pub payload_bytes: u64,
    /// Payloads of each side that were timed.
    pub payloads: u32,
    /// The times.
    #[serde(flatten)]
    pub time: Comparison,
}

/// Measures the three costs of `paths`.
///
/// # Errors
/// If this machine lacks a path, or if a driver fails.
pub fn costs(gpus: &GpuContexts, paths: &[PathKind], progress: Progress<'_>) -> Result<Costs> {
    let handoff_cpu = paths.iter().map(|&path| handoff(gpus, path)).collect::<Result<_>>()?;
    let create_and_drop = paths.iter().map(|&path| payload(gpus, path)).collect::<Result<_>>()?;
    let is_gpu = gpus.vulkan.vulkan.device_type() != gpu_interop::headless::DeviceType::Cpu;
    let plan = Plan::whole(is_gpu, paths.to_vec());
    let mut benchmarks = plan.benchmarks;
    benchmarks.retain(|kind| matches!(kind, BenchmarkKind::Ring { .. }));
    let plan = Plan { sizes: vec![SMALL_BYTES], benchmarks, rounds: plan.rounds.max(15), ..plan };
    Ok(Costs { handoff_cpu, create_and_drop, rings: run(gpus, &plan, progress)? })
}

impl Costs {
    /// Checks that every payload had the right bytes.
    ///
    /// # Errors
    /// With the first that did not.
    pub fn require_verified(&self) -> Result<()> {
        for HandoffCost { path, verified, .. } in &self.handoff_cpu {
            ensure!(*verified, "{path}: a payload has wrong bytes");
        }
        self.rings.require_verified()
    }
}

impl Comparison {
    /// Measures both sides in alternating batches. `batch` runs a batch of side 0, the library, or 1, the plain
    /// calls, and returns the time per operation.
    fn measure(mut batch: impl FnMut(usize) -> Result<Duration>) -> Result<Self> {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=BATCHES {
            for (side, times) in times.iter_mut().enumerate() {
                let time = batch(side)?;
                // The first batch of each side warms up.
                if round > 0 {
                    times.push(time);
                }
            }
        }
        let us = |time: Duration| (time.as_secs_f64() * 1e9).round() / 1e3;
        let [library_us, raw_us] = times.each_ref().map(|times| us(median(times)));
        let difference_us = ((library_us - raw_us) * 1e3).round() / 1e3;
        let p99_us = times.each_ref().map(|times| us(percentile(times, 99.0)));
        Ok(Self { library_us, raw_us, difference_us, p99_us })
    }
}

/// The library's benchmark and its control: with semaphores if this machine can share them, otherwise with a
/// sleeping host wait, because polling would use CPU time throughout the wait.
fn handoffs(gpus: &GpuContexts, path: PathKind) -> Result<[Box<dyn Benchmark>; 2]> {
    let setup = Setup { gpus, path, bytes: HANDOFF_BYTES, grids: Grids::default() };
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

fn handoff(gpus: &GpuContexts, path: PathKind) -> Result<HandoffCost> {
    let mut benchmarks = handoffs(gpus, path)?;
    // Two handoffs per pair.
    let cpu = |side: usize| Ok(time(&mut *benchmarks[side], PAIRS)?.cpu / 2);
    let time = Comparison::measure(cpu)?;
    let handoff = benchmarks[0].handoff();
    let mut verified = true;
    for benchmark in &mut benchmarks {
        verified &= benchmark.verify()?.is_ok();
    }
    let handoffs = BATCHES * PAIRS * 2;
    Ok(HandoffCost { path: path.to_string(), handoff, handoffs, time, verified })
}

fn payload(gpus: &GpuContexts, path: PathKind) -> Result<PayloadCost> {
    let time = match path {
        PathKind::VulkanVulkan => {
            let second = &gpus.second_instance;
            life(gpus, &second.endpoint, |exported| RawBuffer::import(second, exported))
        }
        PathKind::VulkanGl => {
            let gpu = gpus.gl()?;
            gpu.gl.make_current()?;
            let functions = BufferFunctions::load(&gpu)?;
            life(gpus, &gpu.endpoint, |exported| RawGlBuffer::import(&gpu, functions, exported))
        }
        PathKind::VulkanCuda => {
            let gpu = gpus.cuda()?;
            gpu.cuda.context().bind_to_thread()?;
            life(gpus, &gpu.endpoint, RawCudaBuffer::import)
        }
        PathKind::VulkanGlCuda => bail!("the benchmark has paths of two APIs"),
    }?;
    let (path, payloads) = (path.to_string(), BATCHES * PAYLOADS);
    Ok(PayloadCost { path, payload_bytes: SMALL_BYTES, payloads, time })
}

/// Times payloads from creation to drop. `import` is the second API's import by plain calls.
fn life<P: Peer, T>(
    gpus: &GpuContexts,
    second: &P,
    import: impl Fn(super::raw::Exported) -> Result<T>,
) -> Result<Comparison> {
    let (gpu, desc) = (&gpus.vulkan, BufferDesc::storage(SMALL_BYTES));
    let capabilities =
        [gpu.endpoint.capabilities(&desc.into())?, second.capabilities(&desc.into())?];
    let plan = plan_all(&capabilities[0], &capabilities[1..], &desc.into())?;
    let options = BufferOptions::from(plan);
    let functions = MemoryFd::new(gpu.vulkan.instance(), gpu.device());
    let library = || {
        let buffer = gpu.endpoint.create_buffer(&desc, options)?;
        drop(second.import_buffer(buffer.export()?)?);
        anyhow::Ok(())
    };
    let raw = || {
        let buffer = RawBuffer::create(gpu, SMALL_BYTES)?;
        drop(import(buffer.export(&functions)?)?);
        anyhow::Ok(())
    };
    Comparison::measure(|side| {
        let start = Instant::now();
        for _ in 0..PAYLOADS {
            if side == 0 { library()? } else { raw()? }
        }
        Ok(start.elapsed() / PAYLOADS)
    })
}
