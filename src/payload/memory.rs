//! GPU memory as a payload: an allocation, and the buffers and images in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::desc::{BufferDesc, Extent, ImageDesc, Tiling};
use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::fd::{MemoryHandleType, check_memory_fd, duplicate};
use crate::format::Aspects;
use crate::identity::Identity;

/// What an importer must know about an allocation besides its descriptor.
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
    /// driver recognises a dma-buf.
    ///
    /// A GPU's opaque fd reveals neither its allocation's size and memory type, nor whether it is
    /// dedicated, nor which GPU and driver made it. The driver relies on `info` for these; if it is
    /// wrong, the behaviour is undefined (VUID-VkMemoryAllocateInfo-allocationSize-01742, -01743).
    /// Import only payloads whose exporter you trust as much as your own process.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `info.allocation_size` is 0; the descriptor is
    /// returned.
    pub fn new(fd: OwnedFd, info: MemoryInfo) -> ImportResult<Self, OwnedFd> {
        if info.allocation_size == 0 {
            let error = Invalid::new("payload.allocation_size", "is 0")
                .vuid("VUID-VkMemoryAllocateInfo-allocationSize-07897")
                .help("give the size of the exporter's allocation in bytes");
            return Err(ImportError::new(fd, error));
        }
        Ok(Self { fd, info })
    }

    /// Returns the description.
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
        // A dma-buf may be shared between drivers and GPUs; the importing driver decides by memory
        // types.
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
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid, or if the buffer reaches
    /// past the end of the allocation; the memory is returned.
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

/// The memory layout of mip level 0 of a linear image, for importers that map it as pitched memory.
/// All values are in bytes.
///
/// # References
/// `VkSubresourceLayout`.
#[doc(alias = "VkSubresourceLayout")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearLayout {
    /// From the start of the image, which is the payload's offset, to its first texel.
    pub offset: u64,
    /// From one row to the next; at least the length of a row.
    pub row_pitch: u64,
    /// From one slice of a three-dimensional image to the next; unused for other images.
    pub depth_pitch: u64,
    /// From one array layer to the next; unused if there is only one.
    pub array_pitch: u64,
}

impl LinearLayout {
    /// Checks that mip level 0 of an image of `desc` has no overlapping rows or slices in this
    /// layout, and ends at most `room` bytes after the start of the image.
    pub(crate) fn check(&self, desc: &ImageDesc, room: u64) -> Result<()> {
        let refuse = |problem: String| Err(Invalid::new("payload.linear", problem).into());
        if desc.tiling != Tiling::Linear {
            return refuse("is given for an image of optimal tiling".into());
        }
        // Depth and stencil of one format may be stored apart.
        let planar = desc.format.aspects() == Aspects::DEPTH | Aspects::STENCIL;
        let Extent { width, height, depth } = desc.extent;
        let row = if planar { width.into() } else { desc.format.row_bytes(width) };
        let rows = desc.format.rows(height);
        // No sum or product of these reaches 2^128.
        let times = |count: u32, bytes: u64| u128::from(count) * u128::from(bytes);
        let row = u128::from(row);
        let slice = row + times(rows - 1, self.row_pitch);
        if rows > 1 && u128::from(self.row_pitch) < row {
            return refuse(format!("row_pitch is {}, but rows have {row} bytes", self.row_pitch));
        }
        for (field, count, pitch) in [
            ("depth_pitch", depth, self.depth_pitch),
            ("array_pitch", desc.layers, self.array_pitch),
        ] {
            if count > 1 && u128::from(pitch) < slice {
                return refuse(format!("{field} is {pitch}, but slices have {slice} bytes"));
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

/// An image on its way to an importer: its memory, its place in it, and its description.
#[derive(Debug)]
pub struct ImagePayload {
    memory: MemoryPayload,
    offset: u64,
    desc: ImageDesc,
    linear: Option<LinearLayout>,
}

impl ImagePayload {
    /// Describes an image at `offset` bytes into `memory`.
    ///
    /// Only the driver knows how many bytes an image needs, so the importer checks its end.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid, or if the image starts past
    /// the end of the allocation; the memory is returned.
    pub fn new(
        memory: MemoryPayload,
        offset: u64,
        desc: ImageDesc,
    ) -> ImportResult<Self, MemoryPayload> {
        let allocation_size = memory.info().allocation_size;
        match desc.validate().and_then(|()| check_range(offset, 1, allocation_size)) {
            Ok(()) => Ok(Self { memory, offset, desc, linear: None }),
            Err(error) => Err(ImportError::new(memory, error)),
        }
    }

    /// Adds the memory layout of a linear image. Vulkan's exports already include it.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for an image of optimal tiling, for rows or slices
    /// that overlap, and for a mip level 0 that reaches past the end of the allocation; the payload
    /// is returned.
    pub fn with_linear(mut self, linear: LinearLayout) -> ImportResult<Self, Self> {
        let room = self.memory.info().allocation_size - self.offset;
        match linear.check(&self.desc, room) {
            Ok(()) => {
                self.linear = Some(linear);
                Ok(self)
            }
            Err(error) => Err(ImportError::new(self, error)),
        }
    }

    /// Returns the memory layout of a linear image; `None` for optimal tiling, or if the exporter
    /// left it out.
    pub fn linear(&self) -> Option<&LinearLayout> {
        self.linear.as_ref()
    }

    /// Returns the allocation that the image lies in.
    pub fn memory(&self) -> &MemoryPayload {
        &self.memory
    }

    /// Returns the offset of the image in the allocation, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the description of the image.
    pub fn desc(&self) -> &ImageDesc {
        &self.desc
    }

    /// Returns a second payload of the same image, with a duplicate of the descriptor.
    /// FD_CLOEXEC is set.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) if the process is out of descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        let memory = self.memory.try_clone()?;
        Ok(Self { memory, offset: self.offset, desc: self.desc, linear: self.linear })
    }

    /// Returns the memory, the offset in bytes and the description. Drops
    /// [`linear`](Self::linear).
    pub fn into_parts(self) -> (MemoryPayload, u64, ImageDesc) {
        (self.memory, self.offset, self.desc)
    }
}

impl AsFd for ImagePayload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
