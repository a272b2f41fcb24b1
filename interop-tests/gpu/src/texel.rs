//! Texels as a shader sees them, on the CPU: four floats or four integers.
//!
//! For what can't be copied (multisample images), and for what a shader wrote. Exact both ways for
//! everything that [`Part::filled`](super::image::Part::filled) makes.

use std::cell::Cell;

use gpu_interop::format::{Aspects, ChannelOrder, Format};

/// How shaders read and write a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `sampler2D` and its variants: normalised formats and floats.
    Float,
    /// `usampler2D` and its variants: unsigned integers.
    Uint,
    /// `isampler2D` and its variants: signed integers.
    Sint,
    /// `sampler2D` to read, `gl_FragDepth` to write.
    Depth,
}

/// What every texel of a format needs.
#[derive(Clone, Copy)]
struct Facts {
    class: Class,
    channels: usize,
    bytes: usize,
    blue_first: bool,
}

impl Facts {
    fn of(format: Format) -> Self {
        Self {
            class: find_class(format),
            channels: count_channels(format),
            bytes: format.block_bytes() as usize,
            blue_first: format.channel_order() == ChannelOrder::Bgra,
        }
    }
}

/// Looks up what a format needs. The last one is kept: a search of its name per texel would take half of the
/// image cases' time.
fn facts(format: Format) -> Facts {
    thread_local!(static LAST: Cell<Option<(Format, Facts)>> = const { Cell::new(None) });
    match LAST.get() {
        Some((last, facts)) if last == format => facts,
        _ => {
            let facts = Facts::of(format);
            LAST.set(Some((format, facts)));
            facts
        }
    }
}

/// Whether blue is the first channel in memory.
pub fn is_blue_first(format: Format) -> bool {
    facts(format).blue_first
}

/// How shaders read and write `format`.
pub fn class(format: Format) -> Class {
    facts(format).class
}

fn find_class(format: Format) -> Class {
    match format.name() {
        // The tests have only one (`raw_format`).
        _ if matches!(format, Format::Raw(_)) => Class::Uint,
        name if name.contains("UINT") && format.aspects() == Aspects::COLOR => Class::Uint,
        name if name.contains("SINT") => Class::Sint,
        _ if format.aspects() == Aspects::COLOR => Class::Float,
        _ => Class::Depth,
    }
}

/// Whether shaders draw to the format in OpenGL and, if the driver supports it, in Vulkan.
pub fn drawable(format: Format) -> bool {
    let color = format.aspects() == Aspects::COLOR;
    color && !format.is_compressed() && format != Format::E5b9g9r9Float
}

/// How many channels the format has; depth and stencil have one each.
pub fn channels(format: Format) -> usize {
    facts(format).channels
}

fn count_channels(format: Format) -> usize {
    if let Format::Raw(raw) = format {
        return raw.cuda.map_or(1, |cuda| cuda.channels as usize);
    }
    if format.is_compressed() {
        return 4;
    }
    // "R16G16" of R16G16_SFLOAT, "A2B10G10R10" of A2B10G10R10_UNORM_PACK32.
    let layout = format.name().split('_').next().unwrap_or_default();
    let colors = ['R', 'G', 'B', 'A'].into_iter().filter(|&channel| layout.contains(channel));
    colors.count().max(1)
}

/// A channel of a packed or plain texel: its first bit, and how many.
type Bits = (u32, u32);

/// The channels of a normalised or packed format, red first.
fn packed(format: Format) -> Option<&'static [Bits]> {
    const RGBA8: [Bits; 4] = [(0, 8), (8, 8), (16, 8), (24, 8)];
    const BGRA8: [Bits; 4] = [(16, 8), (8, 8), (0, 8), (24, 8)];
    const RGBA16: [Bits; 4] = [(0, 16), (16, 16), (32, 16), (48, 16)];
    Some(match format {
        Format::R8Unorm => &RGBA8[..1],
        Format::Rg8Unorm => &RGBA8[..2],
        Format::Rgba8Unorm | Format::Rgba8Srgb => &RGBA8,
        Format::Bgra8Unorm | Format::Bgra8Srgb => &BGRA8,
        Format::R5g6b5Unorm => &[(11, 5), (5, 6), (0, 5)],
        Format::Rgb10a2Unorm | Format::Rgb10a2Uint => &[(0, 10), (10, 10), (20, 10), (30, 2)],
        Format::Bgr10a2Unorm => &[(20, 10), (10, 10), (0, 10), (30, 2)],
        Format::B10g11r11Float => &[(0, 11), (11, 11), (22, 10)],
        Format::R16Unorm | Format::D16Unorm => &RGBA16[..1],
        Format::Rg16Unorm => &RGBA16[..2],
        Format::Rgba16Unorm => &RGBA16,
        Format::D24UnormS8Uint | Format::X8D24Unorm => &[(0, 24)],
        _ => return None,
    })
}

/// Returns the bits of the four floats or integers that a shader reads from a texel, through a view
/// that is not sRGB. Channels that the format lacks are 0.
pub fn decode(format: Format, texel: &[u8]) -> [u32; 4] {
    let mut channels = [0; 4];
    if format == Format::E5b9g9r9Float {
        let word = word(texel) as u32;
        let step = f32::exp2((word >> 27) as f32 - 24.0);
        return [0, 9, 18, 32].map(|first| {
            let mantissa = word.checked_shr(first).unwrap_or(0) & 0x1ff;
            (mantissa as f32 * step).to_bits()
        });
    }
    if let Some(bits) = packed(format) {
        let word = word(texel);
        for (channel, &(first, count)) in channels.iter_mut().zip(bits) {
            let max = (1u32 << count) - 1;
            let value = (word >> first) as u32 & max;
            *channel = match format {
                Format::Rgb10a2Uint => value,
                // As a half: the same exponent, a shorter mantissa, no sign.
                Format::B10g11r11Float => from_half((value << (15 - count)) as u16),
                // In f64, so that 24 bits are exact.
                _ => ((f64::from(value) / f64::from(max)) as f32).to_bits(),
            };
        }
        return channels;
    }
    let width = channel_bytes(format);
    for (channel, bytes) in channels.iter_mut().zip(texel.chunks_exact(width)) {
        let bits = word(bytes) as u32;
        *channel = match (format, class(format)) {
            (Format::Rgba8Snorm, _) => (f32::from(bits as u8 as i8).max(-127.0) / 127.0).to_bits(),
            (Format::R16Float | Format::Rg16Float | Format::Rgba16Float, _) => {
                from_half(bits as u16)
            }
            (_, Class::Sint) => {
                let unused = 32 - 8 * width as u32;
                ((bits << unused) as i32 >> unused) as u32
            }
            _ => bits,
        };
    }
    channels
}

/// The texel that a shader reads as `channels`: the reverse of [`decode`], rounded to nearest.
pub fn encode(format: Format, channels: [u32; 4]) -> Vec<u8> {
    let float = |bits| f64::from(f32::from_bits(bits));
    let bytes = facts(format).bytes;
    if format == Format::E5b9g9r9Float {
        let numbers = [channels[0], channels[1], channels[2]].map(float);
        let largest = numbers.into_iter().fold(0.0, f64::max);
        // The largest mantissa has its highest bit, unless the exponent would be negative.
        let exponent = (largest.log2().floor() + 16.0).clamp(0.0, 31.0);
        let mantissa = |number: f64| (number / f64::exp2(exponent - 24.0)).round() as u32;
        let [red, green, blue] = numbers.map(mantissa);
        return (red | green << 9 | blue << 18 | (exponent as u32) << 27).to_le_bytes().to_vec();
    }
    if let Some(bits) = packed(format) {
        let mut word = 0u64;
        for (channel, &(first, count)) in channels.into_iter().zip(bits) {
            let max = (1u32 << count) - 1;
            let value = match format {
                Format::Rgb10a2Uint => channel,
                Format::B10g11r11Float => u32::from(to_half(channel)) >> (15 - count),
                _ => (float(channel) * f64::from(max)).round() as u32,
            };
            word |= u64::from(value.min(max)) << first;
        }
        return word.to_le_bytes()[..bytes].to_vec();
    }
    let width = channel_bytes(format);
    let mut texel = Vec::with_capacity(bytes);
    for channel in channels.into_iter().take(bytes / width) {
        let bits = match format {
            Format::Rgba8Snorm => (float(channel) * 127.0).round() as i8 as u8 as u32,
            Format::R16Float | Format::Rg16Float | Format::Rgba16Float => to_half(channel).into(),
            _ => channel,
        };
        texel.extend_from_slice(&bits.to_le_bytes()[..width]);
    }
    texel
}

/// Whether a value that a shader read or wrote is close enough to the stored one. A float has 24
/// bits, as many as depth: a driver that converts by 2^24 - 1 in floats (llvmpipe, lavapipe) is one
/// code off.
pub fn is_near(format: Format, aspect: Aspects, sampled: &[u8], there: &[u8]) -> bool {
    let has_24_bits = matches!(format, Format::D24UnormS8Uint | Format::X8D24Unorm);
    if !has_24_bits || aspect != Aspects::DEPTH {
        return false;
    }
    let code =
        |texel: &[u8]| i64::from(texel[0]) | i64::from(texel[1]) << 8 | i64::from(texel[2]) << 16;
    code(sampled).abs_diff(code(there)) <= 1
}

/// Bytes of one channel, of formats whose channels are whole bytes.
fn channel_bytes(format: Format) -> usize {
    match format {
        Format::D32Float | Format::D32FloatS8Uint => 4,
        _ => {
            let Facts { bytes, channels, .. } = facts(format);
            bytes / channels
        }
    }
}

/// The first eight bytes, little end first.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// A normal half as a float's bits.
fn from_half(half: u16) -> u32 {
    let half = u32::from(half);
    let (sign, exponent, mantissa) = (half >> 15, half >> 10 & 0x1f, half & 0x3ff);
    sign << 31 | (exponent + 127 - 15) << 23 | mantissa << 13
}

/// Converts a float that is exactly a normal half; anything else becomes NaN, which no test
/// expects.
fn to_half(float: u32) -> u16 {
    const NAN: u16 = 0x7e00;
    let (sign, exponent, mantissa) = (float >> 31, float >> 23 & 0xff, float & 0x7f_ffff);
    if !(113..=142).contains(&exponent) || mantissa & 0x1fff != 0 {
        return NAN;
    }
    (sign << 15 | (exponent - 112) << 10 | mantissa >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{SIZES, Shape, parts, texel_bytes};
    use gpu_interop::ImageUsage;
    use gpu_interop::desc::Tiling;

    #[test]
    fn what_a_shader_reads_of_every_texel_is_written_back_as_it_was() {
        for &format in Format::ALL.iter().filter(|format| !format.is_compressed()) {
            let desc = Shape::D2.desc(format, Tiling::Optimal, SIZES[0], ImageUsage::SAMPLED);
            let part = parts(&desc)[0];
            let filled = part.filled(&desc, 1);
            let bytes = texel_bytes(format, part.aspect) as usize;
            for texel in filled.chunks_exact(bytes) {
                let back = encode(format, decode(format, texel));
                assert_eq!(&back[..bytes], texel, "{format:?}");
            }
        }
    }

    #[test]
    fn known_texels() {
        let one = 1f32.to_bits();
        assert_eq!(decode(Format::Rgba8Unorm, &[255, 0, 0, 255]), [one, 0, 0, one]);
        assert_eq!(decode(Format::Bgra8Unorm, &[255, 0, 0, 0]), [0, 0, one, 0]);
        assert_eq!(decode(Format::R5g6b5Unorm, &[0x00, 0xf8]), [one, 0, 0, 0]);
        assert_eq!(decode(Format::Rgb10a2Unorm, &[0xff, 0x03, 0, 0xc0]), [one, 0, 0, one]);
        assert_eq!(decode(Format::R16Float, &[0x00, 0xbc]), [(-1f32).to_bits(), 0, 0, 0]);
        assert_eq!(decode(Format::Rgba8Snorm, &[0x81, 0x7f, 0, 0])[..2], [(-1f32).to_bits(), one]);
        assert_eq!(decode(Format::Rgba16Uint, &[1, 2, 3, 0, 0, 0, 0, 1]), [0x201, 3, 0, 0x100]);
        assert_eq!(decode(Format::R8Sint, &[0xfe]), [-2i32 as u32, 0, 0, 0]);
        assert_eq!(decode(Format::Rg16Sint, &[0xfe, 0xff, 3, 0]), [-2i32 as u32, 3, 0, 0]);
        assert_eq!(decode(Format::Rgba16Unorm, &[0, 0, 0, 0, 255, 255, 0, 0]), [0, 0, one, 0]);
        assert_eq!(decode(Format::Bgr10a2Unorm, &[0xff, 0x03, 0, 0]), [0, 0, one, 0]);
        assert_eq!(decode(Format::Rgb10a2Uint, &[0xff, 0x07, 0, 0x40]), [0x3ff, 1, 0, 1]);
        let two = 2f32.to_bits();
        assert_eq!(decode(Format::B10g11r11Float, &[0xc0, 3, 0x20, 0x78]), [one, two, one, 0]);
        assert_eq!(decode(Format::E5b9g9r9Float, &[0x80, 0, 0, 0x8c]), [one, 0, two, 0]);
        assert_eq!(encode(Format::R16Float, [0x3f80_0001, 0, 0, 0]), [0x00, 0x7e]);
    }
}
