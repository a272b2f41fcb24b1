//! The parts that describe a format, and formats given as the APIs' raw values.

use bitflags::bitflags;

use crate::error::{Invalid, Result};

bitflags! {
    /// What a texel holds.
    #[doc(alias = "VkImageAspectFlags")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct Aspects: u32 {
        /// Colour (`VK_IMAGE_ASPECT_COLOR_BIT`).
        const COLOR = 1;
        /// Depth (`VK_IMAGE_ASPECT_DEPTH_BIT`).
        const DEPTH = 2;
        /// Stencil (`VK_IMAGE_ASPECT_STENCIL_BIT`).
        const STENCIL = 4;
    }
}

/// The order of a texel's channels in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelOrder {
    /// Red first, as OpenGL and CUDA expect.
    Rgba,
    /// Blue first: OpenGL and CUDA see red and blue swapped, so a swizzle is needed.
    Bgra,
}

/// The OpenGL names of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GlFormat {
    /// Sized internal format, for `glTextureStorageMem2DEXT`.
    pub internal: u32,
    /// Pixel format for uploads and reads, for `glTexSubImage2D`. With it and [`ty`](Self::ty) the
    /// bytes keep the order that they have in the image, which may be blue first. Only 24-bit depth
    /// without stencil differs: OpenGL has it in the high bits of a word, Vulkan in the low ones.
    ///
    /// For a compressed format the internal format again, for `glCompressedTexSubImage2D`.
    pub format: u32,
    /// Pixel type for uploads and reads; 0 for a compressed format.
    pub ty: u32,
}

/// The CUDA names of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CudaFormat {
    /// `CUarray_format`.
    pub array_format: u32,
    /// Channels per array element: 1, 2 or 4.
    pub channels: u32,
}

impl CudaFormat {
    /// Returns the bytes of an array element, for the array formats whose channels are whole bytes.
    pub(crate) const fn bytes(self) -> Option<u32> {
        // CU_AD_FORMAT_UNSIGNED_INT8, ..._INT16, ..._INT32, the signed ones, HALF, FLOAT.
        Some(match self.array_format {
            0x01 | 0x08 => self.channels,
            0x02 | 0x09 | 0x10 => self.channels * 2,
            0x03 | 0x0a | 0x20 => self.channels * 4,
            _ => return None,
        })
    }
}

/// A format as the APIs' raw values, for an application's own image whose format isn't in the
/// table.
///
/// The driver decides whether it can be shared, as for any other format. OpenGL and CUDA can import
/// it if they have a format with the same bits.
///
/// ```
/// use gpu_interop::format::{Format, GlFormat, RawFormat};
///
/// // VK_FORMAT_B8G8R8A8_UINT is GL_RGBA8UI, with red and blue swapped.
/// let gl = GlFormat { internal: 0x8D7C, format: 0x8D99, ty: 0x1401 };
/// let format = Format::from(RawFormat::new(48, 4).with_gl(gl));
/// assert_eq!(format.to_string(), "VkFormat 48");
/// assert!(format.cuda().is_err());
///
/// // VK_FORMAT_ASTC_6x6_UNORM_BLOCK: blocks of 6 × 6 texels.
/// let format = Format::from(RawFormat::new(165, 16).with_block_extent(6, 6));
/// assert_eq!(format.row_bytes(13), 3 * 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct RawFormat {
    /// The `VkFormat` value.
    pub vulkan: i32,
    /// Bytes per texel block, at least 1. For a multi-planar format, the sum over all planes.
    pub block_bytes: u32,
    /// Width and height of a texel block in texels. Default: 1 × 1.
    pub block_extent: (u32, u32),
    /// What a texel holds. Default: colour. Multi-planar formats also hold colour.
    pub aspects: Aspects,
    /// The OpenGL names. Default: none, and OpenGL refuses the format. The library uses
    /// [`GlFormat::internal`] only.
    pub gl: Option<GlFormat>,
    /// The CUDA names. Default: none, and CUDA refuses the format.
    pub cuda: Option<CudaFormat>,
}

impl RawFormat {
    /// Describes a colour format of `block_bytes` bytes per texel that OpenGL and CUDA lack.
    pub const fn new(vk_format: i32, block_bytes: u32) -> Self {
        let (block_extent, aspects) = ((1, 1), Aspects::COLOR);
        Self { vulkan: vk_format, block_bytes, block_extent, aspects, gl: None, cuda: None }
    }

    /// Sets the width and height of a texel block in texels.
    #[must_use]
    pub const fn with_block_extent(self, width: u32, height: u32) -> Self {
        Self { block_extent: (width, height), ..self }
    }

    /// Sets what a texel holds.
    #[must_use]
    pub const fn with_aspects(self, aspects: Aspects) -> Self {
        Self { aspects, ..self }
    }

    /// Sets the OpenGL names.
    #[must_use]
    pub const fn with_gl(self, gl: GlFormat) -> Self {
        Self { gl: Some(gl), ..self }
    }

    /// Sets the CUDA names.
    #[must_use]
    pub const fn with_cuda(self, cuda: CudaFormat) -> Self {
        Self { cuda: Some(cuda), ..self }
    }

    /// Returns whether the format is multi-planar (`VK_FORMAT_G8_B8R8_2PLANE_420_UNORM`).
    pub(crate) const fn is_multi_planar(self) -> bool {
        const YCBCR: i32 = 1_000_156_000;
        const YCBCR_444: i32 = 1_000_330_000;
        matches!(
            self.vulkan.wrapping_sub(YCBCR),
            2..=6 | 12..=16 | 22..=26 | 29..=33
        ) || matches!(self.vulkan.wrapping_sub(YCBCR_444), 0..=3)
    }

    /// Checks what can be checked without an API.
    pub(crate) fn validate(&self) -> Result<()> {
        check_number("desc.format", self.vulkan)?;
        let refuse = |problem: String, help: &'static str| {
            let problem = format!("VkFormat {}: {problem}", self.vulkan);
            Err(Invalid::new("desc.format", problem).help(help).into())
        };
        let (width, height) = self.block_extent;
        if self.block_bytes == 0 || width == 0 || height == 0 {
            let problem = format!("{} bytes per {width}×{height} texels", self.block_bytes);
            return refuse(
                problem,
                "give the size of its texel block, from Vulkan's table of formats",
            );
        }
        let aspects = self.aspects;
        let one_kind = !aspects.contains(Aspects::COLOR) || aspects == Aspects::COLOR;
        if aspects.is_empty() || !Aspects::all().contains(aspects) || !one_kind {
            let problem = format!("the aspects {:#x}", aspects.bits());
            return refuse(problem, "a format has colour, or depth, or stencil, or the last two");
        }
        let Some(cuda) = self.cuda else { return Ok(()) };
        let is_larger = cuda.bytes().is_some_and(|bytes| bytes != self.block_bytes);
        if !matches!(cuda.channels, 1 | 2 | 4) || is_larger {
            let CudaFormat { array_format, channels } = cuda;
            let problem = format!(
                "{channels} channels of CUarray_format {array_format:#x}, but {} bytes per texel",
                self.block_bytes
            );
            return refuse(
                problem,
                "CUDA's texel has 1, 2 or 4 channels, and as many bytes as Vulkan's",
            );
        }
        Ok(())
    }
}

/// Rejects a number that can't be a `VkFormat`: core Vulkan numbers formats from 1, and an
/// extension from 1000000000 plus 1000 times its own number less one.
pub(crate) fn check_number(parameter: &'static str, vk_format: i32) -> Result<()> {
    const LAST_OF_CORE: i32 = 184;
    if matches!(vk_format, 1..=LAST_OF_CORE | 1_000_000_000..=1_000_999_999) {
        return Ok(());
    }
    Err(Invalid::new(parameter, format!("{vk_format} is not a VkFormat"))
        .vuid("VUID-VkImageCreateInfo-format-parameter")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOAT: CudaFormat = CudaFormat { array_format: 0x20, channels: 1 };

    #[test]
    fn a_raw_format_that_contradicts_itself_is_refused_by_its_number() {
        let good = RawFormat::new(48, 4);
        good.validate().unwrap();
        good.with_cuda(FLOAT).validate().unwrap();
        good.with_aspects(Aspects::DEPTH | Aspects::STENCIL).validate().unwrap();
        for bad in [
            RawFormat::new(48, 0),
            good.with_block_extent(0, 4),
            good.with_block_extent(4, 0),
            good.with_aspects(Aspects::empty()),
            good.with_aspects(Aspects::COLOR | Aspects::DEPTH),
            good.with_aspects(Aspects::from_bits_retain(0x10)),
            good.with_cuda(CudaFormat { channels: 3, ..FLOAT }),
            good.with_cuda(CudaFormat { channels: 2, ..FLOAT }),
        ] {
            let text = bad.validate().unwrap_err().to_string();
            assert!(text.contains("VkFormat 48"), "{text}");
        }
        for number in [i32::MIN, -1, 0, 185, 999_999_999, 1_001_000_000, i32::MAX] {
            let text = RawFormat::new(number, 4).validate().unwrap_err().to_string();
            assert!(text.contains(&format!("{number} is not a VkFormat")), "{text}");
        }
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn multi_planar_formats_are_known_by_their_number() {
        use ash::vk::Format;
        for (format, is_multi_planar) in [
            (Format::G8_B8_R8_3PLANE_420_UNORM, true),
            (Format::G8_B8R8_2PLANE_420_UNORM, true),
            (Format::G8_B8_R8_3PLANE_444_UNORM, true),
            (Format::G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16, true),
            (Format::G12X4_B12X4_R12X4_3PLANE_444_UNORM_3PACK16, true),
            (Format::G16_B16_R16_3PLANE_444_UNORM, true),
            (Format::G16_B16R16_2PLANE_444_UNORM, true),
            (Format::G8B8G8R8_422_UNORM, false),
            (Format::R10X6_UNORM_PACK16, false),
            (Format::G16B16G16R16_422_UNORM, false),
            (Format::A4R4G4B4_UNORM_PACK16, false),
            (Format::B8G8R8A8_UINT, false),
        ] {
            let raw = RawFormat::new(format.as_raw(), 4);
            raw.validate().unwrap();
            assert_eq!(raw.is_multi_planar(), is_multi_planar, "{format:?}");
        }
    }
}
