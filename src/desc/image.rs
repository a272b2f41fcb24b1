//! Descriptions of images, and what follows from them: mip levels and the least size.

use bitflags::bitflags;

use crate::error::{Invalid, Result};
use crate::format::{Aspects, Format};

bitflags! {
    /// What an image is used for, in any of the APIs. The bits are those of
    /// `VkImageUsageFlagBits`.
    #[doc(alias = "VkImageUsageFlags")]
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
        /// Colour attachment of a draw.
        const COLOR_ATTACHMENT = 0x10;
        /// Depth or stencil attachment of a draw.
        const DEPTH_STENCIL_ATTACHMENT = 0x20;
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

/// The arrangement of an image's texels in memory.
#[doc(alias = "VkImageTiling")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tiling {
    /// The driver's own arrangement: fastest, and unspecified.
    Optimal,
    /// Row by row.
    Linear,
}

/// Width, height and depth in texels.
#[doc(alias = "VkExtent3D")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Texels in x; at least 1.
    pub width: u32,
    /// Texels in y; 1 for one-dimensional images.
    pub height: u32,
    /// Texels in z; 1 for all but three-dimensional images.
    pub depth: u32,
}

impl Extent {
    /// Returns the extent of mip level `level` of an image whose level 0 has this extent: halved,
    /// rounded down, at least 1.
    #[must_use]
    pub const fn at_level(self, level: u32) -> Self {
        const fn side(texels: u32, level: u32) -> u32 {
            let halved = if level < u32::BITS { texels >> level } else { 0 };
            if halved == 0 { 1 } else { halved }
        }
        let Self { width, height, depth } = self;
        Self { width: side(width, level), height: side(height, level), depth: side(depth, level) }
    }
}

/// The description of a shared image.
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
    /// Samples per texel: 1, 2, 4, 8, 16, 32 or 64.
    pub samples: u32,
    /// Arrangement in memory; the importer creates its image with the same tiling.
    pub tiling: Tiling,
    /// What it is used for; the importer creates its image with the same usage.
    pub usage: ImageUsage,
    /// Whether views of another format may be created (`VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT`).
    pub mutable_format: bool,
}

impl ImageDesc {
    /// Describes a two-dimensional image with one level, one layer and one sample per texel, of
    /// optimal tiling.
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

    /// Returns the same image with every usage that an OpenGL texture may have, and open to views of
    /// other formats. An image that is shared with OpenGL is created like this, as far as the
    /// exporter supports it: [`peer::widest_for_gl`](crate::peer::widest_for_gl) finds out.
    ///
    /// # References
    /// `GL_EXT_memory_object`, issues 13 and 17.
    #[must_use]
    pub fn for_gl(self) -> Self {
        let usages = Self::gl_usages(self.format).into_iter().flatten();
        let usage = usages.fold(self.usage, |all, usage| all | usage);
        Self { usage, mutable_format: true, ..self }
    }

    /// Returns the usages that an OpenGL texture of `format` may have.
    pub(crate) fn gl_usages(format: Format) -> [Option<ImageUsage>; 5] {
        let (attachment, storage) = if format.aspects().contains(Aspects::COLOR) {
            (ImageUsage::COLOR_ATTACHMENT, Some(ImageUsage::STORAGE))
        } else {
            (ImageUsage::DEPTH_STENCIL_ATTACHMENT, None)
        };
        let [read, write] = [ImageUsage::TRANSFER_SRC, ImageUsage::TRANSFER_DST];
        [Some(read), Some(write), Some(ImageUsage::SAMPLED), Some(attachment), storage]
    }

    /// Returns the fewest bytes that the image needs in any tiling: those of its texels. Only the
    /// driver knows how many it really needs.
    pub fn least_bytes(&self) -> u64 {
        // A driver may store stencil apart from depth, without padding.
        let texel = match self.format {
            Format::D32FloatS8Uint => 5,
            other => u64::from(other.texel_bytes()),
        };
        self.sum_slices(|width, height| width.saturating_mul(height).saturating_mul(texel))
    }

    /// Returns the sum of `slice_bytes(width, height)` over all slices of all levels, layers and
    /// samples. Width and height are in texels.
    pub(crate) fn sum_slices(&self, slice_bytes: impl Fn(u64, u64) -> u64) -> u64 {
        let bytes = (0..self.levels).fold(0u64, |sum, level| {
            let Extent { width, height, depth } = self.extent.at_level(level);
            let slice = slice_bytes(width.into(), height.into());
            sum.saturating_add(slice.saturating_mul(depth.into()))
        });
        bytes.saturating_mul(self.layers.into()).saturating_mul(self.samples.into())
    }

    /// Checks the rules that hold in every API.
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
            let problem = format!(
                "{width}×{height}×{depth} with {} layers is not a {:?} image",
                self.layers, self.kind
            );
            return refuse("desc.extent", problem, "VUID-VkImageCreateInfo-imageType-00956");
        }
        if self.kind == ImageKind::Cube && (width != height || !self.layers.is_multiple_of(6)) {
            let problem = format!("{width}×{height} with {} layers is not a cube", self.layers);
            return refuse("desc.extent", problem, "VUID-VkImageCreateInfo-flags-08865");
        }
        if self.levels > full_mip_chain(self.extent) {
            let problem = format!("{} levels, but {width}×{height}×{depth} has fewer", self.levels);
            return refuse("desc.levels", problem, "VUID-VkImageCreateInfo-mipLevels-00958");
        }
        if !self.samples.is_power_of_two() || self.samples > 64 {
            let problem = format!("{} is not a sample count", self.samples);
            return refuse("desc.samples", problem, "VUID-VkImageCreateInfo-samples-parameter");
        }
        let plain_2d = self.kind == ImageKind::D2 && self.levels == 1;
        if self.samples > 1 && !(plain_2d && self.tiling == Tiling::Optimal) {
            let problem =
                format!("{} samples need a 2D image of one level and optimal tiling", self.samples);
            return refuse("desc.samples", problem, "VUID-VkImageCreateInfo-samples-02257");
        }
        if self.usage.is_empty() || self.usage.bits() & !ImageUsage::all().bits() != 0 {
            let problem = format!("{:#x} has no known usage or an unknown one", self.usage);
            return refuse("desc.usage", problem, "VUID-VkImageCreateInfo-usage-requiredbitmask");
        }
        self.validate_attachment()
    }

    fn validate_attachment(&self) -> Result<()> {
        let color = self.format.aspects().contains(Aspects::COLOR);
        let wrong =
            if color { ImageUsage::DEPTH_STENCIL_ATTACHMENT } else { ImageUsage::COLOR_ATTACHMENT };
        if self.usage.intersects(wrong) {
            let problem = format!("{} can't be a {wrong:?}", self.format.name());
            let right = if color { "COLOR_ATTACHMENT" } else { "DEPTH_STENCIL_ATTACHMENT" };
            return Err(Invalid::new("desc.usage", problem)
                .help(format!("this format can be a {right}"))
                .into());
        }
        Ok(())
    }
}

/// Returns the number of levels of a full mip chain, down to one texel.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use proptest::prelude::*;

    #[test]
    fn an_invalid_image_is_refused_by_the_field_that_is_wrong() {
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

    fn image(kind: ImageKind, (width, height, depth): (u32, u32, u32)) -> ImageDesc {
        let flat = ImageDesc::d2(Format::Rgba8Unorm, width, height, ImageUsage::SAMPLED);
        ImageDesc { kind, extent: Extent { width, height, depth }, ..flat }
    }

    #[test]
    fn levels_halve_down_to_one_texel() {
        let extent = Extent { width: 113, height: 211, depth: 5 };
        assert_eq!(extent.at_level(0), extent);
        assert_eq!(extent.at_level(1), Extent { width: 56, height: 105, depth: 2 });
        for level in [7, 32] {
            assert_eq!(extent.at_level(level), Extent { width: 1, height: 1, depth: 1 });
        }
    }

    #[test]
    fn the_least_bytes_are_those_of_all_levels_layers_and_samples() {
        let flat = image(ImageKind::D2, (16, 16, 1));
        assert_eq!(flat.least_bytes(), 16 * 16 * 4);
        assert_eq!(ImageDesc { layers: 3, ..flat }.least_bytes(), 3 * 16 * 16 * 4);
        assert_eq!(ImageDesc { samples: 4, ..flat }.least_bytes(), 4 * 16 * 16 * 4);
        let levels = 256 + 64 + 16 + 4 + 1;
        assert_eq!(ImageDesc { levels: 5, ..flat }.least_bytes(), levels * 4);
        let deep = ImageDesc { levels: 5, ..image(ImageKind::D3, (16, 16, 16)) };
        assert_eq!(deep.least_bytes(), (4096 + 512 + 64 + 8 + 1) * 4);
        let odd = ImageDesc { levels: 3, layers: 2, ..image(ImageKind::D2, (5, 3, 1)) };
        assert_eq!(odd.least_bytes(), 4 * 2 * (15 + 2 + 1));
        let stencil = ImageDesc { format: Format::D32FloatS8Uint, ..flat };
        assert_eq!(stencil.least_bytes(), 16 * 16 * 5);
    }

    #[test]
    fn an_image_for_opengl_is_valid_with_each_usage_of_its_format() {
        for &format in Format::ALL {
            let desc = ImageDesc::d2(format, 16, 16, ImageUsage::SAMPLED).for_gl();
            desc.validate().unwrap();
            assert!(desc.mutable_format);
            let color = format.aspects().contains(Aspects::COLOR);
            assert_eq!(desc.usage.contains(ImageUsage::STORAGE), color);
        }
    }

    proptest! {
        #[test]
        fn no_size_overflows(
            width: u32, height: u32, depth: u32, layers: u32, levels in 0u32..64,
        ) {
            let kind = image(ImageKind::D3, (width, height, depth));
            let least = ImageDesc { layers, levels, samples: 64, ..kind }.least_bytes();
            let sizes = [width.max(1), height.max(1), depth.max(1), layers, 4 * 64];
            let level_0 = sizes.into_iter().fold(1u128, |all, size| all.saturating_mul(size.into()));
            let expected = if levels == 0 { 0 } else { level_0.min(u64::MAX.into()) };
            prop_assert!(u128::from(least) >= expected);
        }

        #[test]
        fn a_valid_image_has_a_level_0_and_at_most_the_full_chain(
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
