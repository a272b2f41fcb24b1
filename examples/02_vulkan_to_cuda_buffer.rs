//! Vulkan writes a buffer and CUDA reads it, without a copy in between.
//!
//! `cargo run -p gpu-interop --features headless --example 02_vulkan_to_cuda_buffer`

use std::process::ExitCode;

use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::vulkan::{BufferAccess, BufferOptions};
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
    // One piece of memory, a view of it in each API, and a handoff from one to the other.
    let desc = BufferDesc::storage(data.len() as u64);
    let buffer = vulkan.create_buffer(&desc, BufferOptions::default())?;
    let in_cuda = cuda.import_buffer(buffer.export()?)?;
    let mut to_cuda = handoff::open(&vulkan, &vulkan, &cuda, HandoffOptions::default())?;

    // Vulkan writes, then releases.
    let used = [BufferAccess::transfer(&buffer)];
    // SAFETY: the command buffer is being recorded for the queue's family, the buffer has room for
    // the data and lives until `wait_idle`, and the submit includes what the release returned.
    let (mut commands, (ticket, sync)) = gpu.vulkan.record(|commands| unsafe {
        gpu.vulkan.device().cmd_update_buffer(commands, buffer.handle(), 0, &data);
        to_cuda.release.release(VulkanCommands::record(commands, gpu.vulkan.queue_family(), &used))
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, sync) }?;

    // Later work on the stream waits for Vulkan. `as_view` returns a view for cudarc's functions.
    to_cuda.acquire.acquire(ticket, &stream)?;
    let seen: Vec<u8> = stream.clone_dtoh(&in_cuda.as_view::<u8>()?)?;
    stream.synchronize()?;
    gpu.vulkan.wait_idle()?;
    println!("{} bytes from Vulkan to CUDA, all equal: {}", seen.len(), seen == data);
    Ok(seen == data)
}
