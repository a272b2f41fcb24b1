//! Sends a Vulkan buffer to another process over a Unix socket; the other process reads it with its
//! own Vulkan device.
//!
//! `cargo run -p gpu-interop --features headless,ipc --example 10_send_to_process`

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};

use gpu_interop::ash::vk;
use gpu_interop::headless::{GpuSelector, Vulkan, VulkanOptions};
use gpu_interop::vulkan::{self, BufferOptions, MemoryLocation};
use gpu_interop::{BufferDesc, Error, ipc};

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
    let gpu = Vulkan::open(&GpuSelector::Any, &VulkanOptions::default())?;
    let vulkan = gpu.endpoint()?;
    if std::env::args().nth(1).as_deref() == Some("child") {
        return receive(&gpu, &vulkan);
    }
    let data = data();
    let host = BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() };
    let mut buffer = vulkan.create_buffer(&BufferDesc::storage(data.len() as u64), host)?;
    // SAFETY: no work uses the buffer.
    unsafe { mapped(&vulkan, &mut buffer)?.copy_from_slice(&data) };

    // The child gets its end of the socket as standard input.
    let (here, there) = UnixStream::pair()?;
    let stdin = there.as_fd().try_clone_to_owned()?;
    let mut child = Command::new(std::env::current_exe()?).arg("child").stdin(stdin).spawn()?;
    drop(there);
    ipc::send(&here, &buffer.export()?.into())?;
    Ok(child.wait()?.success())
}

/// The other process: the payload carries everything that the import needs.
fn receive(gpu: &Vulkan, vulkan: &vulkan::Endpoint) -> Result<bool, Box<dyn std::error::Error>> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let buffer = vulkan.import_buffer(ipc::receive(&socket)?.into_buffer()?)?;

    let host = BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() };
    let mut staging = vulkan.create_buffer(buffer.desc(), host)?;
    // SAFETY: the command buffer is being recorded, both buffers have room for the copy, and they
    // live until `wait_idle`. The producer wrote the buffer before it was sent.
    let (mut commands, ()) = gpu.record(|commands| unsafe {
        let whole = [vk::BufferCopy::default().size(buffer.desc().size)];
        gpu.device().cmd_copy_buffer(commands, buffer.handle(), staging.handle(), &whole);
        Ok(())
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(vulkan, Default::default()) }?;
    gpu.wait_idle()?;
    // SAFETY: the copy has finished.
    let seen = unsafe { mapped(vulkan, &mut staging)? };
    println!("{} bytes from another process, all equal: {}", seen.len(), seen == data());
    Ok(seen == data())
}

fn data() -> Vec<u8> {
    (0..0x4000u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
}

/// Maps a buffer in host-visible memory.
///
/// # Safety
/// The memory is not mapped, and no work uses it while the slice does.
unsafe fn mapped<'a>(
    vulkan: &vulkan::Endpoint,
    buffer: &'a mut vulkan::Buffer,
) -> Result<&'a mut [u8], vk::Result> {
    let (memory, len, flags) =
        (buffer.memory().handle(), buffer.desc().size, vk::MemoryMapFlags::empty());
    // SAFETY: the memory is host-visible and coherent, and stays mapped until the buffer is
    // dropped.
    unsafe {
        let start = vulkan.device().map_memory(memory, buffer.offset(), len, flags)?;
        Ok(std::slice::from_raw_parts_mut(start.cast(), len as usize))
    }
}
