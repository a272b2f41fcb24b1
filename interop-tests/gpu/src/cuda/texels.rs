//! What the texture unit reads of a texel, and the bytes that must have been stored for it.

use anyhow::{Context, Result, ensure};
use gpu_interop::cuda::ReadMode;
use gpu_interop::format::Format;

/// Four channels: integers, or the bits of floats.
pub type Texel = [u32; 4];

/// How a channel is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Integer(u32),
    /// A fraction of the largest unsigned number with this number of bits.
    Unsigned(u32),
    /// A signed integer with this number of bits.
    Signed(u32),
    /// A fraction of the largest signed byte.
    SignedByte,
    /// Unsigned, and sRGB-encoded except for the fourth channel.
    Srgb,
    Half,
    Float,
}

fn stored(format: Format) -> Stored {
    match format {
        Format::Rgba8Snorm => Stored::SignedByte,
        Format::Rgba8Srgb | Format::Bgra8Srgb => Stored::Srgb,
        Format::R8Unorm | Format::Rg8Unorm | Format::Rgba8Unorm | Format::Bgra8Unorm => {
            Stored::Unsigned(8)
        }
        Format::R16Unorm | Format::Rg16Unorm | Format::Rgba16Unorm => Stored::Unsigned(16),
        Format::R8Uint | Format::Rgba8Uint => Stored::Integer(8),
        Format::R16Uint | Format::Rg16Uint | Format::Rgba16Uint => Stored::Integer(16),
        Format::R8Sint => Stored::Signed(8),
        Format::R16Sint | Format::Rg16Sint => Stored::Signed(16),
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => Stored::Half,
        Format::R32Float | Format::Rg32Float | Format::Rgba32Float => Stored::Float,
        _ => Stored::Integer(32),
    }
}

fn is_packed(format: Format) -> bool {
    matches!(format, Format::Rgb10a2Unorm | Format::Bgr10a2Unorm)
}

/// Whether reading `format` in this mode returns floats.
pub fn are_floats(format: Format, read: ReadMode) -> bool {
    match read {
        ReadMode::AsFormat => {
            is_packed(format) || !matches!(stored(format), Stored::Integer(_) | Stored::Signed(_))
        }
        ReadMode::Stored => matches!(stored(format), Stored::Half | Stored::Float),
        ReadMode::Normalized | ReadMode::DecodeSrgb => true,
    }
}

/// Packs `texels`, which were read from an image of `format` in the mode `read`.
///
/// # Errors
/// If a float is not the value of any stored number.
pub fn pack(format: Format, read: ReadMode, texels: &[Texel]) -> Result<Vec<u8>> {
    let mut packed = Vec::with_capacity(texels.len() * format.block_bytes() as usize);
    for (index, texel) in texels.iter().enumerate() {
        pack_texel(format, read, texel, &mut packed).with_context(|| format!("texel {index}"))?;
    }
    Ok(packed)
}

fn pack_texel(format: Format, read: ReadMode, texel: &Texel, to: &mut Vec<u8>) -> Result<()> {
    if is_packed(format) {
        let mut word = fraction(texel[3], 3.0)? << 30;
        for (channel, shift) in texel.iter().zip([0, 10, 20]) {
            word |= fraction(*channel, 1023.0)? << shift;
        }
        to.extend(word.to_le_bytes());
        return Ok(());
    }
    let channels = format.cuda()?.channels as usize;
    let bytes = format.block_bytes() as usize / channels;
    for (number, &channel) in texel.iter().enumerate().take(channels) {
        let bits = match (stored(format), read) {
            (Stored::Half, _) => half(channel)?,
            (Stored::Float, _) | (_, ReadMode::Stored) => channel,
            (_, ReadMode::DecodeSrgb) | (Stored::Srgb, ReadMode::AsFormat) if number < 3 => {
                encode_srgb(channel)?
            }
            (Stored::SignedByte, _) => signed_fraction(channel, 127.0)?,
            (Stored::Signed(bits), ReadMode::Normalized) => {
                signed_fraction(channel, ((1u64 << (bits - 1)) - 1) as f32)?
            }
            (Stored::Signed(_), _) => channel,
            (Stored::Integer(bits), ReadMode::Normalized | ReadMode::DecodeSrgb) => {
                fraction(channel, ((1u64 << bits) - 1) as f32)?
            }
            (Stored::Integer(_), _) => channel,
            (Stored::Unsigned(bits), _) => fraction(channel, ((1u64 << bits) - 1) as f32)?,
            (Stored::Srgb, _) => fraction(channel, 255.0)?,
        };
        // The upper bits of an integer are its sign or 0.
        to.extend(&bits.to_le_bytes()[..bytes]);
    }
    Ok(())
}

/// The stored number that is read as the fraction `found` of `largest`.
fn fraction(bits: u32, largest: f32) -> Result<u32> {
    let found = f32::from_bits(bits) * largest;
    let number = found.round();
    let exact = (0.0..=largest).contains(&number) && (found - number).abs() < 0.01;
    ensure!(exact, "{found} of {largest}");
    Ok(number as u32)
}

fn signed_fraction(bits: u32, largest: f32) -> Result<u32> {
    let found = f32::from_bits(bits) * largest;
    let number = found.round();
    let exact = (-largest..=largest).contains(&number) && (found - number).abs() < 0.01;
    ensure!(exact, "{found} of ±{largest}");
    Ok(number as i32 as u32)
}

/// The stored byte whose sRGB decoding is nearest.
fn encode_srgb(bits: u32) -> Result<u32> {
    let linear = f32::from_bits(bits);
    ensure!((0.0..=1.0).contains(&linear), "{linear}, not from 0 to 1");
    let encoded =
        if linear <= 0.003_130_8 { linear * 12.92 } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
    Ok((encoded * 255.0).round() as u32)
}

/// The bits of a normal 16-bit float that was widened to 32 bits.
fn half(bits: u32) -> Result<u32> {
    let exponent = (bits >> 23 & 0xff).wrapping_sub(127 - 15);
    let is_half = (1..=30).contains(&exponent) && bits & 0x1fff == 0;
    ensure!(is_half, "{} is not a normal 16-bit float", f32::from_bits(bits));
    Ok(bits >> 16 & 0x8000 | exponent << 10 | bits >> 13 & 0x3ff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(format: Format, read: ReadMode, texel: Texel) -> Option<Vec<u8>> {
        pack(format, read, &[texel]).ok()
    }

    #[test]
    fn floats_are_stored_as_the_numbers_that_they_are_read_of() {
        let as_format = ReadMode::AsFormat;
        let texel = |floats: [f32; 4]| floats.map(f32::to_bits);
        let bytes = texel([0.0, 1.0 / 255.0, 254.0 / 255.0, 1.0]);
        assert_eq!(packed(Format::Rgba8Unorm, as_format, bytes), Some(vec![0, 1, 254, 255]));
        assert_eq!(packed(Format::Rg8Unorm, as_format, bytes), Some(vec![0, 1]));
        let signed = texel([-1.0, -1.0 / 127.0, 126.0 / 127.0, 1.0]);
        assert_eq!(packed(Format::Rgba8Snorm, as_format, signed), Some(vec![0x81, 0xff, 126, 127]));
        let linear = texel([0.0, 0.212_230_76, 1.0, 128.0 / 255.0]);
        assert_eq!(packed(Format::Rgba8Srgb, as_format, linear), Some(vec![0, 127, 255, 128]));
        let decoded = packed(Format::Rgba8Unorm, ReadMode::DecodeSrgb, linear);
        assert_eq!(decoded, Some(vec![0, 127, 255, 128]));
        let ten = texel([1.0 / 1023.0, 0.0, 1.0, 2.0 / 3.0]);
        assert_eq!(packed(Format::Rgb10a2Unorm, as_format, ten), Some(vec![1, 0, 0xf0, 0xbf]));
        for wrong in [0.5, -0.1, 1.1, f32::NAN] {
            assert_eq!(packed(Format::R8Unorm, as_format, texel([wrong; 4])), None, "{wrong}");
        }
    }

    #[test]
    fn integers_and_floats_are_stored_as_they_are() {
        let texel = [0x1_2345, 0xffff_ff80, 3, 4];
        let stored = ReadMode::Stored;
        assert_eq!(packed(Format::Rgba8Snorm, stored, texel), Some(vec![0x45, 0x80, 3, 4]));
        assert_eq!(packed(Format::R32Uint, stored, texel), Some(vec![0x45, 0x23, 1, 0]));
        for (number, bits) in [(1.5f32, 0x3e00u16), (-65504.0, 0xfbff), (6.103_515_6e-5, 0x400)] {
            let texel = [number.to_bits(), 0, 0, 0];
            let found = packed(Format::R16Float, ReadMode::AsFormat, texel);
            assert_eq!(found, Some(bits.to_le_bytes().to_vec()), "{number}");
        }
        for wrong in [0.1, 65536.0, f32::INFINITY, 1e-9] {
            assert_eq!(packed(Format::R16Float, stored, [wrong.to_bits(), 0, 0, 0]), None);
        }
        let float = [0x3f80_0001, 0, 0, 0];
        assert_eq!(packed(Format::R32Float, stored, float), Some(vec![1, 0, 0x80, 0x3f]));
    }
}
