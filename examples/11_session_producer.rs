//! Publishes frames to other processes. Run `11_session_consumer` at the same time, any number of
//! times.
//!
//! `cargo run -p gpu-interop --features headless,session --example 11_session_producer`

use std::process::ExitCode;
use std::time::Duration;

use gpu_interop::headless::{GpuSelector, Vulkan, VulkanOptions};
use gpu_interop::session::{FrameInfo, Producer, ProducerOptions, Ring};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{BufferDesc, Error};

const FRAMES: u32 = 100;
const BYTES: u32 = 4096;
const SLOTS: usize = 3;

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
    let timeout = Duration::from_secs(30);

    // The ring: its buffers are announced to every consumer that joins.
    let desc = BufferDesc::storage(BYTES.into());
    let mut ring = Ring::new("example", "a hash of the frame's number");
    let mut slots = Vec::new();
    for _ in 0..SLOTS {
        let buffer = vulkan.create_buffer(&desc, BufferOptions::default())?;
        ring = ring.slot(buffer.export()?);
        slots.push(buffer);
    }
    let mut producer = Producer::bind(&path, ring, ProducerOptions::default())?;
    println!("waiting for a consumer at {}", path.display());
    producer.wait_for_consumers(1, timeout)?;

    for number in 0..FRAMES {
        let slot = producer.free_slot(timeout)?;
        let word = |i: u32| (i ^ number << 16).wrapping_mul(0x9e37_79b9);
        let data: Vec<u8> = (0..BYTES / 4).flat_map(|i| word(i).to_le_bytes()).collect();
        let buffer = &slots[slot.index()];
        // SAFETY: the command buffer is being recorded, and no consumer has the slot. The host
        // waits for the work before the frame is published; with a semaphore in the ring the GPU
        // would wait instead.
        let (mut commands, ()) = gpu.record(|commands| unsafe {
            gpu.device().cmd_update_buffer(commands, buffer.handle(), 0, &data);
            Ok(())
        })?;
        // SAFETY: as above.
        unsafe { commands.submit(&vulkan, Default::default()) }?;
        gpu.wait_idle()?;
        producer.publish(slot, FrameInfo { tag: number.into(), ..FrameInfo::default() })?;
    }
    producer.finish(timeout)?;
    println!("published {FRAMES} frames");
    Ok(true)
}
