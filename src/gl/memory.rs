//! Imported memory: a GL memory object.

use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::buffer::{self, Buffer};
use super::deletion::Name;
use super::endpoint::{Endpoint, Shared};
use super::error::{checked, driver_error};
use super::ffi::{DEDICATED_MEMORY_OBJECT_EXT, HANDLE_TYPE_OPAQUE_FD_EXT, MemoryFns};
use super::texture::Texture;
use crate::desc::{BufferDesc, ImageDesc};
use crate::error::{Api, Error, ImportError, ImportResult, Invalid, Missing, Result};
use crate::fd::{MemoryHandleType, transfer_duplicate};
use crate::payload::{MemoryInfo, MemoryPayload, check_range};

/// Memory that another API allocated, as OpenGL sees it. Reference counted: clones are the same
/// memory, and every resource in it keeps it alive.
#[derive(Clone, Debug)]
pub struct Memory {
    object: Rc<MemoryObject>,
}

struct MemoryObject {
    name: NonZeroU32,
    info: MemoryInfo,
    shared: Rc<Shared>,
}

impl fmt::Debug for MemoryObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryObject")
            .field("name", &self.name)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Drop for MemoryObject {
    fn drop(&mut self) {
        self.shared.discard(Name::Memory(self.name));
    }
}

impl Endpoint {
    /// Imports an allocation. Success consumes the descriptor.
    ///
    /// # Errors
    /// The payload comes back, still open, with
    /// [`Mismatch`](crate::Error::Mismatch) where it is another GPU's or driver's,
    /// [`Missing`] for a dma-buf or where `GL_EXT_memory_object_fd` is missing,
    /// [`Invalid`] for what can't be GPU memory or where the context is not current,
    /// [`Driver`](crate::Error::Driver) where OpenGL refuses.
    ///
    /// # References
    /// `glCreateMemoryObjectsEXT`, `glMemoryObjectParameterivEXT`
    /// (`GL_DEDICATED_MEMORY_OBJECT_EXT`), `glImportMemoryFdEXT` (`GL_HANDLE_TYPE_OPAQUE_FD_EXT`).
    #[doc(alias = "glImportMemoryFdEXT")]
    pub fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory, MemoryPayload> {
        let imported = self
            .check_memory(&payload)
            .and_then(|functions| self.import_duplicate(&payload, &functions));
        imported.map_err(|error| ImportError::new(payload, error))
    }

    /// All that can be known before a descriptor is handed over; the functions to go on with.
    pub(super) fn check_memory(&self, payload: &MemoryPayload) -> Result<MemoryFns> {
        payload.check(self.identities())?;
        let handle_type = payload.info().handle_type;
        if handle_type != MemoryHandleType::OpaqueFd {
            return Err(missing_handle_type(handle_type).into());
        }
        let functions = *self.shared.functions.memory.as_ref().map_err(Missing::clone)?;
        self.shared.workarounds.check_memory_fd(payload)?;
        self.shared.enter()?;
        Ok(functions)
    }

    /// Imports a duplicate of the descriptor that [`check_memory`](Self::check_memory) has found
    /// good, so that the payload stays whole if this or a later step fails.
    pub(super) fn import_duplicate(
        &self,
        payload: &MemoryPayload,
        functions: &MemoryFns,
    ) -> Result<Memory> {
        let size = payload.info().allocation_size;
        let object = self.create_memory(payload.info().clone(), functions)?;
        transfer_duplicate(payload, |raw| {
            self.shared.import_fd(functions, object.name, size, raw)
        })?;
        let memory = Memory { object: Rc::new(object) };
        if self.shared.workarounds.prove_imports {
            memory.prove()?;
        }
        tracing::debug!(memory = memory.name(), size, "imported memory into OpenGL");
        Ok(memory)
    }

    /// A memory object without memory, its parameters set: they can't be after the import.
    fn create_memory(&self, info: MemoryInfo, functions: &MemoryFns) -> Result<MemoryObject> {
        let gl = &self.shared.gl;
        let mut name = 0;
        // SAFETY: the context is current (`check_memory`), and there is room for one name.
        checked(gl, "glCreateMemoryObjectsEXT", || unsafe { (functions.create)(1, &mut name) })?;
        let name = NonZeroU32::new(name)
            .ok_or_else(|| driver_error("glCreateMemoryObjectsEXT", glow::NO_ERROR))?;
        let object = MemoryObject { name, info, shared: self.shared.clone() };
        if object.info.dedicated {
            let call = "glMemoryObjectParameterivEXT(GL_DEDICATED_MEMORY_OBJECT_EXT)";
            let dedicated = i32::from(glow::TRUE);
            // SAFETY: the memory object exists and has no memory yet; the parameter is one integer.
            checked(gl, call, || unsafe {
                (functions.parameteriv)(name.get(), DEDICATED_MEMORY_OBJECT_EXT, &dedicated);
            })?;
        }
        Ok(object)
    }
}

impl Shared {
    fn import_fd(
        &self,
        functions: &MemoryFns,
        memory: NonZeroU32,
        size: u64,
        fd: RawFd,
    ) -> Result<()> {
        // SAFETY: the context is current, the memory object exists and has no memory yet, and `fd`
        // is open. On success OpenGL owns it (GL_EXT_memory_object_fd, section 6.1), which
        // `transfer_fd` sees to.
        checked(&self.gl, "glImportMemoryFdEXT", || unsafe {
            (functions.import_fd)(memory.get(), size, HANDLE_TYPE_OPAQUE_FD_EXT, fd);
        })
    }
}

impl Memory {
    /// The memory object's name, for calls such as `glTextureStorageMem2DEXT`.
    ///
    /// The name is deleted with the last clone and the last resource that came from this library.
    /// What else lies in the memory must be gone by then: some drivers take the memory away under it.
    #[doc(alias = "glCreateMemoryObjectsEXT")]
    pub fn name(&self) -> u32 {
        self.object.name.get()
    }

    /// What is known of the allocation.
    pub fn info(&self) -> &MemoryInfo {
        &self.object.info
    }

    /// A buffer of `desc`, `offset` bytes into the memory.
    ///
    /// # Errors
    /// [`Invalid`] where the buffer is none, reaches past the end of the allocation, lies at an
    /// offset of a dedicated one, or where the context is not current; [`Missing`] for an offset in
    /// a driver that ignores it ([`LLVMPIPE_IGNORES_OFFSETS`]);
    /// [`Driver`](crate::Error::Driver) where OpenGL refuses.
    ///
    /// # References
    /// `glNamedBufferStorageMemEXT`, or `glBufferStorageMemEXT` in a context without direct state
    /// access, where the binding of `GL_ARRAY_BUFFER` is put back afterwards.
    ///
    /// [`LLVMPIPE_IGNORES_OFFSETS`]: super::workarounds::LLVMPIPE_IGNORES_OFFSETS
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        self.shared().check_buffer(self.info(), offset, desc)?;
        self.shared().enter()?;
        Buffer::create(self, offset, desc)
    }

    /// A texture of `desc`, `offset` bytes into the memory.
    ///
    /// The offset is one that the exporter's API allows for the image, and has bound it at.
    ///
    /// # Errors
    /// [`Invalid`] where the image is none, certainly reaches past the end of the allocation, lies at
    /// an offset of a dedicated one, or where the context is not current; [`Missing`] for a format,
    /// shape, size, tiling or sample count that the context hasn't, and for an offset in a driver
    /// that ignores it ([`LLVMPIPE_IGNORES_OFFSETS`]); [`Driver`](crate::Error::Driver) where OpenGL
    /// refuses, as it does where the image doesn't fit.
    ///
    /// # References
    /// `glGetInternalformativ` (`GL_TILING_TYPES_EXT`), `GL_TEXTURE_TILING_EXT`,
    /// `glTextureStorageMem1DEXT`, `glTextureStorageMem2DEXT`, `glTextureStorageMem3DEXT`,
    /// `glTextureStorageMem2DMultisampleEXT`, `glTextureStorageMem3DMultisampleEXT`; or
    /// `glTexStorageMem2DEXT` and so on in a context without direct state access, where the binding
    /// of the texture's target is put back afterwards.
    ///
    /// [`LLVMPIPE_IGNORES_OFFSETS`]: super::workarounds::LLVMPIPE_IGNORES_OFFSETS
    #[doc(alias = "glTextureStorageMem2DEXT")]
    pub fn texture(&self, offset: u64, desc: &ImageDesc) -> Result<Texture> {
        self.shared().check_texture(self.info(), offset, desc)?;
        self.shared().enter()?;
        self.shared().check_image(desc)?;
        Texture::create(self, offset, desc)
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.object.shared
    }

    /// Makes the smallest buffer there is, to see whether the memory object has memory at all.
    fn prove(&self) -> Result<()> {
        buffer::create_name(self, 0, 1).map(drop).map_err(|error| match error {
            Error::Driver(driver) if driver.code == i64::from(glow::OUT_OF_MEMORY) => {
                let tail = self.shared().workarounds.buffer_tail_bytes;
                Invalid::new("payload.fd", "OpenGL took it, but there is no memory behind it")
                    .help(format!(
                        "pass the fd of an allocation of the same driver, longer than {tail} bytes"
                    ))
                    .into()
            }
            other => other,
        })
    }
}

impl Shared {
    /// All that can be known of a buffer before OpenGL is asked.
    pub(super) fn check_buffer(
        &self,
        info: &MemoryInfo,
        offset: u64,
        desc: &BufferDesc,
    ) -> Result<()> {
        desc.validate()?;
        check_range(offset, desc.size, info.allocation_size)?;
        buffer::gl_size(desc.size)?;
        self.check_offset(info, offset, "buffer", "VUID-vkBindBufferMemory-memory-01508")
    }

    /// All that can be known of a texture before OpenGL is asked.
    pub(super) fn check_texture(
        &self,
        info: &MemoryInfo,
        offset: u64,
        desc: &ImageDesc,
    ) -> Result<()> {
        desc.validate()?;
        let (bytes, room) = (self.workarounds.texture_bytes(desc), info.allocation_size);
        if offset.checked_add(bytes).is_none_or(|end| end > room) {
            let what = format!("an image of {bytes} bytes or more at {offset} reaches past {room}");
            return Err(Invalid::new("offset", what)
                .vuid("VUID-vkBindImageMemory-size-01049")
                .help("import the image as it was exported: at its offset, with its description")
                .into());
        }
        self.check_offset(info, offset, "texture", "VUID-vkBindImageMemory-memory-02628")
    }

    fn check_offset(
        &self,
        info: &MemoryInfo,
        offset: u64,
        resource: &str,
        vuid: &'static str,
    ) -> Result<()> {
        if offset != 0 && info.dedicated {
            return Err(Invalid::new("offset", format!("{offset} in a dedicated allocation"))
                .vuid(vuid)
                .help("a dedicated allocation holds one resource, at offset 0")
                .into());
        }
        if offset != 0 && self.workarounds.refuse_offsets {
            let what =
                format!("a {resource} at offset {offset} of its memory (llvmpipe ignores it)");
            return Err(Missing::new(Api::OpenGl, what, format!("a shared {resource}"))
                .help(format!("share the {resource} at offset 0, or in an allocation of its own"))
                .into());
        }
        Ok(())
    }
}

/// What to say of memory that doesn't travel as an opaque fd.
pub(super) fn missing_handle_type(handle_type: MemoryHandleType) -> Missing {
    Missing::new(Api::OpenGl, format!("memory by {handle_type}"), "importing memory")
        .help("export an opaque fd: GL_EXT_memory_object_fd knows no other handle type")
}
