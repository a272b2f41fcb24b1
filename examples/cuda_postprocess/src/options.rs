//! The command line.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use gpu_interop::Uuid;
use interop_gpu::post_process::{Pass, Settings};

/// The CUDA post-processing pipeline: Vulkan shares a high-dynamic-range picture with CUDA, which removes
/// noise, adds a glow to bright areas and exposes it; OpenGL or Vulkan adds a vignette. Nothing is copied.
/// The same pipeline with copies through the host also runs, and both are timed.
///
/// Exit status: 0 if both pipelines produced the same pictures, 1 if they differ or something failed, 2 if
/// this machine lacks CUDA or something else, 64 for invalid arguments.
#[derive(Debug, Parser)]
#[command(name = "cuda_postprocess")]
pub(crate) struct Options {
    /// Input picture: PNG or JPEG, decoded from sRGB, or HDR, which holds linear light; EXR, TIFF, WebP and
    /// others need cargo's --features formats [default: a scene that Vulkan draws]
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Width and height in pixels [default: those of --input, otherwise 1920x1080]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub size: Option<(u32, u32)>,
    /// Number of frames; the animation advances by 1/30 s per frame
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub frames: u32,
    /// The passes, or 'none'; they always run in the order denoise, bloom, tonemap
    #[arg(long, value_name = "LIST", default_value = "denoise,bloom,tonemap", value_parser = parse_passes)]
    pub passes: Passes,
    /// Exposure in stops: each doubles the light
    #[arg(long, value_name = "STOPS", default_value_t = 0.0, allow_negative_numbers = true)]
    pub exposure: f32,
    /// Maximum difference of two texels that count as the same colour with noise
    #[arg(long, value_name = "LIKENESS", default_value_t = Settings::default().likeness)]
    pub denoise: f32,
    /// Amount of glow that is added
    #[arg(long, value_name = "SHARE", default_value_t = Settings::default().glow)]
    pub bloom: f32,
    /// Light level above which areas glow; 1 is white
    #[arg(long, value_name = "LIGHT", default_value_t = Settings::default().threshold)]
    pub threshold: f32,
    /// How much the corners are darkened; 1 leaves a quarter of the light
    #[arg(long, value_name = "STRENGTH", default_value_t = 0.4)]
    pub vignette: f32,
    /// Strength of the sensor noise that is added [default: 0.05 for the scene, 0 for --input]
    #[arg(long, value_name = "STRENGTH")]
    pub noise: Option<f32>,
    /// API that adds the vignette [default: OpenGL if installed, otherwise Vulkan]
    #[arg(long, value_enum)]
    pub finish: Option<FinishApi>,
    /// Output: a PNG file, or a folder for one PNG file per frame [default: cuda_postprocess.png, for several
    /// frames the folder cuda_postprocess]
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Minimum number of frames that are timed per pipeline; beyond --frames the last one is repeated
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// UUID of the GPU [default: the first discrete GPU, otherwise the first device]
    #[arg(long, value_name = "UUID")]
    pub device: Option<Uuid>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// A list of passes. It is a type of its own so that clap treats the list as one value.
#[derive(Clone, Debug)]
pub(crate) struct Passes(pub Vec<Pass>);

/// The API that adds the vignette and reads the picture back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FinishApi {
    /// OpenGL.
    Gl,
    /// Vulkan.
    Vulkan,
}

impl Options {
    /// The passes and their strengths.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let settings = Settings {
            likeness: self.denoise,
            glow: self.bloom,
            threshold: self.threshold,
            exposure: self.exposure,
            ..Settings::of(&self.passes.0)
        };
        settings.check()?;
        ensure!(
            (0.0..=10.0).contains(&self.vignette),
            "--vignette {}: must be from 0 to 10",
            self.vignette
        );
        let noise = self.noise();
        ensure!((0.0..=10.0).contains(&noise), "--noise {noise}: must be from 0 to 10");
        Ok(settings)
    }

    /// The strength of the added noise; 0 for none.
    pub(crate) fn noise(&self) -> f32 {
        self.noise.unwrap_or(if self.input.is_some() { 0.0 } else { 0.05 })
    }
}

fn parse_size(text: &str) -> Result<(u32, u32)> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let size = text.split_once(['x', 'X', '×']);
    match size.and_then(|(width, height)| Some((number(width)?, number(height)?))) {
        Some((0, _) | (_, 0)) => bail!("width and height must be at least 1"),
        Some(size) => Ok(size),
        None => bail!("write width and height in pixels, as in 1920x1080"),
    }
}

fn parse_passes(text: &str) -> Result<Passes> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Passes(Vec::new()));
    }
    let pass = |name: &str| match name.trim().to_ascii_lowercase().as_str() {
        "denoise" => Ok(Pass::Denoise),
        "bloom" => Ok(Pass::Bloom),
        "tonemap" => Ok(Pass::Tonemap),
        _ => bail!("'{name}' is not a pass; the passes are denoise, bloom and tonemap"),
    };
    Ok(Passes(text.split(',').map(pass).collect::<Result<_>>()?))
}
