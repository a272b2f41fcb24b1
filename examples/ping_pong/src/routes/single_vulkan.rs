//! Vulkan alone: both kernels of a pair in one queue, on memory of its own.

use std::rc::Rc;

use anyhow::Result;

use super::benchmark::{FIRST_STEP, SECOND_STEP};
use super::one_queue::OneQueue;
use interop_gpu::Kernel;
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

/// Limit of the bytes that one submit works on: the GPU can't interleave other work with the work of one
/// submit.
const BYTES_A_SUBMIT: u64 = 256 << 20;

/// Opens Vulkan alone, with up to 16 pairs per submit.
///
/// # Errors
/// If the driver fails.
pub fn single_vulkan(
    gpu: Rc<VulkanContext>,
    bytes: u64,
    grid: u32,
) -> Result<OneQueue<PrivateBuffer>> {
    let payload = PrivateBuffer::device(&gpu.vulkan, bytes)?;
    let whole = (payload.buffer, bytes);
    let pairs = (BYTES_A_SUBMIT / bytes).clamp(1, 16) as u32;
    OneQueue::new(gpu.clone(), whole, payload, pairs, |_, command, bound| {
        for step in [FIRST_STEP, SECOND_STEP] {
            gpu.record_barrier(command);
            gpu.record(command, Kernel::PingPong { step }, bound, grid);
        }
        Ok(())
    })
}
