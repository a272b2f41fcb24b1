//! Texture targets, and storage in imported memory for buffers and textures. Each object is bound
//! temporarily, and the previous binding is restored.

use glow::HasContext as _;

use super::context::{checked, driver_error};
use super::endpoint::{Endpoint, MemoryName, Owned};
use super::ffi::{Features, LINEAR_TILING_EXT, OPTIMAL_TILING_EXT, TEXTURE_TILING_EXT};
use crate::desc::{ImageDesc, ImageKind, Tiling};
use crate::error::{Api, Invalid, Missing, Result};
use crate::format::ChannelOrder;

/// Samples have the same locations in every texel, as in Vulkan. A framebuffer that combines the texture
/// with renderbuffers requires this, too.
const FIXED_SAMPLE_LOCATIONS: u8 = glow::TRUE;

impl Endpoint {
    /// Creates a buffer object of `size` bytes, `offset` bytes into `memory`. The context must be
    /// current, and the memory object must have memory that contains the range.
    pub(super) fn create_buffer(
        &self,
        memory: MemoryName,
        offset: u64,
        size: u64,
    ) -> Result<Owned<glow::Buffer>> {
        const TARGET: u32 = glow::ARRAY_BUFFER;
        let (gl, size) = (&self.0.gl, gl_size(size)?);
        let functions = self.0.functions.memory.as_ref().map_err(Missing::clone)?;
        // SAFETY: the context is current; glGenBuffers is core in every version with this extension.
        let name = checked(gl, "glGenBuffers", || unsafe { gl.create_buffer() })?;
        // No name and no error: glow's own error has no code.
        let name = name.map_err(|_| driver_error("glGenBuffers", glow::NO_ERROR))?;
        let buffer = Owned::new(self, name);
        // SAFETY: the context is current. Every version has the target, and its binding belongs to
        // the context, not to a vertex array; it is read here and put back below.
        let before = checked(gl, "glBindBuffer", || unsafe {
            let before = gl.get_parameter_buffer(glow::ARRAY_BUFFER_BINDING);
            gl.bind_buffer(TARGET, Some(name));
            before
        })?;
        // SAFETY: the context is current; the buffer that is bound is new and has no storage; the
        // memory object has memory, in which the range lies (the caller's promise).
        let stored = checked(gl, "glBufferStorageMemEXT", || unsafe {
            (functions.buffer_storage)(TARGET, size, memory.0.get(), offset);
        });
        // SAFETY: the context is current, and `before` is the name that was bound, or none.
        let restored = checked(gl, "glBindBuffer", || unsafe { gl.bind_buffer(TARGET, before) });
        stored.and(restored).map(|()| buffer)
    }

    /// Creates a texture object of `desc`, `offset` bytes into `memory`. The context must be current
    /// and support such a texture, and the memory object must have memory at the offset.
    pub(super) fn create_texture(
        &self,
        memory: MemoryName,
        offset: u64,
        desc: &ImageDesc,
    ) -> Result<Owned<glow::Texture>> {
        let gl = &self.0.gl;
        let storage = Storage::of(memory, offset, desc)?;
        // SAFETY: the context is current; glGenTextures is core in every version with this extension.
        let name = checked(gl, "glGenTextures", || unsafe { gl.create_texture() })?;
        let name = name.map_err(|_| driver_error("glGenTextures", glow::NO_ERROR))?;
        let texture = Owned::new(self, name);
        let target = storage.target;
        // SAFETY: the context is current and has the target (the caller's promise). What is bound to
        // it in the active texture unit is read here and put back below.
        let before = checked(gl, "glBindTexture", || unsafe {
            let before = gl.get_parameter_texture(target.binding());
            gl.bind_texture(target.token(), Some(name));
            before
        })?;
        let set = parameters(desc).try_for_each(|(parameter, value)| {
            // SAFETY: the context is current, and the texture that is bound is new and has no
            // storage. Each parameter is one integer that textures of all targets have.
            checked(gl, "glTexParameteri", || unsafe {
                gl.tex_parameter_i32(target.token(), parameter, value);
            })
        });
        // SAFETY: the context is current; the texture that is bound is new and has no storage; the
        // memory object has memory, in which it begins (the caller's promise). OpenGL checks whether
        // it ends there, or `Workarounds::texture_bytes` did.
        let stored = set.and_then(|()| unsafe { storage.give(self) });
        // SAFETY: the context is current, and `before` is the name that was bound, or none.
        let restored = checked(gl, "glBindTexture", || unsafe {
            gl.bind_texture(target.token(), before);
        });
        stored.and(restored).map(|()| texture)
    }
}

/// Converts a size in bytes.
pub(super) fn gl_size(size: u64) -> Result<isize> {
    isize::try_from(size).map_err(|_| {
        Invalid::new("desc.size", format!("{size} bytes are more than a GLsizeiptr holds")).into()
    })
}

/// The parameters of a texture of `desc` that must be set before it has storage.
fn parameters(desc: &ImageDesc) -> impl Iterator<Item = (u32, i32)> + use<> {
    let swizzled = desc.format.channel_order() == ChannelOrder::Bgra;
    let swizzle =
        [(glow::TEXTURE_SWIZZLE_R, glow::BLUE as i32), (glow::TEXTURE_SWIZZLE_B, glow::RED as i32)];
    let tiling = (TEXTURE_TILING_EXT, tiling_token(desc.tiling));
    std::iter::once(tiling).chain(swizzle.into_iter().filter(move |_| swizzled))
}

/// A texture's storage, in OpenGL's integers.
struct Storage {
    target: Target,
    sizes: Sizes,
    levels: i32,
    samples: i32,
    internal: u32,
    memory: u32,
    offset: u64,
}

impl Storage {
    fn of(memory: MemoryName, offset: u64, desc: &ImageDesc) -> Result<Self> {
        let int = |field, value: u32| {
            i32::try_from(value).map_err(|_| Invalid::new(field, format!("{value} is too many")))
        };
        let target = Target::of(desc);
        Ok(Self {
            target,
            sizes: target
                .sizes(desc)
                .ok_or_else(|| Invalid::new("desc.extent", "is more than a GLsizei holds"))?,
            levels: int("desc.levels", desc.levels)?,
            samples: int("desc.samples", desc.samples)?,
            internal: desc.format.gl()?.internal,
            memory: memory.0.get(),
            offset,
        })
    }

    /// Gives the texture that is bound to `target` its storage.
    ///
    /// # Safety
    /// The context is current; the texture has no storage; the memory object has memory.
    unsafe fn give(&self, endpoint: &Endpoint) -> Result<()> {
        let &Self { target, sizes, levels, samples, internal, memory, offset } = self;
        let (token, fixed) = (target.token(), FIXED_SAMPLE_LOCATIONS);
        let (gl, functions) = (&endpoint.0.gl, &endpoint.0.functions);
        let texture = functions.texture.as_ref().map_err(Missing::clone)?;
        if let (Sizes::One(_), Err(missing)) = (sizes, &functions.texture_1d) {
            return Err(missing.clone().into());
        }
        let call = match sizes {
            Sizes::One(_) => "glTexStorageMem1DEXT",
            Sizes::Two(_) => "glTexStorageMem2DEXT",
            Sizes::Three(_) => "glTexStorageMem3DEXT",
            Sizes::TwoMultisample(_) => "glTexStorageMem2DMultisampleEXT",
            Sizes::ThreeMultisample(_) => "glTexStorageMem3DMultisampleEXT",
        };
        // SAFETY: the caller's promise; the sizes are those of the target.
        checked(gl, call, || unsafe {
            match sizes {
                Sizes::One(w) => {
                    if let Ok(one) = &functions.texture_1d {
                        (one.storage_1d)(token, levels, internal, w, memory, offset);
                    }
                }
                Sizes::Two([w, h]) => {
                    (texture.storage_2d)(token, levels, internal, w, h, memory, offset);
                }
                Sizes::Three([w, h, d]) => {
                    (texture.storage_3d)(token, levels, internal, w, h, d, memory, offset);
                }
                Sizes::TwoMultisample([w, h]) => {
                    let function = texture.storage_2d_multisample;
                    function(token, samples, internal, w, h, fixed, memory, offset);
                }
                Sizes::ThreeMultisample([w, h, d]) => {
                    let function = texture.storage_3d_multisample;
                    function(token, samples, internal, w, h, d, fixed, memory, offset);
                }
            }
        })
    }
}

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

/// The function that gives a texture its storage, by the number of its sizes, and the sizes.
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
    use crate::desc::{Extent, ImageUsage, Tiling};
    use crate::error::Error;
    use crate::format::Format;

    #[test]
    fn a_size_beyond_a_signed_pointer_is_refused() {
        assert_eq!(gl_size(1 << 40).unwrap(), 1 << 40);
        assert!(matches!(gl_size(u64::MAX), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_texture_has_the_images_tiling_and_a_swizzle_if_blue_is_first() {
        let of = |format, tiling| {
            let desc = ImageDesc::d2(format, 4, 4, ImageUsage::SAMPLED);
            parameters(&ImageDesc { tiling, ..desc }).collect::<Vec<_>>()
        };
        let (tiling, linear, optimal) = (0x9580, 0x9585, 0x9584);
        assert_eq!(of(Format::Rgba8Srgb, Tiling::Linear), [(tiling, linear)]);
        assert_eq!(
            of(Format::Bgra8Srgb, Tiling::Optimal),
            [
                (tiling, optimal),
                (glow::TEXTURE_SWIZZLE_R, 0x1905),
                (glow::TEXTURE_SWIZZLE_B, 0x1903)
            ]
        );
    }

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
