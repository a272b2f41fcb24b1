//! The CUDA post-processing pipeline: Vulkan draws light, CUDA denoises, blooms and tone-maps it through
//! texture and surface objects, OpenGL or Vulkan adds a vignette and reads the picture back. All of them use
//! one copy of the data in the GPU's memory. The same pipeline with copies through the host shows what
//! sharing gains.
//!
//! `cargo run --release -p cuda_postprocess -- --help`

mod compute;
mod copying;
mod finish;
mod finish_gl;
mod finish_vulkan;
mod gpu;
mod host_pages;
mod options;
mod picture_files;
mod report;
mod sharing;
mod source;
mod stages;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use demo_common::{Device, Outcome, Progress, UsageError, handoff_name, rejected_methods};
use interop_gpu::post_process::Difference;

use crate::copying::Copying;
use crate::gpu::{Gpu, Job};
use crate::options::Options;
use crate::picture_files::Output;
use crate::report::{Report, Samples, Whole};
use crate::sharing::Sharing;

/// The default size of the scene.
const SIZE: (u32, u32) = (1920, 1080);
/// Frames of each pipeline that are not timed, as drivers compile and allocate in the first ones.
const WARM_UP: u32 = 2;
/// The largest allowed difference of the two pipelines' pictures, in steps of a byte.
const ROUNDING: u8 = 1;

fn main() -> ExitCode {
    demo_common::run(run)
}

fn run(options: &Options) -> Result<Outcome> {
    let settings = options.settings().map_err(|error| UsageError(error.to_string()))?;
    // Errors in the input are reported before the GPU is opened.
    let picture =
        options.input.as_deref().map(|path| picture_files::read(path, options.size)).transpose()?;
    let size = picture.as_ref().map(|picture| (picture.width, picture.height));
    let size = size.or(options.size).unwrap_or(SIZE);
    let gpu = Gpu::open(options.device)?;
    gpu.check_size(size)?;
    let finish = gpu.finish(options.finish)?;
    let (noise, vignette) = (options.noise(), options.vignette);
    let job = Job { size, picture, noise, settings, vignette, finish };
    let output = Output::new(options.output.as_deref(), options.frames)?;

    let failed = |what| move || format!("{what} a {}x{} picture", size.0, size.1);
    let mut sharing = Sharing::new(&gpu, &job).with_context(failed("sharing"))?;
    let mut copying = Copying::new(&gpu, &job).with_context(failed("copying"))?;
    let rounds = options.rounds.max(options.frames);
    let mut progress = Progress::start();
    let mut done = 0;
    let mut advance = || {
        done += 1;
        progress.show("frames", done, u64::from(rounds + WARM_UP));
    };
    for _ in 0..WARM_UP {
        sharing.frame(0)?;
        copying.frame(0)?;
        advance();
    }
    let (mut samples, mut pictures) = (Samples::default(), Vec::new());
    for round in 0..rounds {
        let index = round.min(options.frames - 1);
        samples.shared.push(sharing.frame(index)?);
        samples.copied.push(copying.frame(index)?);
        if round == index {
            let (shared, copied) = (sharing.read()?, copying.read()?);
            let difference = Difference::of(&shared, &copied);
            samples.difference = samples.difference.max(difference);
            if let Some(path) = output.path(index, index + 1 == options.frames) {
                picture_files::write(&path, size, &shared)?;
                pictures.push(path);
            }
        }
        advance();
    }
    drop(progress);
    let report = report(&gpu, &job, options, (&sharing, &copying), &samples, pictures);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
        for reason in rejected_methods(&sharing.plans) {
            println!("{reason}");
        }
    }
    match report.same_picture {
        true => Ok(Outcome::Verified),
        false => Ok(Outcome::NotVerified("sharing and copying produced different pictures".into())),
    }
}

fn report(
    gpu: &Gpu,
    job: &Job,
    options: &Options,
    (sharing, copying): (&Sharing, &Copying),
    samples: &Samples,
    pictures: Vec<PathBuf>,
) -> Report {
    let vulkan = &gpu.vulkan.vulkan;
    let mut handoffs: Vec<_> = sharing.plans.iter().map(handoff_name).collect();
    handoffs.dedup();
    let names = [
        ("denoise", job.settings.denoise),
        ("bloom", job.settings.bloom),
        ("tonemap", job.settings.tonemap),
    ];
    let mut report = Report {
        device: Device::of(vulkan),
        width: job.size.0,
        height: job.size.1,
        frames: options.frames,
        rounds: options.rounds.max(options.frames),
        passes: names.into_iter().filter(|(_, runs)| *runs).map(|(name, _)| name).collect(),
        finish: sharing.finish_api(),
        handoff: handoffs.join(", "),
        common_host_pages: copying.has_common_pages(),
        stages: samples.stages(sharing.finish_api()),
        shared: Whole::of(&samples.shared),
        copied: Whole::of(&samples.copied),
        copies: samples.copies(),
        moving_ratio: 0.0,
        copies_ratio: 0.0,
        difference: samples.difference,
        same_picture: samples.difference.largest <= ROUNDING,
        pictures,
    };
    report.compare();
    report
}
