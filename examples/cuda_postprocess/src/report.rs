//! The report, as text or as JSON.

use std::path::PathBuf;
use std::time::Duration;

use demo_common::Device;
use gpu_interop::error::counted;
use interop_gpu::post_process::{Difference, Pass};
use interop_gpu::statistics::{median, percentile};
use serde::Serialize;

use crate::stages::FrameTimes;

/// The whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) device: Device,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) frames: u32,
    pub(crate) rounds: u32,
    pub(crate) passes: Vec<&'static str>,
    /// The API that adds the vignette.
    pub(crate) finish: &'static str,
    /// How the APIs are synchronised.
    pub(crate) handoff: String,
    /// Whether the copies use pages that both Vulkan and CUDA access.
    pub(crate) common_host_pages: bool,
    /// The work on the GPU, the same in both pipelines: medians in milliseconds.
    pub(crate) stages: Vec<Stage>,
    pub(crate) shared: Whole,
    pub(crate) copied: Whole,
    /// Each copy of the pipeline that copies: medians in milliseconds.
    pub(crate) copies: Vec<Copy>,
    /// Time to move the data with copies, divided by the time with sharing.
    pub(crate) moving_ratio: f64,
    /// The same for the copies alone, without the waits between them.
    pub(crate) copies_ratio: f64,
    /// The largest difference of both pipelines' pictures, over all frames.
    pub(crate) difference: Difference,
    pub(crate) same_picture: bool,
    pub(crate) pictures: Vec<PathBuf>,
}

/// One stage in both pipelines.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    name: &'static str,
    api: &'static str,
    shared_ms: f64,
    copied_ms: f64,
}

/// A frame of one pipeline: medians in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Whole {
    /// From the first command to the end of the last one.
    frame_ms: f64,
    /// The work on the GPU.
    work_ms: f64,
    /// Everything else: copies, handoffs, waits.
    moving_ms: f64,
    /// The 99th percentile of the whole frame.
    moving_p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Copy {
    name: &'static str,
    ms: f64,
}

/// The frames of both pipelines.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) shared: Vec<FrameTimes>,
    pub(crate) copied: Vec<FrameTimes>,
    pub(crate) difference: Difference,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median_of(frames: &[FrameTimes], part: impl Fn(&FrameTimes) -> Duration) -> f64 {
    ms(median(&frames.iter().map(part).collect::<Vec<_>>()))
}

impl Whole {
    pub(crate) fn of(frames: &[FrameTimes]) -> Self {
        let moving: Vec<_> = frames.iter().map(FrameTimes::moving).collect();
        Self {
            frame_ms: median_of(frames, |frame| frame.whole),
            work_ms: median_of(frames, FrameTimes::work),
            moving_ms: ms(median(&moving)),
            moving_p99_ms: ms(percentile(&moving, 99.0)),
        }
    }
}

impl Samples {
    pub(crate) fn stages(&self, finish: &'static str) -> Vec<Stage> {
        let stage = |name, api, part: &dyn Fn(&FrameTimes) -> Duration| Stage {
            name,
            api,
            shared_ms: median_of(&self.shared, part),
            copied_ms: median_of(&self.copied, part),
        };
        let mut stages = vec![stage("light", "vulkan", &|frame| frame.source)];
        let passes = self.shared.first().map(|frame| frame.passes.as_slice()).unwrap_or_default();
        for (i, (pass, _)) in passes.iter().enumerate() {
            let part = |frame: &FrameTimes| frame.passes.get(i).map(|(_, time)| *time);
            stages.push(stage(name(*pass), "cuda", &|frame| part(frame).unwrap_or_default()));
        }
        stages.push(stage("vignette", finish, &|frame| frame.vignette));
        stages
    }

    pub(crate) fn copies(&self) -> Vec<Copy> {
        let copies = self.copied.first().map(|frame| frame.copies.as_slice()).unwrap_or_default();
        let one = |(i, (name, _)): (usize, &(&'static str, Duration))| {
            let part = |frame: &FrameTimes| frame.copies.get(i).map(|(_, time)| *time);
            Copy { name, ms: median_of(&self.copied, |frame| part(frame).unwrap_or_default()) }
        };
        copies.iter().enumerate().map(one).collect()
    }
}

/// The name of a pass in the report.
fn name(pass: Pass) -> &'static str {
    match pass {
        Pass::Denoise => "denoise",
        Pass::Bloom => "bloom",
        // With or without the film's curve.
        Pass::Tonemap => "develop",
    }
}

impl Report {
    /// Compares the time to move data with copies and with sharing: in total, and for the copies alone.
    pub(crate) fn compare(&mut self) {
        let copies: f64 = self.copies.iter().map(|copy| copy.ms).sum();
        let shared = self.shared.moving_ms.max(1e-6);
        (self.moving_ratio, self.copies_ratio) = (self.copied.moving_ms / shared, copies / shared);
    }

    /// Prints it as text.
    pub(crate) fn print(&self) {
        let Self { device, width, height, frames, rounds, .. } = self;
        println!("GPU      {} ({})", device.name, device.driver);
        println!(
            "picture  {width}x{height}, {}, each pipeline {}",
            counted(*frames, "frame"),
            counted(*rounds, "time")
        );
        println!("handoff  by {}\n", self.handoff);
        println!("{:<28} {:>12} {:>12}", "", "shared", "copied");
        println!("work on the GPU");
        for Stage { name, api, shared_ms, copied_ms } in &self.stages {
            println!("  {name:<12} {api:<13} {shared_ms:>9.3} ms {copied_ms:>9.3} ms");
        }
        let rows = [
            ("frame", self.shared.frame_ms, self.copied.frame_ms),
            ("work", self.shared.work_ms, self.copied.work_ms),
            ("moving data", self.shared.moving_ms, self.copied.moving_ms),
        ];
        println!("total");
        for (name, shared, copied) in rows {
            println!("  {name:<26} {shared:>9.3} ms {copied:>9.3} ms");
        }
        println!("copies");
        for Copy { name, ms } in &self.copies {
            println!("  {name:<26} {:>12} {ms:>9.3} ms", "");
        }
        let pages = if self.common_host_pages {
            "shared by Vulkan and CUDA"
        } else {
            "separate for each API"
        };
        println!("  (host memory is pinned, {pages})\n");
        println!(
            "Moving the data takes {:.1} times as long with copies as with sharing; the copies alone, \
             without the waits between them, {:.1} times.",
            self.moving_ratio, self.copies_ratio
        );
        let Difference { bytes, largest } = self.difference;
        if self.same_picture && bytes == 0 {
            println!("Both pipelines produced the same pictures, byte for byte.");
        } else {
            println!("The pictures differ in {bytes} bytes, by {largest} at most.");
        }
        for path in &self.pictures {
            println!("wrote {}", path.display());
        }
    }
}
