//! The library's ring: several payloads in flight.

use anyhow::{Context, Result, ensure};
use gpu_interop::BufferDesc;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::ring::{self, RingOptions, RingStage, SlotCommands, Wait};
use gpu_interop::vulkan::Endpoint;

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP};
use super::second_api::SecondApi;
use super::verify;
use super::vulkan_runner::{Recorded, VulkanRunner};
use demo_common::handoff_name;
use interop_gpu::oracle::{Turns, Wrong};

pub struct Ring<S: SecondApi> {
    // Before the stages, whose buffers they use.
    recorded: Vec<Recorded>,
    prepared: S::Turns,
    first_stage: RingStage<Endpoint>,
    second_stage: RingStage<S::Endpoint>,
    first: VulkanRunner,
    second: S,
    /// Slots handed over at a time.
    batch: u32,
    /// The passes over each slot so far.
    turns: Vec<Turns>,
    plan: SyncPlan,
}

impl<S: SecondApi> Ring<S> {
    pub fn new(
        first: VulkanRunner,
        second: S,
        bytes: u64,
        (depth, batch): (u32, u32),
        handoff: HandoffOptions,
    ) -> Result<Self> {
        ensure!(
            depth.is_multiple_of(batch),
            "{depth} slots are not a multiple of the batch of {batch}"
        );
        let owner = &first.gpu.endpoint;
        let options = RingOptions { depth, handoff };
        let desc = BufferDesc::storage(bytes);
        let (first_stage, second_stage, [plan, _]) =
            ring::pair(owner, owner, second.endpoint(), &desc, options)?;
        // The first pass acquires the payload from outside Vulkan, so it is filled and released here.
        for (seed, buffer) in (0..).zip(first_stage.buffers()) {
            first.fill_and_release(buffer, seed)?;
        }
        let recorded = first.record_stage(&first_stage, batch as usize)?;
        let prepared = second.prepare_stage(&second_stage, batch as usize)?;
        let turns = vec![Turns::default(); depth as usize];
        Ok(Self {
            recorded,
            prepared,
            first_stage,
            second_stage,
            first,
            second,
            batch,
            turns,
            plan,
        })
    }

    fn depth(&self) -> u32 {
        self.turns.len() as u32
    }
}

impl<S: SecondApi> Benchmark for Ring<S> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        // Half of the slots on each side, so that neither waits for the other to begin.
        let half = (self.depth() / 2).max(self.batch);
        let (batch, batches) = (self.batch as usize, half / self.batch);
        for _ in 0..pairs / half {
            for _ in 0..batches {
                self.first.run_stage(&mut self.first_stage, &self.recorded, batch, |slot| {
                    self.turns[slot].then(FIRST_STEP);
                    self.turns[slot].then(SECOND_STEP);
                })?;
            }
            for _ in 0..batches {
                self.second.run_stage(&mut self.second_stage, &self.prepared, batch)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        // The last passes are the second API's, and follow all of the first API's.
        self.second.finish()
    }

    fn granule(&self) -> u32 {
        self.depth()
    }

    fn handoff(&self) -> String {
        handoff_name(&self.plan).into()
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let depth = self.turns.len();
        let taken = self.first_stage.take(Wait::No, depth..=depth, SlotCommands::recorded())?;
        let (batch, part) = taken.context("all slots are back")?;
        self.first.take_buffers(self.first_stage.buffers(), part)?;
        for slot in batch.iter() {
            let (buffer, number) = (self.first_stage.buffer(slot)?, slot.index());
            let (handle, bytes) = (buffer.handle(), buffer.desc().size);
            let (gpu, seed, turns) = (&self.first.gpu, number as u32, &self.turns[number]);
            let checked = verify::check(gpu, handle, bytes, seed, turns)?;
            if checked.is_err() {
                return Ok(checked);
            }
        }
        Ok(Ok(()))
    }
}

impl<S: SecondApi> Drop for Ring<S> {
    fn drop(&mut self) {
        // Nothing may be in flight when the stages are destroyed. A lost device has nothing in flight, so errors are ignored.
        let _ = self.second.finish();
        let _ = self.first.finish();
    }
}
