//! Draws numbered frames with Vulkan and shares them with other processes, without a copy.
//!
//! `cargo run --release --example share_producer`, and in another terminal
//! `cargo run --release --example share_consumer -- --api gl --output last.png`

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};
use gpu_interop::Uuid;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::headless::{DeviceType, GpuSelector, Vulkan, VulkanOptions};
use gpu_interop::session::{Consumer, JoinOptions, Producer};
use interop_gpu::size;
use interop_tests::progress;
use interop_tests::share::{
    Consumed, ConsumerApi, ConsumerOptions, ConsumerReport, FrameRenderer, Interrupt,
    ProducerReport, Production, Shape, consume, default_socket, produce, session_options,
};
use serde::Serialize;

/// Draws numbered frames with Vulkan and shares them with other processes.
#[derive(Debug, Parser)]
struct Options {
    /// Where consumers connect [default: gpu-interop-share.sock in XDG_RUNTIME_DIR]
    #[arg(long)]
    socket: Option<PathBuf>,
    /// How many frames to draw
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    frames: u32,
    /// Size of a frame; a multiple of 16 bytes
    #[arg(long, default_value = "8MiB", value_parser = size::parse_payload)]
    size: u64,
    /// How many consumers to wait for before the first frame
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    consumers: u8,
    /// How many seconds to wait for them
    #[arg(long, default_value_t = 60)]
    wait: u32,
    /// How many frames may be under way
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    slots: u8,
    /// Frames a second at most [default: as many as the consumers take]
    #[arg(long)]
    rate: Option<f64>,
    /// How consumers know that a frame is drawn [default: the timeline semaphore where the driver shares one]
    #[arg(long)]
    sync: Option<Sync>,
    /// Consume in this process too, by another thread, and in no other process: to compare with
    #[arg(long)]
    in_process: bool,
    /// With which API, for --in-process
    #[arg(long, requires = "in_process", default_value = "vulkan")]
    api: ConsumerApi,
    /// Which GPU, by its UUID [default: the first discrete one, else whatever there is]
    #[arg(long)]
    device: Option<Uuid>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sync {
    /// A timeline semaphore of the GPU
    Timeline,
    /// The producer's host waits before it publishes a frame
    Host,
}

/// What `--in-process --json` prints.
#[derive(Debug, Serialize)]
struct Both {
    producer: ProducerReport,
    consumer: ConsumerReport,
}

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

/// Whether all went well.
fn run(options: &Options) -> Result<bool> {
    ensure!(options.rate.is_none_or(|rate| rate > 0.0), "--rate is more than 0");
    let interrupt = Interrupt::on_signals();
    let shape = Shape::new(options.size)?;
    let wish = options.device.map_or(GpuSelector::Any, GpuSelector::Uuid);
    let vulkan = Vulkan::open(&wish, &VulkanOptions::default())?;
    let sync = options.sync.map(|sync| match sync {
        Sync::Timeline => SyncMethod::Timeline,
        Sync::Host => SyncMethod::HostWait,
    });
    let slots = usize::from(options.slots);
    let mut drawer = FrameRenderer::new(&vulkan, shape, slots, sync)?;
    let ring = drawer.ring(options.frames)?;
    if !options.json {
        let kind = match vulkan.device_type() {
            DeviceType::Cpu => "CPU",
            _ => "GPU",
        };
        println!("{kind}     {} ({})", vulkan.identity().name, vulkan.driver());
        println!(
            "frames  {} of {}, {}×{} pixels",
            options.frames,
            size::human(options.size),
            shape.width(),
            shape.height()
        );
    }
    let production = Production {
        frames: options.frames,
        consumers: options.consumers.into(),
        wait: Duration::from_secs(options.wait.into()),
        rate: options.rate,
    };
    let bar = progress::bar("frames {wide_bar} {pos}/{len} {eta}", options.frames.into());
    let run = |producer, drawer: &mut FrameRenderer| {
        let report = produce(producer, drawer, shape, slots, &production, interrupt, |done| {
            bar.set_position(done);
        });
        bar.finish_and_clear();
        report
    };
    if options.in_process {
        let mut producer = Producer::unbound(ring, session_options())?;
        let (ours, theirs) = UnixStream::pair()?;
        producer.admit(ours)?;
        let (produced, consumed) =
            in_process(options, theirs, interrupt, || run(producer, &mut drawer))?;
        print_produced(&produced, options.json);
        let good = consumed.report.is_good();
        if options.json {
            let both = Both { producer: produced, consumer: consumed.report };
            println!("{}", serde_json::to_string_pretty(&both)?);
        } else {
            let ConsumerReport { api, frames_per_s, verified, latency_us, .. } = &consumed.report;
            println!(
                "{api} in this process: {verified} frames verified, {frames_per_s:.1} a second, each \
                 after {:.1} µs (median)",
                latency_us.p50
            );
        }
        if let Some(wrong) = consumed.wrong {
            eprintln!("{wrong}");
        }
        return Ok(good || interrupt.is_asked());
    }
    let path = options.socket.clone().unwrap_or_else(default_socket);
    let producer = Producer::bind(&path, ring, session_options())
        .with_context(|| format!("announcing frames at {}", path.display()))?;
    if !options.json {
        println!("socket  {}", path.display());
        println!(
            "waiting for {} consumer(s): share_consumer --socket {}",
            options.consumers,
            path.display()
        );
    }
    let report = run(producer, &mut drawer)?;
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print_produced(&report, false),
    }
    Ok(report.died == 0 && report.evicted == 0)
}

/// The same session, with the consumer in a thread of this process.
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
    // An endpoint is used by the thread that opened it.
    let consuming = thread::spawn(move || {
        let joined = Consumer::over(socket, JoinOptions::default())?;
        consume(joined, &consumer, interrupt, |_, _| {})
    });
    let produced = produce();
    let consumed = consuming.join().map_err(|_| anyhow!("the consumer panicked"))?;
    match (produced, consumed) {
        (Ok(produced), Ok(consumed)) => Ok((produced, consumed)),
        (_, Err(error)) => Err(error.context("consuming")),
        (Err(error), Ok(consumed)) => bail!("{error:#}; consumed: {:?}", consumed.report),
    }
}

fn print_produced(report: &ProducerReport, json: bool) {
    if json {
        return;
    }
    let ProducerReport { frames, frames_per_s, gb_per_s, joined, died, evicted, sync, .. } = report;
    println!(
        "{frames} frames published, {frames_per_s:.1} a second ({gb_per_s:.2} GB/s), by {sync}"
    );
    println!("{joined} consumers joined, {died} died, {evicted} were evicted");
}
