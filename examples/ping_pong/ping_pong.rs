//! The main demo: a payload circulates between compute kernels of Vulkan, OpenGL and CUDA in one piece of
//! memory. Every byte is checked, and the speed is compared with memory that is not shared.
//!
//! `cargo run --release --example ping_pong -- --help`

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use demo_common::{Device, Outcome, Progress};
use gpu_interop::error::counted;
use gpu_interop::headless::{DeviceType, GpuSelector, VulkanOptions};
use gpu_interop::tune::{Route, RouteConfig};
use gpu_interop::{Error, Uuid};
use interop_gpu::{GpuContexts, size};
use ping_pong::{HandoffMode, Measured, PathKind, Plan, measure, send};
use serde::Serialize;

/// Passes a payload between compute kernels of several APIs and checks every byte.
///
/// Exit status: 0 if every path that ran is verified, 1 if one failed or has wrong bytes, 2 if this machine
/// can run none of the requested paths, 64 for invalid arguments.
#[derive(Debug, Parser)]
struct Options {
    /// Size of the payload; a multiple of 16 bytes [default: 256MiB on a GPU, 16MiB on a CPU]
    #[arg(long, value_parser = size::parse_payload)]
    size: Option<u64>,
    /// Number of round trips of the payload [default: 200 on a GPU, 10 on a CPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// Which APIs the payload passes through; repeatable [default: every path this machine has]
    #[arg(long)]
    path: Vec<PathKind>,
    /// How the payload is handed over; auto measures the available routes and uses the fastest
    #[arg(long, value_enum, default_value_t)]
    handoff: HandoffMode,
    /// Number of payloads in flight in a ring, 2 to 64; half of them are handed over at a time [default: 16]
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=64))]
    depth: Option<u32>,
    /// UUID of the GPU [default: the first discrete GPU, otherwise the first device]
    #[arg(long)]
    device: Option<Uuid>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    device: Device,
    payload_bytes: u64,
    iterations: u32,
    paths: Vec<PathReport>,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize)]
struct PathReport {
    path: String,
    handoff: String,
    /// The route that the payloads took.
    route: String,
    /// Payloads in flight.
    depth: u32,
    /// Payloads handed over at a time.
    batch: u32,
    /// Why this route was chosen.
    chosen: String,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Debug, Serialize)]
struct Skipped {
    path: String,
    reason: String,
}

/// Seed of the payload's first content.
const SEED: u32 = 2026;

fn main() -> ExitCode {
    demo_common::run(run)
}

fn run(options: &Options) -> Result<Outcome> {
    let selector = options.device.map_or(GpuSelector::Any, GpuSelector::Uuid);
    let gpus = GpuContexts::open(&selector, &VulkanOptions::default())?;
    let vulkan = &gpus.vulkan.vulkan;
    let is_gpu = vulkan.device_type() != DeviceType::Cpu;
    let plan = Plan {
        bytes: options.size.unwrap_or(if is_gpu { 256 << 20 } else { 16 << 20 }),
        seed: SEED,
        iterations: options.iterations.unwrap_or(if is_gpu { 200 } else { 10 }),
        handoffs: if is_gpu { 500 } else { 100 },
        kernels: if is_gpu { 101 } else { 7 },
    };
    let (payload_bytes, iterations) = (plan.bytes, plan.iterations);
    let device = Device::of(vulkan);
    if !options.json {
        println!("GPU      {} ({})", device.name, device.driver);
        println!("payload  {}, {}\n", size::human(payload_bytes), counted(iterations, "round"));
    }
    let (paths, skipped) = (Vec::new(), Vec::new());
    let mut report = Report { device, payload_bytes, iterations, paths, skipped };
    let kinds = if options.path.is_empty() { &PathKind::ALL[..] } else { &options.path };
    for &kind in kinds {
        run_path(&gpus, kind, &plan, options, &mut report)
            .with_context(|| format!("the path {kind} failed"))?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(report.outcome())
}

impl Report {
    fn outcome(&self) -> Outcome {
        if let Some(wrong) = self.paths.iter().find(|path| !path.measured.verified) {
            return Outcome::NotVerified(format!("the path {} has wrong bytes", wrong.path));
        }
        match (self.paths.first(), self.skipped.first()) {
            (None, Some(skipped)) => {
                let Skipped { path, reason } = skipped;
                Outcome::Missing(format!("none of the paths could run; {path}: {reason}"))
            }
            _ => Outcome::Verified,
        }
    }
}

fn run_path(
    gpus: &GpuContexts,
    kind: PathKind,
    plan: &Plan,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let (name, bytes) = (kind.to_string(), plan.bytes);
    let mut path = match options.handoff.path(gpus, kind, bytes, plan.seed) {
        Ok(path) => path,
        // What this machine lacks is a reason to skip a path; any other error is a failure.
        Err(error) => match error.downcast::<Error>()? {
            Error::Missing(missing) => {
                if !options.json {
                    println!("{name:<16} skipped: {missing}\n");
                }
                report.skipped.push(Skipped { path: name, reason: missing.to_string() });
                return Ok(());
            }
            error => return Err(error.into()),
        },
    };
    let mut progress = Progress::start();
    let mut measured =
        measure(&mut path, plan, &mut |done, total| progress.show(&name, done, total))?;
    let (handoff, rejected) = (path.handoff(), path.rejected_methods());
    progress.show(&format!("{name}: choosing a route"), 0, 1);
    let chosen = options.handoff.choose(gpus, kind, &path, bytes, options.depth)?;
    drop(path);
    // The measurement above is for one payload that is handed back and forth.
    let is_pipelined = |config: &RouteConfig| config.depth > 1 || config.route == Route::SameQueue;
    if let Some(config) = chosen.config.filter(is_pipelined) {
        let sent = send(gpus, kind, config, bytes, plan.iterations)?;
        measured.gb_per_s = sent.gb_per_s;
        measured.verified &= sent.wrong.is_none();
        measured.wrong = measured.wrong.or(sent.wrong.map(|wrong| wrong.to_string()));
    }
    drop(progress);
    let config = chosen.config;
    let done = PathReport {
        path: name,
        route: config.map_or(handoff.clone(), |config| config.route.to_string()),
        handoff,
        depth: config.map_or(1, |config| config.depth),
        batch: config.map_or(1, |config| config.batch),
        chosen: chosen.reason,
        measured,
    };
    if !options.json {
        print(&done, &rejected);
    }
    report.paths.push(done);
    Ok(())
}

fn print(report: &PathReport, rejected: &[String]) {
    let Measured { gb_per_s, verified, per_api, handoff_us, wrong, .. } = &report.measured;
    let verdict = if *verified { "verified" } else { "WRONG BYTES" };
    println!("{:<16} {gb_per_s:8.1} GB/s  {verdict}", report.path);
    if let Some(wrong) = wrong {
        println!("    {wrong}");
    }
    let PathReport { route, depth, batch, chosen, .. } = report;
    let flow = match (route.as_str(), depth, batch) {
        ("in-queue", _, 1) => "1 pair of kernels per submit".into(),
        ("in-queue", ..) => format!("{batch} pairs of kernels per submit"),
        (_, _, 1) => format!("{} in flight", counted(*depth, "payload")),
        _ => format!("{} in flight, {batch} handed over at a time", counted(*depth, "payload")),
    };
    println!("    route: {route}, {flow}");
    println!("      {chosen}");
    println!(
        "    one handoff by {}: {:.1} µs median, {:.1} µs 99th percentile",
        report.handoff, handoff_us.p50, handoff_us.p99
    );
    for reason in rejected {
        println!("      {reason}");
    }
    for api in per_api {
        println!(
            "    {:<8} kernel alone: {:8.1} GB/s shared, {:8.1} GB/s private, ratio {:.3}",
            api.api, api.shared_gb_per_s, api.private_gb_per_s, api.ratio
        );
    }
    println!();
}
