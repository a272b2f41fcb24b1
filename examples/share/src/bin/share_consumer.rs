//! Receives the frames that `share_producer` draws in another process, checks every word of each on the
//! GPU, and writes the last frame as a picture.
//!
//! `cargo run --release -p share --bin share_consumer -- --api vulkan|gl|cuda --output last.png`

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use demo_common::{Outcome, Progress};
use gpu_interop::Error;
use gpu_interop::session::{Consumer, JoinOptions};
use interop_gpu::size;
use share::{
    Consumed, ConsumerApi, ConsumerOptions, ConsumerReport, Interrupt, Picture, consume,
    default_socket,
};

/// Checks and counts the frames that share_producer draws in another process.
///
/// Exit status: 0 if every frame was received once and verified, 1 if not, 2 if this machine lacks the API,
/// 64 for invalid arguments.
#[derive(Debug, Parser)]
struct Options {
    /// Path of the producer's socket [default: gpu-interop-share.sock in XDG_RUNTIME_DIR]
    #[arg(long)]
    socket: Option<PathBuf>,
    /// API that reads and checks the frames
    #[arg(long, default_value = "vulkan")]
    api: ConsumerApi,
    /// Number of frames to receive [default: all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    frames: Option<u32>,
    /// Accept only frames of this size [default: any size]
    #[arg(long, value_parser = size::parse_payload)]
    size: Option<u64>,
    /// Seconds to wait for a producer, and for its next frame
    #[arg(long, default_value_t = 10)]
    wait: u32,
    /// Write the last frame to this file, as PNG
    #[arg(long)]
    output: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    demo_common::run(run)
}

fn run(options: &Options) -> Result<Outcome> {
    let interrupt = Interrupt::on_signals();
    options.api.check_installed()?;
    let path = options.socket.clone().unwrap_or_else(default_socket);
    let wait = Duration::from_secs(options.wait.into());
    let name = format!("share_consumer --api {}", options.api);
    let join = JoinOptions { name, timeout: wait, ..JoinOptions::default() };
    let joined = Consumer::join(&path, join).map_err(|error| explain(error, &path))?;
    let mut progress = Progress::start();
    let consuming =
        ConsumerOptions { api: options.api, frames: options.frames, bytes: options.size, wait };
    let consumed =
        consume(joined, &consuming, interrupt, |done, all| progress.show("frames", done, all));
    drop(progress);
    let Consumed { report, wrong, picture } = consumed?;
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print(&report),
    }
    if let Some(output) = &options.output {
        let picture = picture.with_context(|| {
            format!("no last frame was received, so {} is not written", output.display())
        })?;
        write(output, &picture)?;
    }
    Ok(match wrong {
        Some(wrong) => Outcome::NotVerified(wrong),
        None if report.is_good() => Outcome::Verified,
        None if interrupt.is_requested() && report.verified == report.frames => Outcome::Verified,
        None => Outcome::NotVerified("not every frame was received once and verified".into()),
    })
}

/// Adds what would help if there is no producer.
fn explain(error: Error, path: &Path) -> anyhow::Error {
    let path = path.display();
    let is_absent = matches!(error, Error::Timeout { .. } | Error::Missing(_));
    // The machine lacks nothing: a missing socket is a failure, not status 2.
    match is_absent {
        true => anyhow!(
            "no producer at {path} ({error}); start one with: share_producer --socket {path}"
        ),
        false => anyhow::Error::from(error).context(format!("joining the producer at {path}")),
    }
}

fn print(report: &ConsumerReport) {
    let ConsumerReport { api, frames, verified, lost, doubled, torn, frames_per_s, .. } = report;
    println!(
        "{api}: {frames} received, {verified} verified, {lost} lost, {doubled} doubled, {torn} torn; \
         {frames_per_s:.1} per second"
    );
    let (verified, token) = (report.latency_us, report.token_us);
    println!(
        "    from publishing to verified: {:.1} µs median, {:.1} µs 99th percentile",
        verified.p50, verified.p99
    );
    println!(
        "    from publishing to the token: {:.1} µs median, {:.1} µs 99th percentile",
        token.p50, token.p99
    );
}

fn write(output: &Path, picture: &Picture) -> Result<()> {
    let context = || format!("writing {}", output.display());
    let file = BufWriter::new(File::create(output).with_context(context)?);
    let mut encoder = png::Encoder::new(file, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().with_context(context)?;
    writer.write_image_data(&picture.rgb).with_context(context)?;
    writer.finish().with_context(context)
}
