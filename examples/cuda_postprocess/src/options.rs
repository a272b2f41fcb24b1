//! The command line.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use gpu_interop::Uuid;
use interop_gpu::post_process::{Pass, Settings};

/// The CUDA post-processing pipeline: a picture with more light than a screen has is shared by Vulkan
/// with CUDA, which takes its noise away, lets what is bright glow, and exposes it; the result goes on
/// to OpenGL or Vulkan, which adds a vignette. Nothing is copied on the way. The same pipeline with
/// copies by way of the host runs too, and both are timed.
///
/// Status 2: there is no CUDA. Status 1: any other error.
#[derive(Debug, Parser)]
#[command(name = "cuda_postprocess")]
pub(crate) struct Options {
    /// A picture to work on: PNG, JPEG and what else the `image` crate reads, decoded from sRGB; EXR
    /// and HDR as light [default: a scene that Vulkan draws]
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Width and height in pixels [default: those of --input, else 1920x1080]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub size: Option<(u32, u32)>,
    /// How many frames; the scene moves on by 1/30 s from one to the next
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub frames: u32,
    /// Which passes, or 'none'. They run in the order denoise, bloom, tonemap, however they are given
    #[arg(long, value_name = "LIST", default_value = "denoise,bloom,tonemap", value_parser = parse_passes)]
    pub passes: Passes,
    /// Exposure in stops: each doubles the light
    #[arg(long, value_name = "STOPS", default_value_t = 0.0, allow_negative_numbers = true)]
    pub exposure: f32,
    /// How different two texels may be to be taken for one colour with noise
    #[arg(long, value_name = "LIKENESS", default_value_t = Settings::default().likeness)]
    pub denoise: f32,
    /// How much of the glow is added
    #[arg(long, value_name = "SHARE", default_value_t = Settings::default().glow)]
    pub bloom: f32,
    /// The light from which on it glows; 1 is white
    #[arg(long, value_name = "LIGHT", default_value_t = Settings::default().threshold)]
    pub threshold: f32,
    /// How far the corners are darkened: 1 to a quarter of the light
    #[arg(long, value_name = "STRENGTH", default_value_t = 0.4)]
    pub vignette: f32,
    /// Noise that is added, as of a camera's sensor [default: 0.05 for the scene, none for --input]
    #[arg(long, value_name = "STRENGTH")]
    pub noise: Option<f32>,
    /// Who adds the vignette [default: OpenGL if it is there, else Vulkan]
    #[arg(long, value_enum)]
    pub finish: Option<FinishApi>,
    /// If the picture goes: a PNG file, or a folder for a PNG file a frame [default:
    /// cuda_postprocess.png, of several frames the folder cuda_postprocess]
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// How often each pipeline runs at least, for the medians; what is more than --frames repeats the
    /// last one
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// UUID of the GPU [default: the first discrete GPU, otherwise the first device]
    #[arg(long, value_name = "UUID")]
    pub device: Option<Uuid>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// A list of passes; a type of its own so that clap takes the list as one value.
#[derive(Clone, Debug)]
pub(crate) struct Passes(pub Vec<Pass>);

/// Who adds the vignette and reads the picture back.
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
        ensure!((0.0..=10.0).contains(&self.vignette), "vignette: {}, not 0 to 10", self.vignette);
        let noise = self.noise();
        ensure!((0.0..=10.0).contains(&noise), "noise: {noise}, not from 0 to 10");
        Ok(settings)
    }

    /// How strong the noise is that is added; 0 for none.
    pub(crate) fn noise(&self) -> f32 {
        self.noise.unwrap_or(if self.input.is_some() { 0.0 } else { 0.05 })
    }
}

fn parse_size(text: &str) -> Result<(u32, u32)> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let size = text.split_once(['x', 'X', '×']);
    match size.and_then(|(width, height)| Some((number(width)?, number(height)?))) {
        Some((0, _) | (_, 0)) => bail!("a picture has at least one pixel a side"),
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
