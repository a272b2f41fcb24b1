//! The report: what was drawn, and the time of each stage.

use std::time::Duration;

use gpu_interop::error::counted;
use gpu_interop::headless::Vulkan;
use interop_gpu::statistics::median;
use serde::Serialize;

use crate::compare::Compared;
use crate::demo::{Demo, Stage};
use crate::shared::FORMAT;
use crate::{Direction, Options};

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    device: String,
    uuid: String,
    driver: String,
    direction: &'static str,
    width: u32,
    height: u32,
    format: &'static str,
    levels: u32,
    frames: u32,
    handoff: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    handoff_why: Vec<String>,
    /// Medians over the frames.
    stages: Vec<StageReport>,
    /// From the first command to the end of the last stage, on the host; median, in ms.
    frame_ms: f64,
    /// Reading a picture and writing the PNG, on the host; median, in ms.
    writing_ms: f64,
    /// Number of frames in which both APIs read the same bytes of every level.
    verified_frames: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compared: Option<Compared>,
    pub(crate) wrote: Vec<String>,
    #[serde(skip)]
    gl_times_on_gpu: bool,
    #[serde(skip)]
    frame_times: Vec<Duration>,
    #[serde(skip)]
    writing_times: Vec<Duration>,
}

#[derive(Debug, Serialize)]
struct StageReport {
    stage: &'static str,
    ms: f64,
    clock: &'static str,
    #[serde(skip)]
    times: Vec<Duration>,
}

impl Report {
    pub(crate) fn new(vulkan: &Vulkan, options: &Options, gl_times_on_gpu: bool) -> Self {
        let identity = vulkan.identity();
        let direction = match options.direction {
            Direction::VkToGl => "vk-to-gl",
            Direction::GlToVk => "gl-to-vk",
        };
        Self {
            device: identity.name.clone(),
            uuid: identity.device.to_string(),
            driver: vulkan.driver().to_owned(),
            direction,
            width: options.size.0,
            height: options.size.1,
            format: FORMAT.name(),
            levels: 0,
            frames: options.frames,
            handoff: String::new(),
            handoff_why: Vec::new(),
            stages: Vec::new(),
            frame_ms: 0.0,
            writing_ms: 0.0,
            verified_frames: 0,
            compared: None,
            wrote: Vec::new(),
            gl_times_on_gpu,
            frame_times: Vec::new(),
            writing_times: Vec::new(),
        }
    }

    pub(crate) fn set_sharing(&mut self, demo: &dyn Demo) {
        self.levels = demo.levels();
        (self.handoff, self.handoff_why) = demo.handoffs();
    }

    pub(crate) fn add_frame(
        &mut self,
        stages: Vec<Stage>,
        frame: Duration,
        writing: Duration,
        verified: bool,
    ) {
        if self.stages.is_empty() {
            let empty = |stage: &Stage| {
                let clock = if stage.on_gpu { "GPU" } else { "host" };
                StageReport { stage: stage.name, ms: 0.0, clock, times: Vec::new() }
            };
            self.stages = stages.iter().map(empty).collect();
        }
        for (all, stage) in self.stages.iter_mut().zip(stages) {
            all.times.push(stage.time);
            all.ms = milliseconds(&all.times);
        }
        if verified {
            self.verified_frames += 1;
        } else {
            // The time of a verified frame would include reading it with both APIs.
            self.frame_times.push(frame);
        }
        self.writing_times.push(writing);
        self.frame_ms = milliseconds(&self.frame_times);
        self.writing_ms = milliseconds(&self.writing_times);
    }

    pub(crate) fn print_head(&self) {
        println!("GPU        {} ({})", self.device, self.driver);
        println!(
            "picture    {}×{}, {}, {}, one memory for Vulkan and OpenGL",
            self.width,
            self.height,
            self.format,
            counted(self.levels, "level")
        );
        println!("handoff    by {}", self.handoff);
        for reason in &self.handoff_why {
            println!("             {reason}");
        }
    }

    pub(crate) fn print_rest(&self) {
        println!("frames     {}\n", self.frames);
        for StageReport { stage, ms, clock, .. } in &self.stages {
            println!("{stage:<34}{ms:9.3} ms on the {clock}");
        }
        if !self.frame_times.is_empty() {
            println!("{:<34}{:9.3} ms on the host", "one frame, with handoffs", self.frame_ms);
        }
        let writing = "reading the picture, writing PNG";
        println!("{writing:<34}{:9.3} ms on the host", self.writing_ms);
        if !self.gl_times_on_gpu {
            println!(
                "  (llvmpipe's timer queries return when a command was recorded: OpenGL is timed on the host)"
            );
        }
        println!(
            "\nverified   {}: Vulkan and OpenGL read the same bytes of {}",
            counted(self.verified_frames, "frame"),
            counted(self.levels, "level")
        );
        if let Some(compared) = &self.compared {
            let api = if self.direction == "vk-to-gl" { "OpenGL" } else { "Vulkan" };
            println!(
                "sampling   {api} samples the whole picture in {:.1} µs from the shared texture and {:.1} µs from a private one:",
                compared.shared_us, compared.own_us
            );
            println!("           ratio {:.3} (medians of {})", compared.ratio, compared.samples);
        }
        match self.wrote.as_slice() {
            [first, .., last] => println!("wrote      {first} to {last}"),
            [only] => println!("wrote      {only}"),
            [] => {}
        }
    }
}

fn milliseconds(times: &[Duration]) -> f64 {
    median(times).as_secs_f64() * 1e3
}
