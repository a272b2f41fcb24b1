//! What shaders read and write for a texel in OpenGL: sRGB decoded, red and blue in the places that the
//! swizzle gives them.

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::format::{Aspects, Format};

use super::shaders::Type;
use crate::image::texel_bytes;
use crate::texel::{Class, channels, class, decode, drawable, encode, is_blue_first};

/// Whether OpenGL has image variables of the format (OpenGL 4.6, table 8.26). An sRGB texture has none, as
/// its texels would be stored unencoded.
pub fn storable(format: Format) -> bool {
    drawable(format) && !is_srgb(format) && format != Format::R5g6b5Unorm
}

fn is_srgb(format: Format) -> bool {
    matches!(format, Format::Rgba8Srgb | Format::Bgra8Srgb)
}

pub(super) fn sampled_type(format: Format, aspect: Aspects) -> Type {
    match class(format) {
        _ if aspect == Aspects::STENCIL => Type::Uint,
        Class::Uint => Type::Uint,
        Class::Sint => Type::Sint,
        Class::Float | Class::Depth => Type::Float,
    }
}

pub(super) fn written_type(format: Format) -> Result<Type> {
    match class(format) {
        Class::Float => Ok(Type::Float),
        Class::Uint => Ok(Type::Uint),
        Class::Sint => Ok(Type::Sint),
        Class::Depth => bail!("{} is not a colour format", format.name()),
    }
}

/// What a shader writes so that OpenGL stores `texel`. OpenGL treats a texture with blue first as one with
/// red first, so the two are swapped.
pub(super) fn to_write(format: Format, texel: &[u8]) -> [u32; 4] {
    let mut words = decode(format, texel);
    if is_srgb(format) {
        for word in &mut words[..3] {
            *word = (srgb_to_linear(f64::from(f32::from_bits(*word))) as f32).to_bits();
        }
    }
    if is_blue_first(format) {
        words.swap(0, 2);
    }
    words
}

/// Returns the bytes of one aspect of the texel that a sampler reads as `seen`.
pub(super) fn packed(format: Format, aspect: Aspects, seen: [u32; 4]) -> Result<Vec<u8>> {
    if aspect == Aspects::STENCIL {
        return Ok(vec![u8::try_from(seen[0]).context("stencil is 8 bits")?]);
    }
    ensure!(has_right_rest(format, seen), "{} is sampled as {seen:08x?}", format.name());
    let mut seen = seen;
    if is_srgb(format) {
        for word in &mut seen[..3] {
            *word = (linear_to_srgb(f64::from(f32::from_bits(*word))) as f32).to_bits();
        }
    }
    Ok(encode(format, seen)[..texel_bytes(format, aspect) as usize].to_vec())
}

/// Whether a sampler reads `there` exactly as `seen`: a fast test for most texels.
pub(super) fn is_exactly(format: Format, aspect: Aspects, seen: [u32; 4], there: &[u8]) -> bool {
    if aspect == Aspects::STENCIL || is_srgb(format) {
        return false;
    }
    let (right, channels) = (decode(format, there), channels(format));
    seen[..channels] == right[..channels] && has_right_rest(format, seen)
}

/// Whether the channels that the format lacks read as 0, 0, 1. OpenGL leaves the other channels of depth
/// undefined.
fn has_right_rest(format: Format, seen: [u32; 4]) -> bool {
    let one = if matches!(class(format), Class::Uint | Class::Sint) { 1 } else { 1f32.to_bits() };
    let right = |channel: usize| seen[channel] == if channel == 3 { one } else { 0 };
    class(format) == Class::Depth || (channels(format)..4).all(right)
}

fn srgb_to_linear(c: f64) -> f64 {
    if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
}

fn linear_to_srgb(c: f64) -> f64 {
    if c <= 0.003_130_8 { c * 12.92 } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srgb_goes_there_and_back() {
        for code in 0..=255u8 {
            for format in [Format::Rgba8Srgb, Format::Bgra8Srgb] {
                let texel = [code, 255 - code, code / 2, code];
                let mut seen = to_write(format, &texel);
                if is_blue_first(format) {
                    // The swizzle that OpenGL applies on a read.
                    seen.swap(0, 2);
                }
                assert_eq!(packed(format, Aspects::COLOR, seen).unwrap(), texel);
            }
        }
    }

    #[test]
    fn a_channel_that_is_not_there_reads_0_or_1() {
        let one = 1f32.to_bits();
        assert!(packed(Format::R8Unorm, Aspects::COLOR, [one, 0, 0, one]).is_ok());
        for wrong in [[one, one, 0, one], [one, 0, 0, 0], [one, 0, 0, 1]] {
            assert!(packed(Format::R8Unorm, Aspects::COLOR, wrong).is_err());
        }
        assert!(packed(Format::R32Uint, Aspects::COLOR, [7, 0, 0, 1]).is_ok());
    }
}
