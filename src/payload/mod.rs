//! Payloads: a file descriptor and *all* that an importer needs to make sense of it.
//!
//! A payload owns its descriptor. It is neither `Copy` nor `Clone`: an import consumes it, as the
//! driver consumes the number. To import twice, export twice or [`try_clone`](BufferPayload::try_clone),
//! which duplicates the descriptor.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::desc::{BufferDesc, Extent, ImageDesc, Tiling};
use crate::error::{Error, ImportError, Invalid, Result};
use crate::fd;
use crate::fd::{MemoryHandleType, check_memory_fd};
use crate::format::Aspects;
use crate::identity::Identity;
mod semaphore;
pub use semaphore::{SemaphoreInfo, SemaphoreKind, SemaphorePayload};

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
    ///
    /// # Trust
    /// An importer checks what can be checked: that `info` names its own GPU and driver, that the
    /// descriptor may be GPU memory at all, that a file is as long as `info` says, that sizes are
    /// within the device's limits, that the memory type exists and suits the resource, and that a
    /// dma-buf, which can be asked, is known to the driver.
    ///
    /// What nobody can ask an opaque fd of a GPU is the allocation's size, its memory type, whether
    /// it is dedicated, and whether it is of the GPU and driver that `info` names. The driver takes
    /// these as they are told, and where they are wrong its behaviour is undefined
    /// (VUID-VkMemoryAllocateInfo-allocationSize-01742, -01743). Import only payloads whose exporter
    /// you trust as you trust your own process.
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
            self.info.identity.check_same(importer)?;
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

/// Where the rows of a linear image's first level lie, for importers that map it as pitched memory.
/// All in bytes.
///
/// # References
/// `VkSubresourceLayout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearLayout {
    /// From the image's beginning, which is the payload's offset, to its first texel.
    pub offset: u64,
    /// From one row to the next; at least as long as a row.
    pub row_pitch: u64,
    /// From one slice of a three-dimensional image to the next; else without meaning.
    pub depth_pitch: u64,
    /// From one array layer to the next; without meaning where there is one.
    pub array_pitch: u64,
}

impl LinearLayout {
    /// Checks that the first level of an image of `desc`, laid out so, is one, and ends `room` bytes
    /// after the image's beginning or before.
    pub(crate) fn check(&self, desc: &ImageDesc, room: u64) -> Result<()> {
        let refuse = |problem: String| Err(Invalid::new("payload.linear", problem).into());
        if desc.tiling != Tiling::Linear {
            return refuse("given for an optimal image".into());
        }
        // The aspects of depth and stencil together may lie apart.
        let planar = desc.format.aspects() == Aspects::DEPTH | Aspects::STENCIL;
        let texel = if planar { 1 } else { desc.format.texel_bytes() };
        let Extent { width, height, depth } = desc.extent;
        // No sum or product of these reaches 2^128.
        let times = |count: u32, bytes: u64| u128::from(count) * u128::from(bytes);
        let row = times(width, texel.into());
        let slice = row + times(height - 1, self.row_pitch);
        if height > 1 && u128::from(self.row_pitch) < row {
            return refuse(format!("a row_pitch of {}, but rows of {row} bytes", self.row_pitch));
        }
        for (field, count, pitch) in [
            ("depth_pitch", depth, self.depth_pitch),
            ("array_pitch", desc.layers, self.array_pitch),
        ] {
            if count > 1 && u128::from(pitch) < slice {
                return refuse(format!("a {field} of {pitch}, but slices of {slice} bytes"));
            }
        }
        let last_slice =
            times(depth - 1, self.depth_pitch) + times(desc.layers - 1, self.array_pitch);
        let end = u128::from(self.offset) + last_slice + slice;
        if end > u128::from(room) {
            return refuse(format!("reaches {end} bytes into an allocation that has {room} left"));
        }
        Ok(())
    }
}

/// An image on its way to an importer.
#[derive(Debug)]
pub struct ImagePayload {
    memory: MemoryPayload,
    offset: u64,
    desc: ImageDesc,
    linear: Option<LinearLayout>,
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
            Ok(()) => Ok(Self { memory, offset, desc, linear: None }),
            Err(error) => Err(ImportError::new(memory, error)),
        }
    }

    /// Adds where the rows of a linear image lie. Vulkan's exports have it added already.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an optimal image, rows or slices that overlap, and a first level that
    /// reaches past the end of the allocation; the payload comes back.
    pub fn with_linear(mut self, linear: LinearLayout) -> Result<Self, ImportError<Self>> {
        let room = self.memory.info.allocation_size - self.offset;
        match linear.check(&self.desc, room) {
            Ok(()) => {
                self.linear = Some(linear);
                Ok(self)
            }
            Err(error) => Err(ImportError::new(self, error)),
        }
    }

    /// Where the rows of a linear image's first level lie; `None` for an optimal image, and where
    /// the exporter didn't say.
    pub fn linear(&self) -> Option<&LinearLayout> {
        self.linear.as_ref()
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
        let memory = self.memory.try_clone()?;
        Ok(Self { memory, offset: self.offset, desc: self.desc, linear: self.linear })
    }

    /// The memory, the offset in bytes and the description; [`linear`](Self::linear) is asked before.
    pub fn into_parts(self) -> (MemoryPayload, u64, ImageDesc) {
        (self.memory, self.offset, self.desc)
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
mod tests;
