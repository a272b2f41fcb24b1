//! Descriptions of images, their minimum size, and the rules that they must follow.

use super::shape::{Extent, ImageKind, Origin, Tiling, full_mip_chain};
use super::usage::{ImageFlags, ImageUsage, ViewFormats};
use crate::error::{Invalid, Result, counted};
use crate::format::{Aspects, Format};

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
    /// Uses of the image; the importer creates its image with the same usage.
    pub usage: ImageUsage,
    /// Creation flags; the importer creates its image with the same flags.
    pub flags: ImageFlags,
    /// The formats of its views; the importer creates its image with the same list. With several,
    /// [`ImageFlags::MUTABLE_FORMAT`] must be set.
    pub view_formats: ViewFormats,
    /// The corner of the picture at which the texel (0, 0) is.
    pub origin: Origin,
}

impl ImageDesc {
    /// Describes a two-dimensional image with one level, one layer and one sample per texel, of
    /// optimal tiling, without flags and view formats, whose origin is the upper left corner.
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
            flags: ImageFlags::empty(),
            view_formats: ViewFormats::EMPTY,
            origin: Origin::UpperLeft,
        }
    }

    /// Returns the same image with every usage that an OpenGL texture may have, and open to views
    /// of other formats. Create an image to be shared with OpenGL like this, as far as the exporter
    /// supports it, which [`peer::widest_for_gl`](crate::peer::widest_for_gl) determines.
    ///
    /// # References
    /// `GL_EXT_memory_object`, issues 13 and 17.
    #[must_use]
    pub fn for_gl(self) -> Self {
        let usages = Self::gl_usages(self.format).into_iter().flatten();
        let usage = usages.fold(self.usage, |all, usage| all | usage);
        Self { usage, flags: self.flags | ImageFlags::MUTABLE_FORMAT, ..self }
    }

    /// Returns the usages that an OpenGL texture of `format` may have.
    pub(crate) fn gl_usages(format: Format) -> [Option<ImageUsage>; 5] {
        let (attachment, storage) = if !format.aspects().contains(Aspects::COLOR) {
            (Some(ImageUsage::DEPTH_STENCIL_ATTACHMENT), None)
        } else if format.is_written_by_gl() {
            (Some(ImageUsage::COLOR_ATTACHMENT), Some(ImageUsage::STORAGE))
        } else {
            (None, None)
        };
        let [read, write] = [ImageUsage::TRANSFER_SRC, ImageUsage::TRANSFER_DST];
        [Some(read), Some(write), Some(ImageUsage::SAMPLED), attachment, storage]
    }

    /// Returns the fewest bytes that the image needs in any tiling: those of its texels. Only the
    /// driver knows how many it really needs.
    pub fn least_bytes(&self) -> u64 {
        let format = self.format;
        self.sum_slices(|width, height| match format {
            // A driver may store stencil apart from depth, without padding.
            Format::D32FloatS8Uint => (u64::from(width) * u64::from(height)).saturating_mul(5),
            _ => format.row_bytes(width).saturating_mul(format.rows(height).into()),
        })
    }

    /// Returns the sum of `slice_bytes(width, height)` over all slices of all levels, layers and
    /// samples. Width and height are in texels.
    pub(crate) fn sum_slices(&self, slice_bytes: impl Fn(u32, u32) -> u64) -> u64 {
        let bytes = (0..self.levels).fold(0u64, |sum, level| {
            let Extent { width, height, depth } = self.extent.at_level(level);
            let slice = slice_bytes(width, height);
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
                "{width}×{height}×{depth} with {} is not a {:?} image",
                counted(self.layers, "layer"),
                self.kind
            );
            return refuse("desc.extent", problem, "VUID-VkImageCreateInfo-imageType-00956");
        }
        if self.kind == ImageKind::Cube && (width != height || !self.layers.is_multiple_of(6)) {
            let problem =
                format!("{width}×{height} with {} is not a cube", counted(self.layers, "layer"));
            return refuse("desc.extent", problem, "VUID-VkImageCreateInfo-flags-08865");
        }
        if self.levels > full_mip_chain(self.extent) {
            let problem = format!(
                "{}, but {width}×{height}×{depth} has fewer",
                counted(self.levels, "level")
            );
            return refuse("desc.levels", problem, "VUID-VkImageCreateInfo-mipLevels-00958");
        }
        if !self.samples.is_power_of_two() || self.samples > 64 {
            let problem = format!("{} is not a sample count", self.samples);
            return Err(Invalid::new("desc.samples", problem)
                .vuid("VUID-VkImageCreateInfo-samples-parameter")
                .help("images have 1, 2, 4, 8, 16, 32 or 64 samples per texel")
                .into());
        }
        let plain_2d = self.kind == ImageKind::D2 && self.levels == 1;
        if self.samples > 1 && !(plain_2d && self.tiling == Tiling::Optimal) {
            let problem =
                format!("{} samples need a 2D image of one level and optimal tiling", self.samples);
            return refuse("desc.samples", problem, "VUID-VkImageCreateInfo-samples-02257");
        }
        if self.usage.is_empty() {
            return Err(Invalid::new("desc.usage", "is empty")
                .vuid("VUID-VkImageCreateInfo-usage-requiredbitmask")
                .help("list every use, in any API, as an ImageUsage")
                .into());
        }
        self.validate_attachment()?;
        self.flags.check_shareable()?;
        self.validate_flags()?;
        self.validate_formats()
    }

    fn validate_attachment(&self) -> Result<()> {
        let color = self.format.aspects().contains(Aspects::COLOR);
        let (wrong, right) = if color {
            (ImageUsage::DEPTH_STENCIL_ATTACHMENT, ImageUsage::COLOR_ATTACHMENT)
        } else {
            (ImageUsage::COLOR_ATTACHMENT, ImageUsage::DEPTH_STENCIL_ATTACHMENT)
        };
        if self.usage.intersects(wrong) {
            return Err(Invalid::new("desc.usage", format!("{} can't be a {wrong}", self.format))
                .help(format!("this format can be a {right}"))
                .into());
        }
        Ok(())
    }

    fn validate_flags(&self) -> Result<()> {
        let Extent { width, height, .. } = self.extent;
        let refuse = |problem: String, vuid: &'static str| {
            Err(Invalid::new("desc.flags", problem).vuid(vuid).into())
        };
        let is = |flag| self.flags.contains(flag);
        let is_square = self.kind == ImageKind::D2 && width == height && self.layers >= 6;
        if is(ImageFlags::CUBE_COMPATIBLE) && self.kind != ImageKind::Cube && !is_square {
            let problem = format!(
                "CUBE_COMPATIBLE, but {width}×{height} with {}",
                counted(self.layers, "layer")
            );
            return refuse(problem, "VUID-VkImageCreateInfo-flags-08865");
        }
        if is(ImageFlags::ARRAY_2D_COMPATIBLE) && self.kind != ImageKind::D3 {
            let problem = format!("ARRAY_2D_COMPATIBLE for a {:?} image", self.kind);
            return refuse(problem, "VUID-VkImageCreateInfo-flags-00950");
        }
        let blocks = ImageFlags::BLOCK_TEXEL_VIEW_COMPATIBLE;
        if is(blocks) && !(is(ImageFlags::MUTABLE_FORMAT) && self.format.is_compressed()) {
            let problem =
                "BLOCK_TEXEL_VIEW_COMPATIBLE needs a compressed format and MUTABLE_FORMAT";
            return refuse(problem.into(), "VUID-VkImageCreateInfo-flags-01572");
        }
        Ok(())
    }

    fn validate_formats(&self) -> Result<()> {
        if let Format::Raw(raw) = self.format {
            raw.validate()?;
        }
        if self.format.is_multi_planar() && self.tiling == Tiling::Linear {
            let problem =
                format!("{} is linear, and each of its planes has rows of its own", self.format);
            return Err(Invalid::new("desc.tiling", problem)
                .help("share it with optimal tiling, or each plane as an image of its own")
                .into());
        }
        self.view_formats.check(self.format, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::format::RawFormat;
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
            (ImageDesc { flags: raw_flags(0x1), ..good }, "desc.flags"),
            (ImageDesc { flags: raw_flags(0x200), ..good }, "desc.flags"),
            (ImageDesc { flags: raw_flags(0x800), ..good }, "desc.flags"),
            (ImageDesc { flags: ImageFlags::CUBE_COMPATIBLE, ..good }, "desc.flags"),
            (ImageDesc { flags: ImageFlags::ARRAY_2D_COMPATIBLE, ..good }, "desc.flags"),
            (ImageDesc { flags: ImageFlags::BLOCK_TEXEL_VIEW_COMPATIBLE, ..good }, "desc.flags"),
            (ImageDesc { view_formats: views(&[37, 43]), ..good }, "desc.view_formats"),
            (ImageDesc { view_formats: views(&[9]), ..good }, "desc.view_formats"),
            (ImageDesc { format: RawFormat::new(0, 4).into(), ..good }, "desc.format"),
            (ImageDesc { format: NV12, tiling: Tiling::Linear, ..good }, "desc.tiling"),
        ] {
            match desc.validate() {
                Err(Error::Invalid(invalid)) => assert_eq!(invalid.parameter, field, "{desc:?}"),
                other => panic!("{desc:?}: {other:?}"),
            }
        }
        ImageDesc { levels: 8, ..good }.validate().unwrap();
    }

    /// `VK_FORMAT_G8_B8R8_2PLANE_420_UNORM`: 2 × 2 texels in 6 bytes.
    const NV12: Format = Format::Raw(RawFormat::new(1_000_156_003, 6).with_block_extent(2, 2));

    fn views(numbers: &[i32]) -> ViewFormats {
        ViewFormats::from_raw(numbers).unwrap()
    }

    fn raw_flags(bits: u32) -> ImageFlags {
        ImageFlags::from_bits_retain(bits)
    }

    #[test]
    fn an_applications_own_image_may_have_raw_usages_flags_and_formats() {
        let raw = ImageUsage::SAMPLED | ImageUsage::from_bits_retain(0x40_0000);
        let good = ImageDesc::d2(Format::Rgba8Unorm, 113, 211, raw);
        let mutable = ImageFlags::MUTABLE_FORMAT | ImageFlags::EXTENDED_USAGE;
        let six = ImageDesc { extent: Extent { width: 8, height: 8, depth: 1 }, layers: 6, ..good };
        for desc in [
            good,
            ImageDesc { usage: ImageUsage::INPUT_ATTACHMENT, ..good },
            ImageDesc { flags: ImageFlags::ALIAS | raw_flags(0x1000), ..good },
            ImageDesc { flags: mutable, view_formats: views(&[37, 43]), ..good },
            ImageDesc { view_formats: views(&[37]), ..good },
            ImageDesc { flags: ImageFlags::CUBE_COMPATIBLE, ..six },
            ImageDesc { format: NV12, view_formats: views(&[1_000_156_003]), ..good },
            ImageDesc { origin: Origin::LowerLeft, ..good },
        ] {
            desc.validate().unwrap();
        }
    }

    #[test]
    fn an_error_lists_the_sample_counts_and_names_a_usage_that_is_not_possible() {
        let good = ImageDesc::d2(Format::Rgba8Unorm, 4, 4, ImageUsage::SAMPLED);
        let text = ImageDesc { samples: 3, ..good }.validate().unwrap_err().to_string();
        assert!(text.contains('3') && text.contains("1, 2, 4, 8, 16, 32 or 64"), "{text}");
        let usage = ImageUsage::SAMPLED | ImageUsage::DEPTH_STENCIL_ATTACHMENT;
        let text = ImageDesc { usage, ..good }.validate().unwrap_err().to_string();
        assert!(text.contains("R8G8B8A8_UNORM can't be a DEPTH_STENCIL_ATTACHMENT"), "{text}");
    }

    fn image(kind: ImageKind, (width, height, depth): (u32, u32, u32)) -> ImageDesc {
        let flat = ImageDesc::d2(Format::Rgba8Unorm, width, height, ImageUsage::SAMPLED);
        ImageDesc { kind, extent: Extent { width, height, depth }, ..flat }
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
        let planes = ImageDesc { format: NV12, ..flat };
        assert_eq!(planes.least_bytes(), 16 * 16 * 3 / 2);
    }

    #[test]
    fn each_level_of_a_compressed_image_has_whole_blocks() {
        let of = |format, width, height, levels| {
            ImageDesc { format, levels, ..image(ImageKind::D2, (width, height, 1)) }.least_bytes()
        };
        assert_eq!(of(Format::Bc1RgbaUnorm, 16, 16, 1), 16 * 8);
        assert_eq!(of(Format::Bc7Unorm, 16, 16, 5), (16 + 4 + 1 + 1 + 1) * 16);
        assert_eq!(of(Format::Bc7Unorm, 13, 9, 2), (4 * 3 + 2) * 16);
    }

    #[test]
    fn an_image_for_opengl_is_valid_with_each_usage_of_its_format() {
        for &format in Format::ALL {
            let desc = ImageDesc::d2(format, 16, 16, ImageUsage::SAMPLED).for_gl();
            desc.validate().unwrap();
            assert!(desc.flags.contains(ImageFlags::MUTABLE_FORMAT));
            let color = format.aspects().contains(Aspects::COLOR);
            let stored = color && format.is_written_by_gl();
            assert_eq!(desc.usage.contains(ImageUsage::STORAGE), stored);
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
