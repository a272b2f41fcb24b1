//! The main job: a payload goes round between compute kernels of Vulkan, OpenGL and CUDA in one
//! piece of memory, every byte is checked, and the speed is compared with memory that is not shared.
//!
//! `cargo run --release --example ping_pong -- --help`

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use gpu_interop::headless::{DeviceType, GpuSelector, VulkanOptions};
use gpu_interop::tune::Route;
use gpu_interop::tune::RouteConfig;
use gpu_interop::{Error, Uuid};
use interop_gpu::size;
use interop_tests::ping_pong::{HandoffMode, Measured, PathKind, Plan, Rigs, measure, send};
use interop_tests::progress;
use serde::Serialize;

/// Sends a payload round between compute kernels of several APIs and checks every byte.
#[derive(Debug, Parser)]
struct Options {
    /// Size of the payload; a multiple of 16 bytes [default: 256MiB on a GPU, 64MiB on a CPU]
    #[arg(long, value_parser = size::parse_payload)]
    size: Option<u64>,
    /// How often the payload goes all the way round [default: 200 on a GPU, 10 on a CPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// Which way it takes; repeatable [default: every way this machine has]
    #[arg(long)]
    path: Vec<PathKind>,
    /// How the payload is handed over: auto measures what there is and takes the fastest
    #[arg(long, value_enum, default_value_t)]
    handoff: HandoffMode,
    /// How many payloads are in flight in a ring, 2 to 64 [default: 16; half of them are handed over at a time]
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=64))]
    depth: Option<u32>,
    /// Which GPU, by its UUID [default: the first discrete one, else whatever there is]
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
struct Device {
    name: String,
    uuid: String,
    driver: String,
}

#[derive(Debug, Serialize)]
struct PathReport {
    path: String,
    handoff: String,
    /// The route that the payloads took, and how many were in flight.
    route: String,
    depth: u32,
    /// Payloads handed over at a time.
    batch: u32,
    /// Why this route.
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
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether at least one path ran and all that ran were verified.
fn run(options: &Options) -> Result<bool> {
    let wish = options.device.map_or(GpuSelector::Any, GpuSelector::Uuid);
    let rigs = Rigs::open(&wish, &VulkanOptions::default())?;
    let vulkan = &rigs.vulkan.vulkan;
    let hardware = vulkan.device_type() != DeviceType::Cpu;
    let plan = Plan {
        bytes: options.size.unwrap_or(if hardware { 256 << 20 } else { 64 << 20 }),
        seed: SEED,
        iterations: options.iterations.unwrap_or(if hardware { 200 } else { 10 }),
        handoffs: if hardware { 500 } else { 100 },
        kernels: if hardware { 101 } else { 15 },
    };
    let identity = vulkan.identity();
    let device = Device {
        name: identity.name.clone(),
        uuid: identity.device.to_string(),
        driver: vulkan.driver().to_owned(),
    };
    if !options.json {
        println!("GPU      {} ({})", device.name, device.driver);
        println!("payload  {}, round {} times\n", size::human(plan.bytes), plan.iterations);
    }
    let (payload_bytes, iterations) = (plan.bytes, plan.iterations);
    let mut report =
        Report { device, payload_bytes, iterations, paths: Vec::new(), skipped: Vec::new() };
    let wanted = if options.path.is_empty() { &PathKind::ALL[..] } else { &options.path };
    for &kind in wanted {
        run_path(&rigs, kind, &plan, options, &mut report)
            .with_context(|| format!("the path {kind} failed"))?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if report.paths.is_empty() {
        eprintln!("error: not one path could run");
    }
    let verified = report.paths.iter().all(|path| path.measured.verified);
    Ok(!report.paths.is_empty() && verified)
}

fn run_path(
    rigs: &Rigs,
    kind: PathKind,
    plan: &Plan,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let (path, bytes) = (kind.to_string(), plan.bytes);
    let mut built = match options.handoff.path(rigs, kind, bytes, plan.seed) {
        Ok(built) => built,
        // What this machine lacks is a reason to skip; anything else is a failure.
        Err(error) => match error.downcast::<Error>() {
            Ok(Error::Missing(missing)) => {
                if !options.json {
                    println!("{path:<16} skipped: {missing}");
                }
                report.skipped.push(Skipped { path, reason: missing.to_string() });
                return Ok(());
            }
            Ok(error) => return Err(error.into()),
            Err(error) => return Err(error),
        },
    };
    let bar =
        progress::bar("{prefix:<16} {wide_bar} {pos}/{len} {eta}", 0).with_prefix(path.clone());
    let mut measured = measure(&mut built, plan, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    let (handoff, reasons) = (built.handoff(), built.why());
    let chosen = options.handoff.choose(rigs, kind, &built, bytes, options.depth)?;
    drop(built);
    let candidate = chosen.candidate;
    // One payload that is handed to and fro is what was measured above.
    let is_pipelined = |one: &RouteConfig| one.depth > 1 || one.route == Route::SameQueue;
    if let Some(candidate) = candidate.filter(is_pipelined) {
        let sent = send(rigs, kind, candidate, bytes, plan.iterations)?;
        measured.gb_per_s = sent.gb_per_s;
        measured.verified &= sent.wrong.is_none();
        measured.wrong = measured.wrong.or(sent.wrong.map(|wrong| wrong.to_string()));
    }
    bar.finish_and_clear();
    let done = PathReport {
        path,
        route: candidate.map_or(handoff.clone(), |candidate| candidate.route.to_string()),
        handoff,
        depth: candidate.map_or(1, |candidate| candidate.depth),
        batch: candidate.map_or(1, |candidate| candidate.batch),
        chosen: chosen.why,
        measured,
    };
    if !options.json {
        print(&done, &reasons);
    }
    report.paths.push(done);
    Ok(())
}

fn print(report: &PathReport, why: &[String]) {
    let Measured { gb_per_s, verified, per_api, handoff_us, wrong, .. } = &report.measured;
    let verdict = if *verified { "verified" } else { "WRONG" };
    println!("{:<16} {gb_per_s:8.1} GB/s  {verdict}", report.path);
    if let Some(wrong) = wrong {
        println!("    {wrong}");
    }
    let PathReport { route, depth, batch, chosen, .. } = report;
    let how = match (route.as_str(), depth, batch) {
        ("in-queue", _, 1) => "1 pair a submit".into(),
        ("in-queue", ..) => format!("{batch} pairs a submit"),
        (_, 1, _) => "1 payload in flight".into(),
        (_, _, 1) => format!("{depth} payloads in flight"),
        _ => format!("{depth} payloads in flight, {batch} handed over at a time"),
    };
    println!("    route {route}, {how}: {chosen}");
    println!(
        "    one handoff by {}: {:.1} µs median, {:.1} µs 99th percentile",
        report.handoff, handoff_us.p50, handoff_us.p99
    );
    for reason in why {
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
