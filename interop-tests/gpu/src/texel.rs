//! Texels as a shader sees them, on the CPU: four floats or four integers.
//!
//! For what can't be copied (multisample images), and for what a shader wrote. Exact both ways for
//! everything that [`Part::filled`](super::image::Part::filled) makes.

use gpu_interop::format::{Aspects, Format};

/// How shaders read and write a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `sampler2D` and its variants: normalised formats and floats.
    Float,
    /// `usampler2D` and its variants: unsigned integers.
    Uint,
    /// `sampler2D` to read, `gl_FragDepth` to write.
    Depth,
}

/// How shaders read and write `format`.
pub fn class(format: Format) -> Class {
    match format {
        Format::Rgba8Uint | Format::Rgba16Uint | Format::R32Uint | Format::Rgba32Uint => {
            Class::Uint
        }
        _ if format.aspects().contains(Aspects::DEPTH) => Class::Depth,
        _ => Class::Float,
    }
}

/// A channel of a packed or plain texel: its first bit, and how many.
type Bits = (u32, u32);

/// The channels of a normalised format, red first.
fn normalised(format: Format) -> Option<&'static [Bits]> {
    const RGBA8: [Bits; 4] = [(0, 8), (8, 8), (16, 8), (24, 8)];
    const BGRA8: [Bits; 4] = [(16, 8), (8, 8), (0, 8), (24, 8)];
    Some(match format {
        Format::R8Unorm => &RGBA8[..1],
        Format::Rg8Unorm => &RGBA8[..2],
        Format::Rgba8Unorm | Format::Rgba8Srgb => &RGBA8,
        Format::Bgra8Unorm | Format::Bgra8Srgb => &BGRA8,
        Format::R5g6b5Unorm => &[(11, 5), (5, 6), (0, 5)],
        Format::Rgb10a2Unorm => &[(0, 10), (10, 10), (20, 10), (30, 2)],
        Format::D16Unorm => &[(0, 16)],
        Format::D24UnormS8Uint => &[(0, 24)],
        _ => return None,
    })
}

/// Returns the bits of the four floats or integers that a shader reads from a texel, through a view that is
/// not sRGB. Channels that the format lacks are 0.
pub fn decode(format: Format, texel: &[u8]) -> [u32; 4] {
    let mut channels = [0; 4];
    if let Some(bits) = normalised(format) {
        let word = word(texel);
        for (channel, (first, count)) in channels.iter_mut().zip(bits) {
            let max = (1u32 << count) - 1;
            // In f64, so that 24 bits are exact.
            let value = f64::from(word >> first & max) / f64::from(max);
            *channel = (value as f32).to_bits();
        }
        return channels;
    }
    let width = channel_bytes(format);
    for (channel, bytes) in channels.iter_mut().zip(texel.chunks_exact(width)) {
        let bits = word(bytes);
        *channel = match format {
            Format::Rgba8Snorm => (f32::from(bits as u8 as i8).max(-127.0) / 127.0).to_bits(),
            Format::R16Float | Format::Rg16Float | Format::Rgba16Float => from_half(bits as u16),
            _ => bits,
        };
    }
    channels
}

/// The texel that a shader reads as `channels`: the reverse of [`decode`], rounded to nearest.
pub fn encode(format: Format, channels: [u32; 4]) -> Vec<u8> {
    let float = |bits| f64::from(f32::from_bits(bits));
    let bytes = format.block_bytes() as usize;
    if let Some(bits) = normalised(format) {
        let mut word = 0u32;
        for (channel, (first, count)) in channels.into_iter().zip(bits) {
            let max = (1u32 << count) - 1;
            word |= ((float(channel) * f64::from(max)).round() as u32).min(max) << first;
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

/// Bytes of one channel, of formats whose channels are whole bytes.
fn channel_bytes(format: Format) -> usize {
    match format {
        Format::Rgba8Snorm | Format::Rgba8Uint => 1,
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float | Format::Rgba16Uint => 2,
        _ => 4,
    }
}

/// The first four bytes, little end first.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// A normal half as a float's bits.
fn from_half(half: u16) -> u32 {
    let half = u32::from(half);
    let (sign, exponent, mantissa) = (half >> 15, half >> 10 & 0x1f, half & 0x3ff);
    sign << 31 | (exponent + 127 - 15) << 23 | mantissa << 13
}

/// Converts a float that is exactly a normal half; anything else becomes NaN, which no test expects.
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
        for &format in Format::ALL {
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
        assert_eq!(encode(Format::R16Float, [0x3f80_0001, 0, 0, 0]), [0x00, 0x7e]);
    }
}
