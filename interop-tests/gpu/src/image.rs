//! The content of images in the tests, part by part, computed by the CPU: a hash of the position of each texel.
//!
//! A [`Part`] is one aspect of one level of one layer. Its bytes are tightly packed as Vulkan's and OpenGL's
//! copies pack them: x before y before z, the samples of a texel one after the other. So one reference serves
//! every API, shape and tiling.

mod shape;

use anyhow::{Result, bail};
use gpu_interop::ImageDesc;
use gpu_interop::ash::vk;
use gpu_interop::desc::Extent;
use gpu_interop::format::{Aspects, CudaFormat, Format, GlFormat, RawFormat};
use gpu_interop::glow;

pub use self::shape::{SIZES, Shape};
use super::oracle::hash;

/// One aspect of one level of one layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// One of the format's aspects.
    pub aspect: Aspects,
    /// The mip level.
    pub level: u32,
    /// The array layer, or face of a cube.
    pub layer: u32,
}

/// Every part of an image of `desc`: level by level, in each the layers, in each the aspects.
pub fn parts(desc: &ImageDesc) -> Vec<Part> {
    let aspects: Vec<_> = desc.format.aspects().iter().collect();
    let mut parts = Vec::new();
    for level in 0..desc.levels {
        for layer in 0..desc.layers {
            parts.extend(aspects.iter().map(|&aspect| Part { aspect, level, layer }));
        }
    }
    parts
}

/// The size of `level` in texels.
pub fn level_extent(desc: &ImageDesc, level: u32) -> Extent {
    let halved = |texels: u32| (texels >> level).max(1);
    let Extent { width, height, depth } = desc.extent;
    Extent { width: halved(width), height: halved(height), depth: halved(depth) }
}

/// `VK_FORMAT_R32G32_UINT`, which the library's table lacks, with its names in OpenGL and CUDA.
pub fn raw_format() -> Format {
    let gl = GlFormat { internal: glow::RG32UI, format: glow::RG_INTEGER, ty: glow::UNSIGNED_INT };
    // CU_AD_FORMAT_UNSIGNED_INT32
    let cuda = CudaFormat { array_format: 3, channels: 2 };
    RawFormat::new(vk::Format::R32G32_UINT.as_raw(), 8).with_gl(gl).with_cuda(cuda).into()
}

/// Bytes of one texel, or of one block of a compressed format, of one aspect in a copy: one for stencil, four
/// for 24-bit depth.
pub fn texel_bytes(format: Format, aspect: Aspects) -> u32 {
    match (aspect, format) {
        (Aspects::STENCIL, _) => 1,
        (Aspects::DEPTH, Format::D16Unorm) => 2,
        (Aspects::DEPTH, _) => 4,
        _ => format.block_bytes(),
    }
}

impl Part {
    /// Texels of the part, each sample counted.
    pub fn texels(&self, desc: &ImageDesc) -> u32 {
        let Extent { width, height, depth } = level_extent(desc, self.level);
        width * height * depth * desc.samples
    }

    /// The size in texel blocks, of one texel each unless the format is compressed.
    fn blocks(&self, desc: &ImageDesc) -> Extent {
        let (across, down) = desc.format.block_extent();
        let Extent { width, height, depth } = level_extent(desc, self.level);
        Extent { width: width.div_ceil(across), height: height.div_ceil(down), depth }
    }

    /// Bytes of the part in a copy.
    pub fn bytes(&self, desc: &ImageDesc) -> usize {
        let Extent { width, height, depth } = self.blocks(desc);
        let blocks = width * height * depth * desc.samples;
        blocks as usize * texel_bytes(desc.format, self.aspect) as usize
    }

    /// A different seed for every part, so that swapped parts are detected.
    pub fn seed(&self, seed: u32) -> u32 {
        hash(self.level << 20 | self.layer << 3 | self.aspect.bits(), seed)
    }

    /// Returns the content of the part after a filling with `seed`.
    ///
    /// Every bit pattern occurs, except those that an API may change in a shader:
    /// floats are normal numbers, depth is 0 to 1, the second -1 of signed normalised numbers and
    /// what lies above 24-bit depth are left out.
    pub fn filled(&self, desc: &ImageDesc, seed: u32) -> Vec<u8> {
        let seed = self.seed(seed);
        let texel = texel_bytes(desc.format, self.aspect) as usize;
        let mut bytes = vec![0u8; self.bytes(desc)];
        if texel < 4 {
            for (word, bytes) in (0u32..).zip(bytes.chunks_mut(4)) {
                bytes.copy_from_slice(&hash(word, seed).to_le_bytes()[..bytes.len()]);
            }
        } else {
            for (word, bytes) in (0u32..).zip(bytes.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&hash(word, seed).to_le_bytes());
            }
        }
        tame(&mut bytes, desc.format, self.aspect);
        bytes
    }

    /// Checks what was read from the part after a filling with `seed`.
    ///
    /// # Errors
    /// With the first texel that differs, and the number of such texels.
    pub fn check(&self, desc: &ImageDesc, seed: u32, found: &[u8]) -> Result<()> {
        self.compare(desc, &self.filled(desc, seed), found)
    }

    /// Checks what was read from the part against `expected`.
    ///
    /// # Errors
    /// With the first texel that differs, and the number of such texels.
    pub fn compare(&self, desc: &ImageDesc, expected: &[u8], found: &[u8]) -> Result<()> {
        let Part { aspect, level, layer } = *self;
        if expected.len() != found.len() {
            bail!("{aspect:?} of level {level}, layer {layer}: {} bytes", found.len());
        }
        let texel = texel_bytes(desc.format, aspect) as usize;
        // The byte above 24-bit depth is undefined.
        let compared = if is_24_bit(desc.format, aspect) { 3 } else { texel };
        let pairs = || expected.chunks_exact(texel).zip(found.chunks_exact(texel));
        let wrong = |(a, b): &(&[u8], &[u8])| a[..compared] != b[..compared];
        let Some(first) = pairs().position(|pair| wrong(&pair)) else { return Ok(()) };
        let count = pairs().filter(wrong).count();
        let place = self.place(desc, first);
        let bytes = first * texel..first * texel + compared;
        bail!(
            "{aspect:?} of level {level}, layer {layer}: {count} of {} texels are wrong, the first \
             at {place}: {:02x?}, not {:02x?}",
            pairs().count(),
            &found[bytes.clone()],
            &expected[bytes]
        )
    }

    /// The position of the `index`th texel, or block, of the part.
    fn place(&self, desc: &ImageDesc, index: usize) -> String {
        let Extent { width, height, .. } = self.blocks(desc);
        let (across, down) = desc.format.block_extent();
        let samples = desc.samples as usize;
        let (texel, sample) = (index / samples, index % samples);
        let (row, x) = (texel / width as usize, texel % width as usize);
        let (z, y) = (row / height as usize, row % height as usize);
        let (x, y) = (x * across as usize, y * down as usize);
        format!("({x}, {y}, {z}), sample {sample}")
    }
}

fn is_24_bit(format: Format, aspect: Aspects) -> bool {
    matches!(format, Format::D24UnormS8Uint | Format::X8D24Unorm) && aspect == Aspects::DEPTH
}

/// Excludes the bit patterns that [`Part::filled`] names.
fn tame(bytes: &mut [u8], format: Format, aspect: Aspects) {
    match format {
        _ if aspect == Aspects::STENCIL => {}
        Format::Rgba8Snorm => {
            for byte in bytes.iter_mut().filter(|byte| **byte == 0x80) {
                *byte = 0x81;
            }
        }
        Format::R16Float | Format::Rg16Float | Format::Rgba16Float => {
            for half in bytes.chunks_exact_mut(2) {
                let bits = normal_half(u16::from_le_bytes([half[0], half[1]]));
                half.copy_from_slice(&bits.to_le_bytes());
            }
        }
        Format::R32Float | Format::Rg32Float | Format::Rgba32Float => {
            for float in bytes.chunks_exact_mut(4) {
                let bits =
                    normal_float(u32::from_le_bytes([float[0], float[1], float[2], float[3]]));
                float.copy_from_slice(&bits.to_le_bytes());
            }
        }
        Format::D32Float | Format::D32FloatS8Uint => {
            for float in bytes.chunks_exact_mut(4) {
                let bits = u32::from_le_bytes([float[0], float[1], float[2], float[3]]);
                // 24 bits, so that it is exact.
                let depth = (bits >> 8) as f32 / (1u32 << 24) as f32;
                float.copy_from_slice(&depth.to_le_bytes());
            }
        }
        Format::D24UnormS8Uint | Format::X8D24Unorm => {
            for depth in bytes.chunks_exact_mut(4) {
                depth[3] = 0;
            }
        }
        Format::B10g11r11Float => {
            for word in bytes.chunks_exact_mut(4) {
                let bits = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                let bits = [6, 17, 27].into_iter().fold(bits, normal_exponent);
                word.copy_from_slice(&bits.to_le_bytes());
            }
        }
        Format::E5b9g9r9Float => {
            // Of the several ways to store a number, the one with the largest mantissa.
            for word in bytes.chunks_exact_mut(4) {
                word[1] |= 1;
            }
        }
        _ => {}
    }
}

/// A finite number that is neither 0 nor denormal.
fn normal_half(bits: u16) -> u16 {
    match bits >> 10 & 0x1f {
        0 | 0x1f => bits & !0x7c00 | 0x3c00,
        _ => bits,
    }
}

fn normal_float(bits: u32) -> u32 {
    match bits >> 23 & 0xff {
        0 | 0xff => bits & !0x7f80_0000 | 0x3f80_0000,
        _ => bits,
    }
}

/// Makes the five bits from `first` on the exponent of a normal number.
fn normal_exponent(bits: u32, first: u32) -> u32 {
    match bits >> first & 0x1f {
        0 | 0x1f => bits & !(0x1f << first) | 0xf << first,
        _ => bits,
    }
}

#[cfg(test)]
mod tests {
    use gpu_interop::ImageUsage;

    use super::*;

    fn desc(format: Format) -> ImageDesc {
        let desc = ImageDesc::d2(format, 113, 211, ImageUsage::SAMPLED);
        ImageDesc { levels: 8, layers: 2, ..desc }
    }

    #[test]
    fn every_part_of_every_format_is_filled_otherwise_and_a_wrong_bit_is_found() {
        for &format in Format::ALL {
            let desc = desc(format);
            let parts = parts(&desc);
            let aspects = format.aspects().iter().count();
            assert_eq!(parts.len(), 16 * aspects);
            for part in &parts[..2 * aspects] {
                let bytes = part.filled(&desc, 1);
                assert_eq!(bytes.len(), part.bytes(&desc));
                part.check(&desc, 1, &bytes).unwrap();
                assert!(part.check(&desc, 2, &bytes).is_err(), "{part:?}");
                let other = Part { layer: 1 - part.layer, ..*part };
                assert!(other.check(&desc, 1, &bytes).is_err(), "{part:?}");
                let mut wrong = bytes;
                let at = wrong.len() - texel_bytes(format, part.aspect) as usize;
                wrong[at] ^= 1;
                let error = part.check(&desc, 1, &wrong).unwrap_err().to_string();
                let (count, last) = if format.is_compressed() {
                    (29 * 53, "(112, 208, 0)")
                } else {
                    (113 * 211, "(112, 210, 0)")
                };
                assert!(error.contains(&format!(": 1 of {count} texels")), "{error}");
                assert!(error.contains(last), "{error}");
            }
        }
    }

    #[test]
    fn what_apis_may_change_is_left_out() {
        for half in 0..=u16::MAX {
            assert!((1..=30).contains(&(normal_half(half) >> 10 & 0x1f)));
        }
        for float in [0, 1, 0x7f80_0000, 0x7fc0_0001, 0xffff_ffff, 0x8000_0000, 0x3f80_0000] {
            assert!(f32::from_bits(normal_float(float)).is_normal(), "{float:#x}");
        }
        let depth = desc(Format::D32Float);
        for bytes in parts(&depth)[0].filled(&depth, 3).chunks_exact(4) {
            let depth = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            assert!((0.0..1.0).contains(&depth), "{depth}");
        }
    }
}
