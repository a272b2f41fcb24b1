//! The benchmark: the cost of each way to hand payloads from one API to another, compared with one API alone.
//!
//! `cargo run --release -p interop-bench -- --help`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use demo_common::{Outcome, Progress};
use gpu_interop::Uuid;
use gpu_interop::headless::{DeviceType, GpuSelector, VulkanOptions};
use interop_bench::{Plan, Report, Row, Selection};
use interop_gpu::GpuContexts;
use interop_gpu::size;
use ping_pong::PathKind;

/// Times every way to hand payloads from one API to another, compared with one API alone, and checks every
/// byte.
///
/// Exit status: 0 if every benchmark that ran is verified, 1 if one failed or has wrong bytes, 2 if this
/// machine lacks Vulkan or a path, 64 for invalid arguments.
#[derive(Debug, Parser)]
struct Options {
    /// Payload sizes, separated by commas [default: 64KiB to 1GiB on a GPU, to 64MiB on a CPU]
    #[arg(long, value_delimiter = ',', value_parser = size::parse_payload)]
    sizes: Vec<u64>,
    /// Benchmarks or families of benchmarks (ring, in-queue), separated by commas [default: all on a GPU; on
    /// a CPU all except some rings with batches]
    #[arg(long, value_delimiter = ',')]
    benchmarks: Vec<Selection>,
    /// The APIs; repeatable [default: vulkan-cuda, or without CUDA vulkan-gl and vulkan-vulkan]
    #[arg(long)]
    path: Vec<PathKind>,
    /// UUID of the GPU [default: the first discrete GPU, otherwise the first device]
    #[arg(long)]
    device: Option<Uuid>,
    /// Batches of each benchmark [default: 50 on a GPU, 5 on a CPU]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Approximate duration of a batch in milliseconds [default: 20 on a GPU, 30 on a CPU]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    batch_ms: Option<u64>,
    /// Write the report to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the report to this file, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Bandwidth of the GPU's memory, for the plot
    #[arg(long)]
    peak_gb_per_s: Option<f64>,
    /// Measure only what the library costs, compared with plain API calls: the CPU time of a handoff, the time of
    /// a small payload's creation and drop, and rings of small payloads; print JSON
    #[arg(long, conflicts_with_all = ["sizes", "benchmarks", "rounds", "batch_ms", "json", "plot", "from"])]
    costs: bool,
    /// Read the report from this file instead of measuring
    #[arg(long, conflicts_with_all = ["sizes", "benchmarks", "path", "device", "rounds", "batch_ms"])]
    from: Option<PathBuf>,
}

fn main() -> ExitCode {
    demo_common::run(run)
}

fn run(options: &Options) -> Result<Outcome> {
    if options.costs {
        return print_costs(options);
    }
    let report = match &options.from {
        Some(file) => Report::read(file)?,
        None => measure(options)?,
    };
    print(&report);
    if let Some(file) = &options.json {
        report.write(file)?;
    }
    if let Some(file) = &options.plot {
        interop_bench::plot(&report, options.peak_gb_per_s, file)?;
    }
    report.require_verified()?;
    Ok(Outcome::Verified)
}

/// Opens the requested GPU, and returns the paths.
fn open(options: &Options) -> Result<(GpuContexts, Vec<PathKind>)> {
    let selector = options.device.map_or(GpuSelector::Any, GpuSelector::Uuid);
    let gpus = GpuContexts::open(&selector, &VulkanOptions::default())?;
    let paths = match (&options.path[..], &gpus.cuda) {
        ([], Ok(_)) => vec![PathKind::VulkanCuda],
        ([], Err(_)) => vec![PathKind::VulkanGl, PathKind::VulkanVulkan],
        (paths, _) => paths.to_vec(),
    };
    Ok((gpus, paths))
}

fn print_costs(options: &Options) -> Result<Outcome> {
    let (gpus, paths) = open(options)?;
    let mut progress = Progress::start();
    let mut show = |done, total, what: &str| progress.show(what, done, total);
    let costs = interop_bench::costs(&gpus, &paths, &mut show)?;
    println!("{}", serde_json::to_string_pretty(&costs)?);
    costs.require_verified()?;
    Ok(Outcome::Verified)
}

fn measure(options: &Options) -> Result<Report> {
    let (gpus, paths) = open(options)?;
    let is_gpu = gpus.vulkan.vulkan.device_type() != DeviceType::Cpu;
    let mut plan = Plan::whole(is_gpu, paths);
    if !options.sizes.is_empty() {
        plan.sizes.clone_from(&options.sizes);
    }
    if !options.benchmarks.is_empty() {
        plan.benchmarks =
            options.benchmarks.iter().flat_map(|chosen| chosen.kinds().to_vec()).collect();
    }
    plan.rounds = options.rounds.unwrap_or(plan.rounds);
    plan.batch = options.batch_ms.map_or(plan.batch, Duration::from_millis);
    let mut progress = Progress::start();
    interop_bench::run(&gpus, &plan, &mut |done, total, what| progress.show(what, done, total))
}

fn print(report: &Report) {
    println!("GPU  {} ({})", report.device, report.driver);
    let mut before = None;
    for row in &report.rows {
        if before != Some((&row.path, row.payload_bytes)) {
            let size = size::human(row.payload_bytes);
            println!("\n{} {size}; ratio to {}", row.path, row.single_api);
            println!(
                "  {:<20} {:>9} {:>7} {:>11} {:>11} {:>9}",
                "benchmark", "GB/s", "ratio", "p50 µs", "p99 µs", "CPU µs"
            );
        }
        before = Some((&row.path, row.payload_bytes));
        print_row(row);
    }
    for failed in &report.failed {
        let size = size::human(failed.payload_bytes);
        println!("{} {} {size} FAILED: {}", failed.path, failed.benchmark, failed.reason);
    }
    let mut reported: Vec<(&str, &str, &str)> = Vec::new();
    for skipped in &report.skipped {
        let this = (&*skipped.path, &*skipped.benchmark, &*skipped.reason);
        if !reported.contains(&this) {
            reported.push(this);
            println!("{} {} skipped: {}", this.0, this.1, this.2);
        }
    }
}

fn print_row(row: &Row) {
    let Row { benchmark, gb_per_s, ratio_to_single_api, pair_us, cpu_us, .. } = row;
    let wrong = row.wrong.as_deref().map_or(String::new(), |wrong| format!("  WRONG: {wrong}"));
    println!(
        "  {benchmark:<20} {gb_per_s:>9.1} {ratio_to_single_api:>7.3} {:>11.1} {:>11.1} {cpu_us:>9.1}{wrong}",
        pair_us.p50, pair_us.p99
    );
}
