//! How a texture object reads.

use cudarc::driver::sys;

use super::array_shape::UNORM_101010_2;
use super::workarounds::NVIDIA_DECODES_RED_OF_TWO_CHANNELS;
use crate::desc::{ImageDesc, ImageKind};
use crate::error::{Invalid, Result};
use crate::format::Format;

/// `CU_TRSF_SEAMLESS_CUBEMAP`, which cudarc has only where it is built for CUDA 11.6 or newer.
const SEAMLESS_CUBEMAP: u32 = 0x40;

/// What a kernel gets from a texel.
///
/// | format | `AsFormat` | `Stored` | `Normalized` |
/// |---|---|---|---|
/// | `UNORM` of 8 bits | floats from 0 to 1 | unsigned integers | floats from 0 to 1 |
/// | `SNORM` of 8 bits | floats from -1 to 1 | signed integers | floats from -1 to 1 |
/// | `SRGB` | floats from 0 to 1, the colour linear | unsigned integers, still encoded | floats from 0 to 1, still encoded |
/// | `A2B10G10R10_UNORM_PACK32` | floats from 0 to 1 | refused | floats from 0 to 1 |
/// | `UINT` of 8 or 16 bits | unsigned integers | unsigned integers | floats from 0 to 1 |
/// | `UINT` of 32 bits | unsigned integers | unsigned integers | refused |
/// | `SFLOAT` | floats | floats | refused |
///
/// "Floats" is `tex2D<float4>` and its kin, "unsigned integers" `tex2D<uint4>` or `tex2D<uchar4>`,
/// "signed integers" `tex2D<int4>`: a kernel that asks for the other gets the bits of one as the
/// other. 16-bit floats arrive as `float`. Both -128 and -127 of a signed byte arrive as -1.
///
/// Red comes first, but in a format that stores blue first, `x` is blue and `z` is red: CUDA has no
/// swizzle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// What Vulkan's and OpenGL's samplers give for the format.
    #[default]
    AsFormat,
    /// The numbers that are stored (`CU_TRSF_READ_AS_INTEGER` for integers).
    Stored,
    /// Integers of 8 and 16 bits as floats, as they are stored.
    Normalized,
    /// Bytes as floats, red, green and blue decoded from sRGB, whatever the format's name says
    /// (`CU_TRSF_SRGB`). For formats of one or four unsigned bytes.
    DecodeSrgb,
}

/// What a coordinate outside of the image reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddressMode {
    /// The texel at the edge.
    #[default]
    Clamp,
    /// The border's colour.
    Border,
    /// The image again. For normalized coordinates.
    Wrap,
    /// The image again, every other time mirrored. For normalized coordinates.
    Mirror,
}

/// What a coordinate between two texels, or two levels, reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The nearer one.
    #[default]
    Point,
    /// Something in between. For reads that give floats.
    Linear,
}

/// How a texture object reads.
///
/// ```
/// use gpu_interop::cuda::{AddressMode, TextureOptions};
///
/// let tiled = TextureOptions { address: [AddressMode::Wrap; 3], ..TextureOptions::sampled() };
/// assert!(tiled.normalized_coordinates);
/// ```
///
/// # References
/// `CUDA_TEXTURE_DESC`, under `cuTexObjectCreate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextureOptions {
    /// What a kernel gets from a texel.
    pub read: ReadMode,
    /// Between texels.
    pub filter: Filter,
    /// Between levels.
    pub mip_filter: Filter,
    /// Outside of the image, in x, y and z.
    pub address: [AddressMode; 3],
    /// Coordinates from 0 to 1 across the image (`CU_TRSF_NORMALIZED_COORDINATES`); else they count
    /// texels, and the middle of the first is at 0.5. A texture of all levels has to have them.
    pub normalized_coordinates: bool,
    /// Red, green, blue and alpha outside of the image, for [`AddressMode::Border`]. Where the read
    /// gives integers, these are their bits.
    pub border_color: [f32; 4],
    /// Most samples that a slanting look takes: 1 to 16.
    pub max_anisotropy: u32,
    /// Linear filtering goes across the edges of a cube's faces (`CU_TRSF_SEAMLESS_CUBEMAP`, of CUDA
    /// 11.6), as in Vulkan. For cubes.
    pub seamless_cube: bool,
}

impl TextureOptions {
    /// Texel by texel, as they are: coordinates count texels, and nothing is filtered.
    pub const fn texels() -> Self {
        Self {
            read: ReadMode::AsFormat,
            filter: Filter::Point,
            mip_filter: Filter::Point,
            address: [AddressMode::Clamp; 3],
            normalized_coordinates: false,
            border_color: [0.0; 4],
            max_anisotropy: 1,
            seamless_cube: false,
        }
    }

    /// As a picture: normalized coordinates, linear filtering in and between levels.
    pub const fn sampled() -> Self {
        Self {
            filter: Filter::Linear,
            mip_filter: Filter::Linear,
            normalized_coordinates: true,
            ..Self::texels()
        }
    }

    /// The flags of `CU_TRSF_` for an image of `desc`, whose format is `array_format` in CUDA.
    ///
    /// # Errors
    /// [`Invalid`] for what CUDA's documentation rules out, and for what CUDA would silently read
    /// otherwise.
    pub(crate) fn flags(&self, desc: &ImageDesc, array_format: u32) -> Result<u32> {
        let (mut flags, gives) = read_flags(self.read, desc.format, array_format)?;
        let is_linear = self.filter == Filter::Linear || self.mip_filter == Filter::Linear;
        if is_linear && gives == Gives::Integers {
            let problem = format!("linear, but {} is read as integers", desc.format.name());
            return Err(Invalid::new("options.filter", problem)
                .help("read as floats (ReadMode::Normalized), or don't filter")
                .into());
        }
        let repeats = |mode| matches!(mode, AddressMode::Wrap | AddressMode::Mirror);
        if !self.normalized_coordinates && self.address.into_iter().any(repeats) {
            // CUDA would clamp instead.
            let problem = format!("{:?} with coordinates that count texels", self.address);
            return Err(Invalid::new("options.address", problem)
                .help("use normalized coordinates to repeat an image")
                .into());
        }
        if !(1..=16).contains(&self.max_anisotropy) {
            let problem = format!("{}, not from 1 to 16", self.max_anisotropy);
            return Err(Invalid::new("options.max_anisotropy", problem).into());
        }
        if self.normalized_coordinates {
            flags |= sys::CU_TRSF_NORMALIZED_COORDINATES;
        }
        if self.seamless_cube {
            if desc.kind != ImageKind::Cube {
                let problem = format!("for an image that is {:?}", desc.kind);
                return Err(Invalid::new("options.seamless_cube", problem).into());
            }
            flags |= SEAMLESS_CUBEMAP;
        }
        Ok(flags)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Integers,
    Floats,
}

/// What a channel of an array format is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    /// 8 or 16 bits: read as an integer with `CU_TRSF_READ_AS_INTEGER`, else promoted to a float.
    Short,
    /// 32 bits: never promoted.
    Integer,
    Float,
    /// Always promoted.
    Normalized,
}

fn read_flags(read: ReadMode, format: Format, array_format: u32) -> Result<(u32, Gives)> {
    const BYTE: u32 = sys::CUarray_format::CU_AD_FORMAT_UNSIGNED_INT8 as u32;
    let channel = channel(array_format);
    let as_stored = match channel {
        Channel::Short => Some((sys::CU_TRSF_READ_AS_INTEGER, Gives::Integers)),
        Channel::Integer => Some((0, Gives::Integers)),
        Channel::Float => Some((0, Gives::Floats)),
        Channel::Normalized => None,
    };
    let normalized = match channel {
        Channel::Short | Channel::Normalized => Some((0, Gives::Floats)),
        Channel::Integer | Channel::Float => None,
    };
    let decodes =
        array_format == BYTE && !(NVIDIA_DECODES_RED_OF_TWO_CHANNELS && format == Format::Rg8Unorm);
    let decoded = decodes.then_some((sys::CU_TRSF_SRGB, Gives::Floats));
    let found = match read {
        ReadMode::AsFormat => match numeric(format) {
            Numeric::Plain => as_stored,
            Numeric::Normalized => normalized,
            Numeric::Srgb => decoded,
        },
        ReadMode::Stored => as_stored,
        ReadMode::Normalized => normalized,
        ReadMode::DecodeSrgb => decoded,
    };
    found.ok_or_else(|| {
        Invalid::new("options.read", format!("{read:?} can't be had of {}", format.name()))
            .help("ReadMode::AsFormat can be had of every format")
            .into()
    })
}

fn channel(array_format: u32) -> Channel {
    use sys::CUarray_format::*;
    const SHORT: [u32; 4] = [
        CU_AD_FORMAT_UNSIGNED_INT8 as u32,
        CU_AD_FORMAT_UNSIGNED_INT16 as u32,
        CU_AD_FORMAT_SIGNED_INT8 as u32,
        CU_AD_FORMAT_SIGNED_INT16 as u32,
    ];
    const FLOAT: [u32; 2] = [CU_AD_FORMAT_HALF as u32, CU_AD_FORMAT_FLOAT as u32];
    match array_format {
        UNORM_101010_2 => Channel::Normalized,
        other if SHORT.contains(&other) => Channel::Short,
        other if FLOAT.contains(&other) => Channel::Float,
        _ => Channel::Integer,
    }
}

/// What a format's numbers mean, beyond what CUDA knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numeric {
    /// Themselves.
    Plain,
    /// Fractions of the largest.
    Normalized,
    /// As above, the colour sRGB-encoded.
    Srgb,
}

fn numeric(format: Format) -> Numeric {
    // Vulkan's names say it.
    let name = format.name();
    if name.contains("SRGB") {
        Numeric::Srgb
    } else if name.contains("NORM") {
        Numeric::Normalized
    } else {
        Numeric::Plain
    }
}

#[cfg(test)]
#[path = "texture_options_tests.rs"]
mod tests;
