//! The kernels of `shaders/postprocess.cu` in CUDA.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use gpu_interop::cuda::{SurfaceObject, TextureObject};
use gpu_interop::cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg,
};
use gpu_interop::cudarc::nvrtc::Ptx;

use super::canvas::Canvas;
use super::settings::{Pass, Settings, bloom_size, level_size};

const SOURCE: &str = include_str!("../../../../shaders/postprocess.ptx");

/// Threads of a block: 32 in a row read and write whole cache lines.
const BLOCK: (u32, u32, u32) = (32, 8, 1);

/// The kernels, loaded into one context.
#[derive(Debug)]
pub struct Kernels {
    denoise: CudaFunction,
    bloom_bright: CudaFunction,
    bloom_down: CudaFunction,
    bloom_up: CudaFunction,
    develop: CudaFunction,
}

impl Kernels {
    /// Loads the kernels.
    ///
    /// # Errors
    /// If the driver rejects the PTX.
    pub fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let module = context.load_module(Ptx::from_src(SOURCE)).context("postprocess.ptx")?;
        let load = |name: &str| module.load_function(name).with_context(|| name.to_owned());
        Ok(Self {
            denoise: load("denoise")?,
            bloom_bright: load("bloom_bright")?,
            bloom_down: load("bloom_down")?,
            bloom_up: load("bloom_up")?,
            develop: load("develop")?,
        })
    }

    /// Runs `pass` of `settings` on `canvas`. Run the passes in their order, and always end with
    /// [`Pass::Tonemap`]: it produces the picture, with or without the film's curve.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn run(
        &self,
        stream: &Arc<CudaStream>,
        canvas: &mut Canvas,
        pass: Pass,
        settings: &Settings,
    ) -> Result<()> {
        match pass {
            Pass::Denoise => self.denoise(stream, canvas, settings),
            Pass::Bloom => {
                self.bright(stream, canvas, settings)?;
                for level in 1..canvas.levels.len() {
                    self.down(stream, canvas, level)?;
                }
                for level in (1..canvas.levels.len()).rev() {
                    self.up(stream, canvas, level - 1, settings)?;
                }
                Ok(())
            }
            Pass::Tonemap => self.develop(stream, canvas, settings),
        }
    }

    fn denoise(
        &self,
        stream: &Arc<CudaStream>,
        canvas: &mut Canvas,
        settings: &Settings,
    ) -> Result<()> {
        let (width, height) = canvas.size();
        let mut launch = stream.launch_builder(&self.denoise);
        launch.arg(&mut canvas.clean_surface).arg(&canvas.noisy.texels);
        launch.arg(&width).arg(&height).arg(&settings.radius).arg(&settings.likeness);
        // SAFETY: the arguments are the kernel's, which writes inside of the width and height.
        unsafe { launch.launch(for_texels((width, height))) }?;
        Ok(())
    }

    /// Computes level 0 of the bloom.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn bright(
        &self,
        stream: &Arc<CudaStream>,
        canvas: &mut Canvas,
        settings: &Settings,
    ) -> Result<()> {
        let size = canvas.size();
        let (width, height) = bloom_size(size.0, size.1);
        let light = if settings.denoise { &canvas.clean } else { &canvas.noisy };
        let mut launch = stream.launch_builder(&self.bloom_bright);
        let level = canvas.levels.first_mut().context("the bloom has a level")?;
        launch.arg(&mut level.write).arg(&light.sampled).arg(&width).arg(&height);
        launch.arg(&settings.threshold).arg(&settings.knee);
        // SAFETY: as above.
        unsafe { launch.launch(for_texels((width, height))) }?;
        Ok(())
    }

    /// Computes a level of the bloom from the previous one.
    ///
    /// # Errors
    /// For a level that the bloom lacks, and if CUDA fails.
    pub fn down(&self, stream: &Arc<CudaStream>, canvas: &mut Canvas, level: usize) -> Result<()> {
        let (width, height) = size_of(canvas, level);
        let (from, to) = pair(canvas, level)?;
        let mut launch = stream.launch_builder(&self.bloom_down);
        launch.arg(&mut to.write).arg(&from.read).arg(&width).arg(&height);
        // SAFETY: as above.
        unsafe { launch.launch(for_texels((width, height))) }?;
        Ok(())
    }

    /// Blends the next smaller level into `level`.
    ///
    /// # Errors
    /// For a level that the bloom lacks, and if CUDA fails.
    pub fn up(
        &self,
        stream: &Arc<CudaStream>,
        canvas: &mut Canvas,
        level: usize,
        settings: &Settings,
    ) -> Result<()> {
        let (width, height) = size_of(canvas, level);
        let (to, from) = pair(canvas, level + 1)?;
        let mut launch = stream.launch_builder(&self.bloom_up);
        launch.arg(&mut to.write).arg(&from.read).arg(&width).arg(&height);
        launch.arg(&settings.spread).arg(&settings.kept);
        // SAFETY: as above.
        unsafe { launch.launch(for_texels((width, height))) }?;
        Ok(())
    }

    fn develop(
        &self,
        stream: &Arc<CudaStream>,
        canvas: &mut Canvas,
        settings: &Settings,
    ) -> Result<()> {
        let (width, height) = canvas.size();
        let light = if settings.denoise { &canvas.clean } else { &canvas.noisy };
        let bloom: &TextureObject = match canvas.levels.first() {
            Some(level) if settings.bloom => &level.read,
            _ => &light.sampled,
        };
        let glow = if settings.bloom { settings.glow } else { 0.0 };
        let is_filmic = u32::from(settings.tonemap);
        let picture: &mut SurfaceObject = &mut canvas.picture_surface;
        let mut launch = stream.launch_builder(&self.develop);
        launch.arg(picture).arg(&light.texels).arg(bloom).arg(&width).arg(&height);
        launch.arg(&glow).arg(&settings.exposure).arg(&is_filmic);
        // SAFETY: as above.
        unsafe { launch.launch(for_texels((width, height))) }?;
        Ok(())
    }
}

impl Settings {
    /// The passes for [`Kernels::run`], in their order.
    pub fn passes(&self) -> Vec<Pass> {
        let all = [
            (Pass::Denoise, self.denoise),
            (Pass::Bloom, self.bloom),
            // The picture is produced with or without the film's curve.
            (Pass::Tonemap, true),
        ];
        all.into_iter().filter(|(_, runs)| *runs).map(|(pass, _)| pass).collect()
    }
}

fn size_of(canvas: &Canvas, level: usize) -> (u32, u32) {
    let (width, height) = canvas.size();
    level_size(bloom_size(width, height), level as u32)
}

/// The level before `level`, and `level`.
fn pair(
    canvas: &mut Canvas,
    level: usize,
) -> Result<(&mut super::canvas::Level, &mut super::canvas::Level)> {
    ensure!((1..canvas.levels.len()).contains(&level), "the bloom has no level {level}");
    let (before, after) = canvas.levels.split_at_mut(level);
    Ok((before.last_mut().context("a level")?, after.first_mut().context("a level")?))
}

fn for_texels((width, height): (u32, u32)) -> LaunchConfig {
    let grid_dim = (width.div_ceil(BLOCK.0), height.div_ceil(BLOCK.1), 1);
    LaunchConfig { grid_dim, block_dim: BLOCK, shared_mem_bytes: 0 }
}
