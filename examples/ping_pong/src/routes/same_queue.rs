//! Both kernels in Vulkan's queue: its own, and CUDA's by `VK_NVX_binary_import`.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::vulkan::{Buffer, BufferOptions};

use super::benchmark::{FIRST_STEP, SECOND_STEP};
use super::one_queue::OneQueue;
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::vulkan::VulkanContext;
use interop_gpu::vulkan::in_queue::{SameQueue, desc};

/// Opens `pairs` pairs per submit, on one payload that could be shared.
///
/// # Errors
/// [`Missing`](gpu_interop::error::Missing) if the device can't run CUDA's kernels; otherwise if a driver
/// fails.
pub fn same_queue(
    gpu: Rc<VulkanContext>,
    cuda: &CudaContext,
    bytes: u64,
    pairs: u32,
    (vulkan_grid, cuda_grid): (u32, u32),
) -> Result<OneQueue<(SameQueue, Buffer)>> {
    let payload = gpu.endpoint.create_buffer(&desc(bytes), BufferOptions::default())?;
    let whole = (payload.handle(), bytes);
    let kept = (SameQueue::new(&gpu, cuda)?, payload);
    OneQueue::new(gpu.clone(), whole, kept, pairs, |(kernels, payload), command, bound| {
        // Before the first kernel too: kernels of the last submit may still run.
        kernels.record_kernel_barrier(command);
        gpu.record(command, Kernel::PingPong { step: FIRST_STEP }, bound, vulkan_grid);
        kernels.record_kernel_barrier(command);
        kernels.record(command, Kernel::PingPong { step: SECOND_STEP }, payload, cuda_grid)
    })
}
