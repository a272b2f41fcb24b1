//! Both kernels in Vulkan's queue: its own, and CUDA's by `VK_NVX_binary_import`.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::vulkan::{Buffer, BufferOptions};

use super::one_queue::OneQueue;
use crate::ladder::rung::{FIRST_STEP, SECOND_STEP};
use crate::rig::Kernel;
use crate::rig::cuda::CudaRig;
use crate::rig::vulkan::VulkanRig;
use crate::rig::vulkan::in_queue::{InQueue, desc};

/// `pairs` pairs a submit, on one payload that could be shared.
pub(crate) fn in_queue(
    rig: Rc<VulkanRig>,
    cuda: &CudaRig,
    bytes: u64,
    pairs: u32,
    (vulkan_grid, cuda_grid): (u32, u32),
) -> Result<OneQueue<(InQueue, Buffer)>> {
    let payload = rig.endpoint.create_buffer(&desc(bytes), BufferOptions::default())?;
    let whole = (payload.handle(), bytes);
    let kept = (InQueue::new(&rig, cuda)?, payload);
    OneQueue::new(rig.clone(), whole, kept, pairs, |(kernels, payload), command, bound| {
        // Before the first kernel too: the last submit's may still run.
        kernels.record_kernel_barrier(command);
        rig.record(command, Kernel::PingPong { step: FIRST_STEP }, bound, vulkan_grid);
        kernels.record_kernel_barrier(command);
        kernels.record(command, Kernel::PingPong { step: SECOND_STEP }, payload, cuda_grid)
    })
}
