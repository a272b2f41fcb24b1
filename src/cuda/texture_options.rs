//! How a texture object reads an image.

use cudarc::driver::sys;

use super::array_shape::UNORM_101010_2;
use crate::error::{Invalid, Result};
use crate::format::Format;

/// The values that a kernel reads.
///
/// | format | `AsFormat` | `Stored` | `Normalized` |
/// |---|---|---|---|
/// | `UNORM` of 8 or 16 bits | floats from 0 to 1 | unsigned integers | floats from 0 to 1 |
/// | `SNORM` of 8 bits | floats from -1 to 1 | signed integers | floats from -1 to 1 |
/// | `SRGB` | floats from 0 to 1, the colour linear | unsigned integers, still encoded | floats from 0 to 1, still encoded |
/// | `A2B10G10R10_UNORM_PACK32`, `A2R10G10B10_UNORM_PACK32` | floats from 0 to 1 | refused | floats from 0 to 1 |
/// | BC1, BC7 (`UNORM`) | floats from 0 to 1 | refused | floats from 0 to 1 |
/// | BC1, BC7 (`SRGB`) | floats from 0 to 1, the colour linear | refused | refused |
/// | `UINT` of 8 or 16 bits | unsigned integers | unsigned integers | floats from 0 to 1 |
/// | `UINT` of 32 bits | unsigned integers | unsigned integers | refused |
/// | `SINT` of 8 or 16 bits | signed integers | signed integers | floats from -1 to 1 |
/// | `SFLOAT` | floats | floats | refused |
/// | a [raw format](crate::format::RawFormat) | as `Stored`, or if that is refused as `Normalized` | by its CUDA format | by its CUDA format |
///
/// A kernel reads floats with `tex2D<float4>` (or another texture function), unsigned integers with
/// `tex2D<uint4>` or `tex2D<uchar4>`, and signed integers with `tex2D<int4>`; with another type it
/// reads the bits of the value. 16-bit floats are read as `float`. The signed bytes -128 and -127
/// are both read as -1.
///
/// `x` is red and `z` is blue, except in a format that stores blue first, because CUDA has no
/// swizzle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadMode {
    /// As Vulkan's and OpenGL's samplers read the format.
    #[default]
    AsFormat,
    /// The stored numbers (`CU_TRSF_READ_AS_INTEGER` for integers).
    Stored,
    /// Integers of 8 and 16 bits as floats, without decoding.
    Normalized,
    /// Bytes as floats, with red, green and blue decoded from sRGB, also for a format that is not
    /// `SRGB` (`CU_TRSF_SRGB`). For formats of one or four unsigned bytes, and the compressed
    /// `SRGB` formats.
    DecodeSrgb,
}

/// The texel that is read at a coordinate outside the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AddressMode {
    /// The texel at the edge.
    #[default]
    Clamp,
    /// [`TextureOptions::border_color`].
    Border,
    /// The image, repeated. Requires normalized coordinates.
    Wrap,
    /// The image, repeated and mirrored. Requires normalized coordinates.
    Mirror,
}

/// The value that is read at a coordinate between two texels or two levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The nearest one.
    #[default]
    Point,
    /// Interpolated linearly. Requires a read mode that returns floats.
    Linear,
}

/// How a texture object reads an image.
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
    /// The values that a kernel reads.
    pub read: ReadMode,
    /// The filter between texels.
    pub filter: Filter,
    /// The filter between levels.
    pub mip_filter: Filter,
    /// The mode for coordinates outside the image, in x, y and z.
    pub address: [AddressMode; 3],
    /// Whether coordinates run from 0 to 1 across the image (`CU_TRSF_NORMALIZED_COORDINATES`).
    /// Otherwise they count texels, and the centre of the first is at 0.5. A texture of all levels
    /// requires normalized coordinates.
    pub normalized_coordinates: bool,
    /// Red, green, blue and alpha for [`AddressMode::Border`]. If the read mode returns integers,
    /// these are their bits.
    pub border_color: [f32; 4],
    /// The maximum anisotropy ratio, 1 to 16; CUDA clamps other values.
    pub max_anisotropy: u32,
}

impl TextureOptions {
    /// Returns the options for reading single texels: coordinates count texels and are clamped to
    /// the edge, without filtering.
    pub const fn texels() -> Self {
        Self {
            read: ReadMode::AsFormat,
            filter: Filter::Point,
            mip_filter: Filter::Point,
            address: [AddressMode::Clamp; 3],
            normalized_coordinates: false,
            border_color: [0.0; 4],
            max_anisotropy: 1,
        }
    }

    /// Returns the options for sampling an image: normalized coordinates, clamped to the edge, and
    /// linear filtering within and between levels.
    pub const fn sampled() -> Self {
        Self {
            filter: Filter::Linear,
            mip_filter: Filter::Linear,
            normalized_coordinates: true,
            ..Self::texels()
        }
    }

    /// Returns the `CU_TRSF_` flags for an image of `format`, which is `array_format` in CUDA.
    ///
    /// # Errors
    /// [`Invalid`] for combinations that CUDA's documentation excludes, and for those with which
    /// CUDA would silently read other values.
    pub(crate) fn flags(&self, format: Format, array_format: u32) -> Result<u32> {
        let (mut flags, values) = read_flags(self.read, format, array_format)?;
        let is_linear = self.filter == Filter::Linear || self.mip_filter == Filter::Linear;
        if is_linear && values == Values::Integers {
            let problem = format!("is linear, but {format} is read as integers");
            return Err(Invalid::new("options.filter", problem)
                .help("read floats (ReadMode::Normalized), or use Filter::Point")
                .into());
        }
        let repeats = |mode| matches!(mode, AddressMode::Wrap | AddressMode::Mirror);
        if !self.normalized_coordinates && self.address.into_iter().any(repeats) {
            // CUDA would clamp instead.
            let problem = format!("are {:?}, but coordinates count texels", self.address);
            return Err(Invalid::new("options.address", problem)
                .help("use normalized coordinates to repeat an image")
                .into());
        }
        if self.normalized_coordinates {
            flags |= sys::CU_TRSF_NORMALIZED_COORDINATES;
        }
        Ok(flags)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Integers,
    Floats,
}

/// How CUDA stores and promotes a channel of an array format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    /// 8 or 16 bits: an integer with `CU_TRSF_READ_AS_INTEGER`, otherwise promoted to a float.
    Short,
    /// 32 bits: never promoted.
    Integer,
    Float,
    /// Always promoted.
    Normalized,
    /// Always promoted, and decoded from sRGB.
    Decoded,
}

fn read_flags(read: ReadMode, format: Format, array_format: u32) -> Result<(u32, Values)> {
    const BYTE: u32 = sys::CUarray_format::CU_AD_FORMAT_UNSIGNED_INT8 as u32;
    let channel = channel(array_format);
    let as_stored = match channel {
        Channel::Short => Some((sys::CU_TRSF_READ_AS_INTEGER, Values::Integers)),
        Channel::Integer => Some((0, Values::Integers)),
        Channel::Float => Some((0, Values::Floats)),
        Channel::Normalized | Channel::Decoded => None,
    };
    let normalized = match channel {
        Channel::Short | Channel::Normalized => Some((0, Values::Floats)),
        Channel::Integer | Channel::Float | Channel::Decoded => None,
    };
    // Not of two channels: the workaround NVIDIA_SRGB_DECODES_ONLY_RED_OF_TWO_CHANNELS.
    let is_bytes = array_format == BYTE && format != Format::Rg8Unorm;
    let is_decoded = is_bytes || channel == Channel::Decoded;
    let decoded = is_decoded.then_some((sys::CU_TRSF_SRGB, Values::Floats));
    let found = match read {
        ReadMode::AsFormat if matches!(format, Format::Raw(_)) => as_stored.or(normalized),
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
        Invalid::new("options.read", format!("{read:?} is not possible for {format}"))
            .help("ReadMode::AsFormat is possible for every format")
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
        // CU_AD_FORMAT_BC1_UNORM to BC3 and BC7, with sRGB after UNORM; BC4 and BC5; BC6H.
        0x92 | 0x94 | 0x96 | 0x9e => Channel::Decoded,
        0x91 | 0x93 | 0x95 | 0x97..=0x9a | 0x9d => Channel::Normalized,
        0x9b | 0x9c => Channel::Float,
        other if SHORT.contains(&other) => Channel::Short,
        other if FLOAT.contains(&other) => Channel::Float,
        _ => Channel::Integer,
    }
}

/// The meaning of a format's numbers, which CUDA's array formats don't express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numeric {
    /// The numbers themselves.
    Plain,
    /// Fractions of the largest number.
    Normalized,
    /// Fractions, with sRGB-encoded colour.
    Srgb,
}

fn numeric(format: Format) -> Numeric {
    // Part of Vulkan's names of the formats.
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
mod tests {
    use super::*;
    use crate::error::Error;

    const AS_INTEGER: u32 = 1;
    const NORMALIZED: u32 = 2;
    const SRGB: u32 = 0x10;

    fn flags(options: TextureOptions, format: Format) -> Result<u32> {
        options.flags(format, format.cuda()?.array_format)
    }

    fn refused(options: TextureOptions, format: Format) -> String {
        match flags(options, format) {
            Err(Error::Invalid(invalid)) => invalid.to_string(),
            other => panic!("{options:?} of {format:?}: {other:?}"),
        }
    }

    /// The table of [`ReadMode`]: flags of `AsFormat`, `Stored`, `Normalized` and `DecodeSrgb`.
    const TABLE: [(Format, [Option<u32>; 4]); 25] = [
        (Format::R8Unorm, [Some(0), Some(AS_INTEGER), Some(0), Some(SRGB)]),
        (Format::Rg8Unorm, [Some(0), Some(AS_INTEGER), Some(0), None]),
        (Format::Rgba8Unorm, [Some(0), Some(AS_INTEGER), Some(0), Some(SRGB)]),
        (Format::Bgra8Unorm, [Some(0), Some(AS_INTEGER), Some(0), Some(SRGB)]),
        (Format::Rgba8Snorm, [Some(0), Some(AS_INTEGER), Some(0), None]),
        (Format::Rgba8Srgb, [Some(SRGB), Some(AS_INTEGER), Some(0), Some(SRGB)]),
        (Format::Bgra8Srgb, [Some(SRGB), Some(AS_INTEGER), Some(0), Some(SRGB)]),
        (Format::Rgb10a2Unorm, [Some(0), None, Some(0), None]),
        (Format::Bc1RgbaUnorm, [Some(0), None, Some(0), None]),
        (Format::Bc1RgbaSrgb, [Some(SRGB), None, None, Some(SRGB)]),
        (Format::Bc7Unorm, [Some(0), None, Some(0), None]),
        (Format::Bc7Srgb, [Some(SRGB), None, None, Some(SRGB)]),
        (Format::Rgba8Uint, [Some(AS_INTEGER), Some(AS_INTEGER), Some(0), Some(SRGB)]),
        (Format::Rgba16Uint, [Some(AS_INTEGER), Some(AS_INTEGER), Some(0), None]),
        (Format::R32Uint, [Some(0), Some(0), None, None]),
        (Format::Rgba32Uint, [Some(0), Some(0), None, None]),
        (Format::R16Float, [Some(0), Some(0), None, None]),
        (Format::Rgba16Float, [Some(0), Some(0), None, None]),
        (Format::R32Float, [Some(0), Some(0), None, None]),
        (Format::Rgba32Float, [Some(0), Some(0), None, None]),
        (Format::Bgr10a2Unorm, [Some(0), None, Some(0), None]),
        (Format::Rg16Unorm, [Some(0), Some(AS_INTEGER), Some(0), None]),
        (Format::R8Uint, [Some(AS_INTEGER), Some(AS_INTEGER), Some(0), Some(SRGB)]),
        (Format::R8Sint, [Some(AS_INTEGER), Some(AS_INTEGER), Some(0), None]),
        (Format::Rg16Sint, [Some(AS_INTEGER), Some(AS_INTEGER), Some(0), None]),
    ];

    #[test]
    fn each_format_is_read_by_the_table() {
        let modes =
            [ReadMode::AsFormat, ReadMode::Stored, ReadMode::Normalized, ReadMode::DecodeSrgb];
        for (format, expected) in TABLE {
            for (read, expected) in modes.into_iter().zip(expected) {
                let options = TextureOptions { read, ..TextureOptions::texels() };
                match expected {
                    Some(expected) => assert_eq!(flags(options, format).unwrap(), expected),
                    None => {
                        let refused = refused(options, format);
                        assert!(refused.contains(format.name()), "{refused}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_format_of_cuda_can_be_read_as_format() {
        for &format in Format::ALL {
            if format.cuda().is_ok() {
                flags(TextureOptions::texels(), format).unwrap();
            }
        }
    }

    #[test]
    fn only_floats_are_filtered() {
        let linear = TextureOptions { filter: Filter::Linear, ..TextureOptions::texels() };
        let between_levels =
            TextureOptions { mip_filter: Filter::Linear, ..TextureOptions::texels() };
        for options in [linear, between_levels] {
            for (format, [as_format, ..]) in TABLE {
                let is_integer = ["UINT", "SINT"].iter().any(|kind| format.name().contains(kind));
                if is_integer {
                    assert!(refused(options, format).contains("options.filter"));
                } else {
                    assert_eq!(Some(flags(options, format).unwrap()), as_format, "{format:?}");
                }
            }
        }
        let as_floats = TextureOptions { read: ReadMode::Normalized, ..linear };
        assert_eq!(flags(as_floats, Format::Rgba8Uint).unwrap(), 0);
        let as_integers = TextureOptions { read: ReadMode::Stored, ..linear };
        assert!(refused(as_integers, Format::Rgba8Unorm).contains("R8G8B8A8_UNORM"));
    }

    #[test]
    fn an_image_is_repeated_only_with_normalized_coordinates() {
        for mode in [AddressMode::Wrap, AddressMode::Mirror] {
            let address = [AddressMode::Clamp, mode, AddressMode::Clamp];
            let options = TextureOptions { address, ..TextureOptions::texels() };
            assert!(refused(options, Format::R8Unorm).contains("options.address"));
            let options = TextureOptions { address, ..TextureOptions::sampled() };
            assert_eq!(flags(options, Format::R8Unorm).unwrap(), NORMALIZED);
        }
        let border = [AddressMode::Border; 3];
        let options = TextureOptions { address: border, ..TextureOptions::texels() };
        assert_eq!(flags(options, Format::R8Unorm).unwrap(), 0);
    }
}
