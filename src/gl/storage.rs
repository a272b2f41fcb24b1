//! Storage in imported memory for buffers and textures. Each object is bound temporarily, and the
//! previous binding is restored.

use glow::HasContext as _;

use super::deletion::Owned;
use super::endpoint::Endpoint;
use super::errors::{checked, driver_error};
use super::ffi::TEXTURE_TILING_EXT;
use super::names::MemoryName;
use super::target::{Sizes, Target, tiling_token};
use crate::desc::ImageDesc;
use crate::error::{Invalid, Missing, Result};
use crate::format::ChannelOrder;

/// Samples have the same locations in every texel, as in Vulkan. A framebuffer that combines the
/// texture with renderbuffers also requires this.
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
        // SAFETY: the context is current; glGenBuffers is core in every version with this
        // extension.
        let name = checked(gl, "glGenBuffers", || unsafe { gl.create_buffer() })?;
        // No name and no error: glow's own error has no code.
        let name = name.map_err(|_| driver_error("glGenBuffers", glow::NO_ERROR))?;
        let buffer = Owned::new(self, name);
        // SAFETY: the context is current. Every version has the target, and its binding belongs to
        // the context, not to a vertex array; it is read here and restored below.
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
        stored.and(restored)?;
        Ok(buffer)
    }

    /// Creates a texture object of `desc`, `offset` bytes into `memory`. The context must be
    /// current and support such a texture, and the memory object must have memory at the offset.
    pub(super) fn create_texture(
        &self,
        memory: MemoryName,
        offset: u64,
        desc: &ImageDesc,
    ) -> Result<Owned<glow::Texture>> {
        let gl = &self.0.gl;
        let storage = Storage::of(memory, offset, desc)?;
        // SAFETY: the context is current; glGenTextures is core in every version with this
        // extension.
        let name = checked(gl, "glGenTextures", || unsafe { gl.create_texture() })?;
        let name = name.map_err(|_| driver_error("glGenTextures", glow::NO_ERROR))?;
        let texture = Owned::new(self, name);
        let target = storage.target;
        // SAFETY: the context is current and has the target (the caller's promise). What is bound
        // to it in the active texture unit is read here and restored below.
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
        // memory object has memory, in which it begins (the caller's promise). OpenGL checks
        // whether it ends there, or `Workarounds::texture_bytes` did.
        let stored = set.and_then(|()| unsafe { storage.give(self) });
        // SAFETY: the context is current, and `before` is the name that was bound, or none.
        let restored = checked(gl, "glBindTexture", || unsafe {
            gl.bind_texture(target.token(), before);
        });
        stored.and(restored)?;
        Ok(texture)
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

    /// Allocates the storage of the texture that is bound to `target`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{ImageUsage, Tiling};
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
}
