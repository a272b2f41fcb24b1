//! Descriptions of shared resources, independent of any API, and the one place that validates them.

#![forbid(unsafe_code)]

use bitflags::bitflags;

use crate::error::{Invalid, Result};

mod image;
mod layout;

pub use image::{Extent, ImageDesc, ImageKind, ImageUsage, Tiling, full_mip_chain};
pub use layout::ImageLayout;

/// The description of a buffer or an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResourceDesc {
    /// A buffer.
    Buffer(BufferDesc),
    /// An image.
    Image(ImageDesc),
}

impl ResourceDesc {
    /// Checks the rules that hold in every API.
    ///
    /// # Errors
    /// As [`BufferDesc::validate`] and [`ImageDesc::validate`].
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Buffer(desc) => desc.validate(),
            Self::Image(desc) => desc.validate(),
        }
    }
}

impl From<BufferDesc> for ResourceDesc {
    fn from(desc: BufferDesc) -> Self {
        Self::Buffer(desc)
    }
}

impl From<ImageDesc> for ResourceDesc {
    fn from(desc: ImageDesc) -> Self {
        Self::Image(desc)
    }
}

bitflags! {
    /// What a buffer is used for, in any of the APIs. The bits are those of
    /// `VkBufferUsageFlagBits`.
    #[doc(alias = "VkBufferUsageFlags")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct BufferUsage: u32 {
        /// Source of copies.
        const TRANSFER_SRC = 0x1;
        /// Destination of copies and fills.
        const TRANSFER_DST = 0x2;
        /// Uniform texel buffer.
        const UNIFORM_TEXEL = 0x4;
        /// Storage texel buffer.
        const STORAGE_TEXEL = 0x8;
        /// Uniform buffer.
        const UNIFORM = 0x10;
        /// Storage buffer (SSBO).
        const STORAGE = 0x20;
        /// Index buffer.
        const INDEX = 0x40;
        /// Vertex buffer.
        const VERTEX = 0x80;
        /// Indirect draw and dispatch commands.
        const INDIRECT = 0x100;
        /// Accessed by its device address; needs the feature `bufferDeviceAddress`.
        const DEVICE_ADDRESS = 0x20000;
    }
}

/// The description of a shared buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferDesc {
    /// Size in bytes; at least 1. The allocation may be larger.
    pub size: u64,
    /// What it is used for; the importer creates its buffer with the same usage.
    pub usage: BufferUsage,
}

impl BufferDesc {
    /// Describes a buffer of `size` bytes that every API can copy to and from and use in a kernel.
    pub const fn storage(size: u64) -> Self {
        let copies = BufferUsage::TRANSFER_SRC.union(BufferUsage::TRANSFER_DST);
        Self { size, usage: copies.union(BufferUsage::STORAGE) }
    }

    /// Checks the rules that hold in every API.
    ///
    /// # Errors
    /// [`Invalid`] for size 0 (VUID-VkBufferCreateInfo-size-00912) and for no or unknown usage
    /// (VUID-VkBufferCreateInfo-None-09500).
    pub fn validate(&self) -> Result<()> {
        if self.size == 0 {
            return Err(Invalid::new("desc.size", "is 0")
                .vuid("VUID-VkBufferCreateInfo-size-00912")
                .help("a shared buffer has at least one byte")
                .into());
        }
        let unknown = self.usage.bits() & !BufferUsage::all().bits();
        if self.usage.is_empty() || unknown != 0 {
            return Err(Invalid::new(
                "desc.usage",
                format!("{:#x} has no known usage or an unknown one", self.usage),
            )
            .vuid("VUID-VkBufferCreateInfo-None-09500")
            .help("list every use, in any API, as a BufferUsage")
            .into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_buffer_without_size_or_usage_is_refused() {
        assert!(BufferDesc::storage(1).validate().is_ok());
        for desc in [
            BufferDesc::storage(0),
            BufferDesc { size: 1, usage: BufferUsage::empty() },
            BufferDesc { size: 1, usage: BufferUsage::from_bits_retain(0x8000_0000) },
        ] {
            assert!(matches!(desc.validate(), Err(Error::Invalid(_))), "{desc:?}");
        }
    }
}
