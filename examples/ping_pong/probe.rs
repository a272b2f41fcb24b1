//! Reports what this machine can share: one row per pair of APIs and direction. Each "yes" is proven by a
//! payload that makes a round trip and is checked byte by byte; each "no" names what is missing.
//!
//! `cargo run --release --example probe -- --help`

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use demo_common::{Device, Outcome, handoff_name, rejected_methods};
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::headless::{GpuSelector, VulkanOptions};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, BufferPayload, Error, Uuid};
use interop_gpu::GpuContexts;
use interop_gpu::{Kernel, oracle};
use ping_pong::{CudaUser, GlUser, Path, Payload, VulkanUser, prove};
use serde::Serialize;

/// Reports what this machine can share between APIs, and proves it byte by byte.
///
/// Exit status: 0 if every row was determined and each "yes" is proven, 1 if something failed, 2 if this
/// machine lacks Vulkan, 64 for invalid arguments.
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
        rows.extend(there_and_back(name, path)?);
    }
    let path = gl().and_then(|gl| Path::triple(&gpus, gl, cuda()?, payload));
    rows.push(between("gl", "cuda", path)?);
    let path = cuda().and_then(|cuda| Path::triple(&gpus, cuda, gl()?, payload));
    rows.push(between("cuda", "gl", path)?);
    rows.push(dma_buf(&gpus)?);
    rows.push(of_cuda(&gpus)?);
    rows.push(of_gl(&gpus)?);
    let report = Report { device, rows };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(Outcome::Verified)
}

/// Returns what is missing, for a row; any other error is a failure.
fn missing(error: anyhow::Error) -> Result<String> {
    match error.downcast::<Error>() {
        Ok(Error::Missing(missing)) => Ok(missing.to_string()),
        Ok(error) => Err(error.into()),
        Err(error) => Err(error),
    }
}

const OF_VULKAN: &str = "vulkan, opaque fd";

fn works(from: &'static str, to: &'static str, memory: &str, plan: &SyncPlan) -> Row {
    let (handoff, missing) =
        (Some(handoff_name(plan)), rejected_methods(std::slice::from_ref(plan)));
    Row { from, to, memory: memory.to_owned(), works: true, handoff, missing }
}

fn fails(from: &'static str, to: &'static str, memory: &str, reason: String) -> Row {
    let (memory, missing) = (memory.to_owned(), vec![reason]);
    Row { from, to, memory, works: false, handoff: None, missing }
}

/// Both directions between Vulkan and the API called `name`.
fn there_and_back(name: &'static str, path: Result<Path>) -> Result<[Row; 2]> {
    match path {
        Ok(mut path) => {
            prove(&mut path, SEED)??;
            Ok([
                works("vulkan", name, OF_VULKAN, &path.plans[0]),
                works(name, "vulkan", OF_VULKAN, &path.plans[1]),
            ])
        }
        Err(error) => {
            let reason = missing(error)?;
            Ok([
                fails("vulkan", name, OF_VULKAN, reason.clone()),
                fails(name, "vulkan", OF_VULKAN, reason),
            ])
        }
    }
}

/// From one API to another in Vulkan's memory.
fn between(from: &'static str, to: &'static str, path: Result<Path>) -> Result<Row> {
    match path {
        Ok(mut path) => {
            prove(&mut path, SEED)??;
            Ok(works(from, to, OF_VULKAN, &path.plans[1]))
        }
        Err(error) => Ok(fails(from, to, OF_VULKAN, missing(error)?)),
    }
}

/// Vulkan to another instance as a dma-buf.
fn dma_buf(gpus: &GpuContexts) -> Result<Row> {
    const MEMORY: &str = "vulkan, dma-buf";
    let (from, to) = ("vulkan", "vulkan (2nd instance)");
    let (vulkan, other) = (&gpus.vulkan, &gpus.second_instance);
    let options = BufferOptions { handle_type: MemoryHandleType::DmaBuf, ..Default::default() };
    let buffer = match vulkan.endpoint.create_buffer(&BufferDesc::storage(BYTES), options) {
        Ok(buffer) => buffer,
        Err(error) => return Ok(fails(from, to, MEMORY, missing(error.into())?)),
    };
    let there = other.endpoint.import_buffer(buffer.export()?)?;
    vulkan.upload(buffer.handle(), 0, &oracle::filled(BYTES as usize, SEED))?;
    let data = other.download(there.handle(), 0, BYTES)?;
    oracle::check(&data, SEED, &oracle::Turns::default())?;
    Ok(host_wait(from, to, MEMORY))
}

/// Memory that CUDA allocates, exported to Vulkan: CUDA writes, Vulkan reads.
fn of_cuda(gpus: &GpuContexts) -> Result<Row> {
    const MEMORY: &str = "cuda, opaque fd";
    let exported = (|| -> Result<BufferPayload> {
        let gpu = gpus.cuda()?;
        let mut buffer = gpu.endpoint.create_buffer(&BufferDesc::storage(BYTES))?;
        gpu.launch(Kernel::Fill { seed: SEED }, &mut buffer.as_view_mut()?, 0)?;
        gpu.stream.synchronize()?;
        Ok(buffer.export()?)
    })();
    let payload = match exported {
        Ok(payload) => payload,
        Err(error) => return Ok(fails("cuda", "vulkan", MEMORY, missing(error)?)),
    };
    // The payload keeps the memory alive: CUDA's buffer is gone.
    let there = gpus.vulkan.endpoint.import_buffer(payload)?;
    let data = gpus.vulkan.download(there.handle(), 0, BYTES)?;
    oracle::check(&data, SEED, &oracle::Turns::default())?;
    Ok(host_wait("cuda", "vulkan", MEMORY))
}

/// Memory that OpenGL allocates: its capabilities give the reason why it can't be exported.
fn of_gl(gpus: &GpuContexts) -> Result<Row> {
    const MEMORY: &str = "gl, opaque fd";
    let gpu = match &gpus.gl {
        Ok(gpu) => gpu,
        Err(error) => return Ok(fails("gl", "vulkan", MEMORY, error.to_string())),
    };
    let capabilities = gpu.endpoint.capabilities(&BufferDesc::storage(BYTES).into())?;
    let export =
        capabilities.memory(MemoryHandleType::OpaqueFd).and_then(|memory| memory.export.clone());
    let reason = export.err().map(|missing| missing.to_string()).unwrap_or_default();
    Ok(fails("gl", "vulkan", MEMORY, reason))
}

fn host_wait(from: &'static str, to: &'static str, memory: &str) -> Row {
    let (handoff, missing) = (Some("host wait"), Vec::new());
    Row { from, to, memory: memory.to_owned(), works: true, handoff, missing }
}

fn print(report: &Report) {
    let Device { name, uuid, driver, .. } = &report.device;
    println!("GPU   {name} ({driver})\nUUID  {uuid}\n");
    println!("{:<22} {:<22} {:<18} {:<6} handoff", "from", "to", "memory", "bytes");
    let mut notes: Vec<&str> = Vec::new();
    for row in &report.rows {
        let bytes = if row.works { "proven" } else { "no" };
        let mut line = format!("{:<22} {:<22} {:<18} {bytes:<6}", row.from, row.to, row.memory);
        if let Some(handoff) = row.handoff {
            line += &format!(" {handoff}");
        }
        for reason in &row.missing {
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
