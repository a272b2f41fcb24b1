//! How commands use shared resources: the stages, accesses and layouts of a release or an acquire.

use std::fmt;
use std::ops::BitOr;

use ash::vk;

use super::buffer::Buffer;
use super::conv;
use super::image::Image;
use super::ownership::Part;
use crate::desc::ImageLayout;
use crate::error::{Invalid, Result, counted};

/// A buffer, and how the commands before a release or after an acquire use it.
///
/// Two uses of one buffer are combined with `|`:
/// `BufferAccess::compute(&buffer) | BufferAccess::transfer(&buffer)`.
#[derive(Clone, Copy)]
pub struct BufferAccess<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The stages of the commands.
    pub stage: vk::PipelineStageFlags,
    /// Their accesses.
    pub access: vk::AccessFlags,
}

/// An image, how the commands before a release or after an acquire use it, and its layouts.
///
/// A handoff is one layout transition with two halves, the release and the acquire, and both name
/// the *same* two layouts: `old_layout`, in which the commands before the release leave the image,
/// and `new_layout`, in which the commands after the acquire find it.
///
/// Name the layouts at the release and leave them out at the acquire, which gets them from the
/// ticket. Otherwise a layout that is left out is [`ImageLayout::GENERAL`]. OpenGL names a single
/// layout, in which the image is handed over: after a release by OpenGL, the acquire may name a
/// different `new_layout`. CUDA has no layouts.
///
/// Two uses of one image are combined with `|`, which keeps the layouts and the range of the left
/// one.
///
/// The Khronos validation layer (1.3.239) overlooks an acquire with two equal layouts on a device
/// with `synchronization2` enabled, and then reports the next use of an image that it last saw in
/// another layout (`DrawState-InvalidImageLayout`). Two different layouts avoid that.
///
/// # References
/// "Queue Family Ownership Transfer": the oldLayout and newLayout of the release are those of the
/// acquire. `GL_EXT_semaphore`: `srcLayouts`, `dstLayouts`.
#[derive(Clone, Copy)]
pub struct ImageAccess<'a> {
    /// The image.
    pub image: &'a Image,
    /// The stages of the commands.
    pub stage: vk::PipelineStageFlags,
    /// Their accesses.
    pub access: vk::AccessFlags,
    /// The layout before the handoff; [`ImageLayout::UNDEFINED`] if the content doesn't matter.
    pub old_layout: Option<ImageLayout>,
    /// The layout after the handoff.
    pub new_layout: Option<ImageLayout>,
    /// The levels and layers that are handed over, with all aspects. Default: the whole image.
    pub range: vk::ImageSubresourceRange,
}

type Use = (vk::PipelineStageFlags, vk::AccessFlags);

fn compute() -> Use {
    let access = vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE;
    (vk::PipelineStageFlags::COMPUTE_SHADER, access)
}

fn transfer() -> Use {
    let access = vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE;
    (vk::PipelineStageFlags::TRANSFER, access)
}

fn any() -> Use {
    let access = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
    (vk::PipelineStageFlags::ALL_COMMANDS, access)
}

impl<'a> BufferAccess<'a> {
    fn new(buffer: &'a Buffer, (stage, access): Use) -> Self {
        Self { buffer, stage, access }
    }

    /// Describes a buffer that compute shaders read and write.
    pub fn compute(buffer: &'a Buffer) -> Self {
        Self::new(buffer, compute())
    }

    /// Describes a buffer that copies and fills read and write.
    pub fn transfer(buffer: &'a Buffer) -> Self {
        Self::new(buffer, transfer())
    }

    /// Describes a buffer that any command reads and writes. Always correct, but commands that
    /// don't use the buffer wait too.
    pub fn any(buffer: &'a Buffer) -> Self {
        Self::new(buffer, any())
    }
}

impl BitOr for BufferAccess<'_> {
    type Output = Self;

    /// Combines two uses of the same buffer.
    fn bitor(self, other: Self) -> Self {
        debug_assert_eq!(self.buffer.handle(), other.buffer.handle(), "uses of different buffers");
        Self { stage: self.stage | other.stage, access: self.access | other.access, ..self }
    }
}

impl fmt::Debug for BufferAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferAccess")
            .field("buffer", self.buffer)
            .field("stage", &format_args!("{:#x}", self.stage.as_raw()))
            .field("access", &format_args!("{:#x}", self.access.as_raw()))
            .finish()
    }
}

impl<'a> ImageAccess<'a> {
    fn new(image: &'a Image, (stage, access): Use) -> Self {
        let range = image.full_range();
        Self { image, stage, access, old_layout: None, new_layout: None, range }
    }

    /// Names the layouts before and after the handoff.
    #[must_use]
    pub fn with_layouts(
        self,
        old_layout: impl Into<ImageLayout>,
        new_layout: impl Into<ImageLayout>,
    ) -> Self {
        let (old_layout, new_layout) = (Some(old_layout.into()), Some(new_layout.into()));
        Self { old_layout, new_layout, ..self }
    }

    /// Names only the layout after the handoff.
    #[must_use]
    pub fn with_new_layout(self, new_layout: impl Into<ImageLayout>) -> Self {
        Self { new_layout: Some(new_layout.into()), ..self }
    }

    /// Returns the layouts before and after the handoff, `GENERAL` if left out.
    pub(crate) fn layouts(&self) -> (ImageLayout, ImageLayout) {
        let general = ImageLayout::GENERAL;
        (self.old_layout.unwrap_or(general), self.new_layout.unwrap_or(general))
    }

    /// Describes a whole image that compute shaders read and write.
    pub fn compute(image: &'a Image) -> Self {
        Self::new(image, compute())
    }

    /// Describes a whole image that is copied from and to, cleared or resolved.
    pub fn transfer(image: &'a Image) -> Self {
        Self::new(image, transfer())
    }

    /// Describes a whole image that shaders of any stage sample.
    pub fn sampled(image: &'a Image) -> Self {
        let stage = vk::PipelineStageFlags::VERTEX_SHADER
            | vk::PipelineStageFlags::FRAGMENT_SHADER
            | vk::PipelineStageFlags::COMPUTE_SHADER;
        Self::new(image, (stage, vk::AccessFlags::SHADER_READ))
    }

    /// Describes a whole image that is drawn to: as colour or as depth and stencil, depending on
    /// its format.
    pub fn attachment(image: &'a Image) -> Self {
        let color = conv::aspects(image.desc().format).contains(vk::ImageAspectFlags::COLOR);
        let used = if color {
            (
                vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT,
                vk::AccessFlags::COLOR_ATTACHMENT_READ | vk::AccessFlags::COLOR_ATTACHMENT_WRITE,
            )
        } else {
            (
                vk::PipelineStageFlags::EARLY_FRAGMENT_TESTS
                    | vk::PipelineStageFlags::LATE_FRAGMENT_TESTS,
                vk::AccessFlags::DEPTH_STENCIL_ATTACHMENT_READ
                    | vk::AccessFlags::DEPTH_STENCIL_ATTACHMENT_WRITE,
            )
        };
        Self::new(image, used)
    }

    /// Describes a whole image that any command reads and writes. Always correct, but commands that
    /// don't use the image wait too.
    pub fn any(image: &'a Image) -> Self {
        Self::new(image, any())
    }

    /// The levels and layers that are handed over.
    pub(super) fn part(&self) -> Part {
        let vk::ImageSubresourceRange {
            base_mip_level,
            level_count,
            base_array_layer,
            layer_count,
            ..
        } = self.range;
        // A count of u32::MAX means all that remain.
        Part {
            levels: base_mip_level..base_mip_level.saturating_add(level_count),
            layers: base_array_layer..base_array_layer.saturating_add(layer_count),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let (old_layout, new_layout) = self.layouts();
        self.check_layout("images.old_layout", old_layout)?;
        self.check_layout("images.new_layout", new_layout)?;
        if new_layout == ImageLayout::UNDEFINED {
            let problem = "VK_IMAGE_LAYOUT_UNDEFINED: an image can't be acquired in it";
            return Err(Invalid::new("images.new_layout", problem)
                .vuid("VUID-VkImageMemoryBarrier-newLayout-01198")
                .help("name the layout in which the acquiring side finds the image")
                .into());
        }
        self.check_range()
    }

    /// Rejects a layout that this image can't be in. The layout may come from another process.
    fn check_layout(&self, field: &'static str, layout: ImageLayout) -> Result<()> {
        let (problem, vuid) = match layout.required_usage() {
            _ if layout == ImageLayout::PREINITIALIZED => (
                format!("{layout}: a shared image is never in it"),
                "VUID-VkImageCreateInfo-pNext-01443",
            ),
            Some((usage, vuid)) if !self.image.desc().usage.contains(usage) => {
                (format!("{layout}, but the image lacks the usage {usage:?}"), vuid)
            }
            _ => return Ok(()),
        };
        Err(Invalid::new(field, problem).vuid(vuid).into())
    }

    /// Rejects a range that the image doesn't have.
    fn check_range(&self) -> Result<()> {
        let (range, desc) = (&self.range, self.image.desc());
        let reaches = |base: u32, count: u32, has: u32| {
            let rest = count == vk::REMAINING_MIP_LEVELS && base < has;
            rest || (count > 0 && base.checked_add(count).is_some_and(|end| end <= has))
        };
        let vk::ImageSubresourceRange {
            aspect_mask,
            base_mip_level,
            level_count,
            base_array_layer,
            layer_count,
        } = *range;
        let (field, problem, vuid) = if !reaches(base_mip_level, level_count, desc.levels) {
            (
                "images.range.level_count",
                format!(
                    "{level_count} from {base_mip_level} on, of {}",
                    counted(desc.levels, "level")
                ),
                "VUID-VkImageMemoryBarrier-subresourceRange-01724",
            )
        } else if !reaches(base_array_layer, layer_count, desc.layers) {
            (
                "images.range.layer_count",
                format!(
                    "{layer_count} from {base_array_layer} on, of {}",
                    counted(desc.layers, "layer")
                ),
                "VUID-VkImageMemoryBarrier-subresourceRange-01725",
            )
        } else if aspect_mask != conv::aspects(desc.format) {
            let (mask, all) = (aspect_mask.as_raw(), conv::aspects(desc.format).as_raw());
            (
                "images.range.aspect_mask",
                format!("{mask:#x}, but all aspects of {} are {all:#x}", desc.format),
                "VUID-VkImageMemoryBarrier-image-03320",
            )
        } else {
            return Ok(());
        };
        let help = "hand over levels and layers that the image has, with all aspects";
        Err(Invalid::new(field, problem).vuid(vuid).help(help).into())
    }
}

impl BitOr for ImageAccess<'_> {
    type Output = Self;

    /// Combines two uses of the same image.
    fn bitor(self, other: Self) -> Self {
        debug_assert_eq!(self.image.handle(), other.image.handle(), "uses of different images");
        Self { stage: self.stage | other.stage, access: self.access | other.access, ..self }
    }
}

impl fmt::Debug for ImageAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = &self.range;
        f.debug_struct("ImageAccess")
            .field("image", self.image)
            .field("stage", &format_args!("{:#x}", self.stage.as_raw()))
            .field("access", &format_args!("{:#x}", self.access.as_raw()))
            .field("old_layout", &self.old_layout)
            .field("new_layout", &self.new_layout)
            .field("levels", &(range.base_mip_level, range.level_count))
            .field("layers", &(range.base_array_layer, range.layer_count))
            .finish()
    }
}

#[cfg(test)]
mod tests;
