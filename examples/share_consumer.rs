//! Takes the frames that `share_producer` draws in another process, checks every word of each on the
//! GPU, and writes the last as a picture.
//!
//! `cargo run --release --example share_consumer -- --api vulkan|gl|cuda --output last.png`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use gpu_interop::Error;
use gpu_interop::session::{Consumer, JoinOptions};
use interop_gpu::size;
use interop_tests::progress;
use interop_tests::share::{
    Consumed, ConsumerApi, ConsumerOptions, ConsumerReport, Interrupt, consume, default_socket,
};

/// Checks and counts the frames that share_producer draws in another process.
#[derive(Debug, Parser)]
struct Options {
    /// Where the producer listens [default: gpu-interop-share.sock in XDG_RUNTIME_DIR]
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Which API reads and checks the frames
    #[arg(long, default_value = "vulkan")]
    api: ConsumerApi,
    /// How many frames to take [default: all there are]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    frames: Option<u32>,
    /// Refuse frames of another size than this [default: any]
    #[arg(long, value_parser = size::parse_payload)]
    size: Option<u64>,
    /// How many seconds to wait for a producer, and for its next frame
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
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            // Not by returning: what a driver still waits for may never come.
            std::process::exit(1)
        }
    }
}

/// Whether every frame came once and was right.
fn run(options: &Options) -> Result<bool> {
    let interrupt = Interrupt::on_signals();
    let path = options.socket.clone().unwrap_or_else(default_socket);
    let wait = Duration::from_secs(options.wait.into());
    let name = format!("share_consumer --api {}", options.api);
    let join = JoinOptions { name, timeout: wait, ..JoinOptions::default() };
    let joined = Consumer::join(&path, join).map_err(|error| explain(error, &path))?;
    let bar = progress::bar("frames {wide_bar} {pos}/{len} {eta}", 0);
    let consuming =
        ConsumerOptions { api: options.api, frames: options.frames, bytes: options.size, wait };
    let consumed = consume(joined, &consuming, interrupt, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let Consumed { report, wrong, picture } = consumed?;
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print(&report),
    }
    let is_right = report.is_good() && wrong.is_none();
    if let Some(wrong) = wrong {
        eprintln!("{wrong}");
    }
    if let Some(output) = &options.output {
        match picture {
            Some(picture) => write(output, picture)?,
            None => bail!(
                "the last frame has not come: there is nothing to write to {}",
                output.display()
            ),
        }
    }
    Ok(is_right || (interrupt.is_asked() && report.verified == report.frames))
}

/// What to do where nobody is there.
fn explain(error: Error, path: &Path) -> anyhow::Error {
    let path = path.display();
    match error {
        error @ (Error::Timeout { .. } | Error::Missing(_)) => anyhow::Error::from(error).context(
            format!("no producer at {path}; start one with: share_producer --socket {path}"),
        ),
        error => anyhow::Error::from(error).context(format!("joining the producer at {path}")),
    }
}

fn print(report: &ConsumerReport) {
    let ConsumerReport { api, frames, verified, lost, doubled, torn, frames_per_s, .. } = report;
    println!(
        "{api}: {frames} frames, {verified} verified, {lost} lost, {doubled} doubled, {torn} torn; \
         {frames_per_s:.1} a second"
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

fn write(output: &Path, (width, height, rgb): (u32, u32, Vec<u8>)) -> Result<()> {
    let picture = image::RgbImage::from_raw(width, height, rgb).context("a picture of no size")?;
    picture
        .save_with_format(output, image::ImageFormat::Png)
        .with_context(|| format!("writing {}", output.display()))
}
