//! Textures in imported memory.

use std::sync::Arc;

use super::deletion::Owned;
use super::endpoint::Endpoint;
use super::memory::Memory;
use super::target::Target;
use crate::desc::{Extent, ImageDesc, ImageLayout};
use crate::error::{Error, ImportError, ImportResult, Invalid, Mismatch, Result};
use crate::payload::{ImagePayload, MemoryInfo};

/// A texture object in imported memory. Cheap to clone: clones are the same texture. Use its
/// [`name`](Self::name) with any OpenGL command.
///
/// Its storage is immutable (`GL_TEXTURE_IMMUTABLE_FORMAT`). Its parameters are those of a new
/// texture, with two exceptions: `GL_TEXTURE_TILING_EXT` is the image's. And since OpenGL has no
/// format with blue first ([`ChannelOrder::Bgra`]), a texture of such an image has the format with
/// red first, and its `GL_TEXTURE_SWIZZLE_R` and `_B` are exchanged. Samplers see the right
/// colours; uploads, reads, rendering, and image loads and stores see blue in the first channel.
///
/// A texture of integers requires `GL_NEAREST` filters, as always in OpenGL. With other filters,
/// samplers read 0.
///
/// [`ChannelOrder::Bgra`]: crate::format::ChannelOrder::Bgra
#[derive(Clone, Debug)]
pub struct Texture(Arc<TextureObject>);

#[derive(Debug)]
struct TextureObject {
    // Before the memory: the name is deleted first.
    name: Owned<glow::Texture>,
    offset: u64,
    desc: ImageDesc,
    memory: Memory,
}

impl Endpoint {
    /// Imports an image and its memory. Success consumes the descriptor.
    ///
    /// OpenGL requires the exporter to create the image with every usage that it supports for the
    /// format, and with [`MUTABLE_FORMAT`](crate::desc::ImageFlags::MUTABLE_FORMAT) if the context
    /// has texture views (OpenGL 4.3), since a texture can't be restricted to fewer uses:
    /// [`widest_for_gl`](crate::peer::widest_for_gl) describes such an image. An image that was
    /// created with less is still imported, because the drivers known so far accept it and only the
    /// exporter knows which usages it supports; a `tracing` warning names what is missing. Don't
    /// use the texture in those ways.
    ///
    /// OpenGL chooses the layout of a linear image itself and has no query for it. If the driver's
    /// choice is known ([`workarounds`](super::workarounds)), a payload with another
    /// [layout](ImagePayload::linear) is refused. On other drivers, NVIDIA's included, the layout
    /// can't be checked, and a texture of another one has its texels in the wrong places: import
    /// only linear images that the same driver's Vulkan created.
    ///
    /// # Errors
    /// On failure the payload is returned, still open, with the errors of
    /// [`import_memory`](Self::import_memory) and [`Memory::texture`], and with
    /// [`Mismatch`](Error::Mismatch) if the layout of a linear image is not OpenGL's.
    ///
    /// # References
    /// `glImportMemoryFdEXT`, `glTexStorageMem2DEXT`; `GL_EXT_memory_object`, issues 13 and 17.
    #[doc(alias = "glImportMemoryFdEXT")]
    #[doc(alias = "glTexStorageMem2DEXT")]
    pub fn import_image(&self, payload: ImagePayload) -> ImportResult<Texture, ImagePayload> {
        let imported = || {
            let (memory, offset, desc) = (payload.memory(), payload.offset(), payload.desc());
            let (functions, _errors) = self.check_memory(memory)?;
            check_placement(self, memory.info(), offset, desc)?;
            self.check_linear(&payload)?;
            self.check_image(desc)?;
            Texture::create(&self.import_duplicate(memory, &functions)?, offset, desc)
        };
        imported().map_err(|error| ImportError::new(payload, error))
    }

    /// Rejects a linear image whose layout is known not to be OpenGL's.
    fn check_linear(&self, payload: &ImagePayload) -> Result<()> {
        let desc = payload.desc();
        let Some(given) = payload.linear() else { return Ok(()) };
        let Some(used) = self.0.workarounds.linear_layout(desc) else { return Ok(()) };
        let Extent { height, depth, .. } = desc.extent;
        for (field, matters, used, given) in [
            ("payload.linear.offset", true, used.offset, given.offset),
            ("payload.linear.row_pitch", height > 1, used.row_pitch, given.row_pitch),
            ("payload.linear.depth_pitch", depth > 1, used.depth_pitch, given.depth_pitch),
            ("payload.linear.array_pitch", desc.layers > 1, used.array_pitch, given.array_pitch),
        ] {
            if matters && used != given {
                return Err(Mismatch::new(field, used, given)
                    .help(
                        "OpenGL can't be given a layout: export an image that the same driver's Vulkan \
                         created, or share a buffer and copy",
                    )
                    .into());
            }
        }
        Ok(())
    }
}

impl Memory {
    /// Creates the texture that `desc` describes, `offset` bytes into the memory.
    ///
    /// The offset must be the one at which the exporter bound the image. The layout of a linear
    /// image is not checked: it must be the one that OpenGL chooses
    /// ([`import_image`](Endpoint::import_image)).
    ///
    /// # Errors
    /// [`Invalid`] if `desc` is invalid, the image certainly ends beyond the allocation or has an
    /// offset in a dedicated one, or the context is not current; [`Missing`](Error::Missing) for a
    /// format, shape, size, tiling or sample count that the context lacks, and for an offset if the
    /// driver ignores offsets ([`workarounds`](super::workarounds)); [`Driver`](Error::Driver) if
    /// the OpenGL call fails, as it does if the image doesn't fit.
    ///
    /// # References
    /// `glGetInternalformativ` (`GL_TILING_TYPES_EXT`), `GL_TEXTURE_TILING_EXT`,
    /// `glTexStorageMem1DEXT`, `glTexStorageMem2DEXT`, `glTexStorageMem3DEXT`,
    /// `glTexStorageMem2DMultisampleEXT`, `glTexStorageMem3DMultisampleEXT`.
    #[doc(alias = "glTexStorageMem1DEXT")]
    #[doc(alias = "glTexStorageMem2DEXT")]
    #[doc(alias = "glTexStorageMem3DEXT")]
    #[doc(alias = "glTexStorageMem2DMultisampleEXT")]
    #[doc(alias = "glTexStorageMem3DMultisampleEXT")]
    #[doc(alias = "glTextureStorageMem2DEXT")]
    pub fn texture(&self, offset: u64, desc: &ImageDesc) -> Result<Texture> {
        desc.validate()?;
        check_placement(self.endpoint(), self.info(), offset, desc)?;
        let _errors = self.endpoint().enter()?;
        self.endpoint().check_image(desc)?;
        Texture::create(self, offset, desc)
    }
}

impl Texture {
    /// Returns the texture object's name.
    ///
    /// The name is deleted with the last clone. Its memory lives as long as an object of the
    /// application, such as a framebuffer or a view, holds the texture; for an exception see
    /// [`LLVMPIPE_FREES_HELD_MEMORY`](super::workarounds::LLVMPIPE_FREES_HELD_MEMORY).
    #[doc(alias = "glGenTextures")]
    #[doc(alias = "glCreateTextures")]
    pub fn name(&self) -> glow::Texture {
        self.0.name.name
    }

    /// Returns the target to bind the texture to: `GL_TEXTURE_2D` for a plain image,
    /// `GL_TEXTURE_2D_ARRAY` for one with layers, `GL_TEXTURE_CUBE_MAP` for a cube, and so on.
    pub fn target(&self) -> u32 {
        Target::of(self.desc()).token()
    }

    /// Returns the texture's description.
    pub fn desc(&self) -> &ImageDesc {
        &self.0.desc
    }

    /// Returns the texture's offset in its memory, in bytes.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Returns the texture's memory.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Returns the texture's name with a layout, as [`Endpoint::wait`] and [`Endpoint::signal`]
    /// list textures.
    pub fn in_layout(&self, layout: ImageLayout) -> (glow::Texture, ImageLayout) {
        (self.name(), layout)
    }

    /// Gives up on acquiring a released texture, so that it can be released again. Its content is
    /// undefined.
    pub fn reclaim(&self) {
        self.memory().endpoint().group().imported(self.name());
    }

    /// Creates a texture that was checked. The context must be current.
    fn create(memory: &Memory, offset: u64, desc: &ImageDesc) -> Result<Self> {
        if let Some(lacks) = memory.endpoint().lacks_for_gl(desc)? {
            tracing::warn!(
                "a shared {} image was created without {lacks}, which OpenGL requires: create it as \
                 ImageDesc::for_gl describes",
                desc.format
            );
        }
        let name = memory
            .endpoint()
            .create_texture(memory.object(), offset, desc)
            .map_err(|error| explain_size(error, memory.info().allocation_size - offset))?;
        let endpoint = memory.endpoint();
        endpoint.group().imported(name.name);
        let bytes = endpoint.0.workarounds.texture_bytes(desc);
        endpoint.0.placed(memory.object(), name.name, bytes, || {
            let extents = (0..desc.levels).map(|level| desc.extent.at_level(level));
            extents.map(|extent| (extent.width, extent.height)).collect()
        });
        let memory = memory.clone();
        Ok(Self(Arc::new(TextureObject { name, offset, desc: *desc, memory })))
    }
}

/// Rejects a valid image that OpenGL can't place at `offset`.
fn check_placement(
    endpoint: &Endpoint,
    info: &MemoryInfo,
    offset: u64,
    desc: &ImageDesc,
) -> Result<()> {
    let (bytes, room) = (endpoint.0.workarounds.texture_bytes(desc), info.allocation_size);
    if offset.checked_add(bytes).is_none_or(|end| end > room) {
        let problem = format!(
            "an image of {bytes} bytes or more at {offset} ends beyond the {room} bytes of its memory"
        );
        return Err(Invalid::new("offset", problem)
            .vuid("VUID-vkBindImageMemory-size-01049")
            .help("import the image as it was exported: at its offset, with its description")
            .into());
    }
    endpoint.check_offset(info, offset, "texture", "VUID-vkBindImageMemory-memory-02628")
}

/// Explains an error that drivers return if the memory is too short for the image.
fn explain_size(error: Error, bytes: u64) -> Error {
    match error {
        Error::Driver(mut driver)
            if [glow::OUT_OF_MEMORY, glow::INVALID_VALUE].map(i64::from).contains(&driver.code) =>
        {
            driver.name = format!(
                "{}; check that the image fits into the {bytes} bytes from its offset to the end of \
                 the allocation",
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
    use super::super::errors::driver_error;
    use super::*;

    #[test]
    fn an_image_that_does_not_fit_is_explained() {
        let of = |code| Error::from(driver_error("glTexStorageMem2DEXT", code));
        let text = explain_size(of(glow::OUT_OF_MEMORY), 77).to_string();
        assert!(text.contains("GL_OUT_OF_MEMORY") && text.contains("77 bytes"), "{text}");
        let other = of(glow::INVALID_OPERATION);
        assert_eq!(explain_size(other.clone(), 77), other);
    }
}
