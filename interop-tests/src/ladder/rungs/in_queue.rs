//! Both kernels in Vulkan's queue: its own, and CUDA's by `VK_NVX_binary_import`.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::vulkan::{Buffer, BufferOptions, SubmitPart};

use crate::ladder::rung::{FIRST_STEP, Rung, SECOND_STEP};
use crate::ladder::verify;
use crate::ladder::vulkan_side::{Recorded, VulkanSide};
use crate::rig::Kernel;
use crate::rig::cuda::CudaRig;
use crate::rig::oracle::{Turns, Wrong};
use crate::rig::vulkan::VulkanRig;
use crate::rig::vulkan::in_queue::{InQueue, desc};

const SEED: u32 = 8;

pub(crate) struct InQueuePairs {
    side: VulkanSide,
    recorded: Recorded,
    pairs: u32,
    turns: Turns,
    // Last: the commands use them.
    _kernels: InQueue,
    payload: Buffer,
}

impl InQueuePairs {
    /// `pairs` pairs a submit, on one payload that could be shared.
    pub(crate) fn new(
        rig: Rc<VulkanRig>,
        cuda: &CudaRig,
        bytes: u64,
        pairs: u32,
        (vulkan_grid, cuda_grid): (u32, u32),
    ) -> Result<Self> {
        let kernels = InQueue::new(&rig, cuda)?;
        let payload = rig.endpoint.create_buffer(&desc(bytes), BufferOptions::default())?;
        let bound = rig.bind(payload.handle(), bytes)?;
        rig.run(|command| {
            rig.record(command, Kernel::Fill { seed: SEED }, &bound, 0);
            Ok(())
        })?;
        let recorded = Recorded::new(&rig, |command| {
            for _ in 0..pairs {
                // Before the first kernel too: the last submit's may still run.
                kernels.record_kernel_barrier(command);
                rig.record(command, Kernel::PingPong { step: FIRST_STEP }, &bound, vulkan_grid);
                kernels.record_kernel_barrier(command);
                let kernel = Kernel::PingPong { step: SECOND_STEP };
                kernels.record(command, kernel, &payload, cuda_grid)?;
            }
            Ok(())
        })?;
        let recorded = recorded.with(vec![bound]);
        let side = VulkanSide::new(rig, vulkan_grid, FIRST_STEP)?;
        Ok(Self { side, recorded, pairs, turns: Turns::default(), _kernels: kernels, payload })
    }
}

impl Rung for InQueuePairs {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        for _ in 0..pairs / self.pairs {
            self.side.submit(&[self.recorded.command], SubmitPart::default())?;
        }
        for step in [FIRST_STEP, SECOND_STEP].repeat(pairs as usize) {
            self.turns.then(step);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.side.finish()
    }

    fn granule(&self) -> u32 {
        self.pairs
    }

    fn handoff(&self) -> String {
        match self.pairs {
            1 => "barriers, 1 pair a submit".into(),
            pairs => format!("barriers, {pairs} pairs a submit"),
        }
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let (buffer, bytes) = (self.payload.handle(), self.payload.desc().size);
        verify::check(&self.side.rig, buffer, bytes, SEED, &self.turns)
    }
}
