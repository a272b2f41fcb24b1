//! Reads the frames that `11_session_producer` publishes, and verifies every byte.
//!
//! `cargo run -p gpu-interop --features headless,session --example 11_session_consumer`

use std::process::ExitCode;
use std::time::Duration;

use gpu_interop::ash::vk;
use gpu_interop::headless::{GpuSelector, Vulkan, VulkanOptions};
use gpu_interop::session::{Consumer, JoinOptions, SessionEnd};
use gpu_interop::vulkan::{self, BufferOptions, MemoryLocation};
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
    let gpu = Vulkan::open(&GpuSelector::Any, &VulkanOptions::default())?;
    let vulkan = gpu.endpoint()?;
    let path = std::env::temp_dir().join("gpu-interop-example");

    let options = JoinOptions { timeout: Duration::from_secs(20), ..JoinOptions::default() };
    let (mut consumer, ring) = Consumer::join(&path, options)?;
    println!("joined {:?}: {}", ring.name, ring.format);
    let mut slots = Vec::new();
    for slot in ring.slots {
        slots.push(vulkan.import_buffer(slot.into_buffer()?)?);
    }
    let host = BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() };
    let staging = vulkan.create_buffer(&BufferDesc::storage(slots[0].desc().size), host)?;
    consumer.ready()?;

    let (mut frames, mut right) = (0, 0);
    loop {
        let frame = match consumer.next_frame(Duration::from_secs(10)) {
            Ok(frame) => frame,
            Err(Error::Closed { .. }) if consumer.end() == Some(SessionEnd::Done) => break,
            Err(error) => return Err(error.into()),
        };
        let seen = read(&gpu, &vulkan, &slots[frame.slot()], &staging)?;
        let number = frame.tag() as u32;
        frame.release()?;
        let word = |i: u32| (i ^ number << 16).wrapping_mul(0x9e37_79b9);
        frames += 1;
        right += usize::from((0..).zip(&seen).all(|(i, &found)| found == word(i)));
    }
    println!("{right} of {frames} frames correct");
    Ok(frames > 0 && right == frames)
}

/// Copies a buffer to one that the host can map, and reads the copy.
fn read(
    gpu: &Vulkan,
    vulkan: &vulkan::Endpoint,
    buffer: &vulkan::Buffer,
    staging: &vulkan::Buffer,
) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let (memory, len) = (staging.memory().handle(), staging.desc().size);
    // SAFETY: the command buffer is being recorded, both buffers have `len` bytes, and the producer
    // doesn't write the slot before it is released.
    let (mut commands, ()) = gpu.record(|commands| unsafe {
        let whole = [vk::BufferCopy::default().size(len)];
        gpu.device().cmd_copy_buffer(commands, buffer.handle(), staging.handle(), &whole);
        Ok(())
    })?;
    // SAFETY: as above; the memory is host-visible and coherent, and not mapped elsewhere.
    unsafe {
        commands.submit(vulkan, Default::default())?;
        gpu.wait_idle()?;
        let flags = vk::MemoryMapFlags::empty();
        let mapped = vulkan.device().map_memory(memory, staging.offset(), len, flags)?;
        let words = std::slice::from_raw_parts(mapped.cast::<u32>(), len as usize / 4).to_vec();
        vulkan.device().unmap_memory(memory);
        Ok(words)
    }
}
