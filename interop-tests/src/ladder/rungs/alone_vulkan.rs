//! Vulkan alone: both kernels of a pair in one queue, on memory of its own.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::vulkan::SubmitPart;

use crate::ladder::rung::{FIRST_STEP, Rung, SECOND_STEP};
use crate::ladder::verify;
use crate::ladder::vulkan_side::{Recorded, VulkanSide};
use crate::rig::Kernel;
use crate::rig::oracle::{Turns, Wrong};
use crate::rig::vulkan::{PrivateBuffer, VulkanRig};

const SEED: u32 = 6;
/// Bytes that the kernels of one submit work on, at most: what is submitted together can't be interleaved
/// with other work.
const BYTES_A_SUBMIT: u64 = 256 << 20;

pub(crate) struct AloneVulkan {
    side: VulkanSide,
    recorded: Recorded,
    pairs: u32,
    payload: PrivateBuffer,
    turns: Turns,
}

impl AloneVulkan {
    /// Up to 16 pairs a submit.
    pub(crate) fn new(rig: Rc<VulkanRig>, bytes: u64, grid: u32) -> Result<Self> {
        let payload = PrivateBuffer::device(&rig.vulkan, bytes)?;
        let side = VulkanSide::new(rig.clone(), grid, 0)?;
        let bound = rig.bind(payload.buffer, bytes)?;
        rig.run(|command| {
            rig.record(command, Kernel::Fill { seed: SEED }, &bound, 0);
            Ok(())
        })?;
        let pairs = (BYTES_A_SUBMIT / bytes).clamp(1, 16) as u32;
        let recorded = Recorded::new(&rig, |command| {
            for step in [FIRST_STEP, SECOND_STEP].repeat(pairs as usize) {
                rig.record_barrier(command);
                rig.record(command, Kernel::PingPong { step }, &bound, grid);
            }
            Ok(())
        })?;
        let recorded = recorded.with(vec![bound]);
        Ok(Self { side, recorded, pairs, payload, turns: Turns::default() })
    }
}

impl Rung for AloneVulkan {
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
        format!("barriers, {} pairs a submit", self.pairs)
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let PrivateBuffer { buffer, bytes, .. } = self.payload;
        verify::check(&self.side.rig, buffer, bytes, SEED, &self.turns)
    }
}
