//! Runs a CUDA kernel in a Vulkan queue, between Vulkan's own commands, without a handoff or a
//! context switch.
//!
//! `cargo run -p gpu-interop --features headless,nvx --example 12_cuda_in_vulkan_queue`

use std::process::ExitCode;

use gpu_interop::ash::vk;
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::nvx::{Argument, Launch, MemoryUse};
use gpu_interop::vulkan::{self, BufferOptions, MemoryLocation};
use gpu_interop::{BufferDesc, BufferUsage, Error};

/// `fill` and its arguments are described in shaders/README.md.
const PTX: &str = include_str!("../shaders/fill.ptx");
const WORDS: u32 = 0x4000;

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
    let vulkan = gpu.vulkan.endpoint()?;
    vulkan.supports_cuda_launch().map_err(Error::from)?;

    // CUDA's linker produces machine code for this GPU; without CUDA, load a cubin from nvcc
    // instead.
    let cubin = gpu.cuda()?.endpoint()?.link(PTX)?;
    let fill = vulkan.load_module(&cubin)?.function("fill")?;

    let mut desc = BufferDesc::storage(u64::from(WORDS) * 4);
    let host = BufferOptions { memory: MemoryLocation::HostVisible, ..BufferOptions::default() };
    let staging = vulkan.create_buffer(&desc, host)?;
    desc.usage |= BufferUsage::DEVICE_ADDRESS;
    let buffer = vulkan.create_buffer(&desc, BufferOptions::default())?;

    let (count, seed) = (WORDS / 4, 7);
    let arguments = [Argument::buffer(&buffer), 0u32.into(), count.into(), u32::into(seed)];
    // SAFETY: the command buffer is being recorded outside a render pass, the kernel writes `count`
    // times 16 bytes, and everything lives until `wait_idle`.
    let (mut commands, ()) = gpu.vulkan.record(|commands| unsafe {
        fill.launch(commands, &Launch::linear(count.div_ceil(256), 256), &arguments)?;
        vulkan.record_barrier(commands, MemoryUse::KERNEL, MemoryUse::TRANSFER);
        let whole = [vk::BufferCopy::default().size(desc.size)];
        gpu.vulkan.device().cmd_copy_buffer(commands, buffer.handle(), staging.handle(), &whole);
        Ok(())
    })?;
    // SAFETY: as above.
    unsafe { commands.submit(&vulkan, Default::default()) }?;
    gpu.vulkan.wait_idle()?;

    let expected: Vec<u32> =
        (0..WORDS).map(|w| mixed(w ^ seed.wrapping_mul(0x9e37_79b9))).collect();
    let seen = read(&vulkan, &staging)?;
    println!("{WORDS} words by a CUDA kernel in a Vulkan queue, all correct: {}", seen == expected);
    Ok(seen == expected)
}

/// The hash that the kernel writes.
fn mixed(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

/// Reads a buffer in host-visible memory that no work uses.
fn read(vulkan: &vulkan::Endpoint, buffer: &vulkan::Buffer) -> Result<Vec<u32>, vk::Result> {
    let (memory, len) = (buffer.memory().handle(), buffer.desc().size);
    // SAFETY: the memory is host-visible and coherent, not mapped, and has `len` bytes at the
    // offset.
    unsafe {
        let flags = vk::MemoryMapFlags::empty();
        let mapped = vulkan.device().map_memory(memory, buffer.offset(), len, flags)?;
        let words = std::slice::from_raw_parts(mapped.cast::<u32>(), len as usize / 4).to_vec();
        vulkan.device().unmap_memory(memory);
        Ok(words)
    }
}
