//! Compares every byte of a payload with what the CPU computes.

use anyhow::Result;
use gpu_interop::ash::vk;

use interop_gpu::oracle::{self, Passes, Wrong};
use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

/// Bytes read back at a time.
const PART_BYTES: u64 = 64 << 20;

/// Checks the first `bytes` bytes of `buffer`, which Vulkan owns and no work uses. It reads them part by
/// part, because a ring of large payloads does not fit into host memory.
///
/// # Errors
/// If the driver fails. Wrong bytes are the inner error.
pub fn check(
    gpu: &VulkanContext,
    buffer: vk::Buffer,
    bytes: u64,
    seed: u32,
    passes: &Passes,
) -> Result<Result<(), Wrong>> {
    let staging = PrivateBuffer::host(&gpu.vulkan, PART_BYTES.min(bytes))?;
    let (mut wrong, mut at) = (Ok(()), 0);
    while at < bytes && wrong.is_ok() {
        let part = PART_BYTES.min(bytes - at);
        gpu.copy(buffer, at, staging.buffer, 0, part)?;
        let first_word = (at / 4) as u32;
        staging.with_bytes(usize::try_from(part)?, |data| {
            wrong = oracle::check_from(data, first_word, seed, passes);
        })?;
        at += part;
    }
    Ok(wrong)
}
