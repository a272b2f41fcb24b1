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

/// Returns the layouts that OpenGL has a token for: those that a texture can be handed over in.
///
/// # References
/// `GL_EXT_semaphore`, table 4.4: texture layouts and the Vulkan image layouts they stand for.
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

    #[test]
    fn every_layout_has_a_token_of_its_own() {
        for (i, (layout, value)) in TOKENS.into_iter().enumerate() {
            assert_eq!(token(layout), Ok(value));
            assert_eq!(TOKENS.iter().position(|(_, other)| *other == value), Some(i));
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
