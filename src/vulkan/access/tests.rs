//! The stages and accesses of every constructor, and what is refused.

use ash::vk::{AccessFlags, PipelineStageFlags};

use super::*;
use crate::desc::ImageUsage;
use crate::format::Format;
use crate::vulkan::{Accesses, fake};

const GENERAL: ImageLayout = ImageLayout::GENERAL;

#[test]
fn each_constructor_names_its_stages_and_accesses() {
    let endpoint = fake::endpoint();
    let buffer = fake::buffer(&endpoint, 1);
    let color = fake::image(&endpoint, 2, Format::Rgba8Unorm, ImageUsage::COLOR_ATTACHMENT);
    let usage = ImageUsage::DEPTH_STENCIL_ATTACHMENT;
    let depth = fake::image(&endpoint, 3, Format::D32Float, usage);
    let of_buffer = |used: BufferAccess<'_>| (used.stage, used.access);
    let of_image = |used: ImageAccess<'_>| (used.stage, used.access);
    let compute =
        (PipelineStageFlags::COMPUTE_SHADER, AccessFlags::SHADER_READ | AccessFlags::SHADER_WRITE);
    let transfer =
        (PipelineStageFlags::TRANSFER, AccessFlags::TRANSFER_READ | AccessFlags::TRANSFER_WRITE);
    let any =
        (PipelineStageFlags::ALL_COMMANDS, AccessFlags::MEMORY_READ | AccessFlags::MEMORY_WRITE);
    assert_eq!(of_buffer(BufferAccess::compute(&buffer)), compute);
    assert_eq!(of_buffer(BufferAccess::transfer(&buffer)), transfer);
    assert_eq!(of_buffer(BufferAccess::any(&buffer)), any);
    assert_eq!(of_image(ImageAccess::compute(&color)), compute);
    assert_eq!(of_image(ImageAccess::transfer(&color)), transfer);
    assert_eq!(of_image(ImageAccess::any(&color)), any);
    assert_eq!(
        of_image(ImageAccess::sampled(&color)),
        (
            PipelineStageFlags::VERTEX_SHADER
                | PipelineStageFlags::FRAGMENT_SHADER
                | PipelineStageFlags::COMPUTE_SHADER,
            AccessFlags::SHADER_READ
        )
    );
    assert_eq!(
        of_image(ImageAccess::attachment(&color)),
        (
            PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT,
            AccessFlags::COLOR_ATTACHMENT_READ | AccessFlags::COLOR_ATTACHMENT_WRITE
        )
    );
    assert_eq!(
        of_image(ImageAccess::attachment(&depth)),
        (
            PipelineStageFlags::EARLY_FRAGMENT_TESTS | PipelineStageFlags::LATE_FRAGMENT_TESTS,
            AccessFlags::DEPTH_STENCIL_ATTACHMENT_READ
                | AccessFlags::DEPTH_STENCIL_ATTACHMENT_WRITE
        )
    );
}

#[test]
fn uses_are_combined() {
    let endpoint = fake::endpoint();
    let buffer = fake::buffer(&endpoint, 1);
    let both = BufferAccess::compute(&buffer) | BufferAccess::transfer(&buffer);
    assert_eq!(both.stage, PipelineStageFlags::COMPUTE_SHADER | PipelineStageFlags::TRANSFER);
    let written = AccessFlags::SHADER_WRITE | AccessFlags::TRANSFER_WRITE;
    assert!(both.access.contains(written) && both.buffer.handle() == buffer.handle());
    let image = fake::image(&endpoint, 2, Format::Rgba8Unorm, ImageUsage::SAMPLED);
    let left =
        ImageAccess::sampled(&image).with_layouts(GENERAL, ImageLayout::SHADER_READ_ONLY_OPTIMAL);
    let both = left | ImageAccess::transfer(&image);
    assert_eq!(both.new_layout, Some(ImageLayout::SHADER_READ_ONLY_OPTIMAL));
    assert!(both.stage.contains(left.stage | PipelineStageFlags::TRANSFER));
    assert!(both.access.contains(AccessFlags::SHADER_READ | AccessFlags::TRANSFER_WRITE));
}

#[test]
fn layouts_and_ranges_that_the_image_lacks_are_refused() {
    let endpoint = fake::endpoint();
    let image = fake::image(&endpoint, 1, Format::Rgba8Unorm, ImageUsage::SAMPLED);
    let good = ImageAccess::sampled(&image).with_layouts(ImageLayout::UNDEFINED, GENERAL);
    let check = |used: ImageAccess<'_>| Accesses::from(&[used]).check(&endpoint);
    check(good).unwrap();
    let range = good.range;
    let rest = vk::ImageSubresourceRange { level_count: vk::REMAINING_MIP_LEVELS, ..range };
    check(ImageAccess { range: rest, ..good }).unwrap();
    let with = |range| ImageAccess { range, ..good };
    for (refused, field) in [
        (good.with_new_layout(ImageLayout::UNDEFINED), "images.new_layout"),
        (good.with_new_layout(ImageLayout::PREINITIALIZED), "images.new_layout"),
        (good.with_layouts(ImageLayout::TRANSFER_SRC_OPTIMAL, GENERAL), "images.old_layout"),
        (ImageAccess { stage: PipelineStageFlags::empty(), ..good }, "images"),
        (with(vk::ImageSubresourceRange { level_count: 2, ..range }), "images.range.level_count"),
        (
            with(vk::ImageSubresourceRange { base_mip_level: 1, ..range }),
            "images.range.level_count",
        ),
        (with(vk::ImageSubresourceRange { layer_count: 0, ..range }), "images.range.layer_count"),
        (
            with(vk::ImageSubresourceRange { aspect_mask: vk::ImageAspectFlags::DEPTH, ..range }),
            "images.range.aspect_mask",
        ),
    ] {
        let text = check(refused).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{field}:")), "{text}");
    }
}

#[test]
fn resources_of_another_device_are_refused() {
    let (endpoint, other) = (fake::endpoint(), fake::endpoint_of(2, true));
    let (buffer, image) =
        (fake::buffer(&other, 1), fake::image(&other, 2, Format::Rgba8Unorm, ImageUsage::SAMPLED));
    let buffers = [BufferAccess::any(&buffer)];
    let images = [ImageAccess::any(&image)];
    for used in [Accesses::from(&buffers), Accesses::from(&images)] {
        used.check(&other).unwrap();
        let text = used.check(&endpoint).unwrap_err().to_string();
        assert!(text.contains("another Vulkan device"), "{text}");
    }
}
