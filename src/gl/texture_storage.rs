//! Giving a texture its storage: with direct state access, or bound for the moment.

use std::rc::Rc;

use glow::HasContext as _;

use super::endpoint::Shared;
use super::error::{checked, driver_error};
use super::ffi::{
    Functions, NamedTextureFns, Storage1dFn, Storage2dFn, Storage2dMultisampleFn, Storage3dFn,
    Storage3dMultisampleFn, TEXTURE_TILING_EXT,
};
use super::memory::Memory;
use super::texture::TextureName;
use super::texture_support::tiling_token;
use super::texture_target::{Sizes, Target};
use crate::desc::ImageDesc;
use crate::error::{Error, Invalid, Missing, Result};
use crate::format::ChannelOrder;

/// Samples lie at the same places in every texel, as Vulkan's do; and a framebuffer with
/// renderbuffers beside the texture takes nothing else.
const FIXED_SAMPLE_LOCATIONS: u8 = glow::TRUE;

/// A texture object of `desc` at `offset` of `memory`. The context is current.
pub(super) fn create_name(memory: &Memory, offset: u64, desc: &ImageDesc) -> Result<TextureName> {
    let int = |field, value: u32| {
        i32::try_from(value).map_err(|_| Invalid::new(field, format!("{value} is too many")))
    };
    let target = Target::of(desc);
    let sizes = target
        .sizes(desc)
        .ok_or_else(|| Invalid::new("desc.extent", "is beyond OpenGL's integers"))?;
    let storage = Storage {
        sizes,
        levels: int("desc.levels", desc.levels)?,
        samples: int("desc.samples", desc.samples)?,
        internal: desc.format.gl()?.internal,
        memory: memory.name(),
        offset,
    };
    let shared = memory.shared();
    let created = match &shared.functions.named_texture {
        Ok(functions) => create_named(shared, functions, desc, target, &storage),
        Err(_) => create_bound(shared, desc, target, &storage),
    };
    created.map_err(|error| with_size_hint(error, memory.info().allocation_size - offset))
}

/// [`create_name`] with direct state access.
fn create_named(
    shared: &Rc<Shared>,
    functions: &NamedTextureFns,
    desc: &ImageDesc,
    target: Target,
    storage: &Storage,
) -> Result<TextureName> {
    let gl = &shared.gl;
    // SAFETY: the context is current and has direct state access, and the target (`check_image`).
    let name =
        checked(gl, "glCreateTextures", || unsafe { gl.create_named_texture(target.token()) })?;
    let texture = owned(shared, "glCreateTextures", name)?;
    for (parameter, value) in parameters(desc) {
        // SAFETY: the context is current, the texture exists and has no storage yet, and every
        // parameter is one integer that textures of all targets have.
        checked(gl, "glTextureParameteri", || unsafe {
            gl.texture_parameter_i32(texture.name, parameter, value);
        })?;
    }
    // SAFETY: the context is current; the texture exists, is of the target that the sizes are for,
    // and has no storage; the memory object has memory, in which the texture begins
    // (`check_texture`). Whether it ends there OpenGL checks.
    unsafe { storage.give(shared, &StorageFns::named(functions), texture.name.0.get()) }?;
    Ok(texture)
}

/// [`create_name`] without direct state access: what is bound to the target is bound again after.
fn create_bound(
    shared: &Rc<Shared>,
    desc: &ImageDesc,
    target: Target,
    storage: &Storage,
) -> Result<TextureName> {
    let functions = StorageFns::bound(&shared.functions)?;
    let gl = &shared.gl;
    // SAFETY: the context is current; glGenTextures is core in every version with this extension.
    let name = checked(gl, "glGenTextures", || unsafe { gl.create_texture() })?;
    let texture = owned(shared, "glGenTextures", name)?;
    let target_token = target.token();
    // SAFETY: the context is current and has the target (`check_image`); what was bound to it in
    // the active texture unit is read first and bound again below.
    let bound = checked(gl, "glBindTexture", || unsafe {
        let bound = gl.get_parameter_texture(target.binding());
        gl.bind_texture(target_token, Some(texture.name));
        bound
    })?;
    let set = parameters(desc).try_for_each(|(parameter, value)| {
        // SAFETY: as in `create_named`, for the texture that is bound.
        checked(gl, "glTexParameteri", || unsafe {
            gl.tex_parameter_i32(target_token, parameter, value);
        })
    });
    let stored = set.and_then(|()| {
        // SAFETY: as in `create_named`, for the texture that is bound.
        unsafe { storage.give(shared, &functions, target_token) }
    });
    // SAFETY: the context is current, and `bound` is the name that was bound before, or none.
    unsafe { gl.bind_texture(target_token, bound) };
    stored.map(|()| texture)
}

/// What a new texture is told before it has storage.
fn parameters(desc: &ImageDesc) -> impl Iterator<Item = (u32, i32)> + use<> {
    let swizzled = desc.format.channel_order() == ChannelOrder::Bgra;
    let swizzle =
        [(glow::TEXTURE_SWIZZLE_R, glow::BLUE as i32), (glow::TEXTURE_SWIZZLE_B, glow::RED as i32)];
    let tiling = (TEXTURE_TILING_EXT, tiling_token(desc.tiling));
    std::iter::once(tiling).chain(swizzle.into_iter().filter(move |_| swizzled))
}

fn owned(
    shared: &Rc<Shared>,
    call: &'static str,
    name: std::result::Result<glow::Texture, String>,
) -> Result<TextureName> {
    // No name and no error: glow has only words for it.
    let name = name.map_err(|_| driver_error(call, glow::NO_ERROR))?;
    Ok(TextureName { name, shared: shared.clone() })
}

/// The functions for a texture by its name, or for the one that is bound to a target: which of the
/// two is the first argument.
struct StorageFns {
    /// The functions' names, in the order below.
    names: [&'static str; 5],
    one: Option<Storage1dFn>,
    two: Storage2dFn,
    three: Storage3dFn,
    two_multisample: Storage2dMultisampleFn,
    three_multisample: Storage3dMultisampleFn,
}

impl StorageFns {
    fn named(functions: &NamedTextureFns) -> Self {
        Self {
            names: [
                "glTextureStorageMem1DEXT",
                "glTextureStorageMem2DEXT",
                "glTextureStorageMem3DEXT",
                "glTextureStorageMem2DMultisampleEXT",
                "glTextureStorageMem3DMultisampleEXT",
            ],
            one: Some(functions.storage_1d),
            two: functions.storage_2d,
            three: functions.storage_3d,
            two_multisample: functions.storage_2d_multisample,
            three_multisample: functions.storage_3d_multisample,
        }
    }

    fn bound(functions: &Functions) -> Result<Self> {
        let texture = functions.texture.as_ref().map_err(Missing::clone)?;
        Ok(Self {
            names: [
                "glTexStorageMem1DEXT",
                "glTexStorageMem2DEXT",
                "glTexStorageMem3DEXT",
                "glTexStorageMem2DMultisampleEXT",
                "glTexStorageMem3DMultisampleEXT",
            ],
            // Not in OpenGL ES.
            one: functions.texture_1d.as_ref().ok().map(|functions| functions.storage_1d),
            two: texture.storage_2d,
            three: texture.storage_3d,
            two_multisample: texture.storage_2d_multisample,
            three_multisample: texture.storage_3d_multisample,
        })
    }
}

/// Where a texture's storage lies and what it holds, in OpenGL's integers.
struct Storage {
    sizes: Sizes,
    levels: i32,
    samples: i32,
    internal: u32,
    memory: u32,
    offset: u64,
}

impl Storage {
    /// Gives `texture` (its name, or what it is bound to) its storage.
    ///
    /// # Safety
    /// The context is current; the texture is of a target that `sizes` are for and has no storage;
    /// the memory object has memory.
    unsafe fn give(&self, shared: &Shared, functions: &StorageFns, texture: u32) -> Result<()> {
        let &Self { sizes, levels, samples, internal, memory, offset } = self;
        let [one, two, three, two_multisample, three_multisample] = functions.names;
        let fixed = FIXED_SAMPLE_LOCATIONS;
        let gl = &shared.gl;
        match sizes {
            Sizes::One(width) => {
                let function = functions.one.ok_or_else(|| driver_error(one, glow::NO_ERROR))?;
                // SAFETY: the caller's promise.
                checked(gl, one, || unsafe {
                    function(texture, levels, internal, width, memory, offset);
                })
            }
            // SAFETY: the caller's promise.
            Sizes::Two([width, height]) => checked(gl, two, || unsafe {
                (functions.two)(texture, levels, internal, width, height, memory, offset);
            }),
            // SAFETY: the caller's promise.
            Sizes::Three([width, height, depth]) => checked(gl, three, || unsafe {
                let function = functions.three;
                function(texture, levels, internal, width, height, depth, memory, offset);
            }),
            // SAFETY: the caller's promise.
            Sizes::TwoMultisample([width, height]) => checked(gl, two_multisample, || unsafe {
                let function = functions.two_multisample;
                function(texture, samples, internal, width, height, fixed, memory, offset);
            }),
            Sizes::ThreeMultisample([width, height, layers]) => {
                // SAFETY: the caller's promise.
                checked(gl, three_multisample, || unsafe {
                    let function = functions.three_multisample;
                    function(
                        texture, samples, internal, width, height, layers, fixed, memory, offset,
                    );
                })
            }
        }
    }
}

/// Where the memory is too short for the image, the driver's error says nothing of it.
fn with_size_hint(error: Error, bytes: u64) -> Error {
    match error {
        Error::Driver(mut driver)
            if [glow::OUT_OF_MEMORY, glow::INVALID_VALUE].map(i64::from).contains(&driver.code) =>
        {
            driver.name = format!(
                "{}; are the {bytes} bytes from there to the allocation's end an image like that?",
                driver.name
            )
            .into();
            driver.into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{ImageUsage, Tiling};
    use crate::format::Format;

    #[test]
    fn a_texture_is_told_its_tiling_and_swizzled_where_blue_is_first() {
        let told = |format, tiling| {
            let desc = ImageDesc::d2(format, 4, 4, ImageUsage::SAMPLED);
            parameters(&ImageDesc { tiling, ..desc }).collect::<Vec<_>>()
        };
        let (tiling, linear, optimal) = (0x9580, 0x9585, 0x9584);
        assert_eq!(told(Format::Rgba8Srgb, Tiling::Linear), [(tiling, linear)]);
        assert_eq!(
            told(Format::Bgra8Srgb, Tiling::Optimal),
            [
                (tiling, optimal),
                (glow::TEXTURE_SWIZZLE_R, 0x1905),
                (glow::TEXTURE_SWIZZLE_B, 0x1903)
            ]
        );
    }

    #[test]
    fn an_image_that_does_not_fit_is_explained() {
        let of = |code| Error::from(driver_error("glTextureStorageMem2DEXT", code));
        let text = with_size_hint(of(glow::OUT_OF_MEMORY), 77).to_string();
        assert!(text.contains("GL_OUT_OF_MEMORY") && text.contains("77 bytes"), "{text}");
        let other = of(glow::INVALID_OPERATION);
        assert_eq!(with_size_hint(other.clone(), 77), other);
    }
}
