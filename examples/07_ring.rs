//! Keeps four payloads in flight between Vulkan, which fills them, and OpenGL, which reads them: a
//! ring.
//!
//! `cargo run -p gpu-interop --features headless --example 07_ring`

use std::process::ExitCode;
use std::time::Duration;

use gpu_interop::glow::{self, HasContext as _};
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::ring::{self, RingOptions, SlotCommands, Wait};
use gpu_interop::vulkan::BufferAccess;
use gpu_interop::{BufferDesc, Error};

const FRAMES: u32 = 64;
const BYTES: usize = 4096;

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

    // The ring creates the buffers, imports them, and opens the handoffs in both directions.
    let desc = BufferDesc::storage(BYTES as u64);
    let options = RingOptions { depth: 4, ..RingOptions::default() };
    let (mut fill, mut show, _plans) = ring::pair(&vulkan, &vulkan, &gl, &desc, options)?;
    let wait = Wait::UpTo(Duration::from_secs(10));

    let (mut submitted, mut filled, mut right) = (Vec::new(), 0, 0);
    while right < FRAMES {
        // Fills all slots that have arrived: at first all four, later those that OpenGL has
        // released.
        while filled < FRAMES && fill.arrived() > 0 {
            let data = frame(filled);
            // SAFETY: the command buffer is being recorded for the queue's family, the slot's
            // buffer has room for the data, and the submit includes what take and release return.
            let (mut commands, sync) = gpu.vulkan.record(|commands| unsafe {
                let barriers = || {
                    SlotCommands::record(commands, family, |buffer| BufferAccess::transfer(buffer))
                };
                let (batch, mut sync) = fill.take(wait, 1..=1, barriers())?.unwrap_or_default();
                for slot in &batch {
                    let buffer = fill.buffer(slot)?.handle();
                    device.cmd_update_buffer(commands, buffer, 0, &data);
                }
                sync.merge(fill.release(batch, barriers())?);
                Ok(sync)
            })?;
            // SAFETY: as above; the commands live until the end of this function.
            unsafe { commands.submit(&vulkan, sync) }?;
            submitted.push(commands);
            filled += 1;
        }

        // Reads everything that has arrived, and releases it.
        let Some((batch, ())) = show.take(wait, 1..=4, ())? else { break };
        for slot in &batch {
            if read(gl.gl(), show.buffer(slot)?.name())? != frame(right) {
                println!("frame {right} is wrong");
                return Ok(false);
            }
            right += 1;
        }
        show.release(batch, ())?;
    }
    println!("{right} of {FRAMES} frames correct, {} slots", fill.depth());
    Ok(right == FRAMES)
}

fn frame(number: u32) -> Vec<u8> {
    let word = |i: u32| (i ^ number << 16).wrapping_mul(0x9e37_79b9);
    (0..BYTES as u32 / 4).flat_map(|i| word(i).to_le_bytes()).collect()
}

/// Reads a buffer through a private one, because NVIDIA's driver caches what it reads from an
/// import.
fn read(gl: &glow::Context, buffer: glow::Buffer) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; BYTES];
    // SAFETY: the context is current, and both buffers have `BYTES` bytes.
    unsafe {
        let copy = gl.create_buffer()?;
        gl.bind_buffer(glow::COPY_READ_BUFFER, Some(buffer));
        gl.bind_buffer(glow::COPY_WRITE_BUFFER, Some(copy));
        gl.buffer_data_size(glow::COPY_WRITE_BUFFER, BYTES as i32, glow::STREAM_READ);
        gl.copy_buffer_sub_data(
            glow::COPY_READ_BUFFER,
            glow::COPY_WRITE_BUFFER,
            0,
            0,
            BYTES as i32,
        );
        gl.get_buffer_sub_data(glow::COPY_WRITE_BUFFER, 0, &mut bytes);
        gl.delete_buffer(copy);
    }
    Ok(bytes)
}
