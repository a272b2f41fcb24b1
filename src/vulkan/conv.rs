//! Every translation between floor 0's enums and Vulkan's.

use ash::vk;

use crate::handle::{MemoryHandleType, SemaphoreHandleType};
use crate::payload::SemaphoreKind;
use crate::resource::{BufferDesc, ImageDesc, ImageKind, Tiling};

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

/// The image part of a capability query: what `vkCreateImage` will be asked for.
pub(super) fn image_format_info(desc: &ImageDesc) -> vk::PhysicalDeviceImageFormatInfo2<'static> {
    let mut flags = vk::ImageCreateFlags::empty();
    if desc.kind == ImageKind::Cube {
        flags |= vk::ImageCreateFlags::CUBE_COMPATIBLE;
    }
    if desc.mutable_format {
        flags |= vk::ImageCreateFlags::MUTABLE_FORMAT;
    }
    vk::PhysicalDeviceImageFormatInfo2::default()
        .format(vk::Format::from_raw(desc.format.vulkan()))
        .ty(match desc.kind {
            ImageKind::D1 => vk::ImageType::TYPE_1D,
            ImageKind::D2 | ImageKind::Cube => vk::ImageType::TYPE_2D,
            ImageKind::D3 => vk::ImageType::TYPE_3D,
        })
        .tiling(match desc.tiling {
            Tiling::Optimal => vk::ImageTiling::OPTIMAL,
            Tiling::Linear => vk::ImageTiling::LINEAR,
        })
        .usage(vk::ImageUsageFlags::from_raw(desc.usage.bits()))
        .flags(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{BufferUsage, ImageUsage};

    #[test]
    fn usage_bits_are_vulkans() {
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
        ] {
            assert_eq!(ours.bits(), vulkans.as_raw());
        }
    }
}
