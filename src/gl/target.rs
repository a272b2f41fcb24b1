//! The targets of textures, and the sizes that each requires.

use super::features::Features;
use super::ffi::{LINEAR_TILING_EXT, OPTIMAL_TILING_EXT};
use crate::desc::{ImageDesc, ImageKind, Tiling};
use crate::error::{Api, Missing};

/// The target of a texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    D1,
    D1Array,
    D2,
    D2Array,
    D2Multisample,
    D2MultisampleArray,
    D3,
    Cube,
    CubeArray,
}

/// The sizes of a texture; their number selects the function that allocates its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sizes {
    One(i32),
    Two([i32; 2]),
    Three([i32; 3]),
    TwoMultisample([i32; 2]),
    ThreeMultisample([i32; 3]),
}

impl Target {
    /// Returns the target of a valid `desc`.
    pub(super) fn of(desc: &ImageDesc) -> Self {
        match (desc.kind, desc.layers > 1, desc.samples > 1) {
            (ImageKind::D1, false, _) => Self::D1,
            (ImageKind::D1, true, _) => Self::D1Array,
            (ImageKind::D2, false, false) => Self::D2,
            (ImageKind::D2, true, false) => Self::D2Array,
            (ImageKind::D2, false, true) => Self::D2Multisample,
            (ImageKind::D2, true, true) => Self::D2MultisampleArray,
            (ImageKind::D3, ..) => Self::D3,
            (ImageKind::Cube, ..) if desc.layers == 6 => Self::Cube,
            (ImageKind::Cube, ..) => Self::CubeArray,
        }
    }

    /// Returns the OpenGL token and its name.
    const fn named(self) -> (u32, &'static str) {
        match self {
            Self::D1 => (glow::TEXTURE_1D, "GL_TEXTURE_1D"),
            Self::D1Array => (glow::TEXTURE_1D_ARRAY, "GL_TEXTURE_1D_ARRAY"),
            Self::D2 => (glow::TEXTURE_2D, "GL_TEXTURE_2D"),
            Self::D2Array => (glow::TEXTURE_2D_ARRAY, "GL_TEXTURE_2D_ARRAY"),
            Self::D2Multisample => (glow::TEXTURE_2D_MULTISAMPLE, "GL_TEXTURE_2D_MULTISAMPLE"),
            Self::D2MultisampleArray => {
                (glow::TEXTURE_2D_MULTISAMPLE_ARRAY, "GL_TEXTURE_2D_MULTISAMPLE_ARRAY")
            }
            Self::D3 => (glow::TEXTURE_3D, "GL_TEXTURE_3D"),
            Self::Cube => (glow::TEXTURE_CUBE_MAP, "GL_TEXTURE_CUBE_MAP"),
            Self::CubeArray => (glow::TEXTURE_CUBE_MAP_ARRAY, "GL_TEXTURE_CUBE_MAP_ARRAY"),
        }
    }

    /// Returns the OpenGL token.
    pub(super) const fn token(self) -> u32 {
        self.named().0
    }

    /// Returns the token's name.
    pub(super) const fn name(self) -> &'static str {
        self.named().1
    }

    /// Returns the parameter that holds the texture bound to the target.
    pub(super) const fn binding(self) -> u32 {
        match self {
            Self::D1 => glow::TEXTURE_BINDING_1D,
            Self::D1Array => glow::TEXTURE_BINDING_1D_ARRAY,
            Self::D2 => glow::TEXTURE_BINDING_2D,
            Self::D2Array => glow::TEXTURE_BINDING_2D_ARRAY,
            Self::D2Multisample => glow::TEXTURE_BINDING_2D_MULTISAMPLE,
            Self::D2MultisampleArray => glow::TEXTURE_BINDING_2D_MULTISAMPLE_ARRAY,
            Self::D3 => glow::TEXTURE_BINDING_3D,
            Self::Cube => glow::TEXTURE_BINDING_CUBE_MAP,
            Self::CubeArray => glow::TEXTURE_BINDING_CUBE_MAP_ARRAY,
        }
    }

    /// Returns the parameter that limits the length of a side.
    pub(super) const fn size_limit(self) -> u32 {
        match self {
            Self::D3 => glow::MAX_3D_TEXTURE_SIZE,
            Self::Cube | Self::CubeArray => glow::MAX_CUBE_MAP_TEXTURE_SIZE,
            _ => glow::MAX_TEXTURE_SIZE,
        }
    }

    /// Returns whether the texture has layers, which have a limit of their own.
    pub(super) const fn is_array(self) -> bool {
        matches!(self, Self::D1Array | Self::D2Array | Self::D2MultisampleArray | Self::CubeArray)
    }

    /// Checks that the context supports such textures at all.
    pub(super) fn check(self, features: &Features) -> Result<(), Missing> {
        let (has, help) = match self {
            Self::D1 | Self::D1Array => {
                (features.texture_1d, "share a 2D image of height 1: OpenGL ES has no 1D textures")
            }
            Self::D2Multisample => {
                (features.multisample_texture, "open a context of OpenGL 3.2 or OpenGL ES 3.1")
            }
            Self::D2MultisampleArray => {
                (features.multisample_array, "open a context of OpenGL 3.2 or OpenGL ES 3.2")
            }
            Self::CubeArray => {
                (features.cube_map_array, "open a context of OpenGL 4.0 or OpenGL ES 3.2")
            }
            Self::D2 | Self::D2Array | Self::D3 | Self::Cube => (true, ""),
        };
        if has {
            return Ok(());
        }
        Err(Missing::new(Api::OpenGl, self.name(), "a shared image").help(help))
    }

    /// Returns the sizes of `desc`, or `None` if one is more than a `GLsizei` holds.
    pub(super) fn sizes(self, desc: &ImageDesc) -> Option<Sizes> {
        let int = |value: u32| i32::try_from(value).ok();
        let (width, height) = (int(desc.extent.width)?, int(desc.extent.height)?);
        let (depth, layers) = (int(desc.extent.depth)?, int(desc.layers)?);
        Some(match self {
            Self::D1 => Sizes::One(width),
            Self::D1Array => Sizes::Two([width, layers]),
            Self::D2 | Self::Cube => Sizes::Two([width, height]),
            Self::D2Array | Self::CubeArray => Sizes::Three([width, height, layers]),
            Self::D2Multisample => Sizes::TwoMultisample([width, height]),
            Self::D2MultisampleArray => Sizes::ThreeMultisample([width, height, layers]),
            Self::D3 => Sizes::Three([width, height, depth]),
        })
    }
}

/// Returns the value of `GL_TEXTURE_TILING_EXT`, which `GL_TILING_TYPES_EXT` lists.
pub(super) const fn tiling_token(tiling: Tiling) -> i32 {
    match tiling {
        Tiling::Optimal => OPTIMAL_TILING_EXT as i32,
        Tiling::Linear => LINEAR_TILING_EXT as i32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::desc::{Extent, ImageUsage};
    use crate::format::Format;

    fn desc(kind: ImageKind, layers: u32, samples: u32) -> ImageDesc {
        let (height, depth) = match kind {
            ImageKind::D1 => (1, 1),
            ImageKind::D3 => (16, 16),
            _ => (16, 1),
        };
        let extent = Extent { width: 16, height, depth };
        let flat = ImageDesc::d2(Format::Rgba8Unorm, 16, 16, ImageUsage::SAMPLED);
        ImageDesc { kind, extent, layers, samples, ..flat }
    }

    #[test]
    fn each_shape_has_its_target_and_sizes() {
        use ImageKind::{Cube, D1, D2, D3};
        for (kind, layers, samples, target, sizes) in [
            (D1, 1, 1, Target::D1, Sizes::One(16)),
            (D1, 3, 1, Target::D1Array, Sizes::Two([16, 3])),
            (D2, 1, 1, Target::D2, Sizes::Two([16, 16])),
            (D2, 3, 1, Target::D2Array, Sizes::Three([16, 16, 3])),
            (D2, 1, 4, Target::D2Multisample, Sizes::TwoMultisample([16, 16])),
            (D2, 3, 4, Target::D2MultisampleArray, Sizes::ThreeMultisample([16, 16, 3])),
            (D3, 1, 1, Target::D3, Sizes::Three([16, 16, 16])),
            (Cube, 6, 1, Target::Cube, Sizes::Two([16, 16])),
            (Cube, 12, 1, Target::CubeArray, Sizes::Three([16, 16, 12])),
        ] {
            let desc = desc(kind, layers, samples);
            desc.validate().unwrap();
            assert_eq!(Target::of(&desc), target);
            assert_eq!(target.sizes(&desc), Some(sizes));
            assert!(target.name().starts_with("GL_TEXTURE_"));
        }
    }

    #[test]
    fn a_missing_target_is_named_with_what_would_help() {
        let version = |major, minor, is_embedded| glow::Version {
            major,
            minor,
            is_embedded,
            revision: None,
            vendor_info: String::new(),
        };
        let of = |version| Features::of(&version, &Default::default());
        let (es, old) = (of(version(3, 0, true)), of(version(3, 0, false)));
        for (target, features) in [
            (Target::D1, &es),
            (Target::D1Array, &es),
            (Target::D2Multisample, &es),
            (Target::D2MultisampleArray, &old),
            (Target::CubeArray, &old),
        ] {
            let missing = target.check(features).unwrap_err();
            assert!(missing.help.is_some() && missing.what == target.name(), "{missing}");
        }
        Target::D1.check(&old).unwrap();
        Target::Cube.check(&es).unwrap();
    }

    proptest! {
        #[test]
        fn no_size_overflows(width: u32, height: u32, depth: u32, layers: u32, levels in 1u32..64) {
            let extent = Extent { width, height, depth };
            let desc = ImageDesc { extent, layers, levels, ..desc(ImageKind::D3, 1, 64) };
            let _ = Target::of(&desc).sizes(&desc);
        }
    }
}
