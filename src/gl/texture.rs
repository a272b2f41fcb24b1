//! Textures that lie in imported memory.

use std::fmt;
use std::rc::Rc;

use super::deletion::Name;
use super::endpoint::{Endpoint, Shared};
use super::memory::Memory;
use super::texture_storage;
use super::texture_target::Target;
use crate::desc::{ImageDesc, ImageLayout};
use crate::error::{ImportError, ImportResult, Result};
use crate::payload::ImagePayload;

/// A texture object over imported memory. Use [`name`](Self::name) with any OpenGL command.
///
/// Its storage is immutable (`GL_TEXTURE_IMMUTABLE_FORMAT`), and its parameters are those of a new
/// texture but for two. `GL_TEXTURE_TILING_EXT` is the image's. And where the image keeps blue first
/// ([`ChannelOrder::Bgra`]), which OpenGL has no format for, the texture is of the format with red
/// first and `GL_TEXTURE_SWIZZLE_R` and `_B` are exchanged: a sampler finds the right colours, while
/// uploads, reads, drawing to it and image loads and stores see blue in the first channel.
///
/// A texture of integers wants `GL_NEAREST` filters, as always in OpenGL: without, samplers read 0.
///
/// [`ChannelOrder::Bgra`]: crate::format::ChannelOrder::Bgra
#[derive(Debug)]
pub struct Texture {
    // Before the memory: the name is deleted first.
    name: TextureName,
    offset: u64,
    desc: ImageDesc,
    memory: Memory,
}

/// A texture's name, deleted when dropped.
pub(super) struct TextureName {
    pub(super) name: glow::Texture,
    pub(super) shared: Rc<Shared>,
}

impl fmt::Debug for TextureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Drop for TextureName {
    fn drop(&mut self) {
        self.shared.discard(Name::Texture(self.name));
    }
}

impl Endpoint {
    /// Imports an image and the memory it lies in. Success consumes the descriptor.
    ///
    /// OpenGL wants the exporter's image to be made with every usage that its format has, and with
    /// [`mutable_format`](ImageDesc::mutable_format) where the context has texture views (OpenGL
    /// 4.3): it can't be told of less.
    ///
    /// # Errors
    /// The payload comes back, still open, with the errors of
    /// [`import_memory`](Self::import_memory) and [`Memory::texture`].
    ///
    /// # References
    /// `glImportMemoryFdEXT`, `glTextureStorageMem2DEXT`; `GL_EXT_memory_object`, issues 13 and 17.
    #[doc(alias = "glImportMemoryFdEXT")]
    pub fn import_image(&self, payload: ImagePayload) -> ImportResult<Texture, ImagePayload> {
        self.try_import_image(&payload).map_err(|error| ImportError::new(payload, error))
    }

    fn try_import_image(&self, payload: &ImagePayload) -> Result<Texture> {
        let (memory, offset, desc) = (payload.memory(), payload.offset(), payload.desc());
        let functions = self.check_memory(memory)?;
        self.shared.check_texture(memory.info(), offset, desc)?;
        self.shared.check_image(desc)?;
        let memory = self.import_duplicate(memory, &functions)?;
        Texture::create(&memory, offset, desc)
    }
}

impl Texture {
    /// The texture object.
    ///
    /// The name is deleted when this `Texture` is dropped, and its memory may go with it. Whatever
    /// still refers to the texture then (a framebuffer, a view, say) must not be used any more: some
    /// drivers take the memory away under it.
    #[doc(alias = "glCreateTextures")]
    pub fn name(&self) -> glow::Texture {
        self.name.name
    }

    /// What the texture is bound to: `GL_TEXTURE_2D` for a plain image, `GL_TEXTURE_2D_ARRAY` for one
    /// with layers, `GL_TEXTURE_CUBE_MAP` for six layers that are a cube, and so on.
    pub fn target(&self) -> u32 {
        Target::of(&self.desc).token()
    }

    /// What the texture is.
    pub fn desc(&self) -> &ImageDesc {
        &self.desc
    }

    /// Where in its memory the texture begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The memory it lies in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The texture and a layout, as [`Endpoint::wait`], [`Endpoint::signal`] and handoffs list it.
    pub fn in_layout(&self, layout: ImageLayout) -> (glow::Texture, ImageLayout) {
        (self.name(), layout)
    }

    /// A texture of what [`check_texture`](Shared::check_texture) and
    /// [`check_image`](Shared::check_image) have found good. The context is current.
    pub(super) fn create(memory: &Memory, offset: u64, desc: &ImageDesc) -> Result<Self> {
        let name = texture_storage::create_name(memory, offset, desc)?;
        Ok(Self { name, offset, desc: *desc, memory: memory.clone() })
    }
}
