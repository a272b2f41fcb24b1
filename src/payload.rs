//! Payloads: a file descriptor and *all* that an importer needs to make sense of it.
//!
//! A payload owns its descriptor. It is neither `Copy` nor `Clone`: an import consumes it, as the
//! driver consumes the number. To import twice, export twice or [`try_clone`](BufferPayload::try_clone),
//! which duplicates the descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, ImportError, Invalid, Result};
use crate::fd;
use crate::handle::{MemoryHandleType, SemaphoreHandleType, check_memory_fd, check_semaphore_fd};
use crate::identity::Identity;
use crate::resource::{BufferDesc, ImageDesc};

/// What an importer must know of an allocation, apart from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// How the memory travels.
    pub handle_type: MemoryHandleType,
    /// Size of the *allocation* in bytes, never of the resource. An opaque-fd import repeats it
    /// exactly (VUID-VkMemoryAllocateInfo-allocationSize-01742).
    pub allocation_size: u64,
    /// The exporter's Vulkan memory type, which an opaque-fd import repeats; `None` where the
    /// exporter is not Vulkan.
    pub memory_type_index: Option<u32>,
    /// The allocation belongs to one resource (`VkMemoryDedicatedAllocateInfo`). All or nothing:
    /// every importer must say the same.
    pub dedicated: bool,
    /// The GPU and driver that made it.
    pub identity: Identity,
}

/// An allocation of GPU memory on its way to an importer.
#[derive(Debug)]
pub struct MemoryPayload {
    fd: OwnedFd,
    info: MemoryInfo,
}

impl MemoryPayload {
    /// Puts a descriptor and what is known of it together. Any descriptor will do: whether it is
    /// memory is found out by the import.
    pub fn new(fd: OwnedFd, info: MemoryInfo) -> Self {
        Self { fd, info }
    }

    /// What an importer must know.
    pub fn info(&self) -> &MemoryInfo {
        &self.info
    }

    /// A second payload for the same memory, with a duplicate of the descriptor (FD_CLOEXEC set).
    ///
    /// # Errors
    /// [`Error::Driver`] when the process is out of descriptors; this payload is untouched.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: fd::duplicate(&self.fd)?, info: self.info.clone() })
    }

    /// The descriptor and what is known of it.
    pub fn into_parts(self) -> (OwnedFd, MemoryInfo) {
        (self.fd, self.info)
    }

    /// All that can be checked before a driver sees the descriptor: that the importer is on the
    /// exporter's GPU and driver, and that the descriptor may be GPU memory at all.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another GPU or driver, [`Error::Invalid`] for a size of 0 or a
    /// descriptor that can't be GPU memory.
    pub fn check(&self, importer: &[Identity]) -> Result<()> {
        // A dma-buf may cross drivers and GPUs; its importer decides by memory types.
        if self.info.handle_type == MemoryHandleType::OpaqueFd {
            self.info.identity.require_same(importer)?;
        }
        if self.info.allocation_size == 0 {
            return Err(Invalid::new("payload.allocation_size", "is 0")
                .vuid("VUID-VkMemoryAllocateInfo-allocationSize-07897")
                .into());
        }
        check_memory_fd(&self.fd, self.info.handle_type, self.info.allocation_size)
    }
}

impl AsFd for MemoryPayload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A buffer on its way to an importer: its memory, where in it the buffer lies, and what it is.
#[derive(Debug)]
pub struct BufferPayload {
    memory: MemoryPayload,
    offset: u64,
    desc: BufferDesc,
}

impl BufferPayload {
    /// A buffer of `desc` at `offset` bytes into `memory`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the buffer is none or reaches past the end of the allocation; the
    /// memory comes back.
    pub fn new(
        memory: MemoryPayload,
        offset: u64,
        desc: BufferDesc,
    ) -> Result<Self, ImportError<MemoryPayload>> {
        let fits = desc
            .validate()
            .and_then(|()| check_range(offset, desc.size, memory.info.allocation_size));
        match fits {
            Ok(()) => Ok(Self { memory, offset, desc }),
            Err(error) => Err(ImportError::new(memory, error)),
        }
    }

    /// The allocation the buffer lies in.
    pub fn memory(&self) -> &MemoryPayload {
        &self.memory
    }

    /// Where in the allocation the buffer begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the buffer is.
    pub fn desc(&self) -> &BufferDesc {
        &self.desc
    }

    /// A second payload for the same buffer, with a duplicate of the descriptor (FD_CLOEXEC set).
    ///
    /// # Errors
    /// [`Error::Driver`] when the process is out of descriptors; this payload is untouched.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { memory: self.memory.try_clone()?, offset: self.offset, desc: self.desc })
    }

    /// The memory, the offset in bytes and the description.
    pub fn into_parts(self) -> (MemoryPayload, u64, BufferDesc) {
        (self.memory, self.offset, self.desc)
    }
}

/// An image on its way to an importer.
#[derive(Debug)]
pub struct ImagePayload {
    memory: MemoryPayload,
    offset: u64,
    desc: ImageDesc,
}

impl ImagePayload {
    /// An image of `desc` at `offset` bytes into `memory`.
    ///
    /// How many bytes an image takes only its driver knows, so the end is checked by the importer.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the image is none or begins past the end of the allocation; the
    /// memory comes back.
    pub fn new(
        memory: MemoryPayload,
        offset: u64,
        desc: ImageDesc,
    ) -> Result<Self, ImportError<MemoryPayload>> {
        let fits =
            desc.validate().and_then(|()| check_range(offset, 1, memory.info.allocation_size));
        match fits {
            Ok(()) => Ok(Self { memory, offset, desc }),
            Err(error) => Err(ImportError::new(memory, error)),
        }
    }

    /// The allocation the image lies in.
    pub fn memory(&self) -> &MemoryPayload {
        &self.memory
    }

    /// Where in the allocation the image begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the image is.
    pub fn desc(&self) -> &ImageDesc {
        &self.desc
    }

    /// A second payload for the same image, with a duplicate of the descriptor (FD_CLOEXEC set).
    ///
    /// # Errors
    /// [`Error::Driver`] when the process is out of descriptors; this payload is untouched.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { memory: self.memory.try_clone()?, offset: self.offset, desc: self.desc })
    }

    /// The memory, the offset in bytes and the description.
    pub fn into_parts(self) -> (MemoryPayload, u64, ImageDesc) {
        (self.memory, self.offset, self.desc)
    }
}

/// Whether a semaphore is a flag or a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SemaphoreKind {
    /// Signalled once, waited for once.
    Binary,
    /// A 64-bit counter that only grows (`VK_SEMAPHORE_TYPE_TIMELINE`).
    Timeline,
}

/// What an importer must know of a semaphore, apart from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreInfo {
    /// How the semaphore travels.
    pub handle_type: SemaphoreHandleType,
    /// Flag or counter; an importer that gets it wrong reads nonsense.
    pub kind: SemaphoreKind,
    /// The GPU and driver that made it.
    pub identity: Identity,
}

/// A semaphore on its way to an importer.
#[derive(Debug)]
pub struct SemaphorePayload {
    fd: OwnedFd,
    info: SemaphoreInfo,
}

impl SemaphorePayload {
    /// Puts a descriptor and what is known of it together.
    pub fn new(fd: OwnedFd, info: SemaphoreInfo) -> Self {
        Self { fd, info }
    }

    /// What an importer must know.
    pub fn info(&self) -> &SemaphoreInfo {
        &self.info
    }

    /// A second payload for the same semaphore, with a duplicate of the descriptor (FD_CLOEXEC set).
    ///
    /// # Errors
    /// [`Error::Driver`] when the process is out of descriptors; this payload is untouched.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: fd::duplicate(&self.fd)?, info: self.info.clone() })
    }

    /// The descriptor and what is known of it.
    pub fn into_parts(self) -> (OwnedFd, SemaphoreInfo) {
        (self.fd, self.info)
    }

    /// All that can be checked before a driver sees the descriptor.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another GPU or driver, [`Error::Invalid`] for a timeline semaphore as
    /// sync fd or a descriptor that can't be a semaphore.
    pub fn check(&self, importer: &[Identity]) -> Result<()> {
        self.info.identity.require_same(importer)?;
        let sync_fd = self.info.handle_type == SemaphoreHandleType::SyncFd;
        if sync_fd && self.info.kind == SemaphoreKind::Timeline {
            return Err(Invalid::new("payload.kind", "a timeline semaphore can't be a sync fd")
                .vuid("VUID-VkImportSemaphoreFdInfoKHR-handleType-07307")
                .into());
        }
        check_semaphore_fd(&self.fd)
    }
}

impl AsFd for SemaphorePayload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Checks that `size` bytes at `offset` lie inside an allocation of `allocation_size` bytes.
pub(crate) fn check_range(offset: u64, size: u64, allocation_size: u64) -> Result<()> {
    match offset.checked_add(size) {
        Some(end) if end <= allocation_size => Ok(()),
        _ => Err(Error::from(
            Invalid::new(
                "offset",
                format!("{size} bytes at {offset} reach past the allocation's {allocation_size}"),
            )
            .vuid("VUID-vkBindBufferMemory-None-10741")
            .help("the offset counts from the start of the allocation, in bytes"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Uuid;
    use proptest::prelude::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    fn identity(byte: u8) -> Identity {
        let uuid = Uuid::from_bytes([byte; 16]);
        Identity { device: uuid, driver: Some(uuid), name: "test".into() }
    }

    fn memory(fd: impl Into<OwnedFd>, allocation_size: u64) -> MemoryPayload {
        let info = MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size,
            memory_type_index: Some(0),
            dedicated: false,
            identity: identity(1),
        };
        MemoryPayload::new(fd.into(), info)
    }

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn identity_is_checked_before_the_descriptor() {
        let pipe_like = memory(File::open("/dev/null").unwrap(), 64);
        assert!(matches!(pipe_like.check(&[identity(2)]), Err(Error::Mismatch(_))));
        assert!(matches!(pipe_like.check(&[identity(1)]), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_file_shorter_than_promised_is_refused() {
        assert!(memory(file(63), 64).check(&[identity(1)]).is_err());
        assert!(memory(file(0), 0).check(&[identity(1)]).is_err());
        memory(file(64), 64).check(&[identity(1)]).unwrap();
    }

    #[test]
    fn a_clone_is_another_descriptor_of_the_same_memory() {
        let memory = memory(file(64), 64);
        let payload = BufferPayload::new(memory, 0, BufferDesc::storage(64)).unwrap();
        let clone = payload.try_clone().unwrap();
        assert_ne!(payload.memory().as_fd().as_raw_fd(), clone.memory().as_fd().as_raw_fd());
        assert_eq!(payload.memory().info(), clone.memory().info());
    }

    #[test]
    fn a_timeline_semaphore_is_never_a_sync_fd() {
        let info = SemaphoreInfo {
            handle_type: SemaphoreHandleType::SyncFd,
            kind: SemaphoreKind::Timeline,
            identity: identity(1),
        };
        let payload = SemaphorePayload::new(file(1).into(), info);
        let error = payload.check(&[identity(1)]).unwrap_err();
        assert!(error.to_string().contains("timeline"), "{error}");
    }

    proptest! {
        #[test]
        fn a_buffer_payload_never_reaches_past_its_allocation(
            offset in prop_oneof![0u64..200, any::<u64>()],
            size in prop_oneof![0u64..200, any::<u64>()],
            allocation in prop_oneof![0u64..200, any::<u64>()],
        ) {
            let memory = memory(File::open("/dev/null").unwrap(), allocation);
            let raw = memory.as_fd().as_raw_fd();
            let fits = size > 0 && u128::from(offset) + u128::from(size) <= u128::from(allocation);
            match BufferPayload::new(memory, offset, BufferDesc::storage(size)) {
                Ok(payload) => {
                    prop_assert!(fits);
                    prop_assert_eq!(payload.offset(), offset);
                }
                Err(error) => {
                    prop_assert!(!fits);
                    let back = error.into_payload();
                    prop_assert_eq!(back.as_fd().as_raw_fd(), raw);
                }
            }
        }
    }
}
