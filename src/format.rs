//! The table of formats: the names in Vulkan, OpenGL and CUDA, the texel size and the aspects.
//!
//! The table holds plain numbers, so that it needs no GPU API. Each peer converts them to its own
//! types, and tests compare them with that API's constants.

#![forbid(unsafe_code)]

use bitflags::bitflags;

use crate::error::{Api, Missing, Result};

bitflags! {
    /// What a texel holds.
    #[doc(alias = "VkImageAspectFlags")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GlFormat {
    /// Sized internal format, for `glTextureStorageMem2DEXT`.
    pub internal: u32,
    /// Pixel format for uploads and reads, for `glTexSubImage2D`. With it and [`ty`](Self::ty) the
    /// bytes keep the order that they have in the image, which may be blue first.
    pub format: u32,
    /// Pixel type for uploads and reads.
    pub ty: u32,
}

/// The CUDA names of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CudaFormat {
    /// `CUarray_format`.
    pub array_format: u32,
    /// Channels per array element: 1, 2 or 4.
    pub channels: u32,
}

macro_rules! formats {
    ($( $(#[$doc:meta])* $name:ident = $vk:literal $vk_name:literal, $bytes:literal, $aspects:expr,
        $order:ident, gl $gl:expr, cuda $cuda:expr; )*) => {
        /// A texel format that at least two APIs can share.
        #[doc(alias = "VkFormat")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Format { $( $(#[$doc])* $name, )* }

        impl Format {
            /// All formats of the table.
            pub const ALL: &'static [Format] = &[ $( Format::$name, )* ];

            const fn row(self) -> Row {
                match self { $( Format::$name => Row {
                    vk: $vk, name: $vk_name, bytes: $bytes, aspects: $aspects,
                    order: ChannelOrder::$order, gl: $gl, cuda: $cuda,
                }, )* }
            }
        }
    };
}

struct Row {
    vk: i32,
    name: &'static str,
    bytes: u32,
    aspects: Aspects,
    order: ChannelOrder,
    gl: Option<GlFormat>,
    cuda: Option<CudaFormat>,
}

const fn gl(internal: u32, format: u32, ty: u32) -> Option<GlFormat> {
    Some(GlFormat { internal, format, ty })
}

const fn cuda(array_format: u32, channels: u32) -> Option<CudaFormat> {
    Some(CudaFormat { array_format, channels })
}

const C: Aspects = Aspects::COLOR;
const D: Aspects = Aspects::DEPTH;
const DS: Aspects = Aspects::DEPTH.union(Aspects::STENCIL);

// Pixel formats: GL_RED, GL_RG, GL_RGB, GL_RGBA, the integer ones, depth. Never GL_BGRA: with that,
// OpenGL would swap the bytes on the way to or from an RGBA format.
const R: u32 = 0x1903;
const RG: u32 = 0x8227;
const RGB: u32 = 0x1907;
const RGBA: u32 = 0x1908;
const R_INT: u32 = 0x8D94;
const RGBA_INT: u32 = 0x8D99;
const DEPTH: u32 = 0x1902;
const DEPTH_STENCIL: u32 = 0x84F9;
// Pixel types: GL_BYTE, GL_UNSIGNED_BYTE and so on.
const I8: u32 = 0x1400;
const U8: u32 = 0x1401;
const U16: u32 = 0x1403;
const U32: u32 = 0x1405;
const F32: u32 = 0x1406;
const F16: u32 = 0x140B;
const U565: u32 = 0x8363;
const U2_10_10_10_REV: u32 = 0x8368;
const U24_8: u32 = 0x84FA;
const F32_U24_8_REV: u32 = 0x8DAD;
// CUarray_format: CU_AD_FORMAT_UNSIGNED_INT8 and so on.
const CU_U8: u32 = 0x01;
const CU_U16: u32 = 0x02;
const CU_U32: u32 = 0x03;
const CU_I8: u32 = 0x08;
const CU_F16: u32 = 0x10;
const CU_F32: u32 = 0x20;
/// `CU_AD_FORMAT_UNORM_INT_101010_2`: since CUDA 12.8.
const CU_UNORM_10_10_10_2: u32 = 0x50;

formats! {
    /// One 8-bit channel.
    R8Unorm = 9 "R8_UNORM", 1, C, Rgba, gl gl(0x8229, R, U8), cuda cuda(CU_U8, 1);
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
    /// 10, 10, 10 and 2 bits, red in the low bits of a 32-bit word.
    Rgb10a2Unorm = 64 "A2B10G10R10_UNORM_PACK32", 4, C, Rgba, gl gl(0x8059, RGBA, U2_10_10_10_REV), cuda cuda(CU_UNORM_10_10_10_2, 4);
    /// One 16-bit float.
    R16Float = 76 "R16_SFLOAT", 2, C, Rgba, gl gl(0x822D, R, F16), cuda cuda(CU_F16, 1);
    /// Two 16-bit floats.
    Rg16Float = 83 "R16G16_SFLOAT", 4, C, Rgba, gl gl(0x822F, RG, F16), cuda cuda(CU_F16, 2);
    /// Four unsigned 16-bit integers.
    Rgba16Uint = 95 "R16G16B16A16_UINT", 8, C, Rgba, gl gl(0x8D76, RGBA_INT, U16), cuda cuda(CU_U16, 4);
    /// Four 16-bit floats.
    Rgba16Float = 97 "R16G16B16A16_SFLOAT", 8, C, Rgba, gl gl(0x881A, RGBA, F16), cuda cuda(CU_F16, 4);
    /// One unsigned 32-bit integer.
    R32Uint = 98 "R32_UINT", 4, C, Rgba, gl gl(0x8236, R_INT, U32), cuda cuda(CU_U32, 1);
    /// One 32-bit float.
    R32Float = 100 "R32_SFLOAT", 4, C, Rgba, gl gl(0x822E, R, F32), cuda cuda(CU_F32, 1);
    /// Four unsigned 32-bit integers.
    Rgba32Uint = 107 "R32G32B32A32_UINT", 16, C, Rgba, gl gl(0x8D70, RGBA_INT, U32), cuda cuda(CU_U32, 4);
    /// Four 32-bit floats.
    Rgba32Float = 109 "R32G32B32A32_SFLOAT", 16, C, Rgba, gl gl(0x8814, RGBA, F32), cuda cuda(CU_F32, 4);
    /// 16-bit depth.
    D16Unorm = 124 "D16_UNORM", 2, D, Rgba, gl gl(0x81A5, DEPTH, U16), cuda None;
    /// 32-bit float depth.
    D32Float = 126 "D32_SFLOAT", 4, D, Rgba, gl gl(0x8CAC, DEPTH, F32), cuda None;
    /// 24-bit depth and 8-bit stencil.
    D24UnormS8Uint = 129 "D24_UNORM_S8_UINT", 4, DS, Rgba, gl gl(0x88F0, DEPTH_STENCIL, U24_8), cuda None;
    /// 32-bit float depth and 8-bit stencil.
    D32FloatS8Uint = 130 "D32_SFLOAT_S8_UINT", 8, DS, Rgba, gl gl(0x8CAD, DEPTH_STENCIL, F32_U24_8_REV), cuda None;
}

impl Format {
    /// Returns the `VkFormat` value.
    pub const fn vulkan(self) -> i32 {
        self.row().vk
    }

    /// Returns Vulkan's name of the format, without `VK_FORMAT_`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the bytes per texel in a linear image, and in OpenGL's and CUDA's uploads.
    pub const fn texel_bytes(self) -> u32 {
        self.row().bytes
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

    /// Returns the format with this `VkFormat` value, if the table has it.
    pub fn from_vulkan(vk_format: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.vulkan() == vk_format)
    }

    fn missing(self, api: Api) -> Missing {
        Missing::new(api, format!("the format {}", self.name()), "a shared image")
            .help("share the image in a format that all its APIs have")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_format_is_found_by_its_vulkan_number() {
        for &format in Format::ALL {
            assert_eq!(Format::from_vulkan(format.vulkan()), Some(format));
            assert!(format.texel_bytes() > 0 && !format.aspects().is_empty());
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
            let bytes = match names.array_format {
                CU_U8 | CU_I8 => names.channels,
                CU_U16 | CU_F16 => names.channels * 2,
                // Four channels side by side in one word.
                CU_UNORM_10_10_10_2 => 4,
                _ => names.channels * 4,
            };
            assert_eq!(bytes, format.texel_bytes(), "{format:?}");
        }
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
            let stencil = names.format == glow::DEPTH_STENCIL;
            assert_eq!(stencil, format.aspects().contains(Aspects::STENCIL), "{format:?}");
        }
    }
}
