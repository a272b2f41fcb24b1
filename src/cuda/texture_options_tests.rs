use super::*;
use crate::desc::{Extent, ImageUsage};
use crate::error::Error;

const AS_INTEGER: u32 = 1;
const NORMALIZED: u32 = 2;
const SRGB: u32 = 0x10;
const SEAMLESS: u32 = 0x40;

fn flags(options: TextureOptions, format: Format) -> Result<u32> {
    let desc = ImageDesc::d2(format, 4, 4, ImageUsage::SAMPLED);
    options.flags(&desc, format.cuda()?.array_format)
}

fn refused(options: TextureOptions, format: Format) -> String {
    match flags(options, format) {
        Err(Error::Invalid(invalid)) => invalid.to_string(),
        other => panic!("{options:?} of {format:?}: {other:?}"),
    }
}

/// The table of [`ReadMode`]: flags of `AsFormat`, `Stored`, `Normalized` and `DecodeSrgb`.
const TABLE: [(Format, [Option<u32>; 4]); 16] = [
    (Format::R8Unorm, [Some(0), Some(AS_INTEGER), Some(0), Some(SRGB)]),
    (Format::Rg8Unorm, [Some(0), Some(AS_INTEGER), Some(0), None]),
    (Format::Rgba8Unorm, [Some(0), Some(AS_INTEGER), Some(0), Some(SRGB)]),
    (Format::Bgra8Unorm, [Some(0), Some(AS_INTEGER), Some(0), Some(SRGB)]),
    (Format::Rgba8Snorm, [Some(0), Some(AS_INTEGER), Some(0), None]),
    (Format::Rgba8Srgb, [Some(SRGB), Some(AS_INTEGER), Some(0), Some(SRGB)]),
    (Format::Bgra8Srgb, [Some(SRGB), Some(AS_INTEGER), Some(0), Some(SRGB)]),
    (Format::Rgb10a2Unorm, [Some(0), None, Some(0), None]),
    (Format::Rgba8Uint, [Some(AS_INTEGER), Some(AS_INTEGER), Some(0), Some(SRGB)]),
    (Format::Rgba16Uint, [Some(AS_INTEGER), Some(AS_INTEGER), Some(0), None]),
    (Format::R32Uint, [Some(0), Some(0), None, None]),
    (Format::Rgba32Uint, [Some(0), Some(0), None, None]),
    (Format::R16Float, [Some(0), Some(0), None, None]),
    (Format::Rgba16Float, [Some(0), Some(0), None, None]),
    (Format::R32Float, [Some(0), Some(0), None, None]),
    (Format::Rgba32Float, [Some(0), Some(0), None, None]),
];

#[test]
fn each_format_is_read_as_the_table_says() {
    let modes = [ReadMode::AsFormat, ReadMode::Stored, ReadMode::Normalized, ReadMode::DecodeSrgb];
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
fn every_format_that_cuda_has_can_be_read_as_it_is() {
    for &format in Format::ALL {
        if format.cuda().is_ok() {
            flags(TextureOptions::texels(), format).unwrap();
        }
    }
}

#[test]
fn only_floats_are_filtered() {
    let linear = TextureOptions { filter: Filter::Linear, ..TextureOptions::texels() };
    let between_levels = TextureOptions { mip_filter: Filter::Linear, ..TextureOptions::texels() };
    for options in [linear, between_levels] {
        for (format, [as_format, ..]) in TABLE {
            let is_integer = format.name().contains("UINT");
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
fn an_image_repeats_only_with_normalized_coordinates() {
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

#[test]
fn anisotropy_and_seams_are_within_reason() {
    for max_anisotropy in [0, 17] {
        let options = TextureOptions { max_anisotropy, ..TextureOptions::sampled() };
        assert!(refused(options, Format::R8Unorm).contains("options.max_anisotropy"));
    }
    let seamless = TextureOptions { seamless_cube: true, ..TextureOptions::sampled() };
    assert!(refused(seamless, Format::R8Unorm).contains("options.seamless_cube"));
    let cube = ImageDesc {
        kind: ImageKind::Cube,
        layers: 6,
        extent: Extent { width: 4, height: 4, depth: 1 },
        ..ImageDesc::d2(Format::R8Unorm, 4, 4, ImageUsage::SAMPLED)
    };
    assert_eq!(seamless.flags(&cube, 1).unwrap(), NORMALIZED | SEAMLESS);
}
