//! Vulkan writes an image and OpenGL reads it as a texture, without a copy in between.
//!
//! `cargo run -p gpu-interop --features headless --example 04_vulkan_to_gl_image`

use std::process::ExitCode;

use gpu_interop::ash::vk;
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, TextureAccess, VulkanCommands};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::vulkan::{self, BufferOptions, ImageAccess, ImageOptions, MemoryLocation};
use gpu_interop::{BufferDesc, Error, ImageDesc, ImageUsage};

const WIDTH: u32 = 61;
const HEIGHT: u32 = 47;

fn main() -> ExitCode {
    match run() {
        Ok(is_same) => ExitCode::from(u8::from(!is_same)),
        Err(error) => {
            eprintln!("{error}");
            let is_missing = matches!(error.downcast_ref(), Some(Error::Missing(_)));
            ExitCode::from(if is_missing { 2 } else { 1 })
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let gpu = Headless::open(&GpuSelector::Any, &VulkanOptions::default())?;
    let (vulkan, gl) = (gpu.vulkan.endpoint()?, gpu.gl()?.endpoint()?);
    let texels: Vec<u8> =
        (0..WIDTH * HEIGHT).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();

    // One image, a view of it in each API, and a handoff from one to the other.
    let usage = ImageUsage::TRANSFER_DST | ImageUsage::TRANSFER_SRC | ImageUsage::SAMPLED;
    let desc = ImageDesc::d2(Format::Rgba8Unorm, WIDTH, HEIGHT, usage);
    let image = vulkan.create_image(&desc, ImageOptions::default())?;
    let in_gl = gl.import_image(image.export()?)?;
    let mut to_gl = handoff::open(&vulkan, &vulkan, &gl, HandoffOptions::default())?;

    // Vulkan copies the texels from mapped memory into the image, then releases it.
    let host = BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() };
    let staging = vulkan.create_buffer(&BufferDesc::storage(texels.len() as u64), host)?;
    write(&vulkan, &staging, &texels)?;
    let (old, new) = (vk::ImageLayout::TRANSFER_DST_OPTIMAL, vk::ImageLayout::GENERAL);
    let used = [ImageAccess::transfer(&image).with_layouts(old, new)];
    let (device, family) = (gpu.vulkan.device(), gpu.vulkan.queue_family());
    // SAFETY: the command buffer is being recorded for the queue's family, the buffer has the
    // image's texels, both live until `wait_idle`, and the submit includes what the release
    // returned.
    let (mut commands, (ticket, sync)) = gpu.vulkan.record(|commands| unsafe {
        let discard = [vk::ImageMemoryBarrier::default()
            .image(image.handle())
            .subresource_range(image.full_range())
            .new_layout(old)
            .dst_access_mask(vk::AccessFlags::TRANSFER_WRITE)];
        let (before, after) =
            (vk::PipelineStageFlags::TOP_OF_PIPE, vk::PipelineStageFlags::TRANSFER);
        let none = vk::DependencyFlags::empty();
        device.cmd_pipeline_barrier(commands, before, after, none, &[], &[], &discard);
        let color = vk::ImageSubresourceLayers::default()
            .aspect_mask(vk::ImageAspectFlags::COLOR)
            .layer_count(1);
        let extent = vk::Extent3D { width: WIDTH, height: HEIGHT, depth: 1 };
        let copy = [vk::BufferImageCopy::default().image_subresource(color).image_extent(extent)];
        device.cmd_copy_buffer_to_image(commands, staging.handle(), image.handle(), old, &copy);
        to_gl.release.release(VulkanCommands::record(commands, family, &used))
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, sync) }?;

    // OpenGL acquires the texture in the layout in which Vulkan released it, then reads it.
    to_gl.acquire.acquire(ticket, &[TextureAccess::from(&in_gl)])?;
    let mut seen = vec![0; texels.len()];
    // SAFETY: the context is current, and `seen` has room for the texels.
    unsafe {
        let pixels = glow::PixelPackData::Slice(Some(&mut seen));
        gl.gl().bind_texture(glow::TEXTURE_2D, Some(in_gl.name()));
        gl.gl().get_tex_image(glow::TEXTURE_2D, 0, glow::RGBA, glow::UNSIGNED_BYTE, pixels);
    }
    gpu.vulkan.wait_idle()?;
    println!("{WIDTH} x {HEIGHT} texels from Vulkan to OpenGL, all equal: {}", seen == texels);
    Ok(seen == texels)
}

/// Writes a buffer in host-visible memory that no work uses.
fn write(
    vulkan: &vulkan::Endpoint,
    buffer: &vulkan::Buffer,
    bytes: &[u8],
) -> Result<(), vk::Result> {
    let memory = buffer.memory().handle();
    // SAFETY: the memory is host-visible and coherent, not mapped, and has room at the offset.
    unsafe {
        let (len, flags) = (bytes.len() as u64, vk::MemoryMapFlags::empty());
        let mapped = vulkan.device().map_memory(memory, buffer.offset(), len, flags)?;
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.cast(), bytes.len());
        vulkan.device().unmap_memory(memory);
        Ok(())
    }
}
