//! Adopts a buffer that the application created, and imports it into OpenGL.
//!
//! 21 lines call gpu-interop or build one of its values. The rest is the application's own Vulkan
//! and OpenGL code, and `headless`, which stands in for the application's contexts.
//!
//! `cargo run -p gpu-interop --features headless --example 09_adopt_buffer`

use std::process::ExitCode;

use gpu_interop::ash::{self, vk};
use gpu_interop::fd::MemoryHandleType;
use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::vulkan::{AdoptedBuffer, BufferAccess};
use gpu_interop::{BufferDesc, Error};

const OPAQUE_FD: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;

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
    let device = gpu.vulkan.device();
    let data: Vec<u8> =
        (0..0x4000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    // The application's buffer: created for export, in memory allocated for export.
    let desc = BufferDesc::storage(data.len() as u64);
    let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(OPAQUE_FD);
    let copies = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let info = vk::BufferCreateInfo::default()
        .size(desc.size)
        .usage(copies | vk::BufferUsageFlags::STORAGE_BUFFER)
        .push_next(&mut external);
    // SAFETY: ordinary Vulkan calls; the handles are destroyed at the end of this function.
    let (buffer, needs) = unsafe {
        let buffer = device.create_buffer(&info, None)?;
        (buffer, device.get_buffer_memory_requirements(buffer))
    };
    // Mesa's llvmpipe requires 48 spare bytes after a buffer.
    let (memory, allocation_size, memory_type_index) = allocate(device, needs, 4096)?;
    // SAFETY: as above; the memory has a type and a size that suit the buffer.
    unsafe { device.bind_buffer_memory(buffer, memory, 0) }?;

    // Describes to the library how the buffer was created.
    let adopted = AdoptedBuffer {
        buffer,
        desc,
        memory,
        offset: 0,
        allocation_size,
        memory_type_index,
        dedicated: false,
        handle_type: MemoryHandleType::OpaqueFd,
    };
    // SAFETY: `adopted` describes the buffer correctly, and the handles outlive the result.
    let shared = unsafe { vulkan.adopt_buffer(&adopted) }?;

    // From here on, the code is the same as for a buffer that the library created.
    let in_gl = gl.import_buffer(shared.export()?)?;
    let mut to_gl = handoff::open(&vulkan, &vulkan, &gl, HandoffOptions::default())?;
    let used = BufferAccess::transfer(&shared);
    // SAFETY: the command buffer is being recorded for the queue's family, the buffer has room for
    // the data, and the submit includes what the release returned.
    let (mut commands, (ticket, sync)) = gpu.vulkan.record(|commands| unsafe {
        device.cmd_update_buffer(commands, buffer, 0, &data);
        to_gl.release.release(VulkanCommands::record(commands, gpu.vulkan.queue_family(), used))
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, sync) }?;
    to_gl.acquire.acquire(ticket, &in_gl)?;
    let mut seen = vec![0; data.len()];
    // SAFETY: the context is current, and `seen` has room. The handles are destroyed when neither
    // work nor the library uses them.
    unsafe {
        gl.gl().bind_buffer(glow::COPY_READ_BUFFER, Some(in_gl.name()));
        gl.gl().get_buffer_sub_data(glow::COPY_READ_BUFFER, 0, &mut seen);
        gpu.vulkan.wait_idle()?;
        drop(shared);
        device.destroy_buffer(buffer, None);
        device.free_memory(memory, None);
    }
    println!("{} bytes from Vulkan to OpenGL, all equal: {}", seen.len(), seen == data);
    Ok(seen == data)
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
