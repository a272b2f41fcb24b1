//! Draws numbered frames with Vulkan and shares them with other processes, without a copy.
//!
//! `cargo run --release -p share --bin share_producer`, and in another terminal
//! `cargo run --release -p share --bin share_consumer -- --api gl --output last.png`

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, ValueEnum};
use demo_common::{Outcome, Progress};
use gpu_interop::Uuid;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::error::counted;
use gpu_interop::headless::{DeviceType, GpuSelector, Vulkan, VulkanOptions};
use gpu_interop::session::{Consumer, JoinOptions, Producer};
use interop_gpu::size;
use serde::Serialize;
use share::{
    Consumed, ConsumerApi, ConsumerOptions, ConsumerReport, FrameRenderer, Interrupt,
    ProducerReport, Production, Shape, Update, consume, default_socket, produce, session_options,
};

/// Draws numbered frames with Vulkan and shares them with other processes.
///
/// Exit status: 0 if every frame was published and no consumer died, 1 if something failed, 2 if this machine
/// lacks an API or an extension, 64 for invalid arguments.
#[derive(Debug, Parser)]
struct Options {
    /// Path of the socket [default: gpu-interop-share.sock in XDG_RUNTIME_DIR]
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Number of frames to draw
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    frames: u32,
    /// Size of a frame; a multiple of 16 bytes
    #[arg(long, default_value = "8MiB", value_parser = size::parse_payload)]
    size: u64,
    /// Number of consumers to wait for before the first frame
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    consumers: u8,
    /// Seconds to wait for them
    #[arg(long, default_value_t = 60)]
    wait: u32,
    /// Number of frames in flight, 1 to 64
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    slots: u8,
    /// Maximum frames per second [default: as fast as the consumers release them]
    #[arg(long)]
    rate: Option<f64>,
    /// How consumers wait for a frame to be drawn [default: timeline if the driver can export one]
    #[arg(long)]
    sync: Option<Sync>,
    /// Consume in a thread of this process instead of in other processes, for comparison
    #[arg(long)]
    in_process: bool,
    /// API that --in-process consumes with
    #[arg(long, requires = "in_process", default_value = "vulkan")]
    api: ConsumerApi,
    /// UUID of the GPU [default: the first discrete GPU, otherwise the first device]
    #[arg(long)]
    device: Option<Uuid>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sync {
    /// On the GPU, for a timeline semaphore
    Timeline,
    /// The producer waits on the host before it publishes a frame
    Host,
}

/// What `--in-process --json` prints.
#[derive(Debug, Serialize)]
struct Both {
    producer: ProducerReport,
    consumer: ConsumerReport,
}

fn main() -> ExitCode {
    demo_common::run(run)
}

fn run(options: &Options) -> Result<Outcome> {
    if options.rate.is_some_and(|rate| rate <= 0.0) {
        return Ok(Outcome::InvalidArguments("--rate must be greater than 0".into()));
    }
    let interrupt = Interrupt::on_signals();
    let selector = options.device.map_or(GpuSelector::Any, GpuSelector::Uuid);
    let vulkan = Vulkan::open(&selector, &VulkanOptions::default())?;
    if options.in_process {
        // Before anything is drawn: the consumer opens its API only after the ring is announced.
        options.api.check(vulkan.identity().device)?;
    }
    let (shape, slots) = (Shape::new(options.size)?, usize::from(options.slots));
    let sync = options.sync.map(|sync| match sync {
        Sync::Timeline => SyncMethod::Timeline,
        Sync::Host => SyncMethod::HostWait,
    });
    let mut renderer = FrameRenderer::new(&vulkan, shape, slots, sync)?;
    let ring = renderer.ring(options.frames)?;
    if !options.json {
        print_head(options, &vulkan, shape);
    }
    let production = Production {
        frames: options.frames,
        consumers: options.consumers.into(),
        wait: Duration::from_secs(options.wait.into()),
        rate: options.rate,
        others_can_join: !options.in_process,
    };
    let mut progress = Progress::start();
    let mut run = |producer| {
        let show = |update: Update<'_>| match update {
            Update::Published(done) => progress.show("frames", done, options.frames.into()),
            Update::Lost(lost) => progress.note(lost),
        };
        produce(producer, &mut renderer, shape, slots, &production, interrupt, show)
    };
    if options.in_process {
        let mut producer = Producer::unbound(ring, session_options())?;
        let (ours, theirs) = UnixStream::pair()?;
        producer.admit(ours)?;
        let both = in_process(options, theirs, interrupt, || run(producer));
        drop(progress);
        let (produced, consumed) = both?;
        return print_both(produced, consumed, options.json, interrupt);
    }
    let path = options.socket.clone().unwrap_or_else(default_socket);
    let producer = Producer::bind(&path, ring, session_options())
        .with_context(|| format!("announcing frames at {}", path.display()))?;
    if !options.json {
        println!("socket  {}", path.display());
        let count = counted(options.consumers, "consumer");
        println!("waiting for {count}: share_consumer --socket {}", path.display());
    }
    let report = run(producer);
    drop(progress);
    let report = report?;
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print_produced(&report),
    }
    match report.died + report.evicted {
        0 => Ok(Outcome::Verified),
        lost => {
            let lost = counted(lost, "consumer");
            Ok(Outcome::NotVerified(format!("{lost} died or had to be evicted")))
        }
    }
}

/// Runs the same session with the consumer in a thread of this process.
fn in_process(
    options: &Options,
    socket: UnixStream,
    interrupt: &'static Interrupt,
    produce: impl FnOnce() -> Result<ProducerReport>,
) -> Result<(ProducerReport, Consumed)> {
    let consumer = ConsumerOptions {
        api: options.api,
        frames: None,
        bytes: Some(options.size),
        wait: Duration::from_secs(20),
    };
    // An endpoint must be used by the thread that opened it.
    let consuming = thread::spawn(move || {
        let joined = Consumer::join_socket(socket, JoinOptions::default())?;
        consume(joined, &consumer, interrupt, |_, _| {})
    });
    let produced = produce();
    let consumed = consuming.join().map_err(|_| anyhow!("the consumer panicked"))?;
    match (produced, consumed) {
        (Ok(produced), Ok(consumed)) => Ok((produced, consumed)),
        (_, Err(error)) => Err(error.context("the consumer failed")),
        (Err(error), Ok(consumed)) => {
            Err(error.context(format!("the consumer received {}", frames(consumed.report.frames))))
        }
    }
}

fn print_head(options: &Options, vulkan: &Vulkan, shape: Shape) {
    let kind = if vulkan.device_type() == DeviceType::Cpu { "CPU" } else { "GPU" };
    println!("{kind}     {} ({})", vulkan.identity().name, vulkan.driver());
    let size = size::human(options.size);
    println!("frames  {} of {size}, {}×{} pixels", options.frames, shape.width(), shape.height());
}

fn print_both(
    producer: ProducerReport,
    consumed: Consumed,
    json: bool,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let is_good = consumed.report.is_good();
    if json {
        let both = Both { producer, consumer: consumed.report };
        println!("{}", serde_json::to_string_pretty(&both)?);
    } else {
        print_produced(&producer);
        let ConsumerReport { api, frames_per_s, verified, latency_us, .. } = &consumed.report;
        let verified = frames(*verified);
        println!(
            "{api} in this process: {verified} verified, {frames_per_s:.1} per second; median \
             {:.1} µs from publishing to verified",
            latency_us.p50
        );
    }
    Ok(match consumed.wrong {
        Some(wrong) => Outcome::NotVerified(wrong),
        None if is_good || interrupt.is_requested() => Outcome::Verified,
        None => Outcome::NotVerified("not every frame was received once and verified".into()),
    })
}

fn print_produced(report: &ProducerReport) {
    let ProducerReport { frames_per_s, gb_per_s, joined, died, evicted, sync, .. } = report;
    let published = frames(report.frames);
    println!("{published} published, {frames_per_s:.1} per second ({gb_per_s:.2} GB/s), by {sync}");
    println!("{} joined, {died} died, {evicted} evicted", counted(*joined, "consumer"));
}

fn frames(count: u64) -> String {
    counted(count, "frame")
}
