//! GL–Vulkan texture sharing: one API draws an animated, lit scene into an image that both share, the
//! other samples it on the faces of a turning cube, without a copy in between.
//!
//! `cargo run --release -p gl_texture -- --help`

mod compare;
mod demo;
mod gl;
mod gl_to_vk;
mod picture;
mod report;
mod shared;
mod vk_to_gl;
mod vulkan;
#[cfg(feature = "window")]
mod window;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use demo_common::{Outcome, Progress};
use gpu_interop::Uuid;
use gpu_interop::ash::vk;
use gpu_interop::headless::{
    Gl, GpuSelector, Message, MessageKind, Validation, Vulkan, VulkanOptions,
};

use self::demo::Demo;
use self::gl::GlSide;
use self::report::Report;
use self::vulkan::VulkanRunner;

/// Draws a scene with one API, samples it with the other, and writes the result as PNG.
///
/// Exit status: 0 if every picture was drawn, verified and written, 1 if something failed, 2 if this machine
/// lacks an API or an extension, 64 for invalid arguments.
#[derive(Debug, Parser)]
struct Options {
    /// Which API draws the scene, and which shows it
    #[arg(long, value_enum, default_value_t = Direction::VkToGl)]
    direction: Direction,
    /// Width and height in pixels
    #[arg(long, value_name = "WxH", value_parser = picture::parse_size, default_value = "1280x720")]
    size: (u32, u32),
    /// Number of frames; the animation has 30 per second
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1)]
    frames: u32,
    /// Folder for the pictures; created if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// How many times each sampling pass is measured to compare the shared texture with a private one; 0 to
    /// skip this
    #[arg(long, value_name = "TIMES", default_value_t = 100)]
    compare: u32,
    /// UUID of the GPU [default: the first discrete GPU, otherwise the first device]
    #[arg(long, value_name = "UUID")]
    device: Option<Uuid>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Show the result in a window until Esc is pressed, and write no files; needs cargo's --features window
    #[arg(long, conflicts_with_all = ["frames", "output", "compare", "json"])]
    window: bool,
    /// Enable Vulkan's validation layer; its messages go to standard error and count as a failure
    #[arg(long)]
    validate: bool,
}

/// Which API draws the scene, and which shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// Vulkan draws the scene, OpenGL the cube that shows it
    VkToGl,
    /// OpenGL draws the scene, Vulkan the cube that shows it
    GlToVk,
}

/// Time from one frame to the next, in seconds.
const STEP: f32 = 1.0 / 30.0;

fn main() -> ExitCode {
    demo_common::run(|options: &Options| {
        if options.window { show(options) } else { run(options) }?;
        match MESSAGES.load(Ordering::Relaxed) {
            0 => Ok(Outcome::Verified),
            count => Ok(Outcome::NotVerified(format!("validation messages: {count}"))),
        }
    })
}

#[cfg(feature = "window")]
use window::run as show;

#[cfg(not(feature = "window"))]
fn show(_: &Options) -> Result<()> {
    let reason = "this build has no windows: build it with `--features window`";
    Err(demo_common::UsageError(reason.into()).into())
}

/// Messages of the validation layer so far.
static MESSAGES: AtomicU32 = AtomicU32::new(0);

fn keep(message: Message) {
    // Performance advice is not an error.
    if message.kind != MessageKind::Performance {
        MESSAGES.fetch_add(1, Ordering::Relaxed);
        eprintln!("validation: {message:?}");
    }
}

impl Options {
    fn vulkan_options(&self) -> VulkanOptions {
        let features =
            vk::PhysicalDeviceFeatures { sampler_anisotropy: vk::TRUE, ..Default::default() };
        let options = VulkanOptions::default().core_features(features);
        if !self.validate {
            return options;
        }
        options.validation(Validation::Required).synchronisation_validation(true).messages(keep)
    }

    fn demo(&self, vulkan: VulkanRunner, gl: GlSide) -> Result<Box<dyn Demo>> {
        picture::check_limits(&vulkan.gpu.vulkan, &gl.gl, self.size)?;
        Ok(match self.direction {
            Direction::VkToGl => Box::new(vk_to_gl::VkToGl::new(vulkan, gl, self.size)?),
            Direction::GlToVk => Box::new(gl_to_vk::GlToVk::new(vulkan, gl, self.size)?),
        })
    }

    /// The path of frame number `i`.
    fn path(&self, i: u32) -> PathBuf {
        let name = match (self.frames, self.direction) {
            (1, Direction::VkToGl) => "vk-to-gl.png".into(),
            (1, Direction::GlToVk) => "gl-to-vk.png".into(),
            _ => format!("frame_{i:04}.png"),
        };
        self.output.join(name)
    }
}

fn run(options: &Options) -> Result<()> {
    picture::prepare(&options.output)?;
    let selector = options.device.map_or(GpuSelector::Any, GpuSelector::Uuid);
    let vulkan = Vulkan::open(&selector, &options.vulkan_options())?;
    let gl = Gl::open(&GpuSelector::Uuid(vulkan.identity().device))?;
    let gl = GlSide::new(gl.endpoint()?)?;
    let mut report = Report::new(&vulkan, options, gl.times_on_gpu());
    let mut demo = options.demo(VulkanRunner::new(vulkan)?, gl)?;
    report.set_sharing(&*demo);
    if !options.json {
        report.print_head();
    }
    let steps = u64::from(options.frames) + u64::from(options.compare);
    let mut progress = Progress::start();
    let mut done = 0;
    let mut advance = || {
        done += 1;
        progress.show("steps", done, steps);
    };
    for i in 0..options.frames {
        // Both APIs read the first and the last frame; reading all of them would take most of the time.
        let verify = i == 0 || i + 1 == options.frames;
        let start = Instant::now();
        let stages = demo.frame(i as f32 * STEP, verify)?;
        let drawn = start.elapsed();
        let pixels = demo.picture()?;
        picture::check_content(&pixels).with_context(|| format!("frame {i}"))?;
        picture::write(&options.path(i), options.size, &pixels)?;
        report.add_frame(stages, drawn, start.elapsed() - drawn, verify);
        advance();
    }
    if options.compare > 0 {
        report.compared = Some(demo.compare(options.compare, &mut advance)?);
    }
    drop(progress);
    report.wrote = (0..options.frames).map(|i| options.path(i).display().to_string()).collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print_rest();
    }
    Ok(())
}
