//! The shape of a CUDA array: the kind of array that an image becomes, its format and flags.

use std::ops::RangeInclusive;

use cudarc::driver::sys;

use super::endpoint::Endpoint;
use crate::desc::{Extent, ImageDesc, ImageKind, ImageUsage, Tiling};
use crate::error::{Api, Missing, Result};
use crate::format::CudaFormat;

use sys::CUdevice_attribute::{self as Attribute, *};

const IMAGE: &str = "a shared image";

/// `CU_AD_FORMAT_UNORM_INT_101010_2`, which cudarc's enum has only if it is built for CUDA 12.8.
pub(crate) const UNORM_101010_2: u32 = 0x50;

/// `CU_AD_FORMAT_BC1_UNORM` to `CU_AD_FORMAT_BC7_UNORM_SRGB`.
const BLOCK_COMPRESSED: RangeInclusive<u32> = 0x91..=0x9e;

/// The array formats that older drivers lack, with the value of `cuDriverGetVersion` and the
/// version of NVIDIA's driver from which on they are supported.
const SINCE: [(RangeInclusive<u32>, i32, &str); 2] = [
    (UNORM_101010_2..=UNORM_101010_2, 12080, "CUDA 12.8 (driver 570)"),
    (BLOCK_COMPRESSED, 11050, "CUDA 11.5 (driver 495)"),
];

/// The fields of `CUDA_ARRAY3D_DESCRIPTOR` for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) width: u32,
    /// 0 for one-dimensional arrays.
    pub(crate) height: u32,
    /// Slices of a three-dimensional array, layers of a layered one, faces of a cube; otherwise 0.
    pub(crate) depth: u32,
    pub(crate) format: CudaFormat,
    pub(crate) flags: u32,
}

impl Shape {
    /// Returns the shape of the array for a valid `desc`.
    ///
    /// Every array can be written as a surface, unless its format is compressed. If the other API
    /// may use the image as a colour target, a flag "must be specified"
    /// (`cuExternalMemoryGetMappedMipmappedArray`). The extent is in texels for compressed formats
    /// too.
    ///
    /// # References
    /// `cuMipmappedArrayCreate`, for the extents that are 0 in each kind of array.
    pub(crate) fn of(desc: &ImageDesc) -> Result<Self> {
        let format = desc.format.cuda()?;
        if desc.samples > 1 {
            let what = format!("arrays of {} samples", desc.samples);
            return Err(Missing::new(Api::Cuda, what, IMAGE)
                .help("resolve the image to one sample and share that")
                .into());
        }
        let is_flat = matches!(desc.kind, ImageKind::D2 | ImageKind::Cube);
        if desc.format.is_compressed() && (!is_flat || desc.tiling == Tiling::Linear) {
            let what = format!("1D, 3D and linear images of {}", desc.format);
            return Err(Missing::new(Api::Cuda, what, IMAGE)
                .help("share a compressed image as an optimal 2D image, with layers or faces")
                .into());
        }
        let mut flags = match desc.format.is_compressed() {
            true => 0,
            false => sys::CUDA_ARRAY3D_SURFACE_LDST,
        };
        if desc.usage.contains(ImageUsage::COLOR_ATTACHMENT) {
            flags |= sys::CUDA_ARRAY3D_COLOR_ATTACHMENT;
        }
        let is_cube = desc.kind == ImageKind::Cube;
        if is_cube {
            flags |= sys::CUDA_ARRAY3D_CUBEMAP;
        }
        // One cube has six layers; an array of cubes has more.
        let is_layered = desc.layers > if is_cube { 6 } else { 1 };
        if is_layered {
            flags |= sys::CUDA_ARRAY3D_LAYERED;
        }
        let layers = if is_cube || is_layered { desc.layers } else { 0 };
        let Extent { width, height, depth } = desc.extent;
        let (height, depth) = match desc.kind {
            ImageKind::D1 => (0, layers),
            ImageKind::D2 | ImageKind::Cube => (height, layers),
            ImageKind::D3 => (height, depth),
        };
        Ok(Self { width, height, depth, format, flags })
    }

    /// Rejects a format that the driver lacks; `version` is what `cuDriverGetVersion` returns.
    fn check_driver(&self, version: impl FnOnce() -> Result<i32>) -> Result<()> {
        let number = self.format.array_format;
        let Some((_, since, name)) = SINCE.iter().find(|(formats, ..)| formats.contains(&number))
        else {
            return Ok(());
        };
        if version()? >= *since {
            return Ok(());
        }
        Err(Missing::new(Api::Cuda, format!("CUarray_format {number:#x}"), IMAGE)
            .help(format!("update NVIDIA's driver to {name} or newer"))
            .into())
    }

    /// Rejects an array that exceeds the device's limits; `attribute` queries the device.
    ///
    /// Compares with the limits for textures. If the limit for surfaces is lower (1D before compute
    /// capability 7.0), the driver fails to create the surface.
    fn check_limits(&self, attribute: impl Fn(Attribute) -> Result<i32>) -> Result<()> {
        let size = [self.width, self.height, self.depth];
        for (limit, value) in self.limits().into_iter().zip(size) {
            let Some(limit) = limit else { continue };
            let most = attribute(limit)?;
            if i64::from(value) > most.into() {
                let size = size.into_iter().filter(|&value| value > 0);
                let size = size.map(|value| value.to_string()).collect::<Vec<_>>().join("×");
                return Err(Missing::new(Api::Cuda, format!("arrays of {size}"), IMAGE)
                    .help(format!("this GPU's limit for {value} is {most} ({limit:?})"))
                    .into());
            }
        }
        Ok(())
    }

    /// Returns the attributes that limit width, height and depth of this kind of array.
    ///
    /// # References
    /// The table of `cuMipmappedArrayCreate`.
    fn limits(&self) -> [Option<Attribute>; 3] {
        let is = |flag| self.flags & flag != 0;
        match (is(sys::CUDA_ARRAY3D_CUBEMAP), is(sys::CUDA_ARRAY3D_LAYERED)) {
            // A cube is square and has six faces.
            (true, false) => [Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH), None, None],
            (true, true) => [
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH),
                None,
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS),
            ],
            (false, true) if self.height == 0 => [
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_WIDTH),
                None,
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_LAYERS),
            ],
            (false, true) => [
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_WIDTH),
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_HEIGHT),
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS),
            ],
            (false, false) if self.height == 0 => {
                [Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH), None, None]
            }
            (false, false) if self.depth == 0 => [
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_WIDTH),
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_HEIGHT),
                None,
            ],
            (false, false) => [
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH),
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT),
                Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH),
            ],
        }
    }
}

impl Endpoint {
    /// Returns the shape of a valid `desc`, or [`Error::Missing`](crate::Error::Missing) with what
    /// CUDA lacks for it.
    pub(crate) fn check_image(&self, desc: &ImageDesc) -> Result<Shape> {
        let shape = Shape::of(desc)?;
        shape.check_driver(|| self.driver_version())?;
        if desc.tiling == Tiling::Linear {
            return Ok(shape);
        }
        // The workaround NVIDIA_LAYERED_LEVELS_LAID_OUT_DIFFERENTLY.
        if desc.layers > 1 && desc.levels > 1 {
            let what = "images with several layers and levels in Vulkan's layout";
            return Err(Missing::new(Api::Cuda, what, IMAGE)
                .help("share an image with one level, or one image per layer")
                .into());
        }
        shape.check_limits(|attribute| self.attribute(attribute))?;
        Ok(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::format::Format;

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
    fn every_kind_of_image_becomes_the_documented_kind_of_array() {
        let (surface, layered, cube) = (2, 1, 4);
        for (desc, extent, flags) in [
            (image(ImageKind::D1, 7, 1, 1, 1), [7, 0, 0], surface),
            (image(ImageKind::D1, 7, 1, 1, 3), [7, 0, 3], surface | layered),
            (image(ImageKind::D2, 7, 5, 1, 1), [7, 5, 0], surface),
            (image(ImageKind::D2, 7, 1, 1, 1), [7, 1, 0], surface),
            (image(ImageKind::D2, 7, 5, 1, 3), [7, 5, 3], surface | layered),
            (image(ImageKind::D2, 7, 7, 1, 6), [7, 7, 6], surface | layered),
            (image(ImageKind::D3, 7, 5, 3, 1), [7, 5, 3], surface),
            (image(ImageKind::D3, 7, 1, 1, 1), [7, 1, 1], surface),
            (image(ImageKind::Cube, 7, 7, 1, 6), [7, 7, 6], surface | cube),
            (image(ImageKind::Cube, 7, 7, 1, 12), [7, 7, 12], surface | cube | layered),
        ] {
            desc.validate().unwrap();
            let shape = Shape::of(&desc).unwrap();
            assert_eq!([shape.width, shape.height, shape.depth], extent, "{desc:?}");
            assert_eq!(shape.flags, flags, "{desc:?}");
            assert_eq!((shape.format.array_format, shape.format.channels), (1, 4));
        }
    }

    #[test]
    fn only_a_colour_target_has_the_colour_attachment_flag() {
        for (usage, flag) in [
            (ImageUsage::SAMPLED | ImageUsage::STORAGE, 0),
            (
                ImageUsage::SAMPLED | ImageUsage::COLOR_ATTACHMENT,
                sys::CUDA_ARRAY3D_COLOR_ATTACHMENT,
            ),
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
        assert!(missing(shape.check_driver(|| Ok(12070))).contains("12.8"));
        let plain = Shape::of(&image(ImageKind::D2, 4, 4, 1, 1)).unwrap();
        plain.check_driver(|| panic!("the version doesn't matter")).unwrap();
    }

    #[test]
    fn compressed_images_are_flat_and_are_no_surfaces() {
        for format in [Format::Bc1RgbaUnorm, Format::Bc1RgbaSrgb, Format::Bc7Unorm, Format::Bc7Srgb]
        {
            let of = |desc| Shape::of(&ImageDesc { format, ..desc });
            let shape = of(image(ImageKind::D2, 13, 9, 1, 1)).unwrap();
            assert_eq!((shape.width, shape.height, shape.flags), (13, 9, 0));
            assert_eq!(shape.format.channels, 4);
            shape.check_driver(|| Ok(11050)).unwrap();
            assert!(missing(shape.check_driver(|| Ok(11040))).contains("11.5"));
            assert_eq!(of(image(ImageKind::Cube, 8, 8, 1, 6)).unwrap().flags, 4);
            assert!(missing(of(image(ImageKind::D1, 8, 1, 1, 1))).contains(format.name()));
            assert!(missing(of(image(ImageKind::D3, 8, 8, 3, 1))).contains(format.name()));
            let linear = image(ImageKind::D2, 8, 8, 1, 1);
            missing(of(ImageDesc { tiling: Tiling::Linear, ..linear }));
        }
    }

    #[test]
    fn sizes_beyond_the_devices_limits_are_refused_with_the_limit() {
        // The values of an H200.
        let attribute = |attribute: Attribute| {
            let name = format!("{attribute:?}");
            Ok(match () {
                () if name.contains("CUBEMAP_LAYERED_LAYERS") => 2046,
                () if name.contains("LAYERS") => 2048,
                () if name.contains("3D") => 16384,
                () => 32768,
            })
        };
        let check = |desc| Shape::of(&desc).unwrap().check_limits(attribute);
        for good in [
            image(ImageKind::D1, 32768, 1, 1, 2048),
            image(ImageKind::D2, 32768, 32768, 1, 2048),
            image(ImageKind::D3, 16384, 16384, 16384, 1),
            image(ImageKind::Cube, 32768, 32768, 1, 2046),
        ] {
            check(good).unwrap();
        }
        for (bad, size, limit) in [
            (image(ImageKind::D1, 32769, 1, 1, 1), "of 32769,", "is 32768"),
            (image(ImageKind::D1, 7, 1, 1, 2049), "of 7×2049,", "is 2048"),
            (image(ImageKind::D2, 7, 32769, 1, 1), "of 7×32769,", "is 32768"),
            (image(ImageKind::D2, 7, 7, 1, 2049), "of 7×7×2049,", "is 2048"),
            (image(ImageKind::D3, 7, 7, 16385, 1), "of 7×7×16385,", "is 16384"),
            (image(ImageKind::Cube, 32769, 32769, 1, 6), "of 32769×32769×6,", "is 32768"),
            (image(ImageKind::Cube, 7, 7, 1, 2052), "of 7×7×2052,", "is 2046"),
        ] {
            let refused = missing(check(bad));
            assert!(refused.contains(size) && refused.contains(limit), "{refused}");
        }
    }
}
