//! Descriptions of shared resources, independent of any API, and the one place that validates them.

#![forbid(unsafe_code)]

mod buffer;
mod image;
mod layout;

pub use buffer::{BufferDesc, BufferUsage};
pub use image::{Extent, ImageDesc, ImageKind, ImageUsage, Tiling, full_mip_chain};
pub use layout::ImageLayout;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::ImageUsage;
    use crate::error::Error;
    use crate::format::Format;

    #[test]
    fn a_resource_is_validated_as_the_buffer_or_image_that_it_is() {
        let image = ImageDesc::d2(Format::Rgba8Unorm, 1, 1, ImageUsage::SAMPLED);
        ResourceDesc::from(BufferDesc::storage(1)).validate().unwrap();
        ResourceDesc::from(image).validate().unwrap();
        let field = |desc: ResourceDesc| match desc.validate() {
            Err(Error::Invalid(invalid)) => invalid.parameter,
            other => panic!("{desc:?}: {other:?}"),
        };
        assert_eq!(field(BufferDesc::storage(0).into()), "desc.size");
        assert_eq!(field(ImageDesc { layers: 0, ..image }.into()), "desc.layers");
    }
}
