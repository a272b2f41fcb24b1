//! What a run measures, and the run: all benchmarks of a size, alternating.

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::headless::DeviceType;

use super::build::build;
use super::kind::{BenchmarkKind, SingleApi};
use super::report::{PairTimes, Report, Row, Skipped};
use interop_gpu::GpuContexts;
use interop_gpu::statistics::{gb_per_s, median, percentile};
use ping_pong::PathKind;
use ping_pong::routes::Grids;
use ping_pong::routes::Setup;
use ping_pong::routes::{Benchmark, PairTime, time};

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

/// Called after each step with the number of steps done, their total, and what is measured.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64, &str);

/// Share of the memory that payloads may take.
const MEMORY_SHARE: f64 = 0.8;
/// A benchmark whose batches take too long is timed in fewer rounds, but at least in this many.
const FEWEST_BATCHES: u32 = 3;

/// Measures `plan`. What this machine lacks is skipped with the reason.
///
/// # Errors
/// If the machine's memory can't be determined. Wrong bytes and benchmarks that fail are part of the report.
pub fn run(gpus: &GpuContexts, plan: &Plan, progress: Progress<'_>) -> Result<Report> {
    let vulkan = &gpus.vulkan.vulkan;
    let mut report = Report {
        device: vulkan.identity().name.clone(),
        driver: vulkan.driver().to_owned(),
        uuid: vulkan.identity().device.to_string(),
        rows: Vec::new(),
        skipped: Vec::new(),
        failed: Vec::new(),
    };
    let steps = plan.paths.len() * plan.sizes.len();
    let total = steps as u64 * u64::from(plan.rounds);
    let mut done = 0;
    for &path in &plan.paths {
        for &bytes in &plan.sizes {
            let what = format!("{path} {}", interop_gpu::size::human(bytes));
            let mut advance = || {
                done += 1;
                progress(done, total, &what);
            };
            let mut size =
                Size::build(gpus, path, bytes, plan, &mut report).with_context(|| what.clone())?;
            size.measure(plan, &mut advance);
            size.sum_up(&mut report);
        }
    }
    Ok(report)
}

/// All benchmarks of one path and size.
struct Size {
    path: PathKind,
    bytes: u64,
    single: BenchmarkKind,
    benchmarks: Vec<Timed>,
}

/// A benchmark and its batches.
struct Timed {
    kind: BenchmarkKind,
    benchmark: Box<dyn Benchmark>,
    pairs: u32,
    /// It is timed once in this many rounds.
    stride: u32,
    times: Vec<PairTime>,
    /// Why it is no longer timed.
    error: Option<anyhow::Error>,
}

impl Size {
    fn build(
        gpus: &GpuContexts,
        path: PathKind,
        bytes: u64,
        plan: &Plan,
        report: &mut Report,
    ) -> Result<Self> {
        let single = match path {
            PathKind::VulkanCuda => BenchmarkKind::SingleApi(SingleApi::Cuda),
            _ => BenchmarkKind::SingleApi(SingleApi::Vulkan),
        };
        let grids = Grids::choose(gpus, bytes).context("choosing the grids")?;
        let setup = Setup { gpus, path, bytes, grids };
        let mut room = room(gpus)?;
        let (mut benchmarks, mut kinds) = (Vec::new(), vec![single]);
        // The single API's benchmark always runs, as the others are compared with it.
        kinds.extend(plan.benchmarks.iter().copied().filter(|&kind| kind != single));
        for kind in kinds {
            let needs = kind.payloads() * bytes;
            if needs > room {
                let (needs, room) = (needs >> 20, room >> 20);
                let reason = format!("it needs {needs} MiB of memory, and {room} MiB are left");
                report.skipped.push(skipped(kind, path, bytes, reason));
                continue;
            }
            match build(&setup, kind) {
                Ok(Ok(benchmark)) => {
                    room -= needs;
                    let (times, error) = (Vec::new(), None);
                    benchmarks.push(Timed { kind, benchmark, pairs: 0, stride: 1, times, error });
                }
                Ok(Err(reason)) => report.skipped.push(skipped(kind, path, bytes, reason)),
                Err(error) => report.failed.push(skipped(kind, path, bytes, format!("{error:#}"))),
            }
        }
        Ok(Self { path, bytes, single, benchmarks })
    }

    fn measure(&mut self, plan: &Plan, advance: &mut dyn FnMut()) {
        for timed in &mut self.benchmarks {
            timed.error = timed.warm_up(plan).err();
        }
        for round in 0..plan.rounds {
            for timed in &mut self.benchmarks {
                if timed.error.is_none() && round % timed.stride == 0 {
                    match time(&mut *timed.benchmark, timed.pairs) {
                        Ok(batch) => timed.times.push(batch),
                        Err(error) => timed.error = Some(error),
                    }
                }
            }
            advance();
        }
    }

    /// Checks the payloads of every benchmark, and adds its row to the report.
    fn sum_up(mut self, report: &mut Report) {
        let single = self.benchmarks.iter().find(|timed| timed.kind == self.single);
        let single = (self.single, single.map(Timed::wall).unwrap_or_default());
        for timed in &mut self.benchmarks {
            match timed.row(self.path, self.bytes, single) {
                Ok(row) => report.rows.push(row),
                Err(error) => {
                    let reason = format!("{error:#}");
                    report.failed.push(skipped(timed.kind, self.path, self.bytes, reason));
                }
            }
        }
    }
}

fn skipped(kind: BenchmarkKind, path: PathKind, payload_bytes: u64, reason: String) -> Skipped {
    Skipped { benchmark: kind.to_string(), path: path.to_string(), payload_bytes, reason }
}

impl Timed {
    /// Runs the benchmark twice and determines the number of pairs per batch.
    fn warm_up(&mut self, plan: &Plan) -> Result<()> {
        let fewest_pairs = self.benchmark.fewest_pairs();
        time(&mut *self.benchmark, fewest_pairs)?;
        let pair = time(&mut *self.benchmark, fewest_pairs)?.wall.as_secs_f64().max(1e-9);
        let wanted = (plan.batch.as_secs_f64() / pair).min(1e5) as u32;
        let fewest = if self.kind.depth() > 1 { plan.laps * self.kind.depth() } else { 1 };
        self.pairs = wanted.max(fewest).next_multiple_of(fewest_pairs);
        let batch = pair * f64::from(self.pairs);
        let stride = (batch / plan.batch.as_secs_f64() / 2.0).ceil() as u32;
        self.stride = stride.clamp(1, (plan.rounds / FEWEST_BATCHES).max(1));
        Ok(())
    }

    fn row(
        &mut self,
        path: PathKind,
        bytes: u64,
        (single, single_wall): (BenchmarkKind, Duration),
    ) -> Result<Row> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let verified = self.benchmark.verify()?;
        let walls: Vec<_> = self.times.iter().map(|time| time.wall).collect();
        let cpus: Vec<_> = self.times.iter().map(|time| time.cpu).collect();
        let wall = self.wall();
        let us = |time: Duration| rounded(time.as_secs_f64() * 1e6, 1e3);
        let ratio = single_wall.as_secs_f64() / wall.as_secs_f64().max(1e-9);
        Ok(Row {
            benchmark: self.kind.to_string(),
            path: path.to_string(),
            payload_bytes: bytes,
            depth: self.kind.depth(),
            // Each of the two kernels reads and writes the payload.
            gb_per_s: rounded(gb_per_s(4 * bytes, wall), 1e3),
            ratio_to_single_api: rounded(ratio, 1e5),
            pair_us: PairTimes { p50: us(wall), p99: us(percentile(&walls, 99.0)) },
            verified: verified.is_ok(),
            single_api: single.to_string(),
            handoff: self.benchmark.handoff(),
            cpu_us: us(median(&cpus)),
            batches: self.times.len() as u32,
            pairs_per_batch: self.pairs,
            wrong: verified.err().map(|wrong| wrong.to_string()),
        })
    }

    fn wall(&self) -> Duration {
        median(&self.times.iter().map(|time| time.wall).collect::<Vec<_>>())
    }
}

/// Rounds to a multiple of 1 / `part`: further digits are noise.
fn rounded(value: f64, part: f64) -> f64 {
    (value * part).round() / part
}

/// Bytes that payloads may take: of the GPU's memory, or of the host's memory for a device that is a CPU.
fn room(gpus: &GpuContexts) -> Result<u64> {
    let gpu = &gpus.vulkan;
    let memory = if gpu.vulkan.device_type() == DeviceType::Cpu {
        let meminfo = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib = line.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.context("MemAvailable of /proc/meminfo")? * 1024
    } else {
        let heaps = gpu.endpoint.memory_properties().memory_heaps_as_slice();
        heaps.iter().map(|heap| heap.size).max().unwrap_or(0)
    };
    Ok((memory as f64 * MEMORY_SHARE) as u64)
}
