//! Every translation between this crate's types and Vulkan's: enums, results, timeouts.

use std::time::Duration;

use ash::vk;

use crate::desc::{BufferDesc, Extent, ImageDesc, ImageKind, Tiling};
use crate::error::{Api, DriverError, Error, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType, explain};
use crate::format::Format;
use crate::payload::SemaphoreKind;

pub(crate) trait VkResultExt<T> {
    /// Converts a failure to an error that names the call.
    fn context(self, call: &'static str) -> Result<T>;
}

impl<T> VkResultExt<T> for ash::prelude::VkResult<T> {
    fn context(self, call: &'static str) -> Result<T> {
        self.map_err(|result| driver_error(call, result))
    }
}

pub(crate) fn driver_error(call: &'static str, result: vk::Result) -> Error {
    // ash prints "ERROR_OUT_OF_HOST_MEMORY"; the specification's name has a VK_ before it.
    let error = DriverError::new(Api::Vulkan, call, result.as_raw(), format!("VK_{result:?}"));
    explain(error).into()
}

/// A timeout in nanoseconds. One that doesn't fit becomes `u64::MAX`, with which Vulkan waits
/// indefinitely.
pub(super) fn nanoseconds(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn memory_handle_type(
    handle_type: MemoryHandleType,
) -> vk::ExternalMemoryHandleTypeFlags {
    match handle_type {
        MemoryHandleType::OpaqueFd => vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD,
        MemoryHandleType::DmaBuf => vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
    }
}

pub(super) fn semaphore_handle_type(
    handle_type: SemaphoreHandleType,
) -> vk::ExternalSemaphoreHandleTypeFlags {
    match handle_type {
        SemaphoreHandleType::OpaqueFd => vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD,
        SemaphoreHandleType::SyncFd => vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD,
    }
}

pub(super) fn semaphore_type(kind: SemaphoreKind) -> vk::SemaphoreType {
    match kind {
        SemaphoreKind::Binary => vk::SemaphoreType::BINARY,
        SemaphoreKind::Timeline => vk::SemaphoreType::TIMELINE,
    }
}

/// `BufferUsage` has Vulkan's own bits.
pub(super) fn buffer_usage(desc: &BufferDesc) -> vk::BufferUsageFlags {
    vk::BufferUsageFlags::from_raw(desc.usage.bits())
}

/// The create info of an image, without the structures that make it shareable.
///
/// The only place that translates an image description. Capabilities are queried with
/// [`image_format_info`] of this, so that the query and the creation can't differ.
pub(super) fn image_create_info(desc: &ImageDesc) -> vk::ImageCreateInfo<'static> {
    let mut flags = vk::ImageCreateFlags::from_raw(desc.flags.bits());
    if desc.kind == ImageKind::Cube {
        flags |= vk::ImageCreateFlags::CUBE_COMPATIBLE;
    }
    let Extent { width, height, depth } = desc.extent;
    vk::ImageCreateInfo::default()
        .flags(flags)
        .image_type(match desc.kind {
            ImageKind::D1 => vk::ImageType::TYPE_1D,
            ImageKind::D2 | ImageKind::Cube => vk::ImageType::TYPE_2D,
            ImageKind::D3 => vk::ImageType::TYPE_3D,
        })
        .format(vk::Format::from_raw(desc.format.vulkan()))
        .extent(vk::Extent3D { width, height, depth })
        .mip_levels(desc.levels)
        .array_layers(desc.layers)
        .samples(vk::SampleCountFlags::from_raw(desc.samples))
        .tiling(match desc.tiling {
            Tiling::Optimal => vk::ImageTiling::OPTIMAL,
            Tiling::Linear => vk::ImageTiling::LINEAR,
        })
        .usage(vk::ImageUsageFlags::from_raw(desc.usage.bits()))
        .sharing_mode(vk::SharingMode::EXCLUSIVE)
        // External memory allows no other layout (VUID-VkImageCreateInfo-pNext-01443).
        .initial_layout(vk::ImageLayout::UNDEFINED)
}

/// The formats of an image's views; empty if the image has no list of them. A
/// `VkImageFormatListCreateInfo` belongs to the query, too.
pub(super) fn view_formats(desc: &ImageDesc) -> Vec<vk::Format> {
    desc.view_formats.as_slice().iter().map(|&format| vk::Format::from_raw(format)).collect()
}

/// The query for whether the device supports the image of `info`.
pub(super) fn image_format_info(
    info: &vk::ImageCreateInfo<'_>,
) -> vk::PhysicalDeviceImageFormatInfo2<'static> {
    vk::PhysicalDeviceImageFormatInfo2::default()
        .format(info.format)
        .ty(info.image_type)
        .tiling(info.tiling)
        .usage(info.usage)
        .flags(info.flags)
}

/// All aspects of a format. `Aspects` has Vulkan's own bits.
pub(super) fn aspects(format: Format) -> vk::ImageAspectFlags {
    vk::ImageAspectFlags::from_raw(format.aspects().bits())
}

/// The first aspect of a format, whose rows a linear image's layout describes.
pub(super) fn first_aspect(format: Format) -> vk::ImageAspectFlags {
    let aspects = format.aspects().bits();
    vk::ImageAspectFlags::from_raw(aspects & aspects.wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{BufferUsage, ImageFlags, ImageUsage};

    #[test]
    fn usage_bits_equal_vulkans() {
        for (ours, vulkans) in [
            (BufferUsage::TRANSFER_SRC, vk::BufferUsageFlags::TRANSFER_SRC),
            (BufferUsage::TRANSFER_DST, vk::BufferUsageFlags::TRANSFER_DST),
            (BufferUsage::UNIFORM_TEXEL, vk::BufferUsageFlags::UNIFORM_TEXEL_BUFFER),
            (BufferUsage::STORAGE_TEXEL, vk::BufferUsageFlags::STORAGE_TEXEL_BUFFER),
            (BufferUsage::UNIFORM, vk::BufferUsageFlags::UNIFORM_BUFFER),
            (BufferUsage::STORAGE, vk::BufferUsageFlags::STORAGE_BUFFER),
            (BufferUsage::INDEX, vk::BufferUsageFlags::INDEX_BUFFER),
            (BufferUsage::VERTEX, vk::BufferUsageFlags::VERTEX_BUFFER),
            (BufferUsage::INDIRECT, vk::BufferUsageFlags::INDIRECT_BUFFER),
            (BufferUsage::DEVICE_ADDRESS, vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS),
        ] {
            assert_eq!(ours.bits(), vulkans.as_raw());
        }
        for (ours, vulkans) in [
            (ImageUsage::TRANSFER_SRC, vk::ImageUsageFlags::TRANSFER_SRC),
            (ImageUsage::TRANSFER_DST, vk::ImageUsageFlags::TRANSFER_DST),
            (ImageUsage::SAMPLED, vk::ImageUsageFlags::SAMPLED),
            (ImageUsage::STORAGE, vk::ImageUsageFlags::STORAGE),
            (ImageUsage::COLOR_ATTACHMENT, vk::ImageUsageFlags::COLOR_ATTACHMENT),
            (ImageUsage::DEPTH_STENCIL_ATTACHMENT, vk::ImageUsageFlags::DEPTH_STENCIL_ATTACHMENT),
            (ImageUsage::INPUT_ATTACHMENT, vk::ImageUsageFlags::INPUT_ATTACHMENT),
        ] {
            assert_eq!(ours.bits(), vulkans.as_raw());
        }
    }

    #[test]
    fn flag_bits_equal_vulkans() {
        use vk::ImageCreateFlags as Flags;
        for (ours, vulkans) in [
            (ImageFlags::MUTABLE_FORMAT, Flags::MUTABLE_FORMAT),
            (ImageFlags::CUBE_COMPATIBLE, Flags::CUBE_COMPATIBLE),
            (ImageFlags::ARRAY_2D_COMPATIBLE, Flags::TYPE_2D_ARRAY_COMPATIBLE),
            (ImageFlags::BLOCK_TEXEL_VIEW_COMPATIBLE, Flags::BLOCK_TEXEL_VIEW_COMPATIBLE),
            (ImageFlags::EXTENDED_USAGE, Flags::EXTENDED_USAGE),
            (ImageFlags::ALIAS, Flags::ALIAS),
        ] {
            assert_eq!(ours.bits(), vulkans.as_raw());
        }
        assert_eq!(aspects(Format::Rgba8Unorm), vk::ImageAspectFlags::COLOR);
        let both = vk::ImageAspectFlags::DEPTH | vk::ImageAspectFlags::STENCIL;
        assert_eq!(aspects(Format::D24UnormS8Uint), both);
        assert_eq!(first_aspect(Format::D24UnormS8Uint), vk::ImageAspectFlags::DEPTH);
        assert_eq!(first_aspect(Format::S8Uint), vk::ImageAspectFlags::STENCIL);
    }

    #[test]
    fn an_image_is_queried_as_it_is_created() {
        let desc = ImageDesc {
            kind: ImageKind::Cube,
            extent: Extent { width: 64, height: 64, depth: 1 },
            layers: 6,
            levels: 3,
            tiling: Tiling::Linear,
            flags: ImageFlags::MUTABLE_FORMAT,
            ..ImageDesc::d2(Format::Rgba8Unorm, 64, 64, ImageUsage::SAMPLED)
        };
        let made = image_create_info(&desc);
        let asked = image_format_info(&made);
        assert_eq!((made.mip_levels, made.array_layers), (3, 6));
        assert_eq!(made.initial_layout, vk::ImageLayout::UNDEFINED);
        assert_eq!(
            (asked.format, asked.ty, asked.tiling, asked.usage, asked.flags),
            (made.format, made.image_type, made.tiling, made.usage, made.flags)
        );
        let flags = vk::ImageCreateFlags::CUBE_COMPATIBLE | vk::ImageCreateFlags::MUTABLE_FORMAT;
        assert_eq!(made.flags, flags);
    }

    #[test]
    fn sample_counts_equal_vulkans_bits() {
        for (count, flag) in [
            (1, vk::SampleCountFlags::TYPE_1),
            (4, vk::SampleCountFlags::TYPE_4),
            (64, vk::SampleCountFlags::TYPE_64),
        ] {
            assert_eq!(vk::SampleCountFlags::from_raw(count), flag);
        }
    }
}
