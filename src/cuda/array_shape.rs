//! An image in CUDA's words: kind of array, format, flags, and the sizes a device takes.
//!
//! Nothing here calls the driver.

use cudarc::driver::sys;

use crate::desc::{Extent, ImageDesc, ImageKind, ImageUsage};
use crate::error::{Api, Missing, Result};
use crate::format::CudaFormat;

use sys::CUdevice_attribute as Attribute;

const IMAGE: &str = "a shared image";

/// `CU_AD_FORMAT_UNORM_INT_101010_2`, which cudarc's enum has only where it is built for CUDA 12.8.
pub(crate) const UNORM_101010_2: u32 = 0x50;
const UNORM_101010_2_SINCE: i32 = 12080;

/// What `CUDA_ARRAY3D_DESCRIPTOR` says of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) width: u32,
    /// 0 for one-dimensional arrays.
    pub(crate) height: u32,
    /// Slices of a three-dimensional array, layers of a layered one, faces of a cube; else 0.
    pub(crate) depth: u32,
    pub(crate) format: CudaFormat,
    pub(crate) flags: u32,
}

impl Shape {
    /// The array for an image of `desc`, which is valid.
    ///
    /// Every array can be written as a surface. That it may be a colour target of the other API
    /// "must be specified" (`cuExternalMemoryGetMappedMipmappedArray`).
    ///
    /// # References
    /// `cuMipmappedArrayCreate`, which says what extent is 0 in what kind of array.
    pub(crate) fn of(desc: &ImageDesc) -> Result<Self> {
        let format = desc.format.cuda()?;
        if desc.samples > 1 {
            let what = format!("arrays of {} samples", desc.samples);
            return Err(Missing::new(Api::Cuda, what, IMAGE)
                .help("resolve the image to one sample and share that")
                .into());
        }
        let mut flags = sys::CUDA_ARRAY3D_SURFACE_LDST;
        if desc.usage.contains(ImageUsage::COLOR_ATTACHMENT) {
            flags |= sys::CUDA_ARRAY3D_COLOR_ATTACHMENT;
        }
        let is_cube = desc.kind == ImageKind::Cube;
        if is_cube {
            flags |= sys::CUDA_ARRAY3D_CUBEMAP;
        }
        // An array of cubes has more than the six layers of one.
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

    /// Refuses a format that a driver of `version` (as `cuDriverGetVersion` tells it) doesn't know.
    pub(crate) fn check_driver(&self, version: impl FnOnce() -> Result<i32>) -> Result<()> {
        if self.format.array_format != UNORM_101010_2 || version()? >= UNORM_101010_2_SINCE {
            return Ok(());
        }
        Err(Missing::new(Api::Cuda, "CU_AD_FORMAT_UNORM_INT_101010_2", IMAGE)
            .help("update NVIDIA's driver to CUDA 12.8 (driver 570) or newer")
            .into())
    }

    /// Refuses an array that is larger than a device takes, whose attributes `ask` tells.
    pub(crate) fn check_limits(&self, ask: impl Fn(Attribute) -> Result<i32>) -> Result<()> {
        let size = [self.width, self.height, self.depth];
        let [mipmapped, surface] = self.kind().limits();
        for alternatives in [mipmapped, surface] {
            let mut largest = Vec::new();
            for limit in alternatives {
                let mut told = [u32::MAX; 3];
                for (told, attribute) in told.iter_mut().zip(*limit) {
                    if let Some(attribute) = attribute {
                        *told = ask(attribute)?.try_into().unwrap_or(0);
                    }
                }
                largest.push(told);
            }
            let fits = |told: &[u32; 3]| size.iter().zip(told).all(|(size, told)| size <= told);
            if !largest.iter().any(fits) {
                return Err(too_large(self.kind(), size, &largest).into());
            }
        }
        Ok(())
    }

    fn kind(&self) -> Kind {
        let is = |flag| self.flags & flag != 0;
        match (is(sys::CUDA_ARRAY3D_CUBEMAP), is(sys::CUDA_ARRAY3D_LAYERED)) {
            (true, true) => Kind::CubeLayered,
            (true, false) => Kind::Cube,
            (false, true) if self.height == 0 => Kind::OneLayered,
            (false, true) => Kind::TwoLayered,
            (false, false) if self.height == 0 => Kind::One,
            (false, false) if self.depth == 0 => Kind::Two,
            (false, false) => Kind::Three,
        }
    }
}

fn too_large(kind: Kind, size: [u32; 3], largest: &[[u32; 3]]) -> Missing {
    let show = |sizes: [u32; 3]| {
        let sizes = sizes.into_iter().filter(|&size| size != 0 && size != u32::MAX);
        sizes.map(|size| size.to_string()).collect::<Vec<_>>().join("×")
    };
    let largest: Vec<_> = largest.iter().map(|&sizes| show(sizes)).collect();
    Missing::new(Api::Cuda, format!("{} arrays of {}", kind.name(), show(size)), IMAGE)
        .help(format!("this GPU takes up to {}", largest.join(" or ")))
}

/// The kinds of array, which differ in how large they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    One,
    OneLayered,
    Two,
    TwoLayered,
    Three,
    Cube,
    CubeLayered,
}

/// What limits width, height and depth; alternatives of it.
type Limits = &'static [[Option<Attribute>; 3]];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one-dimensional",
            Self::OneLayered => "layered one-dimensional",
            Self::Two => "two-dimensional",
            Self::TwoLayered => "layered two-dimensional",
            Self::Three => "three-dimensional",
            Self::Cube => "cube",
            Self::CubeLayered => "layered cube",
        }
    }

    /// Of mipmapped arrays, and of those that are surfaces: the table of `cuMipmappedArrayCreate`.
    fn limits(self) -> [Limits; 2] {
        use sys::CUdevice_attribute::*;
        match self {
            Self::One => [
                &[[Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH), None, None]],
                &[[Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_WIDTH), None, None]],
            ],
            Self::OneLayered => [
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_WIDTH),
                    None,
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_LAYERS),
                ]],
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_LAYERED_WIDTH),
                    None,
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_LAYERED_LAYERS),
                ]],
            ],
            Self::Two => [
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_WIDTH),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_HEIGHT),
                    None,
                ]],
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_WIDTH),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_HEIGHT),
                    None,
                ]],
            ],
            Self::TwoLayered => [
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_WIDTH),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_HEIGHT),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS),
                ]],
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_WIDTH),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_HEIGHT),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_LAYERS),
                ]],
            ],
            Self::Three => [
                &[
                    [
                        Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH),
                        Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT),
                        Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH),
                    ],
                    [
                        Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH_ALTERNATE),
                        Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT_ALTERNATE),
                        Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE),
                    ],
                ],
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_WIDTH),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_HEIGHT),
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_DEPTH),
                ]],
            ],
            // Square, with six faces: the width says it all.
            Self::Cube => [
                &[[Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH), None, None]],
                &[[Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_WIDTH), None, None]],
            ],
            Self::CubeLayered => [
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH),
                    None,
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS),
                ]],
                &[[
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_LAYERED_WIDTH),
                    None,
                    Some(CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_LAYERED_LAYERS),
                ]],
            ],
        }
    }
}

/// The size of a mip level.
pub(crate) fn level_extent(extent: Extent, level: u32) -> Extent {
    let half = |size: u32| size.checked_shr(level).unwrap_or(0).max(1);
    Extent { width: half(extent.width), height: half(extent.height), depth: half(extent.depth) }
}

/// The least that an image of `desc` takes in memory: its texels. No tiling takes less.
pub(crate) fn least_bytes(desc: &ImageDesc) -> u64 {
    let texel = u64::from(desc.format.texel_bytes()) * u64::from(desc.layers);
    let levels = (0..desc.levels).map(|level| {
        let Extent { width, height, depth } = level_extent(desc.extent, level);
        [width, height, depth].into_iter().fold(texel, |all, size| all.saturating_mul(size.into()))
    });
    levels.fold(0, u64::saturating_add)
}

#[cfg(test)]
#[path = "array_shape_tests.rs"]
mod tests;
