//! Passes a counter from Vulkan to OpenGL and back many times, with a handoff in each direction.
//!
//! `cargo run -p gpu-interop --features headless --example 06_handoff_loop`

use std::process::ExitCode;

use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::handoff::{self, HandoffOptions, RoundTrip, VulkanCommands};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::vulkan::{BufferAccess, BufferOptions};
use gpu_interop::{BufferDesc, Error};

const ROUNDS: u32 = 100;

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

    // Words 0 and 1: Vulkan writes word 0; OpenGL copies it to word 1 and to a private buffer.
    let desc = BufferDesc::storage(8);
    let buffer = vulkan.create_buffer(&desc, BufferOptions::default())?;
    let in_gl = gl.import_buffer(buffer.export()?)?;
    let RoundTrip { there: mut to_gl, back: mut to_vulkan } =
        handoff::round_trip(&vulkan, &gl, HandoffOptions::default())?;
    println!("synchronised by {}", to_gl.plan);

    let used = BufferAccess::transfer(&buffer);
    let mut history = Vec::new();
    let mut ticket_back = None;
    for round in 0..ROUNDS {
        let word = round.wrapping_mul(0x9e37_79b9);
        // SAFETY: the command buffer is being recorded for the queue's family, and the submit
        // includes what the acquire and the release return.
        let (mut commands, (ticket, sync)) = gpu.vulkan.record(|commands| unsafe {
            let barriers = || VulkanCommands::record(commands, family, used);
            let mut sync = match ticket_back.take() {
                Some(ticket) => to_vulkan.acquire.acquire(ticket, barriers())?,
                None => Default::default(),
            };
            device.cmd_update_buffer(commands, buffer.handle(), 0, &word.to_le_bytes());
            let (ticket, signals) = to_gl.release.release(barriers())?;
            sync.merge(signals);
            Ok((ticket, sync))
        })?;
        // SAFETY: as above.
        unsafe { commands.submit(&vulkan, sync) }?;

        to_gl.acquire.acquire(ticket, &in_gl)?;
        history.push(read_word(gl.gl(), in_gl.name())?);
        let (ticket, ()) = to_vulkan.release.release(&in_gl)?;
        ticket_back = Some(ticket);
    }
    let expected: Vec<u32> = (0..ROUNDS).map(|round| round.wrapping_mul(0x9e37_79b9)).collect();
    println!(
        "{ROUNDS} rounds between Vulkan and OpenGL, all words correct: {}",
        history == expected
    );
    Ok(history == expected)
}

/// Reads the first word through a private buffer, because NVIDIA's driver caches what it reads from
/// an import.
fn read_word(gl: &glow::Context, buffer: glow::Buffer) -> Result<u32, String> {
    let mut word = [0; 4];
    // SAFETY: the context is current, and both buffers have at least 4 bytes.
    unsafe {
        let copy = gl.create_buffer()?;
        gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer));
        gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(copy));
        gl.buffer_data_size(glow::COPY_WRITE_BUFFER, 4, glow::STREAM_READ);
        gl.copy_buffer_sub_data(glow::COPY_READ_BUFFER, glow::COPY_WRITE_BUFFER, 0, 0, 4);
        gl.get_buffer_sub_data(glow::COPY_WRITE_BUFFER, 0, &mut word);
        gl.delete_buffer(copy);
    }
    Ok(u32::from_le_bytes(word))
}
