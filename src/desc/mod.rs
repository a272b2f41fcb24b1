//! What a shared resource is, in no API's words, and the one place that validates it.

#![forbid(unsafe_code)]

use bitflags::bitflags;

mod layout;

pub use layout::ImageLayout;

use crate::error::{Invalid, Result};
use crate::format::{Aspects, Format};

bitflags! {
    /// What a buffer is used for, in any of the APIs. The bits are those of `VkBufferUsageFlagBits`.
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
        /// Its device address is taken; needs the feature `bufferDeviceAddress`.
        const DEVICE_ADDRESS = 0x20000;
    }
}

bitflags! {
    /// What an image is used for, in any of the APIs. The bits are those of `VkImageUsageFlagBits`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ImageUsage: u32 {
        /// Source of copies.
        const TRANSFER_SRC = 0x1;
        /// Destination of copies and clears.
        const TRANSFER_DST = 0x2;
        /// Sampled in a shader.
        const SAMPLED = 0x4;
        /// Read and written in a shader.
        const STORAGE = 0x8;
        /// Drawn to.
        const COLOR_ATTACHMENT = 0x10;
        /// Depth or stencil of a drawing.
        const DEPTH_STENCIL_ATTACHMENT = 0x20;
    }
}

/// A shared buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferDesc {
    /// Size in bytes; at least 1. Not the size of its memory, which is larger.
    pub size: u64,
    /// What it is used for; the importer makes its buffer with the same usage.
    pub usage: BufferUsage,
}

impl BufferDesc {
    /// A buffer of `size` bytes that every API can copy to and from and use in a kernel.
    pub const fn storage(size: u64) -> Self {
        let copies = BufferUsage::TRANSFER_SRC.union(BufferUsage::TRANSFER_DST);
        Self { size, usage: copies.union(BufferUsage::STORAGE) }
    }

    /// Checks what any API would refuse.
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
                format!("{:#x} names no known usage", self.usage),
            )
            .vuid("VUID-VkBufferCreateInfo-None-09500")
            .help("name each use, in any API, as a BufferUsage")
            .into());
        }
        Ok(())
    }
}

/// The dimensionality of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageKind {
    /// One dimension; with layers, an array.
    D1,
    /// Two dimensions; with layers, an array.
    D2,
    /// Three dimensions; never layered.
    D3,
    /// A cube: six square layers, or a multiple of six for an array of cubes.
    Cube,
}

/// How an image's texels lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tiling {
    /// As the driver likes: fastest, and opaque to everybody else.
    Optimal,
    /// Row by row.
    Linear,
}

/// Width, height and depth in texels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Texels in x; at least 1.
    pub width: u32,
    /// Texels in y; 1 for one-dimensional images.
    pub height: u32,
    /// Texels in z; 1 for all but three-dimensional images.
    pub depth: u32,
}

/// A shared image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageDesc {
    /// Dimensionality.
    pub kind: ImageKind,
    /// Texel format.
    pub format: Format,
    /// Size of level 0 in texels.
    pub extent: Extent,
    /// Array layers; at least 1.
    pub layers: u32,
    /// Mip levels; at least 1, at most the full chain.
    pub levels: u32,
    /// Samples a texel: 1, 2, 4, 8, 16, 32 or 64.
    pub samples: u32,
    /// Layout in memory; the importer makes its image with the same tiling.
    pub tiling: Tiling,
    /// What it is used for; the importer makes its image with the same usage.
    pub usage: ImageUsage,
    /// Views of another format may be made of it (`VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT`).
    pub mutable_format: bool,
}

impl ImageDesc {
    /// A two-dimensional image of one level, layer and sample, optimally tiled.
    pub const fn d2(format: Format, width: u32, height: u32, usage: ImageUsage) -> Self {
        Self {
            kind: ImageKind::D2,
            format,
            extent: Extent { width, height, depth: 1 },
            layers: 1,
            levels: 1,
            samples: 1,
            tiling: Tiling::Optimal,
            usage,
            mutable_format: false,
        }
    }

    /// Checks what any API would refuse.
    ///
    /// # Errors
    /// [`Invalid`] that names the field and the rule of `VkImageCreateInfo`.
    pub fn validate(&self) -> Result<()> {
        let Extent { width, height, depth } = self.extent;
        let refuse = |field: &'static str, problem: String, vuid: &'static str| {
            Err(Invalid::new(field, problem).vuid(vuid).into())
        };
        for (field, value, vuid) in [
            ("desc.extent.width", width, "VUID-VkImageCreateInfo-extent-00944"),
            ("desc.extent.height", height, "VUID-VkImageCreateInfo-extent-00945"),
            ("desc.extent.depth", depth, "VUID-VkImageCreateInfo-extent-00946"),
            ("desc.levels", self.levels, "VUID-VkImageCreateInfo-mipLevels-00947"),
            ("desc.layers", self.layers, "VUID-VkImageCreateInfo-arrayLayers-00948"),
        ] {
            if value == 0 {
                return refuse(field, "is 0".into(), vuid);
            }
        }
        let flat = match self.kind {
            ImageKind::D1 => height == 1 && depth == 1,
            ImageKind::D2 | ImageKind::Cube => depth == 1,
            ImageKind::D3 => self.layers == 1,
        };
        if !flat {
            let problem =
                format!("{width}×{height}×{depth}, {} layers: not {:?}", self.layers, self.kind);
            return refuse("desc.extent", problem, "VUID-VkImageCreateInfo-imageType-00956");
        }
        if self.kind == ImageKind::Cube && (width != height || !self.layers.is_multiple_of(6)) {
            let problem = format!("{width}×{height} with {} layers is no cube", self.layers);
            return refuse("desc.extent", problem, "VUID-VkImageCreateInfo-flags-08865");
        }
        if self.levels > full_mip_chain(self.extent) {
            let problem = format!("{} levels, but {width}×{height}×{depth} has fewer", self.levels);
            return refuse("desc.levels", problem, "VUID-VkImageCreateInfo-mipLevels-00958");
        }
        if !self.samples.is_power_of_two() || self.samples > 64 {
            let problem = format!("{} is no sample count", self.samples);
            return refuse("desc.samples", problem, "VUID-VkImageCreateInfo-samples-parameter");
        }
        let plain_2d = self.kind == ImageKind::D2 && self.levels == 1;
        if self.samples > 1 && !(plain_2d && self.tiling == Tiling::Optimal) {
            let problem = format!("{} samples want an optimal 2D image of one level", self.samples);
            return refuse("desc.samples", problem, "VUID-VkImageCreateInfo-samples-02257");
        }
        if self.usage.is_empty() || self.usage.bits() & !ImageUsage::all().bits() != 0 {
            let problem = format!("{:#x} names no known usage", self.usage);
            return refuse("desc.usage", problem, "VUID-VkImageCreateInfo-usage-requiredbitmask");
        }
        self.validate_attachment()
    }

    fn validate_attachment(&self) -> Result<()> {
        let color = self.format.aspects().contains(Aspects::COLOR);
        let wrong =
            if color { ImageUsage::DEPTH_STENCIL_ATTACHMENT } else { ImageUsage::COLOR_ATTACHMENT };
        if self.usage.intersects(wrong) {
            let problem = format!("{} can't be such an attachment", self.format.name());
            return Err(Invalid::new("desc.usage", problem).into());
        }
        Ok(())
    }
}

/// Levels of a full mip chain: down to one texel.
pub const fn full_mip_chain(extent: Extent) -> u32 {
    let mut longest = extent.width;
    if extent.height > longest {
        longest = extent.height;
    }
    if extent.depth > longest {
        longest = extent.depth;
    }
    if longest == 0 { 0 } else { longest.ilog2() + 1 }
}

/// A buffer or an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResourceDesc {
    /// A buffer.
    Buffer(BufferDesc),
    /// An image.
    Image(ImageDesc),
}

impl ResourceDesc {
    /// Checks what any API would refuse.
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
    use crate::error::Error;
    use proptest::prelude::*;

    #[test]
    fn a_buffer_of_nothing_or_for_nothing_is_refused() {
        assert!(BufferDesc::storage(1).validate().is_ok());
        for desc in [
            BufferDesc::storage(0),
            BufferDesc { size: 1, usage: BufferUsage::empty() },
            BufferDesc { size: 1, usage: BufferUsage::from_bits_retain(0x8000_0000) },
        ] {
            assert!(matches!(desc.validate(), Err(Error::Invalid(_))), "{desc:?}");
        }
    }

    #[test]
    fn images_are_refused_by_the_field_that_is_wrong() {
        let good = ImageDesc::d2(Format::Rgba8Unorm, 113, 211, ImageUsage::SAMPLED);
        good.validate().unwrap();
        let extent = |width, height, depth| Extent { width, height, depth };
        for (desc, field) in [
            (ImageDesc { extent: extent(0, 1, 1), ..good }, "desc.extent.width"),
            (ImageDesc { kind: ImageKind::D1, ..good }, "desc.extent"),
            (ImageDesc { extent: extent(4, 4, 4), ..good }, "desc.extent"),
            (ImageDesc { kind: ImageKind::Cube, layers: 6, ..good }, "desc.extent"),
            (ImageDesc { kind: ImageKind::D3, layers: 2, ..good }, "desc.extent"),
            (ImageDesc { levels: 9, ..good }, "desc.levels"),
            (ImageDesc { samples: 3, ..good }, "desc.samples"),
            (ImageDesc { samples: 4, tiling: Tiling::Linear, ..good }, "desc.samples"),
            (ImageDesc { usage: ImageUsage::empty(), ..good }, "desc.usage"),
            (ImageDesc { usage: ImageUsage::DEPTH_STENCIL_ATTACHMENT, ..good }, "desc.usage"),
        ] {
            match desc.validate() {
                Err(Error::Invalid(invalid)) => assert_eq!(invalid.parameter, field, "{desc:?}"),
                other => panic!("{desc:?}: {other:?}"),
            }
        }
        ImageDesc { levels: 8, ..good }.validate().unwrap();
    }

    proptest! {
        #[test]
        fn a_valid_image_has_a_level_0_and_no_more_than_the_full_chain(
            width: u32, height: u32, depth: u32, layers: u32, levels: u32, samples: u32,
        ) {
            let desc = ImageDesc {
                extent: Extent { width, height, depth }, layers, levels, samples,
                ..ImageDesc::d2(Format::R32Uint, 1, 1, ImageUsage::STORAGE)
            };
            if desc.validate().is_ok() {
                prop_assert!(width > 0 && height > 0 && depth == 1 && layers > 0);
                prop_assert!((1..=32).contains(&levels));
            }
        }
    }
}
