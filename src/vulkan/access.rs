//! How commands use what is shared: what a release and an acquire are told.

use std::fmt;

use ash::vk;

use super::buffer::Buffer;
use super::conv;
use super::endpoint::Endpoint;
use super::image::Image;
use crate::desc::ImageLayout;
use crate::error::{Error, Invalid, Result};

/// A buffer and how the recorded commands use it: written before a release, read after an acquire.
#[derive(Clone, Copy)]
pub struct BufferAccess<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// The stages of the commands that use it.
    pub stage: vk::PipelineStageFlags,
    /// What they do with it.
    pub access: vk::AccessFlags,
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

impl<'a> BufferAccess<'a> {
    /// A buffer that compute shaders read and write.
    pub fn compute(buffer: &'a Buffer) -> Self {
        Self {
            buffer,
            stage: vk::PipelineStageFlags::COMPUTE_SHADER,
            access: vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE,
        }
    }

    /// A buffer that is copied from and to.
    pub fn transfer(buffer: &'a Buffer) -> Self {
        Self {
            buffer,
            stage: vk::PipelineStageFlags::TRANSFER,
            access: vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE,
        }
    }
}

/// An image, how the recorded commands use it, and the layouts it is handed over with.
///
/// A handoff is one layout transition with two halves, the release and the acquire, and both name
/// the *same* two layouts: `old_layout`, which the commands before the release leave the image in,
/// and `new_layout`, which the commands after the acquire find it in. Give both sides of a handoff
/// between two Vulkan devices the same pair.
///
/// OpenGL names one layout only. What it waits for with is the `new_layout` of Vulkan's release;
/// what it signals with is the `old_layout` of Vulkan's acquire. CUDA names none: hand over with
/// `VK_IMAGE_LAYOUT_GENERAL` on its side.
///
/// The Khronos validation layer (1.3.239) overlooks an acquire whose two layouts are equal where the
/// device has `synchronization2` enabled, and reports the next use of an image that it last saw in
/// another layout (`DrawState-InvalidImageLayout`). Two layouts that differ avoid that.
///
/// # References
/// "Queue Family Ownership Transfer": the oldLayout and newLayout of the release are those of the
/// acquire. `GL_EXT_semaphore`: `srcLayouts`, `dstLayouts`.
#[derive(Clone, Copy)]
pub struct ImageAccess<'a> {
    /// The image.
    pub image: &'a Image,
    /// The stages of the commands that use it.
    pub stage: vk::PipelineStageFlags,
    /// What they do with it.
    pub access: vk::AccessFlags,
    /// The layout before the handoff; `VK_IMAGE_LAYOUT_UNDEFINED` where the content doesn't matter.
    pub old_layout: vk::ImageLayout,
    /// The layout after the handoff.
    pub new_layout: vk::ImageLayout,
    /// The part that is handed over: with all its aspects, and by default all of it.
    pub range: vk::ImageSubresourceRange,
}

impl fmt::Debug for ImageAccess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = &self.range;
        f.debug_struct("ImageAccess")
            .field("image", self.image)
            .field("stage", &format_args!("{:#x}", self.stage.as_raw()))
            .field("access", &format_args!("{:#x}", self.access.as_raw()))
            .field("old_layout", &ImageLayout::from(self.old_layout))
            .field("new_layout", &ImageLayout::from(self.new_layout))
            .field("levels", &(range.base_mip_level, range.level_count))
            .field("layers", &(range.base_array_layer, range.layer_count))
            .finish()
    }
}

impl<'a> ImageAccess<'a> {
    /// All of an image that compute shaders read and write.
    pub fn compute(
        image: &'a Image,
        old_layout: vk::ImageLayout,
        new_layout: vk::ImageLayout,
    ) -> Self {
        let stage = vk::PipelineStageFlags::COMPUTE_SHADER;
        let access = vk::AccessFlags::SHADER_READ | vk::AccessFlags::SHADER_WRITE;
        Self { image, stage, access, old_layout, new_layout, range: image.full_range() }
    }

    /// All of an image that is copied from and to, cleared or resolved.
    pub fn transfer(
        image: &'a Image,
        old_layout: vk::ImageLayout,
        new_layout: vk::ImageLayout,
    ) -> Self {
        let stage = vk::PipelineStageFlags::TRANSFER;
        let access = vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE;
        Self { image, stage, access, old_layout, new_layout, range: image.full_range() }
    }

    /// All of an image that shaders of any stage sample.
    pub fn sampled(
        image: &'a Image,
        old_layout: vk::ImageLayout,
        new_layout: vk::ImageLayout,
    ) -> Self {
        let stage = vk::PipelineStageFlags::VERTEX_SHADER
            | vk::PipelineStageFlags::FRAGMENT_SHADER
            | vk::PipelineStageFlags::COMPUTE_SHADER;
        let access = vk::AccessFlags::SHADER_READ;
        Self { image, stage, access, old_layout, new_layout, range: image.full_range() }
    }

    /// All of an image that is drawn to: as colour, or as depth and stencil, by its format.
    pub fn attachment(
        image: &'a Image,
        old_layout: vk::ImageLayout,
        new_layout: vk::ImageLayout,
    ) -> Self {
        let range = image.full_range();
        let (stage, access) = if range.aspect_mask.contains(vk::ImageAspectFlags::COLOR) {
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
        Self { image, stage, access, old_layout, new_layout, range }
    }

    fn check(&self) -> Result<()> {
        for (field, layout) in
            [("images.old_layout", self.old_layout), ("images.new_layout", self.new_layout)]
        {
            self.check_layout(field, layout)?;
        }
        if self.new_layout == vk::ImageLayout::UNDEFINED {
            let problem = "VK_IMAGE_LAYOUT_UNDEFINED: nobody can take an image over in it";
            return Err(Invalid::new("images.new_layout", problem)
                .vuid("VUID-VkImageMemoryBarrier-newLayout-01198")
                .help("name the layout that the acquiring side will find it in")
                .into());
        }
        self.check_range()
    }

    /// Refuses a layout that this image can't be in.
    fn check_layout(&self, field: &'static str, layout: vk::ImageLayout) -> Result<()> {
        let refuse = |problem: String, vuid| Err(Invalid::new(field, problem).vuid(vuid).into());
        if layout == vk::ImageLayout::PREINITIALIZED {
            let problem = format!("{}: a shared image never is", ImageLayout::from(layout));
            return refuse(problem, "VUID-VkImageCreateInfo-pNext-01443");
        }
        match ImageLayout::from(layout).required_usage() {
            Some((usage, vuid)) if !self.image.desc().usage.contains(usage) => {
                let problem =
                    format!("{}, but the image is not {usage:?}", ImageLayout::from(layout));
                refuse(problem, vuid)
            }
            _ => Ok(()),
        }
    }

    fn check_range(&self) -> Result<()> {
        let (range, desc) = (&self.range, self.image.desc());
        for (field, (base, count), has, vuid) in [
            (
                "images.range.level_count",
                (range.base_mip_level, range.level_count),
                desc.levels,
                "VUID-VkImageMemoryBarrier-subresourceRange-01724",
            ),
            (
                "images.range.layer_count",
                (range.base_array_layer, range.layer_count),
                desc.layers,
                "VUID-VkImageMemoryBarrier-subresourceRange-01725",
            ),
        ] {
            let rest = count == vk::REMAINING_MIP_LEVELS && base < has;
            let fits = count > 0 && base.checked_add(count).is_some_and(|end| end <= has);
            if !(rest || fits) {
                let problem = format!("{count} from {base} on, but the image has {has}");
                return Err(Invalid::new(field, problem).vuid(vuid).into());
            }
        }
        let all = conv::aspects(desc.format);
        if range.aspect_mask != all {
            let problem = format!(
                "{:#x}, but {} has {:#x}",
                range.aspect_mask.as_raw(),
                desc.format.name(),
                all.as_raw()
            );
            return Err(Invalid::new("images.range.aspect_mask", problem)
                .vuid("VUID-VkImageMemoryBarrier-image-03320")
                .help("all aspects are handed over together")
                .into());
        }
        Ok(())
    }
}

/// All that a release or an acquire covers: buffers, images, or both.
///
/// A slice of either alone will do wherever this is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accesses<'a> {
    /// The buffers.
    pub buffers: &'a [BufferAccess<'a>],
    /// The images. The acquiring side lists them in the order that the releasing side lists them in.
    pub images: &'a [ImageAccess<'a>],
}

impl<'a> From<&'a [BufferAccess<'a>]> for Accesses<'a> {
    fn from(buffers: &'a [BufferAccess<'a>]) -> Self {
        Self { buffers, images: &[] }
    }
}

impl<'a, const N: usize> From<&'a [BufferAccess<'a>; N]> for Accesses<'a> {
    fn from(buffers: &'a [BufferAccess<'a>; N]) -> Self {
        Self { buffers, images: &[] }
    }
}

impl<'a> From<&'a [ImageAccess<'a>]> for Accesses<'a> {
    fn from(images: &'a [ImageAccess<'a>]) -> Self {
        Self { buffers: &[], images }
    }
}

impl<'a, const N: usize> From<&'a [ImageAccess<'a>; N]> for Accesses<'a> {
    fn from(images: &'a [ImageAccess<'a>; N]) -> Self {
        Self { buffers: &[], images }
    }
}

impl Accesses<'_> {
    /// Checks what can be, before anything is recorded.
    pub(crate) fn check(&self, endpoint: &Endpoint) -> Result<()> {
        let of_another = |field: &'static str| -> Error {
            Invalid::new(field, "one of them is of another Vulkan device")
                .help("a shared resource has a handle on each device: name this device's")
                .into()
        };
        let device = endpoint.device().handle();
        let no_stage = |field: &'static str| -> Error {
            Invalid::new(field, "names no stage of the commands that use it")
                .vuid("VUID-vkCmdPipelineBarrier-srcStageMask-03937")
                .into()
        };
        for used in self.buffers {
            if used.buffer.endpoint().device().handle() != device {
                return Err(of_another("buffers"));
            }
            if used.stage.is_empty() {
                return Err(no_stage("buffers.stage"));
            }
        }
        for used in self.images {
            if used.image.endpoint().device().handle() != device {
                return Err(of_another("images"));
            }
            if used.stage.is_empty() {
                return Err(no_stage("images.stage"));
            }
            used.check()?;
        }
        Ok(())
    }
}
