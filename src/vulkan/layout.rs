//! What a `VkImageLayout` is called, and what an image in it must be for.

use std::fmt;

use ash::vk;

use crate::desc::ImageUsage;

/// A layout, printed by its C name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayoutName(pub(crate) vk::ImageLayout);

impl fmt::Display for LayoutName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use vk::ImageLayout as Layout;
        let name = match self.0 {
            Layout::UNDEFINED => "UNDEFINED",
            Layout::GENERAL => "GENERAL",
            Layout::PREINITIALIZED => "PREINITIALIZED",
            Layout::PRESENT_SRC_KHR => "PRESENT_SRC_KHR",
            Layout::ATTACHMENT_OPTIMAL => "ATTACHMENT_OPTIMAL",
            Layout::READ_ONLY_OPTIMAL => "READ_ONLY_OPTIMAL",
            other => match rule(other) {
                Some(rule) => rule.name,
                None => return write!(f, "VkImageLayout {}", other.as_raw()),
            },
        };
        write!(f, "VK_IMAGE_LAYOUT_{name}")
    }
}

impl fmt::Debug for LayoutName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A layout that wants an image of a certain usage.
pub(crate) struct LayoutRule {
    name: &'static str,
    pub(crate) usage: ImageUsage,
    pub(crate) vuid: &'static str,
}

/// What `layout` wants of an image; `None` where it takes any.
pub(crate) fn rule(layout: vk::ImageLayout) -> Option<LayoutRule> {
    use vk::ImageLayout as Layout;
    let depth = ImageUsage::DEPTH_STENCIL_ATTACHMENT;
    let (name, usage, vuid) = match layout {
        Layout::COLOR_ATTACHMENT_OPTIMAL => (
            "COLOR_ATTACHMENT_OPTIMAL",
            ImageUsage::COLOR_ATTACHMENT,
            "VUID-VkImageMemoryBarrier-oldLayout-01208",
        ),
        Layout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL => {
            ("DEPTH_STENCIL_ATTACHMENT_OPTIMAL", depth, "VUID-VkImageMemoryBarrier-oldLayout-01209")
        }
        Layout::DEPTH_STENCIL_READ_ONLY_OPTIMAL => {
            ("DEPTH_STENCIL_READ_ONLY_OPTIMAL", depth, "VUID-VkImageMemoryBarrier-oldLayout-01210")
        }
        Layout::SHADER_READ_ONLY_OPTIMAL => (
            "SHADER_READ_ONLY_OPTIMAL",
            ImageUsage::SAMPLED,
            "VUID-VkImageMemoryBarrier-oldLayout-01211",
        ),
        Layout::TRANSFER_SRC_OPTIMAL => (
            "TRANSFER_SRC_OPTIMAL",
            ImageUsage::TRANSFER_SRC,
            "VUID-VkImageMemoryBarrier-oldLayout-01212",
        ),
        Layout::TRANSFER_DST_OPTIMAL => (
            "TRANSFER_DST_OPTIMAL",
            ImageUsage::TRANSFER_DST,
            "VUID-VkImageMemoryBarrier-oldLayout-01213",
        ),
        Layout::DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL => (
            "DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL",
            depth,
            "VUID-VkImageMemoryBarrier-oldLayout-01658",
        ),
        Layout::DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL => (
            "DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL",
            depth,
            "VUID-VkImageMemoryBarrier-oldLayout-01659",
        ),
        _ => return None,
    };
    Some(LayoutRule { name, usage, vuid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_specifications() {
        for (layout, name) in [
            (vk::ImageLayout::GENERAL, "VK_IMAGE_LAYOUT_GENERAL"),
            (vk::ImageLayout::TRANSFER_SRC_OPTIMAL, "VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL"),
            (vk::ImageLayout::from_raw(77), "VkImageLayout 77"),
        ] {
            assert_eq!(LayoutName(layout).to_string(), name);
        }
        for raw in (0..=8).chain([1_000_117_000, 1_000_117_001]) {
            let layout = vk::ImageLayout::from_raw(raw);
            assert_eq!(LayoutName(layout).to_string(), format!("VK_IMAGE_LAYOUT_{layout:?}"));
        }
    }
}
