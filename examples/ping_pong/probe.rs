//! Reports what this machine can share: one row per pair of APIs and direction. Each "yes" is proven by a
//! payload that makes a round trip and is checked byte by byte; each "no" names what is missing; a driver's
//! error fails its row, not the others.
//!
//! `cargo run --release --example probe -- --help`

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use demo_common::{Device, Outcome, handoff_name, rejected_methods};
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::error::counted;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::headless::{GpuSelector, VulkanOptions};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, Error, Uuid};
use interop_gpu::GpuContexts;
use interop_gpu::{Kernel, oracle};
use ping_pong::{CudaUser, GlUser, Path, Payload, VulkanUser, prove};
use serde::Serialize;

/// Reports what this machine can share between APIs, and proves it byte by byte.
///
/// Exit status: 0 if each "no" names what this machine lacks and each "yes" is proven, 1 if a row failed, 2
/// if this machine lacks Vulkan, 64 for invalid arguments.
#[derive(Debug, Parser)]
struct Options {
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
    rows: Vec<Row>,
}

/// One direction between two APIs.
#[derive(Debug, Serialize)]
struct Row {
    /// The API that writes.
    from: &'static str,
    /// The API that reads.
    to: &'static str,
    /// The API that allocates the memory, and the handle type.
    memory: String,
    /// Proven by bytes.
    works: bool,
    /// How the two are synchronised; null if nothing works.
    handoff: Option<&'static str>,
    /// What is missing: for sharing at all, or for a better handoff.
    missing: Vec<String>,
    /// Why it doesn't work although nothing is missing: a driver's error, or wrong bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Large enough for many work groups, and not a multiple of any page size.
const BYTES: u64 = (1 << 20) + 4096 + 16;
const SEED: u32 = 7;

fn main() -> ExitCode {
    demo_common::run(run)
}

fn run(options: &Options) -> Result<Outcome> {
    let selector = options.device.map_or(GpuSelector::Any, GpuSelector::Uuid);
    let gpus = GpuContexts::open(&selector, &VulkanOptions::default())?;
    let device = Device::of(&gpus.vulkan.vulkan);
    let payload = Payload { bytes: BYTES, seed: SEED, handoff: HandoffOptions::default() };
    let (second_device, second_instance) =
        (gpus.second_device.clone(), gpus.second_instance.clone());
    let gl = || anyhow::Ok(GlUser { gpu: gpus.gl()? });
    let cuda = || anyhow::Ok(CudaUser { gpu: gpus.cuda()? });
    let mut rows = Vec::new();
    for (name, path) in [
        (
            "vulkan (2nd device)",
            VulkanUser::new(second_device).and_then(|user| Path::pair(&gpus, user, payload)),
        ),
        (
            "vulkan (2nd instance)",
            VulkanUser::new(second_instance).and_then(|user| Path::pair(&gpus, user, payload)),
        ),
        ("gl", gl().and_then(|user| Path::pair(&gpus, user, payload))),
        ("cuda", cuda().and_then(|user| Path::pair(&gpus, user, payload))),
    ] {
        let plans = proven(path);
        let plan = |at: usize| plans.as_ref().map(|plans| plans.get(at));
        rows.push(row("vulkan", name, OF_VULKAN, plan(0)));
        rows.push(row(name, "vulkan", OF_VULKAN, plan(1)));
    }
    let plans = proven(gl().and_then(|gl| Path::triple(&gpus, gl, cuda()?, payload)));
    rows.push(row("gl", "cuda", OF_VULKAN, plans.as_ref().map(|plans| plans.get(1))));
    let plans = proven(cuda().and_then(|cuda| Path::triple(&gpus, cuda, gl()?, payload)));
    rows.push(row("cuda", "gl", OF_VULKAN, plans.as_ref().map(|plans| plans.get(1))));
    for (from, to, memory, shared) in [
        ("vulkan", "vulkan (2nd instance)", "vulkan, dma-buf", dma_buf(&gpus)),
        ("cuda", "vulkan", "cuda, opaque fd", of_cuda(&gpus)),
        ("gl", "vulkan", "gl, opaque fd", of_gl(&gpus)),
    ] {
        rows.push(row(from, to, memory, shared.as_ref().map(|()| None)));
    }
    let failed = rows.iter().filter(|row| row.failed.is_some()).count();
    let report = Report { device, rows };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(match failed {
        0 => Outcome::Verified,
        failed => Outcome::NotVerified(format!("{} failed", counted(failed, "row"))),
    })
}

const OF_VULKAN: &str = "vulkan, opaque fd";

/// Sends a payload along a path, and returns how each handoff was synchronised.
fn proven(path: Result<Path>) -> Result<Vec<SyncPlan>> {
    let mut path = path?;
    prove(&mut path, SEED)??;
    Ok(path.plans)
}

/// Makes a row from a result: how the two are synchronised (`None` for a host wait), or why they can't share.
fn row(
    from: &'static str,
    to: &'static str,
    memory: &str,
    shared: Result<Option<&SyncPlan>, &anyhow::Error>,
) -> Row {
    let (mut missing, mut failed) = (Vec::new(), None);
    let handoff = match shared {
        Ok(plan) => {
            missing
                .extend(plan.iter().flat_map(|plan| rejected_methods(std::slice::from_ref(plan))));
            Some(plan.map_or("host wait", handoff_name))
        }
        Err(error) => {
            match error.downcast_ref() {
                Some(Error::Missing(lack)) => missing.push(lack.to_string()),
                _ => failed = Some(format!("{error:#}")),
            }
            None
        }
    };
    Row { from, to, memory: memory.to_owned(), works: shared.is_ok(), handoff, missing, failed }
}

/// Vulkan to another instance as a dma-buf.
fn dma_buf(gpus: &GpuContexts) -> Result<()> {
    let (vulkan, other) = (&gpus.vulkan, &gpus.second_instance);
    let options = BufferOptions { handle_type: MemoryHandleType::DmaBuf, ..Default::default() };
    let buffer = vulkan.endpoint.create_buffer(&BufferDesc::storage(BYTES), options)?;
    let there = other.endpoint.import_buffer(buffer.export()?)?;
    vulkan.upload(buffer.handle(), 0, &oracle::filled(BYTES as usize, SEED))?;
    let data = other.download(there.handle(), 0, BYTES)?;
    Ok(oracle::check(&data, SEED, &oracle::Passes::default())?)
}

/// Memory that CUDA allocates, exported to Vulkan: CUDA writes, Vulkan reads.
fn of_cuda(gpus: &GpuContexts) -> Result<()> {
    let payload = {
        let gpu = gpus.cuda()?;
        let mut buffer = gpu.endpoint.create_buffer(&BufferDesc::storage(BYTES))?;
        gpu.launch(Kernel::Fill { seed: SEED }, &mut buffer.as_view_mut()?, 0)?;
        gpu.stream.synchronize()?;
        buffer.export()?
    };
    // The payload keeps the memory alive: CUDA's buffer is gone.
    let there = gpus.vulkan.endpoint.import_buffer(payload)?;
    let data = gpus.vulkan.download(there.handle(), 0, BYTES)?;
    Ok(oracle::check(&data, SEED, &oracle::Passes::default())?)
}

/// Memory that OpenGL allocates: its capabilities give the reason why it can't be exported.
fn of_gl(gpus: &GpuContexts) -> Result<()> {
    let capabilities = gpus.gl()?.endpoint.capabilities(&BufferDesc::storage(BYTES).into())?;
    let memory = capabilities.memory(MemoryHandleType::OpaqueFd);
    let export = memory.context("OpenGL has no opaque fds")?.export.clone();
    bail!(Error::from(export.err().context("OpenGL exports memory, which is not tried here")?))
}

fn print(report: &Report) {
    let Device { name, uuid, driver, .. } = &report.device;
    println!("GPU   {name} ({driver})\nUUID  {uuid}\n");
    println!("{:<22} {:<22} {:<18} {:<6} handoff", "from", "to", "memory", "bytes");
    let mut notes: Vec<&str> = Vec::new();
    for row in &report.rows {
        let bytes = match (row.works, &row.failed) {
            (true, _) => "proven",
            (false, None) => "no",
            (false, Some(_)) => "failed",
        };
        let mut line = format!("{:<22} {:<22} {:<18} {bytes:<6}", row.from, row.to, row.memory);
        if let Some(handoff) = row.handoff {
            line += &format!(" {handoff}");
        }
        for reason in row.missing.iter().chain(&row.failed) {
            let known = notes.iter().position(|note| note == reason);
            let number = known.unwrap_or_else(|| {
                notes.push(reason);
                notes.len() - 1
            });
            line += &format!(" [{}]", number + 1);
        }
        println!("{line}");
    }
    println!();
    for (number, note) in (1..).zip(notes) {
        println!("[{number}] {note}");
    }
}
