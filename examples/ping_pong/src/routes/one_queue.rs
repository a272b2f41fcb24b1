//! Both kernels of a pair in one Vulkan queue, recorded once: Vulkan's own, or one of Vulkan and one of CUDA.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{Buffer, BufferOptions, SubmitSync};

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP, check};
use crate::user::PayloadUser as _;
use crate::vulkan::{Recorded, VulkanUser};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::oracle::{Passes, Wrong};
use interop_gpu::vulkan::in_queue::{SameQueue, desc};
use interop_gpu::vulkan::{Bound, PrivateBuffer, VulkanContext};

const SEED: u32 = 6;

/// Pairs in one queue on one payload. `K` keeps the payload and whatever else the commands use.
#[derive(Debug)]
pub struct OneQueue<K> {
    user: VulkanUser,
    recorded: Recorded,
    pairs: u32,
    buffer: vk::Buffer,
    bytes: u64,
    passes: Passes,
    // Last: the commands use it.
    _kept: K,
}

impl<K> OneQueue<K> {
    /// Records `pairs` pairs per submit, each by `record`, on `bytes` bytes of `buffer`, which `kept` keeps.
    ///
    /// # Errors
    /// The errors of `record`, and if the driver fails.
    pub fn new(
        gpu: Rc<VulkanContext>,
        (buffer, bytes): (vk::Buffer, u64),
        kept: K,
        pairs: u32,
        record: impl Fn(&K, vk::CommandBuffer, &Bound) -> Result<()>,
    ) -> Result<Self> {
        let bound = gpu.bind(buffer, bytes)?;
        gpu.run(|command| {
            gpu.record(command, Kernel::Fill { seed: SEED }, &bound, 0);
            Ok(())
        })?;
        let recorded = Recorded::new(&gpu, |command| {
            (0..pairs).try_for_each(|_| record(&kept, command, &bound))
        })?;
        let recorded = recorded.with(vec![bound]);
        let user = VulkanUser::new(gpu)?;
        let passes = Passes::default();
        Ok(Self { user, recorded, pairs, buffer, bytes, passes, _kept: kept })
    }
}

impl<K> Benchmark for OneQueue<K> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        for _ in 0..pairs / self.pairs {
            self.user.submit(&[self.recorded.command], SubmitSync::default())?;
        }
        for step in [FIRST_STEP, SECOND_STEP].repeat(pairs as usize) {
            self.passes.then(step);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.user.finish()
    }

    fn fewest_pairs(&self) -> u32 {
        self.pairs
    }

    fn handoff(&self) -> String {
        match self.pairs {
            1 => "barriers, 1 pair per submit".into(),
            pairs => format!("barriers, {pairs} pairs per submit"),
        }
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        check(&self.user.gpu, self.buffer, self.bytes, SEED, &self.passes)
    }
}

/// Limit of the bytes that one submit works on: the GPU can't interleave other work with the work of one
/// submit.
const BYTES_A_SUBMIT: u64 = 256 << 20;

/// Opens Vulkan alone on memory of its own, with up to 16 pairs per submit.
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

/// Opens CUDA's kernels in Vulkan's queue, by `VK_NVX_binary_import`: `pairs` pairs per submit, on one payload that
/// could be shared.
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
