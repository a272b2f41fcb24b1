//! Whole levels of shared images, written and read by the host. Slow: each call waits.

use anyhow::{Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Image, ImageAccess};

use super::settings::level_size;
use crate::vulkan::{PrivateBuffer, VulkanContext};

/// The layout that images are acquired from and released in here: the one that CUDA uses.
const OUTSIDE: vk::ImageLayout = vk::ImageLayout::GENERAL;

/// Releases images that are unused so far to other APIs, in the general layout, and waits. Their content is
/// undefined.
///
/// # Errors
/// If the driver fails.
pub fn give_away(gpu: &VulkanContext, images: &[&Image]) -> Result<()> {
    gpu.run(|command| {
        let layout =
            |image| ImageAccess::transfer(image).with_layouts(vk::ImageLayout::UNDEFINED, OUTSIDE);
        let used: Vec<_> = images.iter().map(|image| layout(*image)).collect();
        // SAFETY: the command buffer is being recorded for a queue of that family, which owns the
        // new images; `run` waits.
        unsafe { gpu.endpoint.record_release(command, gpu.vulkan.queue_family(), &used[..]) }?;
        Ok(())
    })
}

/// Fills level 0 of an image that other APIs own and are done with, and releases it to them again.
///
/// # Errors
/// If the number of bytes is not the level's, and if the driver fails.
pub fn upload(gpu: &VulkanContext, image: &Image, bytes: &[u8]) -> Result<()> {
    ensure!(bytes.len() as u64 == level_bytes(image, 0), "{} bytes for {image:?}", bytes.len());
    let staging = PrivateBuffer::host(&gpu.vulkan, bytes.len() as u64)?;
    staging.with_bytes(bytes.len(), |to| to.copy_from_slice(bytes))?;
    borrow(gpu, image, vk::ImageLayout::TRANSFER_DST_OPTIMAL, |command, layout| {
        // SAFETY: the command buffer is being recorded; the buffer has all of the level, and the
        // image is in this layout.
        unsafe {
            let (device, region) = (gpu.device(), [region(image, 0)]);
            let to = image.handle();
            device.cmd_copy_buffer_to_image(command, staging.buffer, to, layout, &region);
        }
    })
}

/// Reads a level of an image that other APIs own and are done with, and releases it to them again.
///
/// # Errors
/// If the driver fails.
pub fn download(gpu: &VulkanContext, image: &Image, level: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(level_bytes(image, level))?];
    let staging = PrivateBuffer::host(&gpu.vulkan, bytes.len() as u64)?;
    borrow(gpu, image, vk::ImageLayout::TRANSFER_SRC_OPTIMAL, |command, layout| {
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        let (copies, host) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        // SAFETY: as above; the buffer has room for all of the level.
        unsafe {
            let (device, region) = (gpu.device(), [region(image, level)]);
            let from = image.handle();
            device.cmd_copy_image_to_buffer(command, from, layout, staging.buffer, &region);
            let none = vk::DependencyFlags::empty();
            device.cmd_pipeline_barrier(command, copies, host, none, &[barrier], &[], &[]);
        }
    })?;
    staging.with_bytes(bytes.len(), |from| bytes.copy_from_slice(from))?;
    Ok(bytes)
}

/// Acquires `image` in `layout`, lets `record` use it, releases it again, and waits.
fn borrow(
    gpu: &VulkanContext,
    image: &Image,
    layout: vk::ImageLayout,
    record: impl FnOnce(vk::CommandBuffer, vk::ImageLayout),
) -> Result<()> {
    let (family, endpoint) = (gpu.vulkan.queue_family(), &gpu.endpoint);
    gpu.run(|command| {
        let found = [ImageAccess::transfer(image).with_layouts(OUTSIDE, layout)];
        let left = [ImageAccess::transfer(image).with_layouts(layout, OUTSIDE)];
        // SAFETY: the command buffer is being recorded for a queue of that family; the callers
        // promise that the other APIs own the image and are done with it; `run` waits.
        unsafe { endpoint.record_acquire(command, family, &found) }?;
        record(command, layout);
        // SAFETY: as above; this queue has the image now.
        unsafe { endpoint.record_release(command, family, &left) }?;
        Ok(())
    })
}

fn level_bytes(image: &Image, level: u32) -> u64 {
    let (width, height) = size(image, level);
    u64::from(width) * u64::from(height) * u64::from(image.desc().format.block_bytes())
}

fn size(image: &Image, level: u32) -> (u32, u32) {
    let extent = image.desc().extent;
    level_size((extent.width, extent.height), level)
}

/// All of a level, tightly packed at the beginning of a buffer.
pub fn region(image: &Image, level: u32) -> vk::BufferImageCopy {
    let (width, height) = size(image, level);
    vk::BufferImageCopy {
        image_subresource: vk::ImageSubresourceLayers {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            mip_level: level,
            base_array_layer: 0,
            layer_count: 1,
        },
        image_extent: vk::Extent3D { width, height, depth: 1 },
        ..Default::default()
    }
}
