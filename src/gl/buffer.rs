//! Buffers in imported memory.

use std::rc::Rc;

use super::endpoint::{Endpoint, Owned};
use super::memory::Memory;
use super::storage::gl_size;
use crate::desc::BufferDesc;
use crate::error::{Error, ImportError, ImportResult, Result};
use crate::payload::{BufferPayload, MemoryInfo, check_range};

/// A buffer object in imported memory. Cheap to clone: clones are the same buffer.
///
/// Use its [`name`](Self::name) with any OpenGL command except `glMapBuffer` and its variants
/// (`GL_EXT_memory_object`, issue 12): `glBufferSubData`, `glGetBufferSubData`, copies and shaders
/// access its content.
#[derive(Clone, Debug)]
pub struct Buffer(Rc<BufferObject>);

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
            let functions = self.check_memory(memory)?;
            check_placement(self, memory.info(), offset, desc)?;
            Buffer::create(&self.import_duplicate(memory, &functions)?, offset, desc)
        };
        imported().map_err(|error| ImportError::new(payload, error))
    }
}

impl Memory {
    /// Creates a buffer of `desc`, `offset` bytes into the memory.
    ///
    /// # Errors
    /// [`Invalid`](Error::Invalid) if `desc` is invalid, the buffer ends beyond the allocation or has
    /// an offset in a dedicated one, or the context is not current; [`Missing`](Error::Missing) for
    /// an offset if the driver ignores offsets ([`workarounds`](super::workarounds));
    /// [`Driver`](Error::Driver) if OpenGL refuses.
    ///
    /// # References
    /// `glBufferStorageMemEXT`.
    #[doc(alias = "glBufferStorageMemEXT")]
    #[doc(alias = "glNamedBufferStorageMemEXT")]
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        check_range(offset, desc.size, self.info().allocation_size)?;
        check_placement(self.endpoint(), self.info(), offset, desc)?;
        self.endpoint().enter()?;
        Buffer::create(self, offset, desc)
    }
}

impl Buffer {
    /// Returns the buffer object's name.
    ///
    /// The name is deleted with the last clone, and its memory may go with it. Anything that still
    /// refers to the buffer then, such as a vertex array, must not be used: some drivers unmap the
    /// memory at once.
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

    /// Returns whether `endpoint` imported it.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.memory().endpoint().is_same(endpoint)
    }

    /// Creates a buffer that was checked. The context must be current.
    fn create(memory: &Memory, offset: u64, desc: &BufferDesc) -> Result<Self> {
        let name = memory
            .endpoint()
            .create_buffer(memory.object(), offset, desc.size)
            .map_err(|error| explain_tail(error, memory, offset, desc.size))?;
        let memory = memory.clone();
        Ok(Self(Rc::new(BufferObject { name, offset, desc: *desc, memory })))
    }
}

/// Refuses a valid buffer that OpenGL can't place there.
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
