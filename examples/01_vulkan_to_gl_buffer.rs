//! Vulkan writes a buffer and OpenGL reads it, without a copy in between.
//!
//! `cargo run -p gpu-interop --features headless --example 01_vulkan_to_gl_buffer`

use std::process::ExitCode;

use gpu_interop::glow::{self, HasContext as _};
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
    let (vulkan, gl) = (gpu.vulkan.endpoint()?, gpu.gl()?.endpoint()?);
    let data: Vec<u8> =
        (0..0x4000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    // One piece of memory, a view of it in each API, and a handoff from one to the other.
    let desc = BufferDesc::storage(data.len() as u64);
    let buffer = vulkan.create_buffer(&desc, BufferOptions::default())?;
    let in_gl = gl.import_buffer(buffer.export()?)?;
    let mut to_gl = handoff::open(&vulkan, &vulkan, &gl, HandoffOptions::default())?;

    // Vulkan writes, then releases. The buffer is kept until the GPU is done with it.
    let (family, used) = (gpu.vulkan.queue_family(), BufferAccess::transfer(&buffer));
    // SAFETY: the command buffer is being recorded for the queue's family, the buffer has room for
    // the data, and the submit includes what the release returned.
    let (mut commands, (ticket, sync)) = gpu.vulkan.record(|commands| unsafe {
        gpu.vulkan.device().cmd_update_buffer(commands, buffer.handle(), 0, &data);
        to_gl.release.release(VulkanCommands::record(commands, family, used))
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, sync) }?;

    // OpenGL acquires, then reads.
    to_gl.acquire.acquire(ticket, &in_gl)?;
    let seen = read(gl.gl(), in_gl.name(), data.len())?;
    println!("{} bytes from Vulkan to OpenGL, all equal: {}", seen.len(), seen == data);
    Ok(seen == data)
}

/// Reads a buffer through a private one, because NVIDIA's driver caches what it reads from an
/// import.
fn read(gl: &glow::Context, buffer: glow::Buffer, len: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; len];
    // SAFETY: the context is current, and both buffers have `len` bytes.
    unsafe {
        let copy = gl.create_buffer()?;
        gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer));
        gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(copy));
        gl.buffer_data_size(glow::COPY_WRITE_BUFFER, len as i32, glow::STREAM_READ);
        gl.copy_buffer_sub_data(glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER, 0, 0, len as i32);
        gl.get_buffer_sub_data(glow::COPY_WRITE_BUFFER, 0, &mut bytes);
        gl.delete_buffer(copy);
    }
    Ok(bytes)
}
