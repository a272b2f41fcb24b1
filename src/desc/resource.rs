//! The description of a buffer, and of either kind of resource.

use super::image::ImageDesc;
use super::usage::BufferUsage;
use crate::error::{Invalid, Result};

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
    /// Same as [`BufferDesc::validate`] and [`ImageDesc::validate`].
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

/// The description of a shared buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferDesc {
    /// Size in bytes; at least 1. The allocation may be larger.
    pub size: u64,
    /// Uses of the buffer; the importer creates its buffer with the same usage.
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
    /// [`Invalid`] for size 0 (VUID-VkBufferCreateInfo-size-00912) and for no usage
    /// (VUID-VkBufferCreateInfo-None-09500).
    pub fn validate(&self) -> Result<()> {
        if self.size == 0 {
            return Err(Invalid::new("desc.size", "is 0")
                .vuid("VUID-VkBufferCreateInfo-size-00912")
                .help("a shared buffer has at least one byte")
                .into());
        }
        if self.usage.is_empty() {
            return Err(Invalid::new("desc.usage", "is empty")
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
        BufferDesc::storage(1).validate().unwrap();
        let raw = BufferUsage::from_bits_retain(0x800);
        BufferDesc { size: 1, usage: raw }.validate().unwrap();
        for desc in [BufferDesc::storage(0), BufferDesc { size: 1, usage: BufferUsage::empty() }] {
            assert!(matches!(desc.validate(), Err(Error::Invalid(_))), "{desc:?}");
        }
    }
}
