//! The shapes and sizes of the images in the tests.

use gpu_interop::desc::{Extent, ImageKind, Tiling, full_mip_chain};
use gpu_interop::format::{Aspects, Format};
use gpu_interop::{ImageDesc, ImageUsage};

use crate::texel::drawable;

/// The sizes that images are tested at: odd, and not multiples of a tile.
pub const SIZES: [(u32, u32); 2] = [(113, 211), (183, 365)];

/// The shapes that images are tested in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One row.
    D1,
    /// Rows in three layers.
    D1Array,
    /// Plain.
    D2,
    /// Three layers.
    D2Array,
    /// Six square faces.
    Cube,
    /// Three slices.
    D3,
    /// Every level down to one texel.
    MipChain,
    /// Two layers with every level down to one texel.
    MipArray,
    /// Four samples per texel.
    Multisample,
}

/// Whether a format of the same block size and kind has images of every shape.
fn is_variant(format: Format) -> bool {
    use Format::*;
    matches!(
        format,
        R8Uint
            | R8Sint
            | R16Uint
            | R16Sint
            | Rg16Uint
            | Rg16Sint
            | R16Unorm
            | Rg16Unorm
            | Rgba16Unorm
            | Rg32Float
            | Bgr10a2Unorm
            | Rgb10a2Uint
            | Bc1RgbaSrgb
            | Bc7Srgb
    )
}

impl Shape {
    /// Every shape.
    pub const ALL: [Shape; 9] = [
        Self::D1,
        Self::D1Array,
        Self::D2,
        Self::D2Array,
        Self::Cube,
        Self::D3,
        Self::MipChain,
        Self::MipArray,
        Self::Multisample,
    ];

    /// Its name in the names of cases.
    pub fn name(self) -> &'static str {
        match self {
            Self::D1 => "1d",
            Self::D1Array => "1d_array",
            Self::D2 => "2d",
            Self::D2Array => "2d_array",
            Self::Cube => "cube",
            Self::D3 => "3d",
            Self::MipChain => "mip_chain",
            Self::MipArray => "mip_chain_of_layers",
            Self::Multisample => "4_samples",
        }
    }

    /// Whether the tests have images of this shape and `format`. Multisample images are optimal and are
    /// drawn to by shaders, which write neither stencil nor compressed formats. A format that only reads
    /// the bits of another one in a different way has two shapes, which include every level and layer.
    pub fn has(self, format: Format, tiling: Tiling) -> bool {
        let is_drawn = drawable(format) || format.aspects() == Aspects::DEPTH;
        (self != Self::Multisample || (tiling == Tiling::Optimal && is_drawn))
            && (!is_variant(format) || matches!(self, Self::D2 | Self::MipArray))
    }

    /// Describes an image of this shape. One-dimensional shapes use the width only.
    pub fn desc(
        self,
        format: Format,
        tiling: Tiling,
        (width, height): (u32, u32),
        usage: ImageUsage,
    ) -> ImageDesc {
        let flat = ImageDesc { tiling, ..ImageDesc::d2(format, width, height, usage) };
        let (kind, extent, layers) = match self {
            Self::D1 => (ImageKind::D1, Extent { height: 1, ..flat.extent }, 1),
            Self::D1Array => (ImageKind::D1, Extent { height: 1, ..flat.extent }, 3),
            Self::D2 | Self::MipChain | Self::Multisample => (ImageKind::D2, flat.extent, 1),
            Self::D2Array => (ImageKind::D2, flat.extent, 3),
            Self::MipArray => (ImageKind::D2, flat.extent, 2),
            Self::Cube => (ImageKind::Cube, Extent { height: width, ..flat.extent }, 6),
            Self::D3 => (ImageKind::D3, Extent { depth: 3, ..flat.extent }, 1),
        };
        let chain = matches!(self, Self::MipChain | Self::MipArray);
        let levels = if chain { full_mip_chain(extent) } else { 1 };
        let samples = if self == Self::Multisample { 4 } else { 1 };
        ImageDesc { kind, extent, layers, levels, samples, ..flat }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_an_image() {
        for shape in Shape::ALL {
            for size in SIZES {
                let format = Format::Rgba8Unorm;
                let desc = shape.desc(format, Tiling::Optimal, size, ImageUsage::SAMPLED);
                desc.validate().unwrap();
            }
        }
    }
}
