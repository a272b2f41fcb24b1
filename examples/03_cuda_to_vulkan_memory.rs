//! CUDA allocates and writes a buffer; Vulkan imports its memory and reads it.
//!
//! `cargo run -p gpu-interop --features headless --example 03_cuda_to_vulkan_memory`

use std::process::ExitCode;

use gpu_interop::ash::vk;
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::vulkan::{self, BufferAccess, BufferOptions, MemoryLocation};
use gpu_interop::{BufferDesc, Error};

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
    let (vulkan, cuda) = (gpu.vulkan.endpoint()?, gpu.cuda()?.endpoint()?);
    let stream = cuda.context().default_stream();
    let data: Vec<u8> =
        (0..0x4000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    // Memory of CUDA's virtual-memory API (cuMemCreate), exported and imported like any other.
    let desc = BufferDesc::storage(data.len() as u64);
    let mut buffer = cuda.create_buffer(&desc)?;
    let in_vulkan = vulkan.import_buffer(buffer.export()?)?;
    let mut to_vulkan = handoff::open(&vulkan, &cuda, &vulkan, HandoffOptions::default())?;

    // CUDA writes, then releases: the release follows the work on the stream.
    stream.memcpy_htod(&data, &mut buffer.as_view_mut::<u8>()?)?;
    let (ticket, ()) = to_vulkan.release.release(&stream)?;

    // Vulkan acquires, then copies to memory that the host can map.
    let host = BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() };
    let staging = vulkan.create_buffer(&desc, host)?;
    let used = [BufferAccess::transfer(&in_vulkan)];
    // SAFETY: the command buffer is being recorded for the queue's family, both buffers have room
    // for the copy and live until `wait_idle`, and the submit includes what the acquire returned.
    let (mut commands, sync) = gpu.vulkan.record(|commands| unsafe {
        let acquire = VulkanCommands::record(commands, gpu.vulkan.queue_family(), &used);
        let sync = to_vulkan.acquire.acquire(ticket, acquire)?;
        let whole = [vk::BufferCopy::default().size(desc.size)];
        let device = gpu.vulkan.device();
        device.cmd_copy_buffer(commands, in_vulkan.handle(), staging.handle(), &whole);
        Ok(sync)
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, sync) }?;
    gpu.vulkan.wait_idle()?;
    let seen = read(&vulkan, &staging)?;
    println!("{} bytes from CUDA to Vulkan, all equal: {}", seen.len(), seen == data);
    Ok(seen == data)
}

/// Reads a buffer in host-visible memory that no work uses.
fn read(vulkan: &vulkan::Endpoint, buffer: &vulkan::Buffer) -> Result<Vec<u8>, vk::Result> {
    let (memory, len) = (buffer.memory().handle(), buffer.desc().size);
    // SAFETY: the memory is host-visible and coherent, not mapped, and has `len` bytes at the
    // offset.
    unsafe {
        let flags = vk::MemoryMapFlags::empty();
        let mapped = vulkan.device().map_memory(memory, buffer.offset(), len, flags)?;
        let bytes = std::slice::from_raw_parts(mapped.cast::<u8>(), len as usize).to_vec();
        vulkan.device().unmap_memory(memory);
        Ok(bytes)
    }
}
