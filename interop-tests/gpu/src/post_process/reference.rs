//! The kernels of `shaders/postprocess.cu` on the CPU: the expected results of the GPU, up to the rounding
//! of its fast functions.

use super::half::rounded;
use super::light::{Light, Picture, rows};
use super::settings::{Settings, bloom_levels, bloom_size};

type Color = [f32; 3];

fn rgb([red, green, blue, _]: [f32; 4]) -> Color {
    [red, green, blue]
}

fn scaled(color: Color, by: f32) -> Color {
    color.map(|channel| channel * by)
}

fn sum(a: Color, b: Color) -> Color {
    std::array::from_fn(|i| a[i] + b[i])
}

fn luminance([red, green, blue]: Color) -> f32 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

fn brightest([red, green, blue]: Color) -> f32 {
    red.max(green).max(blue)
}

/// Light as a surface stores it.
fn stored([red, green, blue]: Color, alpha: f32) -> [f32; 4] {
    [red, green, blue, alpha].map(rounded)
}

/// How far a texture unit may read from the requested position, in texels of the image that is read.
pub type Nudge = [f32; 2];

/// Reads at the exact position.
pub const EXACT: Nudge = [0.0, 0.0];

/// A step of the texture unit: CUDA keeps 8 bits of a position between two texels, and does not document how
/// it rounds. It may read up to one step away from the requested position.
pub fn nudges() -> impl Iterator<Item = Nudge> {
    const STEPS: [f32; 3] = [0.0, -1.0 / 256.0, 1.0 / 256.0];
    STEPS.into_iter().flat_map(|x| STEPS.map(|y| [x, y]))
}

/// A read with normalized coordinates and linear filtering.
fn sampled(light: &Light, [u, v]: [f32; 2], nudge: Nudge) -> Color {
    let split = |at: f32, size: u32, nudge: f32| {
        let at = ((at * size as f32 - 0.5 + nudge) * 256.0).round() / 256.0;
        let first = at.floor();
        (first as i64, at - first)
    };
    let (x, right) = split(u, light.width, nudge[0]);
    let (y, below) = split(v, light.height, nudge[1]);
    let row = |y| {
        let (a, b) = (rgb(light.at(x, y)), rgb(light.at(x + 1, y)));
        sum(scaled(a, 1.0 - right), scaled(b, right))
    };
    sum(scaled(row(y), 1.0 - below), scaled(row(y + 1), below))
}

/// The middle of a texel of an image of that size, and the steps from one to the next.
fn middle(x: u32, y: u32, width: u32, height: u32) -> ([f32; 2], [f32; 2]) {
    let (width, height) = (width as f32, height as f32);
    ([(x as f32 + 0.5) / width, (y as f32 + 0.5) / height], [1.0 / width, 1.0 / height])
}

fn compressed(color: Color) -> Color {
    scaled(color, 1.0 / (1.0 + brightest(color)))
}

fn expanded(color: Color) -> Color {
    scaled(color, 1.0 / (1.0 - brightest(color)).max(1.0 / 65505.0))
}

fn distance_squared(a: Color, b: Color) -> f32 {
    (0..3).map(|i| (a[i] - b[i]) * (a[i] - b[i])).sum()
}

/// The kernel `denoise`.
pub fn denoise(from: &Light, radius: i32, likeness: f32) -> Light {
    Light::by(from.width, from.height, |x, y| {
        let near = |dx: i32, dy: i32| {
            compressed(rgb(from.at(i64::from(x) + i64::from(dx), i64::from(y) + i64::from(dy))))
        };
        let own = near(0, 0);
        let (mut around, mut alike) = ([0.0; 3], 0);
        for (dx, dy) in square(1).filter(|&place| place != (0, 0)) {
            let texel = near(dx, dy);
            around = sum(around, scaled(texel, 0.125));
            alike += u32::from(distance_squared(texel, own) < 4.0 * likeness * likeness);
        }
        let reference = if alike < 2 { around } else { own };
        let sigma = 0.5 * radius as f32 + 0.5;
        let mut weights = 1e-3;
        let mut total = scaled(reference, weights);
        for (dx, dy) in square(radius) {
            let texel = near(dx, dy);
            let far = (dx * dx + dy * dy) as f32 / (2.0 * sigma * sigma);
            let unlike = distance_squared(texel, reference) / (2.0 * likeness * likeness);
            let weight = (-far - unlike).exp();
            total = sum(total, scaled(texel, weight));
            weights += weight;
        }
        let alpha = from.at(x.into(), y.into())[3];
        stored(expanded(scaled(total, 1.0 / weights)), alpha)
    })
}

/// The places around one, `radius` away at most, row by row.
fn square(radius: i32) -> impl Iterator<Item = (i32, i32)> {
    (-radius..=radius).flat_map(move |y| (-radius..=radius).map(move |x| (x, y)))
}

/// The corners of a square around a place.
fn corners([u, v]: [f32; 2], [du, dv]: [f32; 2]) -> [[f32; 2]; 4] {
    [[u - du, v - dv], [u + du, v - dv], [u - du, v + dv], [u + du, v + dv]]
}

/// Half as large, at one texel.
fn halved(from: &Light, at: [f32; 2], step: [f32; 2], hold_back: bool, nudge: Nudge) -> Color {
    let half = step.map(|step| 0.5 * step);
    let (mut total, mut weights) = ([0.0; 3], 1e-6);
    let mut add_block = |at, share| {
        for place in corners(at, half) {
            let texel = sampled(from, place, nudge);
            let weight = if hold_back { share / (1.0 + luminance(texel)) } else { share };
            total = sum(total, scaled(texel, weight));
            weights += weight;
        }
    };
    add_block(at, 0.5);
    corners(at, half).into_iter().for_each(|corner| add_block(corner, 0.125));
    scaled(total, 1.0 / weights)
}

/// The kernel `bloom_bright`.
pub fn bloom_bright(from: &Light, threshold: f32, knee: f32, nudge: Nudge) -> Light {
    let (width, height) = bloom_size(from.width, from.height);
    Light::by(width, height, |x, y| {
        let (at, step) = middle(x, y, width, height);
        let color = halved(from, at, step, true, nudge);
        let bright = brightest(color);
        let soft = (bright - threshold + knee).max(0.0).min(2.0 * knee);
        let above = (soft * soft / (4.0 * knee + 1e-6)).max(bright - threshold);
        stored(scaled(color, above.max(0.0) / bright.max(1e-6)), 1.0)
    })
}

/// The kernel `bloom_down`.
pub fn bloom_down(from: &Light, nudge: Nudge) -> Light {
    let (width, height) = bloom_size(from.width, from.height);
    Light::by(width, height, |x, y| {
        let (at, step) = middle(x, y, width, height);
        stored(halved(from, at, step, false, nudge), 1.0)
    })
}

/// The kernel `bloom_up`: what `to` holds afterwards.
pub fn bloom_up(to: &Light, from: &Light, radius: f32, share: f32, nudge: Nudge) -> Light {
    let (width, height) = (to.width, to.height);
    Light::by(width, height, |x, y| {
        let ([u, v], [du, dv]) = middle(x, y, width, height);
        let (du, dv) = (2.0 * radius * du, 2.0 * radius * dv);
        let mut spread = [0.0; 3];
        for (dx, dy) in square(1) {
            let tent = |place| if place == 0 { 0.5 } else { 0.25 };
            let texel = sampled(from, [u + dx as f32 * du, v + dy as f32 * dv], nudge);
            spread = sum(spread, scaled(texel, tent(dx) * tent(dy)));
        }
        let own = rgb(to.at(x.into(), y.into()));
        stored(sum(scaled(own, share), scaled(spread, 1.0 - share)), 1.0)
    })
}

/// Level 0 of the whole bloom.
pub fn bloom(from: &Light, settings: &Settings) -> Light {
    let mut levels = vec![bloom_bright(from, settings.threshold, settings.knee, EXACT)];
    while (levels.len() as u32) < bloom_levels(from.width, from.height) {
        levels.extend(levels.last().map(|level| bloom_down(level, EXACT)));
    }
    let mut spread = levels.pop().unwrap_or_else(|| from.clone());
    while let Some(level) = levels.pop() {
        spread = bloom_up(&level, &spread, settings.spread, settings.kept, EXACT);
    }
    spread
}

/// A film's response to light.
pub fn filmic(x: f32) -> f32 {
    let x = (0.72317 * x).max(0.0);
    (x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)).min(1.0)
}

/// From 0 to 1, sRGB-encoded.
pub fn srgb(linear: f32) -> f32 {
    let linear = linear.clamp(0.0, 1.0);
    if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 }
}

/// Between minus and plus half a step of a byte.
fn dithered(x: u32, y: u32, channel: u32) -> f32 {
    let hash = x.wrapping_mul(0x9e37_79b1)
        ^ y.wrapping_mul(0x85eb_ca77)
        ^ channel.wrapping_mul(0xc2b2_ae3d);
    let hash = (hash ^ hash >> 15).wrapping_mul(0x2c1b_3c6d);
    let hash = (hash ^ hash >> 12).wrapping_mul(0x297a_2d39);
    (hash >> 8) as f32 / 16_777_216.0 - 0.5
}

/// The kernel `develop`; `bloom` is level 0 of the bloom.
pub fn develop(light: &Light, bloom: Option<&Light>, settings: &Settings, nudge: Nudge) -> Picture {
    let (width, height) = (light.width, light.height);
    let mut texels = vec![[0; 4]; light.texels.len()];
    rows(&mut texels, width, |x, y, out| {
        let texel = light.at(x.into(), y.into());
        let mut color = rgb(texel);
        if let Some(bloom) = bloom {
            let (at, _) = middle(x, y, width, height);
            color = sum(color, scaled(sampled(bloom, at, nudge), settings.glow));
        }
        color = scaled(color, settings.exposure.exp2());
        if settings.tonemap {
            color = color.map(filmic);
        }
        for channel in 0..3 {
            let noise = dithered(x, y, channel as u32);
            out[channel] = (255.0 * srgb(color[channel]) + noise + 0.5).clamp(0.0, 255.0) as u8;
        }
        out[3] = (texel[3].clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
    });
    Picture { width, height, texels }
}

/// All passes of `settings`.
pub fn develop_all(light: &Light, settings: &Settings) -> Picture {
    let clean = settings.denoise.then(|| denoise(light, settings.radius, settings.likeness));
    let light = clean.as_ref().unwrap_or(light);
    let glow = settings.bloom.then(|| bloom(light, settings));
    develop(light, glow.as_ref(), settings, EXACT)
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
