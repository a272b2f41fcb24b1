//! What buffers and images are used for, and how images are created, as Vulkan's own bits.

use std::fmt;

use bitflags::bitflags;

use crate::error::{Invalid, Result};
use crate::format::{Format, check_number};

bitflags! {
    /// What a buffer is used for, in any of the APIs. The bits are those of
    /// `VkBufferUsageFlagBits`.
    ///
    /// For a usage without a constant, use [`from_bits_retain`](Self::from_bits_retain). Its
    /// feature or extension must be enabled on the exporting and on the importing device.
    ///
    /// Prints as `TRANSFER_SRC | 0x800`.
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

bitflags! {
    /// What an image is used for, in any of the APIs. The bits are those of
    /// `VkImageUsageFlagBits`.
    ///
    /// For a usage without a constant, use [`from_bits_retain`](Self::from_bits_retain). Its
    /// feature or extension must be enabled on the exporting and on the importing device.
    ///
    /// Prints as `SAMPLED | 0x400000`.
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
        /// Read by a later subpass of the render pass that draws to it.
        const INPUT_ATTACHMENT = 0x80;
    }
}

bitflags! {
    /// How an image is created, apart from its shape. The bits are those of
    /// `VkImageCreateFlagBits`. For a flag without a constant, use
    /// [`from_bits_retain`](Self::from_bits_retain).
    ///
    /// `VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT` follows from
    /// [`ImageKind::Cube`](super::ImageKind::Cube) and need not be set.
    ///
    /// Prints as `MUTABLE_FORMAT | 0x20`.
    #[doc(alias = "VkImageCreateFlags")]
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ImageFlags: u32 {
        /// Views of another format may be created.
        const MUTABLE_FORMAT = 0x8;
        /// Square layers may be seen as the faces of cubes.
        const CUBE_COMPATIBLE = 0x10;
        /// Slices of a three-dimensional image may be seen as layers.
        const ARRAY_2D_COMPATIBLE = 0x20;
        /// Blocks of a compressed format may be seen as texels of another format.
        const BLOCK_TEXEL_VIEW_COMPATIBLE = 0x80;
        /// The usage may be one that only the views' formats support.
        const EXTENDED_USAGE = 0x100;
        /// Several images in the same memory share its content.
        const ALIAS = 0x400;
    }
}

macro_rules! prints {
    ($($flags:ty),*) => { $(
        impl fmt::Display for $flags {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                bitflags::parser::to_writer(self, f)
            }
        }
    )* };
}

prints!(BufferUsage, ImageUsage, ImageFlags);

impl ImageFlags {
    /// Rejects the flags that an image in one shared allocation can't have.
    pub(super) fn check_shareable(self) -> Result<()> {
        for (bits, why) in [
            (0x7, "a sparse image has memory of several allocations"),
            (0x40, "SPLIT_INSTANCE_BIND_REGIONS binds memory of several GPUs"),
            (0x200, "the planes of a DISJOINT image have memory of their own"),
            (0x800, "PROTECTED memory can't be shared"),
        ] {
            let found = self & Self::from_bits_retain(bits);
            if !found.is_empty() {
                return Err(Invalid::new("desc.flags", format!("has {found}: {why}")).into());
            }
        }
        Ok(())
    }
}

/// The formats that the views of an image have, as `VkFormat` values: at most
/// [`MAX`](Self::MAX). Default: none, and views may have any compatible format.
///
/// ```
/// use gpu_interop::desc::ViewFormats;
/// use gpu_interop::format::Format;
///
/// let formats = ViewFormats::new(&[Format::Rgba8Unorm, Format::Rgba8Srgb])?;
/// assert_eq!(formats.as_slice(), [37, 43]);
/// # Ok::<(), gpu_interop::Error>(())
/// ```
///
/// # References
/// `VkImageFormatListCreateInfo`.
#[doc(alias = "VkImageFormatListCreateInfo")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ViewFormats {
    count: u8,
    formats: [i32; Self::MAX],
}

impl ViewFormats {
    /// The maximum number of formats in a list.
    pub const MAX: usize = 8;

    const FIELD: &str = "desc.view_formats";

    /// An empty list.
    pub const EMPTY: Self = Self { count: 0, formats: [0; Self::MAX] };

    /// Lists `formats`.
    ///
    /// # Errors
    /// Same as [`from_raw`](Self::from_raw).
    pub fn new(formats: &[Format]) -> Result<Self> {
        let numbers: Vec<_> = formats.iter().map(|format| format.vulkan()).collect();
        Self::from_raw(&numbers)
    }

    /// Lists `VkFormat` values, which may be ones that the table lacks.
    ///
    /// # Errors
    /// [`Invalid`] for more than [`MAX`](Self::MAX) formats, and for a number that isn't a
    /// `VkFormat`.
    pub fn from_raw(vk_formats: &[i32]) -> Result<Self> {
        let mut list = Self::default();
        let Some(kept) = list.formats.get_mut(..vk_formats.len()) else {
            let problem = format!("{} formats, but {} fit", vk_formats.len(), Self::MAX);
            return Err(Invalid::new(Self::FIELD, problem)
                .help("leave the list empty: views may then have any compatible format")
                .into());
        };
        vk_formats.iter().try_for_each(|&format| check_number(Self::FIELD, format))?;
        kept.copy_from_slice(vk_formats);
        Ok(Self { count: vk_formats.len() as u8, ..list })
    }

    /// Rejects a list that an image of `format` with `flags` can't have.
    pub(super) fn check(&self, format: Format, flags: ImageFlags) -> Result<()> {
        let refuse = |problem: String, vuid: &'static str| {
            Err(Invalid::new(Self::FIELD, problem).vuid(vuid).into())
        };
        let views = self.as_slice();
        if views.len() > 1 && !flags.contains(ImageFlags::MUTABLE_FORMAT) {
            let problem = format!("{} formats without MUTABLE_FORMAT", views.len());
            return refuse(problem, "VUID-VkImageCreateInfo-flags-04738");
        }
        // Views of blocks and of planes may have texels of another size.
        let by_block = flags.contains(ImageFlags::BLOCK_TEXEL_VIEW_COMPATIBLE);
        let mut known = views.iter().filter_map(|&view| Format::from_vulkan(view));
        let other = known.find(|view| view.block_bytes() != format.block_bytes());
        match other {
            Some(view) if !by_block && !format.is_multi_planar() => {
                let problem = format!("texels of {view} and {format} differ in size");
                refuse(problem, "VUID-VkImageCreateInfo-pNext-06722")
            }
            _ => Ok(()),
        }
    }

    /// Returns the `VkFormat` values.
    pub fn as_slice(&self) -> &[i32] {
        &self.formats[..usize::from(self.count)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_their_names_and_raw_bits() {
        let usage = ImageUsage::SAMPLED | ImageUsage::from_bits_retain(0x40_0000);
        assert_eq!(usage.to_string(), "SAMPLED | 0x400000");
        assert_eq!((BufferUsage::STORAGE | BufferUsage::INDEX).to_string(), "STORAGE | INDEX");
    }

    #[test]
    fn a_list_of_view_formats_has_a_limit() {
        assert_eq!(ViewFormats::from_raw(&[]).unwrap(), ViewFormats::default());
        assert_eq!(ViewFormats::from_raw(&[37; 8]).unwrap().as_slice(), [37; 8]);
        for (formats, problem) in [(&[37; 9][..], "9 formats, but 8 fit"), (&[37, 0], "0 is not")] {
            let text = ViewFormats::from_raw(formats).unwrap_err().to_string();
            assert!(text.contains(problem), "{text}");
        }
    }
}
