//! An image as a payload, and the memory layout of a linear one.

use std::os::fd::{AsFd, BorrowedFd};

use super::memory::{MemoryPayload, check_range};
use crate::desc::{Extent, ImageDesc, Tiling};
use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::format::Aspects;

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
        let texel = if planar { 1 } else { desc.format.texel_bytes() };
        let Extent { width, height, depth } = desc.extent;
        // No sum or product of these reaches 2^128.
        let times = |count: u32, bytes: u64| u128::from(count) * u128::from(bytes);
        let row = times(width, texel.into());
        let slice = row + times(height - 1, self.row_pitch);
        if height > 1 && u128::from(self.row_pitch) < row {
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
    /// the end of the allocation; the memory comes back.
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
    /// comes back.
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
