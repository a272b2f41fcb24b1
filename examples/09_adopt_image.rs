//! Adopts an image that the application created, and imports it into OpenGL.
//!
//! 22 lines call gpu-interop or build one of its values. The rest is the application's own Vulkan
//! and OpenGL code, and `headless`, which stands in for the application's contexts.
//!
//! `cargo run -p gpu-interop --features headless --example 09_adopt_image`

use std::process::ExitCode;

use gpu_interop::ash::{self, vk};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::format::Format;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::vulkan::{AdoptedImage, ImageAccess};
use gpu_interop::{Error, ImageDesc, ImageUsage};

const OPAQUE_FD: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
/// 0.2, 0.4, 0.6 and 0.8 of 255, none of which needs rounding.
const TEXEL: [u8; 4] = [51, 102, 153, 204];

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
    let (device, family) = (gpu.vulkan.device(), gpu.vulkan.queue_family());

    // The application's image: created for export, in memory allocated for export.
    let mut external = vk::ExternalMemoryImageCreateInfo::default().handle_types(OPAQUE_FD);
    let copies = vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST;
    let info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(vk::Format::R8G8B8A8_UNORM)
        .extent(vk::Extent3D { width: 64, height: 32, depth: 1 })
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .usage(copies | vk::ImageUsageFlags::SAMPLED)
        .push_next(&mut external);
    // SAFETY: ordinary Vulkan calls; the handles are destroyed at the end of this function.
    let (image, needs) = unsafe {
        let image = device.create_image(&info, None)?;
        (image, device.get_image_memory_requirements(image))
    };
    let (memory, allocation_size, memory_type_index) = allocate(device, needs, 0)?;
    // SAFETY: as above; the memory has a type and a size that suit the image.
    unsafe { device.bind_image_memory(image, memory, 0) }?;

    // Describes to the library how the image was created.
    let usage = ImageUsage::TRANSFER_SRC | ImageUsage::TRANSFER_DST | ImageUsage::SAMPLED;
    let adopted = AdoptedImage {
        image,
        desc: ImageDesc::d2(Format::Rgba8Unorm, 64, 32, usage),
        memory,
        offset: 0,
        allocation_size,
        memory_type_index,
        dedicated: false,
        handle_type: MemoryHandleType::OpaqueFd,
    };
    // SAFETY: `adopted` describes the image correctly, and the handles outlive the result.
    let shared = unsafe { vulkan.adopt_image(&adopted) }?;

    // From here on, the code is the same as for an image that the library created.
    let in_gl = gl.import_image(shared.export()?)?;
    let mut to_gl = handoff::open(&vulkan, &vulkan, &gl, HandoffOptions::default())?;
    let (old, new) = (vk::ImageLayout::TRANSFER_DST_OPTIMAL, vk::ImageLayout::GENERAL);
    let used = ImageAccess::transfer(&shared).with_layouts(old, new);
    // SAFETY: the command buffer is being recorded for the queue's family, and the submit includes
    // what the release returned.
    let (mut commands, (ticket, sync)) = gpu.vulkan.record(|commands| unsafe {
        let whole = shared.full_range();
        let discard = [vk::ImageMemoryBarrier::default()
            .image(image)
            .subresource_range(whole)
            .new_layout(old)
            .dst_access_mask(vk::AccessFlags::TRANSFER_WRITE)];
        let (before, after) =
            (vk::PipelineStageFlags::TOP_OF_PIPE, vk::PipelineStageFlags::TRANSFER);
        let none = vk::DependencyFlags::empty();
        device.cmd_pipeline_barrier(commands, before, after, none, &[], &[], &discard);
        let color =
            vk::ClearColorValue { float32: TEXEL.map(|channel| f32::from(channel) / 255.0) };
        device.cmd_clear_color_image(commands, image, old, &color, &[whole]);
        to_gl.release.release(VulkanCommands::record(commands, family, used))
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, sync) }?;
    to_gl.acquire.acquire(ticket, &in_gl)?;
    let mut seen = vec![0; 64 * 32 * 4];
    // SAFETY: the context is current, and `seen` has room. The handles are destroyed when neither
    // work nor the library uses them.
    unsafe {
        gl.gl().bind_texture(glow::TEXTURE_2D, Some(in_gl.name()));
        let pixels = glow::PixelPackData::Slice(Some(&mut seen));
        gl.gl().get_tex_image(glow::TEXTURE_2D, 0, glow::RGBA, glow::UNSIGNED_BYTE, pixels);
        gpu.vulkan.wait_idle()?;
        drop(shared);
        device.destroy_image(image, None);
        device.free_memory(memory, None);
    }
    let is_same = seen.chunks(4).all(|texel| texel == TEXEL);
    println!("64 x 32 texels from Vulkan to OpenGL, all equal: {is_same}");
    Ok(is_same)
}

/// Allocates memory that can be exported: handle, size, memory type.
fn allocate(
    device: &ash::Device,
    needs: vk::MemoryRequirements,
    spare: u64,
) -> Result<(vk::DeviceMemory, u64, u32), vk::Result> {
    let (size, index) = (needs.size + spare, needs.memory_type_bits.trailing_zeros());
    let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(OPAQUE_FD);
    let info = vk::MemoryAllocateInfo::default()
        .allocation_size(size)
        .memory_type_index(index)
        .push_next(&mut export);
    // SAFETY: an ordinary Vulkan call; the device has VK_KHR_external_memory_fd enabled.
    Ok((unsafe { device.allocate_memory(&info, None) }?, size, index))
}
