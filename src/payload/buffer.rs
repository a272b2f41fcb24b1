//! A buffer as a payload.

use std::os::fd::{AsFd, BorrowedFd};

use super::memory::{MemoryPayload, check_range};
use crate::desc::BufferDesc;
use crate::error::{ImportError, ImportResult, Result};

/// A buffer on its way to an importer: its memory, its place in it, and its description.
#[derive(Debug)]
pub struct BufferPayload {
    memory: MemoryPayload,
    offset: u64,
    desc: BufferDesc,
}

impl BufferPayload {
    /// Describes a buffer at `offset` bytes into `memory`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid, or if the buffer reaches past
    /// the end of the allocation; the memory comes back.
    pub fn new(
        memory: MemoryPayload,
        offset: u64,
        desc: BufferDesc,
    ) -> ImportResult<Self, MemoryPayload> {
        let allocation_size = memory.info().allocation_size;
        match desc.validate().and_then(|()| check_range(offset, desc.size, allocation_size)) {
            Ok(()) => Ok(Self { memory, offset, desc }),
            Err(error) => Err(ImportError::new(memory, error)),
        }
    }

    /// Returns the allocation that the buffer lies in.
    pub fn memory(&self) -> &MemoryPayload {
        &self.memory
    }

    /// Returns the offset of the buffer in the allocation, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the description of the buffer.
    pub fn desc(&self) -> &BufferDesc {
        &self.desc
    }

    /// Returns a second payload of the same buffer, with a duplicate of the descriptor.
    /// FD_CLOEXEC is set.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) if the process is out of descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { memory: self.memory.try_clone()?, offset: self.offset, desc: self.desc })
    }

    /// Returns the memory, the offset in bytes and the description.
    pub fn into_parts(self) -> (MemoryPayload, u64, BufferDesc) {
        (self.memory, self.offset, self.desc)
    }
}

impl AsFd for BufferPayload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
