//! Image layouts: one name for each layout in all APIs.

use std::fmt;

use super::usage::ImageUsage;

/// The layout of an image, as the raw value of `VkImageLayout`.
///
/// The constants are the layouts in the library's table. For any other value of `VkImageLayout`,
/// use [`from_raw`](Self::from_raw). OpenGL's `GL_NONE` is [`UNDEFINED`](Self::UNDEFINED).
///
/// Prints as its C name (`VK_IMAGE_LAYOUT_GENERAL`), or as `VkImageLayout 77` if it isn't in the
/// table.
///
/// # References
/// `VkImageLayout`; `GL_EXT_semaphore`, table 4.4.
#[doc(alias = "VkImageLayout")]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ImageLayout(i32);

macro_rules! layouts {
    ($( $(#[$doc:meta])* $name:ident = $raw:literal $(, needs $usage:ident $vuid:literal)?; )*) => {
        impl ImageLayout {
            $( $(#[$doc])* pub const $name: Self = Self($raw); )*

            const fn row(self) -> Option<Row> {
                match self.0 {
                    $( $raw => Some(Row {
                        name: concat!("VK_IMAGE_LAYOUT_", stringify!($name)),
                        needs: layouts!(@needs $($usage $vuid)?),
                    }), )*
                    _ => None,
                }
            }
        }

        #[cfg(test)]
        const ALL: &[(ImageLayout, &str)] = &[ $( (ImageLayout::$name, stringify!($name)), )* ];
    };
    (@needs) => { None };
    (@needs $usage:ident $vuid:literal) => { Some((ImageUsage::$usage, $vuid)) };
}

struct Row {
    name: &'static str,
    needs: Option<(ImageUsage, &'static str)>,
}

layouts! {
    /// The content doesn't matter; also `GL_NONE`.
    UNDEFINED = 0;
    /// Any use.
    GENERAL = 1;
    /// Colour attachment of a draw.
    COLOR_ATTACHMENT_OPTIMAL = 2, needs COLOR_ATTACHMENT "VUID-VkImageMemoryBarrier-oldLayout-01208";
    /// Depth and stencil of a draw, read and written.
    DEPTH_STENCIL_ATTACHMENT_OPTIMAL = 3, needs DEPTH_STENCIL_ATTACHMENT "VUID-VkImageMemoryBarrier-oldLayout-01209";
    /// Depth and stencil, only read.
    DEPTH_STENCIL_READ_ONLY_OPTIMAL = 4, needs DEPTH_STENCIL_ATTACHMENT "VUID-VkImageMemoryBarrier-oldLayout-01210";
    /// Sampled in a shader.
    SHADER_READ_ONLY_OPTIMAL = 5, needs SAMPLED "VUID-VkImageMemoryBarrier-oldLayout-01211";
    /// Source of copies.
    TRANSFER_SRC_OPTIMAL = 6, needs TRANSFER_SRC "VUID-VkImageMemoryBarrier-oldLayout-01212";
    /// Destination of copies and clears.
    TRANSFER_DST_OPTIMAL = 7, needs TRANSFER_DST "VUID-VkImageMemoryBarrier-oldLayout-01213";
    /// Written by the host before its first use; a shared image is never in this layout.
    PREINITIALIZED = 8;
    /// Depth only read, stencil read and written.
    DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL = 1_000_117_000, needs DEPTH_STENCIL_ATTACHMENT "VUID-VkImageMemoryBarrier-oldLayout-01658";
    /// Depth read and written, stencil only read.
    DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL = 1_000_117_001, needs DEPTH_STENCIL_ATTACHMENT "VUID-VkImageMemoryBarrier-oldLayout-01659";
    /// Any read-only use (`VK_KHR_synchronization2`).
    READ_ONLY_OPTIMAL = 1_000_314_000;
    /// Any attachment (`VK_KHR_synchronization2`).
    ATTACHMENT_OPTIMAL = 1_000_314_001;
    /// Ready to be presented.
    PRESENT_SRC_KHR = 1_000_001_002;
}

impl ImageLayout {
    /// Returns the layout with this `VkImageLayout` value, which may be one that the table lacks.
    pub const fn from_raw(vk_image_layout: i32) -> Self {
        Self(vk_image_layout)
    }

    /// Returns the `VkImageLayout` value.
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// Returns the usage that an image must have to be in this layout, and the rule's VUID; `None`
    /// if any usage is allowed, or if the table lacks the layout.
    pub const fn required_usage(self) -> Option<(ImageUsage, &'static str)> {
        match self.row() {
            Some(row) => row.needs,
            None => None,
        }
    }
}

impl fmt::Display for ImageLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.name),
            None => write!(f, "VkImageLayout {}", self.0),
        }
    }
}

impl fmt::Debug for ImageLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "vulkan")]
impl From<ash::vk::ImageLayout> for ImageLayout {
    fn from(layout: ash::vk::ImageLayout) -> Self {
        Self(layout.as_raw())
    }
}

#[cfg(feature = "vulkan")]
impl From<ImageLayout> for ash::vk::ImageLayout {
    fn from(layout: ImageLayout) -> Self {
        Self::from_raw(layout.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_prints_as_its_c_name() {
        for &(layout, name) in ALL {
            assert_eq!(layout.to_string(), format!("VK_IMAGE_LAYOUT_{name}"));
            assert_eq!(format!("{layout:?}"), layout.to_string());
            assert_eq!(ImageLayout::from_raw(layout.as_raw()), layout);
        }
        assert_eq!(ImageLayout::from_raw(77).to_string(), "VkImageLayout 77");
    }

    #[test]
    fn a_layout_for_one_use_requires_that_usage() {
        let needs = |layout: ImageLayout| layout.required_usage().map(|(usage, _)| usage);
        assert_eq!(needs(ImageLayout::TRANSFER_SRC_OPTIMAL), Some(ImageUsage::TRANSFER_SRC));
        assert_eq!(needs(ImageLayout::GENERAL), None);
        assert_eq!(needs(ImageLayout::from_raw(77)), None);
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn the_values_are_those_of_vulkan() {
        for &(layout, name) in ALL {
            let vulkan = ash::vk::ImageLayout::from(layout);
            assert_eq!(format!("{vulkan:?}"), name);
            assert_eq!(ImageLayout::from(vulkan), layout);
        }
    }
}
