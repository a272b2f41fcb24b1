//! Numbers that formats can't hold exactly, and the largest error allowed for what is stored.
//!
//! Half a step of the format: to the nearest code of a normalised format, half a unit in the last place
//! of a float. OpenGL allows either of the two neighbours and prefers the nearest (OpenGL 4.6, 2.3.5.2);
//! Vulkan recommends the nearest ("Conversion from Floating-Point to Normalized
//! Fixed-Point"). Nothing here is rounded: what is stored is compared with the number itself.

use std::fmt;

use gpu_interop::format::{ChannelOrder, Format};

use super::oracle::hash;
use super::texel::{channels, decode};

/// Additional error allowed for shader arithmetic in single precision, in steps of the format.
const ARITHMETIC: f64 = 0.005;

/// Additional error allowed for sRGB encoding, in steps: the curve is not a single operation, and every API
/// allows some error (Direct3D, whose rule GPUs follow, allows 0.6 of a step in total).
const SRGB: f64 = 0.1;

/// How a format stores numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// 0 to 1 in this number of steps per channel; the first three may be sRGB-encoded.
    Unsigned {
        steps: [u32; 4],
        srgb: bool,
    },
    /// -1 to 1.
    Signed,
    Half,
    Single,
}

fn stored(format: Format) -> Option<Stored> {
    let unsigned = |steps, srgb| Some(Stored::Unsigned { steps, srgb });
    match format {
        Format::R8Unorm | Format::Rg8Unorm | Format::Rgba8Unorm | Format::Bgra8Unorm => {
            unsigned([255; 4], false)
        }
        Format::Rgba8Srgb | Format::Bgra8Srgb => unsigned([255; 4], true),
        Format::R5g6b5Unorm => unsigned([31, 63, 31, 1], false),
        Format::Rgb10a2Unorm => unsigned([1023, 1023, 1023, 3], false),
        Format::Rgba8Snorm => Some(Stored::Signed),
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => Some(Stored::Half),
        Format::R32Float | Format::Rgba32Float => Some(Stored::Single),
        _ => None,
    }
}

/// Whether the format holds numbers that had to be rounded.
pub fn rounds(format: Format) -> bool {
    stored(format).is_some()
}

/// Numbers for every channel of `texels` texels: hashes, most of them between two values of the format,
/// some beyond its range if the format clamps.
pub fn numbers(format: Format, texels: u32, seed: u32) -> Vec<[f32; 4]> {
    let number = |word: u32| {
        let bits = hash(word, seed);
        // 24 bits, 0 to 1.
        let even = (bits >> 8) as f32 / 16_777_216.0;
        match stored(format) {
            Some(Stored::Signed) => 2.25 * even - 1.125,
            // Normal halves, from 2^-13 to 2^15, each exponent as often.
            Some(Stored::Half) => {
                let exponent = 127 - 13 + bits % 28;
                f32::from_bits(bits & 0x8000_0000 | exponent << 23 | hash(bits, seed) >> 9)
            }
            Some(Stored::Single) => {
                let exponent = 127 - 60 + bits % 120;
                f32::from_bits(bits & 0x8000_0000 | exponent << 23 | hash(bits, seed) >> 9)
            }
            _ => 1.125 * even - 0.0625,
        }
    };
    (0..texels).map(|i| [0, 1, 2, 3].map(|channel| number(4 * i + channel))).collect()
}

/// What OpenGL's shaders must write so that the channels of `number` are stored in their places: OpenGL
/// treats a format with blue first as one with red first.
pub fn for_opengl(format: Format, [red, green, blue, alpha]: [f32; 4]) -> [u32; 4] {
    let placed = match format.channel_order() {
        ChannelOrder::Bgra => [blue, green, red, alpha],
        _ => [red, green, blue, alpha],
    };
    placed.map(f32::to_bits)
}

/// The error of the worst texel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// In steps of the format; rounding to nearest leaves at most half a step.
    pub off: f64,
    /// Which texel, and which of its channels.
    pub at: (usize, usize),
    /// The number that was written.
    pub written: f32,
    /// What a shader reads back.
    pub found: f32,
    /// The largest error allowed.
    pub allowed: f64,
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { off, at: (texel, channel), written, found, allowed } = self;
        write!(
            f,
            "texel {texel}, channel {channel}: {written:e} is stored as {found:e}, {off:.4} steps off"
        )?;
        write!(f, " ({allowed} allowed)")
    }
}

/// The channel with the largest error beyond the allowed one, or with the largest error of all; `None` if
/// nothing is stored.
pub fn worst(format: Format, numbers: &[[f32; 4]], bytes: &[u8]) -> Option<Worst> {
    let texels = bytes.chunks_exact(format.block_bytes() as usize);
    let found = texels.map(|texel| decode(format, texel).map(f32::from_bits));
    worst_of(format, numbers, found, false)
}

/// Same as [`worst`], for what a sampler reads, which decodes sRGB.
pub fn worst_sampled(format: Format, numbers: &[[f32; 4]], seen: &[[u32; 4]]) -> Option<Worst> {
    worst_of(format, numbers, seen.iter().map(|texel| texel.map(f32::from_bits)), true)
}

fn worst_of(
    format: Format,
    numbers: &[[f32; 4]],
    found: impl Iterator<Item = [f32; 4]>,
    sampled: bool,
) -> Option<Worst> {
    let stored = stored(format)?;
    let mut worst: Option<Worst> = None;
    for (texel, (written, found)) in numbers.iter().zip(found).enumerate() {
        for channel in 0..channels(format) {
            let (written, found) = (written[channel], found[channel]);
            let (off, allowed) = off(stored, channel, written.into(), found.into(), sampled);
            if worst.is_none_or(|worst| off - allowed > worst.off - worst.allowed || off.is_nan()) {
                worst = Some(Worst { off, at: (texel, channel), written, found, allowed });
            }
        }
    }
    worst
}

/// The error of `found` against `written`, and the allowed one, in steps.
fn off(stored: Stored, channel: usize, written: f64, found: f64, sampled: bool) -> (f64, f64) {
    match stored {
        Stored::Unsigned { steps, srgb } => {
            let (steps, curved) = (f64::from(steps[channel]), srgb && channel < 3);
            let clamped = written.clamp(0.0, 1.0);
            let meant = if curved { encoded(clamped) } else { clamped };
            let found = if curved && sampled { encoded(found) } else { found };
            let room = if curved { SRGB } else { ARITHMETIC };
            ((found - meant).abs() * steps, 0.5 + room)
        }
        Stored::Signed => ((found - written.clamp(-1.0, 1.0)).abs() * 127.0, 0.5 + ARITHMETIC),
        // Of 10 bits behind the first; exact, as a shader's number is rounded and not computed with.
        Stored::Half => {
            ((found - written).abs() / (written.abs().log2().floor() - 10.0).exp2(), 0.5)
        }
        Stored::Single => {
            ((found - written).abs() / (written.abs().log2().floor() - 23.0).exp2(), 0.0)
        }
    }
}

fn encoded(linear: f64) -> f64 {
    if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_good_and_the_next_is_not() {
        let good = |format, number: f32, bytes: &[u8]| {
            let worst = worst(format, &[[number; 4]], bytes).unwrap();
            worst.off <= worst.allowed
        };
        assert!(good(Format::R8Unorm, 0.499, &[127]));
        assert!(!good(Format::R8Unorm, 0.499, &[128]));
        // Cut off instead of rounded.
        assert!(!good(Format::R8Unorm, 127.9 / 255.0, &[127]));
        assert!(good(Format::R8Unorm, 7.0, &[255]) && !good(Format::R8Unorm, 7.0, &[254]));
        assert!(good(Format::R8Unorm, -0.1, &[0]));
        // 1 + 0.4 of a half's last place.
        let number = 1.0 + 0.4 / 1024.0;
        assert!(good(Format::R16Float, number, &[0x00, 0x3c]));
        assert!(!good(Format::R16Float, number, &[0x01, 0x3c]));
        assert!(good(Format::R32Float, 0.1, &0.1f32.to_le_bytes()));
        assert!(!good(Format::R32Float, 0.1, &0.100_000_01f32.to_le_bytes()));
        let half = encoded(0.5) * 255.0;
        assert!(good(Format::Rgba8Srgb, 0.5, &[half.round() as u8, 188, 188, 128]));
        assert!(!good(Format::Rgba8Srgb, 0.5, &[half.round() as u8 + 1, 188, 188, 128]));
        assert!(good(Format::Rgba8Snorm, -0.5, &[0xc0, 0xc1, 0xc0, 0xc1]));
        assert!(!good(Format::Rgba8Snorm, -0.5, &[0xc2, 0xc1, 0xc0, 0xc1]));
    }

    #[test]
    fn numbers_are_such_as_have_to_be_rounded() {
        for &format in Format::ALL.iter().filter(|format| rounds(**format)) {
            let numbers = numbers(format, 100, 1);
            let fine = |number: &f32| number.is_finite() && number.abs() <= 2e18;
            assert!(numbers.iter().flatten().all(fine), "{format:?}");
        }
        let halves = numbers(Format::R16Float, 1000, 1);
        assert!(halves.iter().flatten().all(|h| h.abs() >= 1.2e-4 && h.abs() < 65504.0));
        assert!(halves.iter().flatten().any(|h| h.to_bits() & 0x1fff != 0));
    }
}
