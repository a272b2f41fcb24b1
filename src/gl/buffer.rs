//! Buffers that lie in imported memory.

use std::fmt;
use std::rc::Rc;

use glow::HasContext as _;

use super::deletion::Name;
use super::endpoint::{Endpoint, Shared};
use super::error::{checked, driver_error};
use super::memory::Memory;
use crate::desc::BufferDesc;
use crate::error::{Error, ImportError, ImportResult, Invalid, Missing, Result};
use crate::payload::BufferPayload;

/// A buffer object over imported memory. Use [`name`](Self::name) with any OpenGL command.
///
/// Such a buffer can't be mapped (`GL_EXT_memory_object`, issue 12); `glBufferSubData`,
/// `glGetBufferSubData`, copies and shaders reach its content.
#[derive(Debug)]
pub struct Buffer {
    // Before the memory: the name is deleted first.
    name: BufferName,
    offset: u64,
    desc: BufferDesc,
    memory: Memory,
}

/// A buffer's name, deleted when dropped.
pub(super) struct BufferName {
    name: glow::Buffer,
    shared: Rc<Shared>,
}

impl fmt::Debug for BufferName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Drop for BufferName {
    fn drop(&mut self) {
        self.shared.discard(Name::Buffer(self.name));
    }
}

impl Endpoint {
    /// Imports a buffer and the memory it lies in. Success consumes the descriptor.
    ///
    /// # Errors
    /// The payload comes back, still open, with the errors of
    /// [`import_memory`](Self::import_memory) and [`Memory::buffer`].
    ///
    /// # References
    /// `glImportMemoryFdEXT`, `glNamedBufferStorageMemEXT`.
    #[doc(alias = "glImportMemoryFdEXT")]
    pub fn import_buffer(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.try_import_buffer(&payload).map_err(|error| ImportError::new(payload, error))
    }

    fn try_import_buffer(&self, payload: &BufferPayload) -> Result<Buffer> {
        let (memory, offset, desc) = (payload.memory(), payload.offset(), payload.desc());
        let functions = self.check_memory(memory)?;
        self.shared.check_buffer(memory.info(), offset, desc)?;
        let memory = self.import_duplicate(memory, &functions)?;
        Buffer::create(&memory, offset, desc)
    }
}

impl Buffer {
    /// The buffer object.
    ///
    /// The name is deleted when this `Buffer` is dropped, and its memory may go with it. Whatever
    /// still refers to the buffer then (a vertex array, say) must not be drawn with any more: some
    /// drivers take the memory away under it.
    #[doc(alias = "glCreateBuffers")]
    pub fn name(&self) -> glow::Buffer {
        self.name.name
    }

    /// What the buffer is.
    pub fn desc(&self) -> &BufferDesc {
        &self.desc
    }

    /// Where in its memory the buffer begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The memory it lies in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whether `endpoint` imported it.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn is_of(&self, endpoint: &Endpoint) -> bool {
        Rc::ptr_eq(self.memory().shared(), &endpoint.shared)
    }

    /// A buffer of what [`check_buffer`](Shared::check_buffer) has found good. The context is current.
    pub(super) fn create(memory: &Memory, offset: u64, desc: &BufferDesc) -> Result<Self> {
        let name = create_name(memory, offset, desc.size)
            .map_err(|error| with_tail_hint(error, memory, offset, desc.size))?;
        Ok(Self { name, offset, desc: *desc, memory: memory.clone() })
    }
}

/// A buffer object of `size` bytes at `offset` of `memory`. The context is current.
pub(super) fn create_name(memory: &Memory, offset: u64, size: u64) -> Result<BufferName> {
    let shared = memory.shared();
    let size = gl_size(size)?;
    match &shared.functions.named_memory {
        Ok(named) => {
            // SAFETY: the context is current and has direct state access.
            let name = checked(&shared.gl, "glCreateBuffers", || unsafe {
                shared.gl.create_named_buffer()
            })?;
            let buffer = owned(shared, "glCreateBuffers", name)?;
            // SAFETY: the context is current, the buffer exists and has no storage, the memory
            // object has memory, and the range lies within it (`check_buffer`).
            checked(&shared.gl, "glNamedBufferStorageMemEXT", || unsafe {
                (named.buffer_storage)(buffer.name.0.get(), size, memory.name(), offset);
            })?;
            Ok(buffer)
        }
        Err(_) => create_bound(memory, offset, size),
    }
}

/// [`create_name`] without direct state access.
fn create_bound(memory: &Memory, offset: u64, size: isize) -> Result<BufferName> {
    let shared = memory.shared();
    let functions = shared.functions.memory.as_ref().map_err(Missing::clone)?;
    let gl = &shared.gl;
    // SAFETY: the context is current; glGenBuffers is core in every version with this extension.
    let name = checked(gl, "glGenBuffers", || unsafe { gl.create_buffer() })?;
    let buffer = owned(shared, "glGenBuffers", name)?;
    // SAFETY: the context is current. GL_ARRAY_BUFFER is a target in every version and belongs to
    // the context, not to a vertex array; what was bound to it is read first and bound again after.
    let bound = checked(gl, "glBindBuffer", || unsafe {
        let bound = gl.get_parameter_buffer(glow::ARRAY_BUFFER_BINDING);
        gl.bind_buffer(glow::ARRAY_BUFFER, Some(buffer.name));
        bound
    })?;
    // SAFETY: as in `create_name`, for the buffer that is bound.
    let stored = checked(gl, "glBufferStorageMemEXT", || unsafe {
        (functions.buffer_storage)(glow::ARRAY_BUFFER, size, memory.name(), offset);
    });
    // SAFETY: the context is current, and `bound` is the name that was bound before, or none.
    unsafe { gl.bind_buffer(glow::ARRAY_BUFFER, bound) };
    stored.map(|()| buffer)
}

fn owned(
    shared: &Rc<Shared>,
    call: &'static str,
    name: std::result::Result<glow::Buffer, String>,
) -> Result<BufferName> {
    // No name and no error: glow has only words for it.
    let name = name.map_err(|_| driver_error(call, glow::NO_ERROR))?;
    Ok(BufferName { name, shared: shared.clone() })
}

/// A size as OpenGL takes it.
pub(super) fn gl_size(size: u64) -> Result<isize> {
    isize::try_from(size).map_err(|_| {
        Invalid::new("desc.size", format!("{size} bytes are more than a GLsizeiptr holds")).into()
    })
}

/// Where the driver wants bytes behind the buffer that the allocation doesn't have, its
/// `GL_OUT_OF_MEMORY` says so.
fn with_tail_hint(error: Error, memory: &Memory, offset: u64, size: u64) -> Error {
    let tail = memory.shared().workarounds.buffer_tail_bytes;
    let spare = memory.info().allocation_size.saturating_sub(offset).saturating_sub(size);
    match error {
        Error::Driver(mut driver)
            if driver.code == i64::from(glow::OUT_OF_MEMORY) && spare < tail =>
        {
            driver.name = format!(
                "{}: llvmpipe wants {tail} bytes behind a shared buffer and the allocation has \
                 {spare}; allocate more than the buffer needs",
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

    #[test]
    fn a_size_beyond_a_signed_pointer_is_refused() {
        assert_eq!(gl_size(1 << 40).unwrap(), 1 << 40);
        assert!(matches!(gl_size(u64::MAX), Err(Error::Invalid(_))));
    }
}
