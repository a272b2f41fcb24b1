//! Family F: the kernels of the demo `cuda_postprocess` over every level of shared images, pass by pass,
//! against the same arithmetic on the CPU.

use anyhow::{Context, Result, ensure};
use gpu_interop::{ImageDesc, ImageUsage};

use crate::harness::{Case, Need, TestGpu};
use interop_gpu::cuda::CudaContext;
use interop_gpu::oracle;
use interop_gpu::post_process::reference;
use interop_gpu::post_process::{
    Canvas, Kernels, Light, PICTURE, Pass, Picture, Settings, level_size, transfer,
};
use interop_gpu::vulkan::VulkanContext;

/// Odd, so that halves are not exact; one texel; wide and low.
const SIZES: [(u32, u32); 4] = [(113, 211), (64, 64), (1, 1), (301, 2)];

/// The allowed relative error of a number: the fast exponential, the texture unit's sums, and rounding to 11
/// bits. Between texels, the unit may also read a step beside the place, which is a large error next to a
/// bright spot: see [`Span`].
const SHARE: f32 = 0.01;
/// The allowed absolute error: the smallest steps of half floats.
const FLOOR: f32 = 1e-3;
/// The allowed error of a developed byte in steps: the fast power function.
const BYTE_STEPS: u8 = 1;

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, settings: Settings| {
        let name = format!("vulkan→cuda→vulkan/opaque_fd/post_process/{what}/54");
        let run = move |test_gpu: &TestGpu| {
            SIZES.into_iter().try_for_each(|size| {
                let post_process = PostProcess::new(test_gpu, size)?;
                post_process.run(&settings).with_context(|| format!("{size:?}"))
            })
        };
        Case::new(name, run).needs(&[Need::Cuda])
    };
    use Pass::{Bloom, Denoise, Tonemap};
    vec![
        case("all_passes", Settings::default()),
        case("none", Settings::of(&[])),
        case("denoise", Settings::of(&[Denoise])),
        case("bloom_tonemap", Settings { exposure: -1.5, ..Settings::of(&[Bloom, Tonemap]) }),
    ]
}

/// A canvas with light in it.
struct PostProcess<'a> {
    vulkan: &'a VulkanContext,
    cuda: &'a CudaContext,
    kernels: Kernels,
    canvas: Canvas,
    light: Light,
}

impl<'a> PostProcess<'a> {
    fn new(test_gpu: &'a TestGpu, (width, height): (u32, u32)) -> Result<Self> {
        let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
        let usage = ImageUsage::TRANSFER_SRC | ImageUsage::TRANSFER_DST | ImageUsage::SAMPLED;
        let picture = ImageDesc::d2(PICTURE, width, height, usage);
        let canvas = Canvas::new(vulkan, &cuda.endpoint, &picture)?;
        canvas.begin(vulkan)?;
        let light = lights(width, height);
        transfer::upload(vulkan, &canvas.light.image, &light.to_halves())?;
        let kernels = Kernels::new(cuda.cuda.context())?;
        Ok(Self { vulkan, cuda, kernels, canvas, light })
    }

    /// Runs the passes one after the other, and compares each one's result with the CPU's for the same input.
    fn run(mut self, settings: &Settings) -> Result<()> {
        let mut light = self.light.clone();
        if settings.denoise {
            self.pass(Pass::Denoise, settings)?;
            let clean = self.level(&self.canvas.denoised.image, 0)?;
            let expected = reference::denoise(&light, settings.radius, settings.likeness);
            Span::of([expected]).check(&clean).context("denoise")?;
            light = clean;
        }
        let glow = if settings.bloom { Some(self.bloom(&light, settings)?) } else { None };
        self.pass(Pass::Tonemap, settings)?;
        let found = transfer::download(self.vulkan, &self.canvas.picture.image, 0)?;
        let develop = |nudge| reference::develop(&light, glow.as_ref(), settings, nudge);
        let places = reference::nudges().take(if glow.is_some() { usize::MAX } else { 1 });
        check_picture(&found, &places.map(develop).collect::<Vec<_>>()).context("develop")
    }

    /// Runs bloom level by level, down and up again.
    fn bloom(&mut self, light: &Light, settings: &Settings) -> Result<Light> {
        let stream = self.cuda.stream.clone();
        let count = self.canvas.bloom.image.desc().levels;
        self.kernels.bright(&stream, &mut self.canvas, settings)?;
        let mut levels = vec![self.bloom_level(0)?];
        let (threshold, knee) = (settings.threshold, settings.knee);
        let bright = |nudge| reference::bloom_bright(light, threshold, knee, nudge);
        Span::of(reference::nudges().map(bright)).check(&levels[0]).context("bloom_bright")?;
        for level in 1..count {
            self.kernels.down(&stream, &mut self.canvas, level as usize)?;
            let found = self.bloom_level(level)?;
            let down = |nudge| reference::bloom_down(&levels[level as usize - 1], nudge);
            let span = Span::of(reference::nudges().map(down));
            span.check(&found).with_context(|| format!("bloom_down to {level}"))?;
            levels.push(found);
        }
        let mut glow = levels.pop().context("a level")?;
        for level in (0..count - 1).rev() {
            self.kernels.up(&stream, &mut self.canvas, level as usize, settings)?;
            let (found, before) = (self.bloom_level(level)?, &levels[level as usize]);
            let (spread, kept) = (settings.spread, settings.kept);
            let up = |nudge| reference::bloom_up(before, &glow, spread, kept, nudge);
            let span = Span::of(reference::nudges().map(up));
            span.check(&found).with_context(|| format!("bloom_up to {level}"))?;
            glow = found;
        }
        Ok(glow)
    }

    fn pass(&mut self, pass: Pass, settings: &Settings) -> Result<()> {
        self.kernels.run(&self.cuda.stream, &mut self.canvas, pass, settings)
    }

    fn bloom_level(&self, level: u32) -> Result<Light> {
        self.level(&self.canvas.bloom.image, level)
    }

    fn level(&self, image: &gpu_interop::vulkan::Image, level: u32) -> Result<Light> {
        // CUDA's work must be done before Vulkan reads.
        self.cuda.stream.synchronize()?;
        let extent = image.desc().extent;
        let (width, height) = level_size((extent.width, extent.height), level);
        Light::from_halves(width, height, &transfer::download(self.vulkan, image, level)?)
    }
}

/// Noise over a gradient, and spots up to the largest half float.
fn lights(width: u32, height: u32) -> Light {
    Light::by(width, height, |x, y| {
        let hash = oracle::hash(y * width + x, 54);
        let noise = |shift: u32| (hash >> shift & 0xff) as f32 / 255.0;
        let slope = 2.0 * (x + y) as f32 / (width + height) as f32;
        let spot = if hash.is_multiple_of(97) { 65504.0f32.powf(noise(8)) } else { 0.0 };
        let channel = |shift| slope + 0.2 * noise(shift) + spot * noise(shift);
        [channel(0), channel(8), channel(16), noise(24)]
    })
}

/// The results that the texture unit may return: the least and the most of each number, over all places that
/// it may read at.
struct Span {
    exact: Light,
    least: Light,
    most: Light,
}

impl Span {
    /// Makes the span of the exact light, which comes first, and the light for every other place.
    fn of(lights: impl IntoIterator<Item = Light>) -> Self {
        let mut lights = lights.into_iter();
        let exact = lights.next().unwrap_or_else(|| Light::by(1, 1, |_, _| [0.0; 4]));
        let mut span = Self { least: exact.clone(), most: exact.clone(), exact };
        for light in lights {
            let ends = span.least.texels.iter_mut().zip(&mut span.most.texels);
            for ((least, most), texel) in ends.zip(&light.texels) {
                for channel in 0..4 {
                    least[channel] = least[channel].min(texel[channel]);
                    most[channel] = most[channel].max(texel[channel]);
                }
            }
        }
        span
    }

    /// Checks that every number is inside, apart from rounding. The reads of one texel may be off to different
    /// sides, so that the span is extended by its own size on either side.
    fn check(&self, found: &Light) -> Result<()> {
        let (width, expected) = (found.width as usize, &self.exact);
        ensure!(
            (found.width, found.height) == (expected.width, expected.height),
            "the size differs"
        );
        let ends = self.least.texels.iter().zip(&self.most.texels);
        for (i, ((found, exact), (least, most))) in
            found.texels.iter().zip(&expected.texels).zip(ends).enumerate()
        {
            // The rounding error depends on the brightest channel.
            let scale = exact.iter().fold(0f32, |most, channel| most.max(channel.abs()));
            for channel in 0..4 {
                let room = SHARE * scale + FLOOR + (most[channel] - least[channel]);
                let (least, most) = (least[channel] - room, most[channel] + room);
                ensure!(
                    (least..=most).contains(&found[channel]),
                    "({}, {}): {found:?}, not {exact:?}",
                    i % width,
                    i / width
                );
            }
        }
        Ok(())
    }
}

/// Checks that every byte is within the span of `pictures`, or [`BYTE_STEPS`] beside it.
fn check_picture(found: &[u8], pictures: &[Picture]) -> Result<()> {
    let bytes: Vec<_> = pictures.iter().map(|picture| picture.texels.as_flattened()).collect();
    for (i, &found) in found.iter().enumerate() {
        let all = || bytes.iter().filter_map(|bytes| bytes.get(i).copied());
        let (least, most) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
        let (least, most) = (least.saturating_sub(BYTE_STEPS), most.saturating_add(BYTE_STEPS));
        ensure!((least..=most).contains(&found), "byte {i}: {found}, not {least} to {most}");
    }
    Ok(())
}
