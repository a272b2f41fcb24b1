//! Both kernels of a pair in one Vulkan queue, recorded once.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::vulkan::SubmitSync;

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP};
use super::verify;
use crate::user::PayloadUser as _;
use crate::vulkan::{Recorded, VulkanUser};
use interop_gpu::Kernel;
use interop_gpu::oracle::{Passes, Wrong};
use interop_gpu::vulkan::{Bound, VulkanContext};

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
    /// Those of `record`, and if the driver fails.
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

    fn granule(&self) -> u32 {
        self.pairs
    }

    fn handoff(&self) -> String {
        match self.pairs {
            1 => "barriers, 1 pair per submit".into(),
            pairs => format!("barriers, {pairs} pairs per submit"),
        }
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        verify::check(&self.user.gpu, self.buffer, self.bytes, SEED, &self.passes)
    }
}
