//! Image layouts as `glWaitSemaphoreEXT` and `glSignalSemaphoreEXT` name them.

use crate::desc::ImageLayout;
use crate::error::{Invalid, Result};

/// The layouts that OpenGL has a token for, and the tokens.
const TOKENS: [(ImageLayout, u32); 10] = [
    (ImageLayout::UNDEFINED, glow::NONE),
    (ImageLayout::GENERAL, 0x958D),
    (ImageLayout::COLOR_ATTACHMENT_OPTIMAL, 0x958E),
    (ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL, 0x958F),
    (ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL, 0x9590),
    (ImageLayout::SHADER_READ_ONLY_OPTIMAL, 0x9591),
    (ImageLayout::TRANSFER_SRC_OPTIMAL, 0x9592),
    (ImageLayout::TRANSFER_DST_OPTIMAL, 0x9593),
    (ImageLayout::DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL, 0x9530),
    (ImageLayout::DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL, 0x9531),
];

/// Returns the layouts that OpenGL has a token for: those in which a texture can be handed over.
///
/// # References
/// `GL_EXT_semaphore`, table 4.4: texture layouts and the corresponding Vulkan image layouts.
pub fn texture_layouts() -> impl ExactSizeIterator<Item = ImageLayout> {
    TOKENS.iter().map(|(layout, _)| *layout)
}

/// Returns the token of `layout`.
pub(super) fn token(layout: ImageLayout) -> Result<u32> {
    let row = TOKENS.iter().find(|(known, _)| *known == layout);
    row.map(|(_, token)| *token).ok_or_else(|| {
        Invalid::new("textures.layout", format!("{layout} has no OpenGL token"))
            .help("hand the image over in VK_IMAGE_LAYOUT_GENERAL")
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the registry's `GL_EXT_semaphore`: each `GL_LAYOUT_*_EXT`, its value, and the
    /// value of the `VkImageLayout` that it corresponds to.
    #[test]
    fn each_token_is_the_registrys() {
        let registry = [
            ("NONE", 0, 0),
            ("LAYOUT_GENERAL", 0x958D, 1),
            ("LAYOUT_COLOR_ATTACHMENT", 0x958E, 2),
            ("LAYOUT_DEPTH_STENCIL_ATTACHMENT", 0x958F, 3),
            ("LAYOUT_DEPTH_STENCIL_READ_ONLY", 0x9590, 4),
            ("LAYOUT_SHADER_READ_ONLY", 0x9591, 5),
            ("LAYOUT_TRANSFER_SRC", 0x9592, 6),
            ("LAYOUT_TRANSFER_DST", 0x9593, 7),
            ("LAYOUT_DEPTH_READ_ONLY_STENCIL_ATTACHMENT", 0x9530, 1_000_117_000),
            ("LAYOUT_DEPTH_ATTACHMENT_STENCIL_READ_ONLY", 0x9531, 1_000_117_001),
        ];
        assert_eq!(texture_layouts().len(), registry.len());
        for (name, value, vulkan) in registry {
            assert_eq!(token(ImageLayout::from_raw(vulkan)), Ok(value), "GL_{name}_EXT");
        }
    }

    #[test]
    fn a_layout_without_a_token_is_refused_by_name() {
        for layout in [ImageLayout::PREINITIALIZED, ImageLayout::PRESENT_SRC_KHR] {
            let refused = token(layout).unwrap_err().to_string();
            assert!(refused.contains(&layout.to_string()), "{refused}");
        }
    }
}
