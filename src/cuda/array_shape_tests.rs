use super::*;
use crate::error::Error;
use crate::format::Format;
use proptest::prelude::*;

fn image(kind: ImageKind, width: u32, height: u32, depth: u32, layers: u32) -> ImageDesc {
    let extent = Extent { width, height, depth };
    let plain = ImageDesc::d2(Format::Rgba8Unorm, 1, 1, ImageUsage::SAMPLED);
    ImageDesc { kind, extent, layers, ..plain }
}

fn missing(result: Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(Error::Missing(missing)) => {
            assert!(missing.api == Api::Cuda, "{missing}");
            missing.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_of_image_is_the_kind_of_array_that_the_documentation_says() {
    let (surface, layered, cube) = (2, 1, 4);
    for (desc, extent, flags, kind) in [
        (image(ImageKind::D1, 7, 1, 1, 1), [7, 0, 0], surface, Kind::One),
        (image(ImageKind::D1, 7, 1, 1, 3), [7, 0, 3], surface | layered, Kind::OneLayered),
        (image(ImageKind::D2, 7, 5, 1, 1), [7, 5, 0], surface, Kind::Two),
        (image(ImageKind::D2, 7, 1, 1, 1), [7, 1, 0], surface, Kind::Two),
        (image(ImageKind::D2, 7, 5, 1, 3), [7, 5, 3], surface | layered, Kind::TwoLayered),
        (image(ImageKind::D2, 7, 7, 1, 6), [7, 7, 6], surface | layered, Kind::TwoLayered),
        (image(ImageKind::D3, 7, 5, 3, 1), [7, 5, 3], surface, Kind::Three),
        (image(ImageKind::D3, 7, 1, 1, 1), [7, 1, 1], surface, Kind::Three),
        (image(ImageKind::Cube, 7, 7, 1, 6), [7, 7, 6], surface | cube, Kind::Cube),
        (
            image(ImageKind::Cube, 7, 7, 1, 12),
            [7, 7, 12],
            surface | cube | layered,
            Kind::CubeLayered,
        ),
    ] {
        desc.validate().unwrap();
        let shape = Shape::of(&desc).unwrap();
        assert_eq!([shape.width, shape.height, shape.depth], extent, "{desc:?}");
        assert_eq!((shape.flags, shape.kind()), (flags, kind), "{desc:?}");
        assert_eq!((shape.format.array_format, shape.format.channels), (1, 4));
    }
}

#[test]
fn a_colour_target_is_said_to_be_one_and_nothing_else_is() {
    for (usage, flag) in [
        (ImageUsage::SAMPLED | ImageUsage::STORAGE, 0),
        (ImageUsage::SAMPLED | ImageUsage::COLOR_ATTACHMENT, sys::CUDA_ARRAY3D_COLOR_ATTACHMENT),
    ] {
        let shape = Shape::of(&ImageDesc::d2(Format::R8Unorm, 4, 4, usage)).unwrap();
        assert_eq!(shape.flags & sys::CUDA_ARRAY3D_COLOR_ATTACHMENT, flag);
    }
}

#[test]
fn formats_and_samples_that_cuda_lacks_are_named() {
    let depth = ImageDesc::d2(Format::D32Float, 4, 4, ImageUsage::SAMPLED);
    assert!(missing(Shape::of(&depth)).contains("D32_SFLOAT"));
    let samples = ImageDesc { samples: 4, ..image(ImageKind::D2, 4, 4, 1, 1) };
    assert!(missing(Shape::of(&samples)).contains("4 samples"));
    let packed = ImageDesc::d2(Format::Rgb10a2Unorm, 4, 4, ImageUsage::SAMPLED);
    let shape = Shape::of(&packed).unwrap();
    shape.check_driver(|| Ok(12080)).unwrap();
    assert!(missing(shape.check_driver(|| Ok(12070))).contains("101010_2"));
    let plain = Shape::of(&image(ImageKind::D2, 4, 4, 1, 1)).unwrap();
    plain.check_driver(|| panic!("the version doesn't matter")).unwrap();
}

/// What an H200 tells, made smaller for three dimensions.
fn told(attribute: Attribute) -> Result<i32> {
    use sys::CUdevice_attribute::*;
    Ok(match attribute {
        CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH
        | CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT
        | CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH => 100,
        CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH_ALTERNATE
        | CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT_ALTERNATE => 50,
        CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE => 200,
        CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_LAYERS
        | CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS
        | CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_LAYERED_LAYERS
        | CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_LAYERS => 2048,
        CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS
        | CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_LAYERED_LAYERS => 2046,
        _ => 32768,
    })
}

#[test]
fn sizes_over_the_devices_limits_are_refused_with_the_limits() {
    let check = |desc| Shape::of(&desc).unwrap().check_limits(told);
    for good in [
        image(ImageKind::D1, 32768, 1, 1, 1),
        image(ImageKind::D1, 32768, 1, 1, 2048),
        image(ImageKind::D2, 32768, 32768, 1, 1),
        image(ImageKind::D2, 32768, 32768, 1, 2048),
        image(ImageKind::D3, 100, 100, 100, 1),
        image(ImageKind::D3, 50, 50, 200, 1),
        image(ImageKind::Cube, 32768, 32768, 1, 6),
        image(ImageKind::Cube, 32768, 32768, 1, 2046),
    ] {
        check(good).unwrap();
    }
    for (bad, size, limit) in [
        (image(ImageKind::D1, 32769, 1, 1, 1), "of 32769,", "up to 32768"),
        (image(ImageKind::D1, 7, 1, 1, 2049), "of 7×2049,", "up to 32768×2048"),
        (image(ImageKind::D2, 7, 32769, 1, 1), "of 7×32769,", "up to 32768×32768"),
        (image(ImageKind::D2, 7, 7, 1, 2049), "of 7×7×2049,", "up to 32768×32768×2048"),
        (image(ImageKind::D3, 51, 7, 101, 1), "of 51×7×101,", "100×100×100 or 50×50×200"),
        (image(ImageKind::Cube, 32769, 32769, 1, 6), "of 32769×32769×6,", "up to 32768"),
        (image(ImageKind::Cube, 7, 7, 1, 2052), "of 7×7×2052,", "up to 32768×2046"),
    ] {
        let refused = missing(check(bad));
        assert!(refused.contains(size) && refused.contains(limit), "{refused}");
    }
    // A driver's own failure is no limit.
    let failure = Error::from(crate::error::Invalid::new("attribute", "is unknown"));
    let plain = Shape::of(&image(ImageKind::D2, 4, 4, 1, 1)).unwrap();
    assert_eq!(plain.check_limits(|_| Err(failure.clone())).unwrap_err(), failure);
}

#[test]
fn levels_halve_down_to_one_texel() {
    let extent = Extent { width: 113, height: 211, depth: 5 };
    assert_eq!(level_extent(extent, 0), extent);
    assert_eq!(level_extent(extent, 1), Extent { width: 56, height: 105, depth: 2 });
    assert_eq!(level_extent(extent, 7), Extent { width: 1, height: 1, depth: 1 });
    assert_eq!(level_extent(extent, 32), Extent { width: 1, height: 1, depth: 1 });
    let mips = ImageDesc { levels: 3, ..image(ImageKind::D2, 5, 3, 1, 2) };
    assert_eq!(least_bytes(&mips), 4 * 2 * (15 + 2 + 1));
    let volume = image(ImageKind::D3, 5, 3, 7, 1);
    assert_eq!(least_bytes(&volume), 4 * 105);
}

proptest! {
    #[test]
    fn no_description_overflows(
        width: u32, height: u32, depth: u32, layers: u32, levels in 0u32..40,
    ) {
        let desc = ImageDesc { levels, ..image(ImageKind::D3, width, height, depth, layers) };
        let least = least_bytes(&desc);
        let sizes = [width.max(1), height.max(1), depth.max(1), layers, 4];
        let level_0 = sizes.into_iter().fold(1, |all: u128, size| all.saturating_mul(size.into()));
        let expected = if levels == 0 { 0 } else { level_0.min(u64::MAX.into()) };
        prop_assert!(u128::from(least) >= expected);
    }
}
