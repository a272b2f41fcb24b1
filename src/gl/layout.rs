//! Image layouts, as `glWaitSemaphoreEXT` and `glSignalSemaphoreEXT` take them.

/// The layout of a texture at a handoff. OpenGL manages layouts itself, so it must be told the one
/// that another API left, and be asked for the one that another API expects.
///
/// # References
/// `GL_EXT_semaphore`, table 4.4: texture layouts and the Vulkan image layouts they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// `GL_NONE`, `VK_IMAGE_LAYOUT_UNDEFINED`: the content doesn't matter.
    None,
    /// `GL_LAYOUT_GENERAL_EXT`, `VK_IMAGE_LAYOUT_GENERAL`.
    #[default]
    General,
    /// `GL_LAYOUT_COLOR_ATTACHMENT_EXT`, `VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL`.
    ColorAttachment,
    /// `GL_LAYOUT_DEPTH_STENCIL_ATTACHMENT_EXT`,
    /// `VK_IMAGE_LAYOUT_DEPTH_STENCIL_ATTACHMENT_OPTIMAL`.
    DepthStencilAttachment,
    /// `GL_LAYOUT_DEPTH_STENCIL_READ_ONLY_EXT`,
    /// `VK_IMAGE_LAYOUT_DEPTH_STENCIL_READ_ONLY_OPTIMAL`.
    DepthStencilReadOnly,
    /// `GL_LAYOUT_SHADER_READ_ONLY_EXT`, `VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL`.
    ShaderReadOnly,
    /// `GL_LAYOUT_TRANSFER_SRC_EXT`, `VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL`.
    TransferSrc,
    /// `GL_LAYOUT_TRANSFER_DST_EXT`, `VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL`.
    TransferDst,
    /// `GL_LAYOUT_DEPTH_READ_ONLY_STENCIL_ATTACHMENT_EXT`,
    /// `VK_IMAGE_LAYOUT_DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL`.
    DepthReadOnlyStencilAttachment,
    /// `GL_LAYOUT_DEPTH_ATTACHMENT_STENCIL_READ_ONLY_EXT`,
    /// `VK_IMAGE_LAYOUT_DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL`.
    DepthAttachmentStencilReadOnly,
}

impl Layout {
    /// Every layout that OpenGL knows.
    pub const ALL: [Layout; 10] = [
        Self::None,
        Self::General,
        Self::ColorAttachment,
        Self::DepthStencilAttachment,
        Self::DepthStencilReadOnly,
        Self::ShaderReadOnly,
        Self::TransferSrc,
        Self::TransferDst,
        Self::DepthReadOnlyStencilAttachment,
        Self::DepthAttachmentStencilReadOnly,
    ];

    /// The OpenGL token.
    pub const fn token(self) -> u32 {
        match self {
            Self::None => glow::NONE,
            Self::General => 0x958D,
            Self::ColorAttachment => 0x958E,
            Self::DepthStencilAttachment => 0x958F,
            Self::DepthStencilReadOnly => 0x9590,
            Self::ShaderReadOnly => 0x9591,
            Self::TransferSrc => 0x9592,
            Self::TransferDst => 0x9593,
            Self::DepthReadOnlyStencilAttachment => 0x9530,
            Self::DepthAttachmentStencilReadOnly => 0x9531,
        }
    }

    /// The `VkImageLayout` it stands for.
    pub const fn vulkan(self) -> i32 {
        match self {
            Self::None => 0,
            Self::General => 1,
            Self::ColorAttachment => 2,
            Self::DepthStencilAttachment => 3,
            Self::DepthStencilReadOnly => 4,
            Self::ShaderReadOnly => 5,
            Self::TransferSrc => 6,
            Self::TransferDst => 7,
            Self::DepthReadOnlyStencilAttachment => 1_000_117_000,
            Self::DepthAttachmentStencilReadOnly => 1_000_117_001,
        }
    }

    /// The layout that stands for a `VkImageLayout`, if OpenGL has one. Where it has none, hand the
    /// image over in `VK_IMAGE_LAYOUT_GENERAL`.
    pub fn from_vulkan(vk_image_layout: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.vulkan() == vk_image_layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_found_by_its_vulkan_number_and_has_a_token_of_its_own() {
        for (i, layout) in Layout::ALL.into_iter().enumerate() {
            assert_eq!(Layout::from_vulkan(layout.vulkan()), Some(layout));
            let same = Layout::ALL.iter().position(|other| other.token() == layout.token());
            assert_eq!(same, Some(i));
        }
        // VK_IMAGE_LAYOUT_PREINITIALIZED and PRESENT_SRC_KHR have no counterpart.
        assert_eq!(Layout::from_vulkan(8), None);
        assert_eq!(Layout::from_vulkan(1_000_001_002), None);
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn the_numbers_are_vulkans() {
        use ash::vk::ImageLayout as Vk;
        for (layout, vulkan) in [
            (Layout::None, Vk::UNDEFINED),
            (Layout::General, Vk::GENERAL),
            (Layout::ColorAttachment, Vk::COLOR_ATTACHMENT_OPTIMAL),
            (Layout::DepthStencilAttachment, Vk::DEPTH_STENCIL_ATTACHMENT_OPTIMAL),
            (Layout::DepthStencilReadOnly, Vk::DEPTH_STENCIL_READ_ONLY_OPTIMAL),
            (Layout::ShaderReadOnly, Vk::SHADER_READ_ONLY_OPTIMAL),
            (Layout::TransferSrc, Vk::TRANSFER_SRC_OPTIMAL),
            (Layout::TransferDst, Vk::TRANSFER_DST_OPTIMAL),
            (
                Layout::DepthReadOnlyStencilAttachment,
                Vk::DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL,
            ),
            (
                Layout::DepthAttachmentStencilReadOnly,
                Vk::DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL,
            ),
        ] {
            assert_eq!(layout.vulkan(), vulkan.as_raw());
        }
    }
}
