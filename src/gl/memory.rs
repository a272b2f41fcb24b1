//! Imported memory: a GL memory object, and the buffers in it.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::deletion::Owned;
use super::endpoint::Endpoint;
use super::errors::{AppErrors, checked, driver_error};
use super::ffi::{DEDICATED_MEMORY_OBJECT_EXT, HANDLE_TYPE_OPAQUE_FD_EXT, MemoryFns};
use super::names::MemoryName;
use super::storage::gl_size;
use crate::desc::BufferDesc;
use crate::error::{Api, Error, ImportError, ImportResult, Invalid, Missing, Result};
use crate::fd::{MemoryHandleType, transfer_duplicate};
use crate::payload::{BufferPayload, MemoryInfo, MemoryPayload, check_range};

/// Memory that another API allocated, imported into OpenGL. Cheap to clone: clones are the same
/// memory, and every resource in it keeps it alive.
#[derive(Clone, Debug)]
pub struct Memory(Arc<MemoryObject>);

#[derive(Debug)]
struct MemoryObject {
    name: Owned<MemoryName>,
    info: MemoryInfo,
}

impl Endpoint {
    /// Imports an allocation. Success consumes the descriptor.
    ///
    /// # Errors
    /// On failure the payload is returned, still open, with
    /// [`Mismatch`](Error::Mismatch) if it is from another GPU or driver,
    /// [`Missing`] for a dma-buf or without `GL_EXT_memory_object_fd`,
    /// [`Invalid`] if the descriptor can't be GPU memory or the context is not current,
    /// [`Driver`](Error::Driver) if OpenGL rejects the import.
    ///
    /// # References
    /// `glCreateMemoryObjectsEXT`, `glMemoryObjectParameterivEXT`
    /// (`GL_DEDICATED_MEMORY_OBJECT_EXT`), `glImportMemoryFdEXT` (`GL_HANDLE_TYPE_OPAQUE_FD_EXT`).
    #[doc(alias = "glCreateMemoryObjectsEXT")]
    #[doc(alias = "glImportMemoryFdEXT")]
    pub fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory, MemoryPayload> {
        let imported = || {
            let (functions, _errors) = self.check_memory(&payload)?;
            self.import_duplicate(&payload, &functions)
        };
        imported().map_err(|error| ImportError::new(payload, error))
    }

    /// Checks all that can be checked before the driver gets a descriptor, and begins the
    /// operation.
    pub(super) fn check_memory(
        &self,
        payload: &MemoryPayload,
    ) -> Result<(MemoryFns, AppErrors<'_>)> {
        payload.check(self.identities())?;
        let handle_type = payload.info().handle_type;
        if handle_type != MemoryHandleType::OpaqueFd {
            return Err(missing_handle_type(handle_type).into());
        }
        let functions = *self.0.functions.memory.as_ref().map_err(Missing::clone)?;
        self.0.workarounds.check_memory_fd(payload)?;
        Ok((functions, self.enter()?))
    }

    /// Imports a duplicate of a descriptor that [`check_memory`](Self::check_memory) accepted, so
    /// that the payload can be returned if this or a later step fails.
    pub(super) fn import_duplicate(
        &self,
        payload: &MemoryPayload,
        functions: &MemoryFns,
    ) -> Result<Memory> {
        let size = payload.info().allocation_size;
        let name = self.create_memory(payload.info().dedicated, functions)?;
        transfer_duplicate(payload, |fd| {
            // SAFETY: the context is current, the memory object exists and has no memory yet, and
            // `fd` is open. On success OpenGL owns it (GL_EXT_memory_object_fd, section 6.1), for
            // which `transfer_duplicate` gives it up.
            checked(&self.0.gl, "glImportMemoryFdEXT", || unsafe {
                (functions.import_fd)(name.name.0.get(), size, HANDLE_TYPE_OPAQUE_FD_EXT, fd);
            })
        })?;
        let memory = Memory(Arc::new(MemoryObject { name, info: payload.info().clone() }));
        if self.0.workarounds.verify_imports {
            memory.verify()?;
        }
        tracing::debug!(memory = memory.name(), size, "imported memory into OpenGL");
        Ok(memory)
    }

    /// Creates a memory object without memory. Its parameters can't be set after the import.
    fn create_memory(&self, dedicated: bool, functions: &MemoryFns) -> Result<Owned<MemoryName>> {
        let (gl, call) = (&self.0.gl, "glCreateMemoryObjectsEXT");
        let mut name = 0;
        // SAFETY: the context is current (`check_memory`), and there is room for one name.
        checked(gl, call, || unsafe { (functions.create)(1, &mut name) })?;
        let name = NonZeroU32::new(name).ok_or_else(|| driver_error(call, glow::NO_ERROR))?;
        let owned = Owned::new(self, MemoryName(name));
        if dedicated {
            let call = "glMemoryObjectParameterivEXT(GL_DEDICATED_MEMORY_OBJECT_EXT)";
            let dedicated = i32::from(glow::TRUE);
            // SAFETY: the memory object exists and has no memory yet; the parameter is one integer.
            checked(gl, call, || unsafe {
                (functions.parameteriv)(name.get(), DEDICATED_MEMORY_OBJECT_EXT, &dedicated);
            })?;
        }
        Ok(owned)
    }

    /// Rejects an offset at which OpenGL can't place a resource; `vuid` is the rule for dedicated
    /// allocations.
    pub(super) fn check_offset(
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
        if offset != 0 && self.0.workarounds.refuse_offsets {
            let what =
                format!("a {resource} at offset {offset} of its memory (llvmpipe ignores it)");
            return Err(Missing::new(Api::OpenGl, what, format!("a shared {resource}"))
                .help(format!("share the {resource} at offset 0, or in an allocation of its own"))
                .into());
        }
        Ok(())
    }
}

impl Memory {
    /// Returns the memory object's name, for calls such as `glTextureStorageMem2DEXT`.
    ///
    /// The name is deleted with the last clone and the last resource that this library created in
    /// it. Anything else in the memory must be gone by then: some drivers unmap the memory at once.
    #[doc(alias = "glCreateMemoryObjectsEXT")]
    pub fn name(&self) -> u32 {
        self.0.name.name.0.get()
    }

    /// Returns what is known about the allocation.
    pub fn info(&self) -> &MemoryInfo {
        &self.0.info
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.name.endpoint
    }

    pub(super) fn object(&self) -> MemoryName {
        self.0.name.name
    }

    /// Creates the smallest possible buffer, to check that the memory object has memory at all.
    fn verify(&self) -> Result<()> {
        let smallest = self.endpoint().create_buffer(self.object(), 0, 1);
        smallest.map(drop).map_err(|error| match error {
            Error::Driver(driver) if driver.code == i64::from(glow::OUT_OF_MEMORY) => {
                let tail = self.endpoint().0.workarounds.buffer_tail_bytes;
                Invalid::new("payload.fd", "OpenGL accepted it, but it holds no memory")
                    .help(format!(
                        "pass the fd of an allocation by the same driver, longer than {tail} bytes"
                    ))
                    .into()
            }
            other => other,
        })
    }
}

/// The error for memory that isn't an opaque fd.
pub(super) fn missing_handle_type(handle_type: MemoryHandleType) -> Missing {
    Missing::new(Api::OpenGl, format!("memory as {handle_type}"), "importing memory")
        .help("export an opaque fd: GL_EXT_memory_object_fd has no other handle type")
}

/// A buffer object in imported memory. Cheap to clone: clones are the same buffer.
///
/// Use its [`name`](Self::name) with any OpenGL command except `glMapBuffer` and its variants
/// (`GL_EXT_memory_object`, issue 12): `glBufferSubData`, `glGetBufferSubData`, copies and shaders
/// access its content.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<BufferObject>);

#[derive(Debug)]
struct BufferObject {
    // Before the memory: the name is deleted first.
    name: Owned<glow::Buffer>,
    offset: u64,
    desc: BufferDesc,
    memory: Memory,
}

impl Endpoint {
    /// Imports a buffer and its memory. Success consumes the descriptor.
    ///
    /// # Errors
    /// On failure the payload is returned, still open, with the errors of
    /// [`import_memory`](Self::import_memory) and [`Memory::buffer`].
    ///
    /// # References
    /// `glImportMemoryFdEXT`, `glBufferStorageMemEXT`.
    #[doc(alias = "glImportMemoryFdEXT")]
    #[doc(alias = "glBufferStorageMemEXT")]
    pub fn import_buffer(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        let imported = || {
            let (memory, offset, desc) = (payload.memory(), payload.offset(), payload.desc());
            let (functions, _errors) = self.check_memory(memory)?;
            check_placement(self, memory.info(), offset, desc)?;
            Buffer::create(&self.import_duplicate(memory, &functions)?, offset, desc)
        };
        imported().map_err(|error| ImportError::new(payload, error))
    }
}

impl Memory {
    /// Creates the buffer that `desc` describes, `offset` bytes into the memory.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) if `desc` is invalid, the buffer ends beyond the allocation or
    /// has an offset in a dedicated one, or the context is not current; [`Missing`](Error::Missing)
    /// for an offset if the driver ignores offsets ([`workarounds`](super::workarounds));
    /// [`Driver`](Error::Driver) if the OpenGL call fails.
    ///
    /// # References
    /// `glBufferStorageMemEXT`.
    #[doc(alias = "glBufferStorageMemEXT")]
    #[doc(alias = "glNamedBufferStorageMemEXT")]
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        check_range(offset, desc.size, self.info().allocation_size)?;
        check_placement(self.endpoint(), self.info(), offset, desc)?;
        let _errors = self.endpoint().enter()?;
        Buffer::create(self, offset, desc)
    }
}

impl Buffer {
    /// Returns the buffer object's name.
    ///
    /// The name is deleted with the last clone. Its memory lives as long as an object of the
    /// application, such as a vertex array, holds the buffer; for an exception see
    /// [`LLVMPIPE_FREES_HELD_MEMORY`](super::workarounds::LLVMPIPE_FREES_HELD_MEMORY).
    #[doc(alias = "glGenBuffers")]
    #[doc(alias = "glCreateBuffers")]
    pub fn name(&self) -> glow::Buffer {
        self.0.name.name
    }

    /// Returns the buffer's description.
    pub fn desc(&self) -> &BufferDesc {
        &self.0.desc
    }

    /// Returns the buffer's offset in its memory, in bytes.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Returns the buffer's memory.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Gives up on acquiring a released buffer, so that it can be released again. Its content is
    /// undefined.
    pub fn reclaim(&self) {
        self.memory().endpoint().group().imported(self.name());
    }

    /// Returns whether the buffer can be used with `endpoint`.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.memory().endpoint().shares_with(endpoint)
    }

    /// Creates a buffer that was checked. The context must be current.
    fn create(memory: &Memory, offset: u64, desc: &BufferDesc) -> Result<Self> {
        let name = memory
            .endpoint()
            .create_buffer(memory.object(), offset, desc.size)
            .map_err(|error| explain_tail(error, memory, offset, desc.size))?;
        let endpoint = memory.endpoint();
        endpoint.group().imported(name.name);
        endpoint.0.placed(memory.object(), name.name, desc.size, Vec::new);
        let memory = memory.clone();
        Ok(Self(Arc::new(BufferObject { name, offset, desc: *desc, memory })))
    }
}

/// Rejects a valid buffer that OpenGL can't place at `offset`.
fn check_placement(
    endpoint: &Endpoint,
    info: &MemoryInfo,
    offset: u64,
    desc: &BufferDesc,
) -> Result<()> {
    gl_size(desc.size)?;
    endpoint.check_offset(info, offset, "buffer", "VUID-vkBindBufferMemory-memory-01508")
}

/// Explains `GL_OUT_OF_MEMORY` if the driver needs more bytes after the buffer than the allocation
/// has.
fn explain_tail(error: Error, memory: &Memory, offset: u64, size: u64) -> Error {
    let tail = memory.endpoint().0.workarounds.buffer_tail_bytes;
    let spare = memory.info().allocation_size.saturating_sub(offset).saturating_sub(size);
    match error {
        Error::Driver(mut driver)
            if driver.code == i64::from(glow::OUT_OF_MEMORY) && spare < tail =>
        {
            driver.name = format!(
                "{}: llvmpipe requires {tail} bytes after a shared buffer and the allocation has \
                 {spare}; allocate more than the buffer needs",
                driver.name
            )
            .into();
            driver.into()
        }
        other => other,
    }
}
