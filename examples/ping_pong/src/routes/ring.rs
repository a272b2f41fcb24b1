//! The library's ring: several payloads in flight.

use anyhow::{Context, Result, ensure};
use demo_common::handoff_name;
use gpu_interop::BufferDesc;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::ring::{self, RingOptions, RingStage, SlotCommands, Wait};
use gpu_interop::vulkan::Endpoint;
use interop_gpu::oracle::{Passes, Wrong};

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP, check};
use crate::user::{PayloadUser, Work};
use crate::vulkan::{Recorded, VulkanUser};

/// A ring with a stage in Vulkan and one in a second API.
pub(crate) struct Ring<S: PayloadUser> {
    // Before the stages, whose buffers they use.
    first_passes: Vec<Recorded>,
    second_passes: Vec<S::Prepared>,
    first_stage: RingStage<Endpoint>,
    second_stage: RingStage<S::Endpoint>,
    first: VulkanUser,
    second: S,
    /// Slots handed over at a time.
    batch: u32,
    /// The passes over each slot so far.
    passes: Vec<Passes>,
    plan: SyncPlan,
}

impl<S: PayloadUser> Ring<S> {
    /// Opens a ring of `depth` filled payloads of `bytes` bytes; `batch` of them are handed over at a time.
    /// `works` has one kernel per API.
    ///
    /// # Errors
    /// [`Missing`](gpu_interop::error::Missing) if the machine lacks something; otherwise if a driver fails,
    /// or if `depth` is not a multiple of `batch`.
    pub(crate) fn new(
        first: VulkanUser,
        second: S,
        bytes: u64,
        (depth, batch): (u32, u32),
        works: [Work; 2],
        handoff: HandoffOptions,
    ) -> Result<Self> {
        ensure!(
            depth.is_multiple_of(batch),
            "{depth} slots are not a multiple of the batch of {batch}"
        );
        let (owner, desc) = (first.endpoint(), BufferDesc::storage(bytes));
        let options = RingOptions { depth, handoff };
        let (first_stage, second_stage, [plan, _]) =
            ring::pair(owner, owner, second.endpoint(), &desc, options)?;
        // The first pass acquires the payloads from outside Vulkan, so they are filled and released here.
        for (seed, buffer) in (0..).zip(first_stage.buffers()) {
            first.fill_and_release(buffer, seed)?;
        }
        let batches = first_stage.buffers().chunks(batch as usize);
        let first_passes =
            batches.map(|batch| first.prepare(batch, works[0])).collect::<Result<_>>()?;
        let batches = second_stage.buffers().chunks(batch as usize);
        let second_passes =
            batches.map(|batch| second.prepare(batch, works[1])).collect::<Result<_>>()?;
        let passes = vec![Passes::default(); depth as usize];
        Ok(Self {
            first_passes,
            second_passes,
            first_stage,
            second_stage,
            first,
            second,
            batch,
            passes,
            plan,
        })
    }

    fn depth(&self) -> u32 {
        self.passes.len() as u32
    }
}

impl<S: PayloadUser> Benchmark for Ring<S> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        // Half of the slots on each side, so that neither waits for the other to begin.
        let half = (self.depth() / 2).max(self.batch);
        let (batch, batches) = (self.batch as usize, half / self.batch);
        for _ in 0..pairs / half {
            for _ in 0..batches {
                self.first.ring_pass(&mut self.first_stage, &self.first_passes, batch, |slot| {
                    self.passes[slot].then(FIRST_STEP);
                })?;
            }
            for _ in 0..batches {
                self.second.ring_pass(
                    &mut self.second_stage,
                    &self.second_passes,
                    batch,
                    |slot| {
                        self.passes[slot].then(SECOND_STEP);
                    },
                )?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        // The last passes are the second API's, and follow all of the first API's.
        self.second.finish()
    }

    fn fewest_pairs(&self) -> u32 {
        self.depth()
    }

    fn handoff(&self) -> String {
        handoff_name(&self.plan).into()
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let depth = self.passes.len();
        let taken = self.first_stage.take(Wait::No, depth..=depth, SlotCommands::recorded())?;
        let (batch, sync) = taken.context("all slots have returned")?;
        self.first.acquire_all(self.first_stage.buffers(), sync)?;
        for slot in batch.iter() {
            let (buffer, number) = (self.first_stage.buffer(slot)?, slot.index());
            let (handle, bytes) = (buffer.handle(), buffer.desc().size);
            let (gpu, seed, passes) = (&self.first.gpu, number as u32, &self.passes[number]);
            let checked = check(gpu, handle, bytes, seed, passes)?;
            if checked.is_err() {
                return Ok(checked);
            }
        }
        Ok(Ok(()))
    }
}

impl<S: PayloadUser> Drop for Ring<S> {
    fn drop(&mut self) {
        // Nothing may be in flight when the stages are destroyed. A lost device has nothing in flight, so
        // errors are ignored.
        let _ = self.second.finish();
        let _ = self.first.finish();
    }
}
