//! The table of formats: the names in Vulkan, OpenGL and CUDA, the block size and the aspects.

use std::fmt;

use super::raw::{Aspects, ChannelOrder, CudaFormat, GlFormat, RawFormat};
use crate::error::{Api, Missing, Result};

macro_rules! formats {
    ($( $(#[$doc:meta])* $name:ident = $vk:literal $vk_name:literal, $bytes:literal
        $(per $width:literal x $height:literal)?, $aspects:expr, $order:ident, gl $gl:expr,
        cuda $cuda:expr; )*) => {
        /// The format of an image's texels.
        ///
        /// Prints as Vulkan's name without `VK_FORMAT_` (`R8G8B8A8_UNORM`), or as `VkFormat 48`.
        #[doc(alias = "VkFormat")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Format {
            $( $(#[$doc])* $name, )*
            /// A format that the table lacks, as the APIs' raw values.
            Raw(RawFormat),
        }

        impl Format {
            /// All formats of the table.
            pub const ALL: &'static [Format] = &[ $( Format::$name, )* ];

            const fn row(self) -> Row {
                match self {
                    $( Format::$name => Row {
                        vk: $vk, name: $vk_name, bytes: $bytes, block: formats!(@block $($width $height)?),
                        aspects: $aspects, order: ChannelOrder::$order, gl: $gl, cuda: $cuda,
                    }, )*
                    Format::Raw(raw) => Row {
                        vk: raw.vulkan, name: "RAW", bytes: raw.block_bytes, block: raw.block_extent,
                        aspects: raw.aspects, order: ChannelOrder::Rgba, gl: raw.gl, cuda: raw.cuda,
                    },
                }
            }
        }
    };
    (@block) => { (1, 1) };
    (@block $width:literal $height:literal) => { ($width, $height) };
}

struct Row {
    vk: i32,
    name: &'static str,
    bytes: u32,
    block: (u32, u32),
    aspects: Aspects,
    order: ChannelOrder,
    gl: Option<GlFormat>,
    cuda: Option<CudaFormat>,
}

const fn gl(internal: u32, format: u32, ty: u32) -> Option<GlFormat> {
    Some(GlFormat { internal, format, ty })
}

/// A compressed format, whose blocks are uploaded as they are.
const fn blocks(internal: u32) -> Option<GlFormat> {
    gl(internal, internal, 0)
}

const fn cuda(array_format: u32, channels: u32) -> Option<CudaFormat> {
    Some(CudaFormat { array_format, channels })
}

const C: Aspects = Aspects::COLOR;
const D: Aspects = Aspects::DEPTH;
const S: Aspects = Aspects::STENCIL;
const DS: Aspects = Aspects::DEPTH.union(Aspects::STENCIL);

// Pixel formats: GL_RED, GL_RG, GL_RGB, GL_RGBA, the integer ones, depth. Never GL_BGRA: with that,
// OpenGL would swap the bytes on the way to or from an RGBA format.
const R: u32 = 0x1903;
const RG: u32 = 0x8227;
const RGB: u32 = 0x1907;
const RGBA: u32 = 0x1908;
const R_INT: u32 = 0x8D94;
const RG_INT: u32 = 0x8228;
const RGBA_INT: u32 = 0x8D99;
const STENCIL: u32 = 0x1901;
const DEPTH: u32 = 0x1902;
const DEPTH_STENCIL: u32 = 0x84F9;
// Pixel types: GL_BYTE, GL_UNSIGNED_BYTE and so on.
const I8: u32 = 0x1400;
const U8: u32 = 0x1401;
const I16: u32 = 0x1402;
const U16: u32 = 0x1403;
const U32: u32 = 0x1405;
const F32: u32 = 0x1406;
const F16: u32 = 0x140B;
const U565: u32 = 0x8363;
const U2_10_10_10_REV: u32 = 0x8368;
const F11_11_10_REV: u32 = 0x8C3B;
const U5_9_9_9_REV: u32 = 0x8C3E;
const U24_8: u32 = 0x84FA;
const F32_U24_8_REV: u32 = 0x8DAD;
// CUarray_format: CU_AD_FORMAT_UNSIGNED_INT8 and so on.
const CU_U8: u32 = 0x01;
const CU_U16: u32 = 0x02;
const CU_U32: u32 = 0x03;
const CU_I8: u32 = 0x08;
const CU_I16: u32 = 0x09;
const CU_F16: u32 = 0x10;
const CU_F32: u32 = 0x20;
/// `CU_AD_FORMAT_UNORM_INT_101010_2`: since CUDA 12.8.
const CU_UNORM_10_10_10_2: u32 = 0x50;
// CU_AD_FORMAT_BC1_UNORM and so on: since CUDA 11.5.
const CU_BC1: u32 = 0x91;
const CU_BC1_SRGB: u32 = 0x92;
const CU_BC7: u32 = 0x9d;
const CU_BC7_SRGB: u32 = 0x9e;

formats! {
    /// One 8-bit channel.
    R8Unorm = 9 "R8_UNORM", 1, C, Rgba, gl gl(0x8229, R, U8), cuda cuda(CU_U8, 1);
    /// One unsigned 8-bit integer.
    R8Uint = 13 "R8_UINT", 1, C, Rgba, gl gl(0x8232, R_INT, U8), cuda cuda(CU_U8, 1);
    /// One signed 8-bit integer.
    R8Sint = 14 "R8_SINT", 1, C, Rgba, gl gl(0x8231, R_INT, I8), cuda cuda(CU_I8, 1);
    /// Two 8-bit channels.
    Rg8Unorm = 16 "R8G8_UNORM", 2, C, Rgba, gl gl(0x822B, RG, U8), cuda cuda(CU_U8, 2);
    /// Four 8-bit channels.
    Rgba8Unorm = 37 "R8G8B8A8_UNORM", 4, C, Rgba, gl gl(0x8058, RGBA, U8), cuda cuda(CU_U8, 4);
    /// Four signed 8-bit channels.
    Rgba8Snorm = 38 "R8G8B8A8_SNORM", 4, C, Rgba, gl gl(0x8F97, RGBA, I8), cuda cuda(CU_I8, 4);
    /// Four unsigned 8-bit integers.
    Rgba8Uint = 41 "R8G8B8A8_UINT", 4, C, Rgba, gl gl(0x8D7C, RGBA_INT, U8), cuda cuda(CU_U8, 4);
    /// Four 8-bit channels, colour sRGB-encoded.
    Rgba8Srgb = 43 "R8G8B8A8_SRGB", 4, C, Rgba, gl gl(0x8C43, RGBA, U8), cuda cuda(CU_U8, 4);
    /// Four 8-bit channels, blue first. In OpenGL it is RGBA8 with a swizzle.
    Bgra8Unorm = 44 "B8G8R8A8_UNORM", 4, C, Bgra, gl gl(0x8058, RGBA, U8), cuda cuda(CU_U8, 4);
    /// Four 8-bit channels, blue first, colour sRGB-encoded.
    Bgra8Srgb = 50 "B8G8R8A8_SRGB", 4, C, Bgra, gl gl(0x8C43, RGBA, U8), cuda cuda(CU_U8, 4);
    /// 5, 6 and 5 bits, red in the high bits of a 16-bit word.
    R5g6b5Unorm = 4 "R5G6B5_UNORM_PACK16", 2, C, Rgba, gl gl(0x8D62, RGB, U565), cuda None;
    /// 10, 10, 10 and 2 bits, blue in the low bits of a 32-bit word.
    Bgr10a2Unorm = 58 "A2R10G10B10_UNORM_PACK32", 4, C, Bgra, gl gl(0x8059, RGBA, U2_10_10_10_REV), cuda cuda(CU_UNORM_10_10_10_2, 4);
    /// 10, 10, 10 and 2 bits, red in the low bits of a 32-bit word.
    Rgb10a2Unorm = 64 "A2B10G10R10_UNORM_PACK32", 4, C, Rgba, gl gl(0x8059, RGBA, U2_10_10_10_REV), cuda cuda(CU_UNORM_10_10_10_2, 4);
    /// Unsigned integers of 10, 10, 10 and 2 bits, red in the low bits of a 32-bit word.
    Rgb10a2Uint = 68 "A2B10G10R10_UINT_PACK32", 4, C, Rgba, gl gl(0x906F, RGBA_INT, U2_10_10_10_REV), cuda None;
    /// One 16-bit channel.
    R16Unorm = 70 "R16_UNORM", 2, C, Rgba, gl gl(0x822A, R, U16), cuda cuda(CU_U16, 1);
    /// One unsigned 16-bit integer.
    R16Uint = 74 "R16_UINT", 2, C, Rgba, gl gl(0x8234, R_INT, U16), cuda cuda(CU_U16, 1);
    /// One signed 16-bit integer.
    R16Sint = 75 "R16_SINT", 2, C, Rgba, gl gl(0x8233, R_INT, I16), cuda cuda(CU_I16, 1);
    /// One 16-bit float.
    R16Float = 76 "R16_SFLOAT", 2, C, Rgba, gl gl(0x822D, R, F16), cuda cuda(CU_F16, 1);
    /// Two 16-bit channels.
    Rg16Unorm = 77 "R16G16_UNORM", 4, C, Rgba, gl gl(0x822C, RG, U16), cuda cuda(CU_U16, 2);
    /// Two unsigned 16-bit integers.
    Rg16Uint = 81 "R16G16_UINT", 4, C, Rgba, gl gl(0x823A, RG_INT, U16), cuda cuda(CU_U16, 2);
    /// Two signed 16-bit integers.
    Rg16Sint = 82 "R16G16_SINT", 4, C, Rgba, gl gl(0x8239, RG_INT, I16), cuda cuda(CU_I16, 2);
    /// Two 16-bit floats.
    Rg16Float = 83 "R16G16_SFLOAT", 4, C, Rgba, gl gl(0x822F, RG, F16), cuda cuda(CU_F16, 2);
    /// Four 16-bit channels.
    Rgba16Unorm = 91 "R16G16B16A16_UNORM", 8, C, Rgba, gl gl(0x805B, RGBA, U16), cuda cuda(CU_U16, 4);
    /// Four unsigned 16-bit integers.
    Rgba16Uint = 95 "R16G16B16A16_UINT", 8, C, Rgba, gl gl(0x8D76, RGBA_INT, U16), cuda cuda(CU_U16, 4);
    /// Four 16-bit floats.
    Rgba16Float = 97 "R16G16B16A16_SFLOAT", 8, C, Rgba, gl gl(0x881A, RGBA, F16), cuda cuda(CU_F16, 4);
    /// One unsigned 32-bit integer.
    R32Uint = 98 "R32_UINT", 4, C, Rgba, gl gl(0x8236, R_INT, U32), cuda cuda(CU_U32, 1);
    /// One 32-bit float.
    R32Float = 100 "R32_SFLOAT", 4, C, Rgba, gl gl(0x822E, R, F32), cuda cuda(CU_F32, 1);
    /// Two 32-bit floats.
    Rg32Float = 103 "R32G32_SFLOAT", 8, C, Rgba, gl gl(0x8230, RG, F32), cuda cuda(CU_F32, 2);
    /// Four unsigned 32-bit integers.
    Rgba32Uint = 107 "R32G32B32A32_UINT", 16, C, Rgba, gl gl(0x8D70, RGBA_INT, U32), cuda cuda(CU_U32, 4);
    /// Four 32-bit floats.
    Rgba32Float = 109 "R32G32B32A32_SFLOAT", 16, C, Rgba, gl gl(0x8814, RGBA, F32), cuda cuda(CU_F32, 4);
    /// Unsigned floats of 11, 11 and 10 bits, red in the low bits of a 32-bit word.
    B10g11r11Float = 122 "B10G11R11_UFLOAT_PACK32", 4, C, Rgba, gl gl(0x8C3A, RGB, F11_11_10_REV), cuda None;
    /// Three 9-bit mantissas, red in the low bits of a 32-bit word, and one 5-bit exponent.
    E5b9g9r9Float = 123 "E5B9G9R9_UFLOAT_PACK32", 4, C, Rgba, gl gl(0x8C3D, RGB, U5_9_9_9_REV), cuda None;
    /// 16-bit depth.
    D16Unorm = 124 "D16_UNORM", 2, D, Rgba, gl gl(0x81A5, DEPTH, U16), cuda None;
    /// 24-bit depth in the low bits of a 32-bit word.
    X8D24Unorm = 125 "X8_D24_UNORM_PACK32", 4, D, Rgba, gl gl(0x81A6, DEPTH, U32), cuda None;
    /// 32-bit float depth.
    D32Float = 126 "D32_SFLOAT", 4, D, Rgba, gl gl(0x8CAC, DEPTH, F32), cuda None;
    /// 8-bit stencil.
    S8Uint = 127 "S8_UINT", 1, S, Rgba, gl gl(0x8D48, STENCIL, U8), cuda None;
    /// 24-bit depth and 8-bit stencil.
    D24UnormS8Uint = 129 "D24_UNORM_S8_UINT", 4, DS, Rgba, gl gl(0x88F0, DEPTH_STENCIL, U24_8), cuda None;
    /// 32-bit float depth and 8-bit stencil.
    D32FloatS8Uint = 130 "D32_SFLOAT_S8_UINT", 8, DS, Rgba, gl gl(0x8CAD, DEPTH_STENCIL, F32_U24_8_REV), cuda None;
    /// BC1 (DXT1): 4 × 4 texels in 8 bytes, with 1 bit of alpha.
    Bc1RgbaUnorm = 133 "BC1_RGBA_UNORM_BLOCK", 8 per 4 x 4, C, Rgba, gl blocks(0x83F1), cuda cuda(CU_BC1, 4);
    /// BC1 (DXT1), colour sRGB-encoded.
    Bc1RgbaSrgb = 134 "BC1_RGBA_SRGB_BLOCK", 8 per 4 x 4, C, Rgba, gl blocks(0x8C4D), cuda cuda(CU_BC1_SRGB, 4);
    /// BC7 (BPTC): 4 × 4 texels in 16 bytes.
    Bc7Unorm = 145 "BC7_UNORM_BLOCK", 16 per 4 x 4, C, Rgba, gl blocks(0x8E8C), cuda cuda(CU_BC7, 4);
    /// BC7 (BPTC), colour sRGB-encoded.
    Bc7Srgb = 146 "BC7_SRGB_BLOCK", 16 per 4 x 4, C, Rgba, gl blocks(0x8E8D), cuda cuda(CU_BC7_SRGB, 4);
}

impl Format {
    /// Returns the `VkFormat` value.
    pub const fn vulkan(self) -> i32 {
        self.row().vk
    }

    /// Returns Vulkan's name of the format, without `VK_FORMAT_`; `RAW` for every raw format.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the bytes per texel block, which is one texel unless the format is compressed. The
    /// same in a linear image and in OpenGL's and CUDA's uploads.
    pub const fn block_bytes(self) -> u32 {
        self.row().bytes
    }

    /// Returns the width and height of a texel block in texels: 1 × 1 unless the format is
    /// compressed.
    pub const fn block_extent(self) -> (u32, u32) {
        self.row().block
    }

    /// Returns whether a texel block has several texels.
    pub const fn is_compressed(self) -> bool {
        !matches!(self.block_extent(), (1, 1))
    }

    /// Returns the bytes of a row of `width` texels, without padding. A row of a compressed format
    /// is a row of blocks, the last of which may reach past the image.
    pub const fn row_bytes(self, width: u32) -> u64 {
        let Row { bytes, block: (across, _), .. } = self.row();
        let across = if across == 0 { 1 } else { across };
        width.div_ceil(across) as u64 * bytes as u64
    }

    /// Returns the number of rows of blocks that store `height` rows of texels: `height` unless the
    /// format is compressed.
    pub const fn rows(self, height: u32) -> u32 {
        let (_, down) = self.row().block;
        height.div_ceil(if down == 0 { 1 } else { down })
    }

    /// Returns what a texel holds.
    pub const fn aspects(self) -> Aspects {
        self.row().aspects
    }

    /// Returns the order of the channels in memory.
    pub const fn channel_order(self) -> ChannelOrder {
        self.row().order
    }

    /// Returns the OpenGL names.
    ///
    /// # Errors
    /// [`Missing`] if OpenGL has no such format.
    pub fn gl(self) -> Result<GlFormat> {
        self.row().gl.ok_or_else(|| self.missing(Api::OpenGl).into())
    }

    /// Returns the CUDA names.
    ///
    /// # Errors
    /// [`Missing`] if CUDA has no such array format.
    pub fn cuda(self) -> Result<CudaFormat> {
        self.row().cuda.ok_or_else(|| self.missing(Api::Cuda).into())
    }

    /// Returns the format with this `VkFormat` value, if the table has it. For one that it lacks,
    /// see [`RawFormat`].
    pub fn from_vulkan(vk_format: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.vulkan() == vk_format)
    }

    /// Returns whether the format is multi-planar.
    pub(crate) const fn is_multi_planar(self) -> bool {
        matches!(self, Self::Raw(raw) if raw.is_multi_planar())
    }

    /// Returns whether OpenGL can render to a texture of the format, and store to one from a
    /// shader.
    pub(crate) fn is_written_by_gl(self) -> bool {
        !self.is_compressed() && self != Self::E5b9g9r9Float
    }

    fn missing(self, api: Api) -> Missing {
        let help = match self {
            Self::Raw(_) => "set its name in that API (RawFormat), if it has the format",
            _ => "share the image in a format that all its APIs have",
        };
        Missing::new(api, format!("the format {self}"), "a shared image").help(help)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(raw) => write!(f, "VkFormat {}", raw.vulkan),
            named => f.write_str(named.name()),
        }
    }
}

impl From<RawFormat> for Format {
    fn from(raw: RawFormat) -> Self {
        Self::Raw(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::check_number;
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_format_is_found_by_its_vulkan_number() {
        for &format in Format::ALL {
            assert_eq!(Format::from_vulkan(format.vulkan()), Some(format));
            assert!(format.block_bytes() > 0 && !format.aspects().is_empty());
            check_number("format", format.vulkan()).unwrap();
        }
        assert_eq!(Format::from_vulkan(0), None);
    }

    #[test]
    fn a_format_that_an_api_lacks_is_named_with_the_api() {
        let error = Format::D24UnormS8Uint.cuda().unwrap_err();
        assert!(matches!(error, Error::Missing(ref m) if m.api == Api::Cuda));
        assert!(error.to_string().contains("D24_UNORM_S8_UINT"), "{error}");
    }

    #[test]
    fn cuda_channels_fill_the_texel() {
        for &format in Format::ALL {
            let Ok(names) = format.cuda() else { continue };
            match names.bytes() {
                Some(bytes) => assert_eq!(bytes, format.block_bytes(), "{format:?}"),
                // Four channels side by side in one word, or in a block.
                None => assert!(format.block_bytes() == 4 || format.is_compressed(), "{format:?}"),
            }
        }
    }

    #[test]
    fn rows_of_a_compressed_format_are_rows_of_whole_blocks() {
        for (format, block, row, rows) in [
            (Format::Rgba8Unorm, (1, 1), 13 * 4, 9),
            (Format::Bc1RgbaUnorm, (4, 4), 4 * 8, 3),
            (Format::Bc7Srgb, (4, 4), 4 * 16, 3),
        ] {
            assert_eq!(format.block_extent(), block);
            assert_eq!((format.row_bytes(13), format.rows(9)), (row, rows), "{format}");
        }
    }

    #[test]
    fn a_raw_format_has_the_names_that_it_was_given() {
        let raw = RawFormat::new(98, 4);
        let format = Format::from(raw.with_cuda(CudaFormat { array_format: CU_U32, channels: 1 }));
        assert_eq!((format.vulkan(), format.block_bytes()), (98, 4));
        assert_eq!(format.cuda().unwrap(), Format::R32Uint.cuda().unwrap());
        let text = format.gl().unwrap_err().to_string();
        assert!(text.contains("VkFormat 98") && text.contains("RawFormat"), "{text}");
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn the_numbers_are_those_of_vulkan() {
        for &format in Format::ALL {
            let named = format!("{:?}", ash::vk::Format::from_raw(format.vulkan()));
            assert_eq!(named, format.name());
        }
    }

    #[cfg(feature = "gl")]
    #[test]
    fn a_depth_format_has_depth_names_in_opengl() {
        for &format in Format::ALL {
            let names = format.gl().unwrap();
            let depth = matches!(names.format, glow::DEPTH_COMPONENT | glow::DEPTH_STENCIL);
            assert_eq!(depth, format.aspects().contains(Aspects::DEPTH), "{format:?}");
            let stencil = matches!(names.format, glow::STENCIL_INDEX | glow::DEPTH_STENCIL);
            assert_eq!(stencil, format.aspects().contains(Aspects::STENCIL), "{format:?}");
        }
    }
}
