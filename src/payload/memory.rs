//! An allocation of GPU memory as a payload.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::fd::{MemoryHandleType, check_memory_fd, duplicate};
use crate::identity::Identity;

/// What an importer must know about an allocation, apart from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// The handle type of the descriptor.
    pub handle_type: MemoryHandleType,
    /// Size of the *allocation* in bytes, at least 1; not the size of a resource in it. The import
    /// of an opaque fd repeats it exactly (VUID-VkMemoryAllocateInfo-allocationSize-01742).
    pub allocation_size: u64,
    /// The exporter's Vulkan memory type, which the import of an opaque fd repeats; `None` if the
    /// exporter is not Vulkan.
    pub memory_type_index: Option<u32>,
    /// Whether the allocation belongs to one resource (`VkMemoryDedicatedAllocateInfo`). Exporter
    /// and importers must agree on it.
    pub dedicated: bool,
    /// The GPU and the driver of the exporter.
    pub identity: Identity,
}

/// An allocation of GPU memory on its way to an importer.
#[derive(Debug)]
pub struct MemoryPayload {
    fd: OwnedFd,
    info: MemoryInfo,
}

impl MemoryPayload {
    /// Combines a descriptor with its description.
    ///
    /// The descriptor itself is checked by the import, right before a driver sees it.
    ///
    /// # Trust
    /// An importer checks what can be checked: that `info` names its own GPU and driver, that the
    /// descriptor may be GPU memory at all, that a file is as long as `info` says, that sizes are
    /// within the device's limits, that the memory type exists and suits the resource, and that the
    /// driver knows a dma-buf.
    ///
    /// An opaque fd of a GPU can't be queried for its allocation's size, its memory type, whether it
    /// is dedicated, or which GPU and driver made it. The driver relies on `info` for these, and if
    /// they are wrong its behaviour is undefined (VUID-VkMemoryAllocateInfo-allocationSize-01742,
    /// -01743). Import only payloads whose exporter you trust as you trust your own process.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `info.allocation_size` is 0; the descriptor
    /// comes back.
    pub fn new(fd: OwnedFd, info: MemoryInfo) -> ImportResult<Self, OwnedFd> {
        if info.allocation_size == 0 {
            let error = Invalid::new("payload.allocation_size", "is 0")
                .vuid("VUID-VkMemoryAllocateInfo-allocationSize-07897")
                .help("give the size of the exporter's allocation in bytes");
            return Err(ImportError::new(fd, error));
        }
        Ok(Self { fd, info })
    }

    /// Returns what an importer must know.
    pub fn info(&self) -> &MemoryInfo {
        &self.info
    }

    /// Returns a second payload of the same memory, with a duplicate of the descriptor.
    /// FD_CLOEXEC is set.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) if the process is out of descriptors.
    #[doc(alias = "F_DUPFD_CLOEXEC")]
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: duplicate(&self.fd)?, info: self.info.clone() })
    }

    /// Returns the descriptor and its description.
    pub fn into_parts(self) -> (OwnedFd, MemoryInfo) {
        (self.fd, self.info)
    }

    /// Checks what can be checked before a driver sees the descriptor: that the importer is on the
    /// exporter's GPU and driver, and that the descriptor may be GPU memory at all.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) for another GPU or driver,
    /// [`Error::Invalid`](crate::Error::Invalid) for a descriptor that can't be GPU memory.
    pub fn check(&self, importer: &[Identity]) -> Result<()> {
        // A dma-buf may cross drivers and GPUs; the importing driver decides by memory types.
        if self.info.handle_type == MemoryHandleType::OpaqueFd {
            self.info.identity.check_same(importer)?;
        }
        check_memory_fd(&self.fd, self.info.handle_type, self.info.allocation_size)
    }
}

impl AsFd for MemoryPayload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Checks that `size` bytes at `offset` lie inside an allocation of `allocation_size` bytes.
pub(crate) fn check_range(offset: u64, size: u64, allocation_size: u64) -> Result<()> {
    match offset.checked_add(size) {
        Some(end) if end <= allocation_size => Ok(()),
        _ => {
            let problem =
                format!("{size} bytes at {offset} reach past the allocation's {allocation_size}");
            Err(Invalid::new("offset", problem)
                .vuid("VUID-vkBindBufferMemory-None-10741")
                .help("the offset counts from the start of the allocation, in bytes")
                .into())
        }
    }
}
