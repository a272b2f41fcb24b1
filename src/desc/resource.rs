//! A description of either kind of resource.

use super::{BufferDesc, ImageDesc};
use crate::error::Result;

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
