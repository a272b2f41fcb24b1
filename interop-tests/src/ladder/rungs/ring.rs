//! The library's ring: several payloads in flight.

use anyhow::{Context, Result, ensure};
use gpu_interop::BufferDesc;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::ring::{RingOptions, RingStage, Wait, ring_of_two};
use gpu_interop::vulkan::Endpoint;

use crate::ladder::far::SecondApi;
use crate::ladder::rung::{Benchmark, FIRST_STEP, SECOND_STEP};
use crate::ladder::verify;
use crate::ladder::vulkan_side::{Recorded, VulkanRunner};
use crate::ping_pong::handoff_name;
use interop_gpu::oracle::{Turns, Wrong};

pub(crate) struct Ring<F: SecondApi> {
    // Before the stations, whose buffers they use.
    recorded: Vec<Recorded>,
    prepared: F::Turns,
    first: RingStage<Endpoint>,
    second: RingStage<F::Endpoint>,
    near: VulkanRunner,
    far: F,
    /// How many slots are handed over at a time.
    batch: u32,
    /// What was done to each slot.
    turns: Vec<Turns>,
    plan: SyncPlan,
}

impl<F: SecondApi> Ring<F> {
    pub(crate) fn new(
        near: VulkanRunner,
        far: F,
        bytes: u64,
        (depth, batch): (u32, u32),
        handoff: HandoffOptions,
    ) -> Result<Self> {
        ensure!(depth.is_multiple_of(batch), "{depth} slots are no whole number of {batch}s");
        let owner = &near.gpu.endpoint;
        let options = RingOptions { depth, handoff };
        let desc = BufferDesc::storage(bytes);
        let (first, second, [plan, _]) = ring_of_two(owner, owner, far.endpoint(), &desc, options)?;
        // The turns take over from outside: that is where the first ones find what is filled.
        for (seed, buffer) in (0..).zip(first.buffers()) {
            near.fill_and_release(buffer, seed)?;
        }
        let recorded = near.record_station(&first, batch as usize)?;
        let prepared = far.prepare_station(&second, batch as usize)?;
        let turns = vec![Turns::default(); depth as usize];
        Ok(Self { recorded, prepared, first, second, near, far, batch, turns, plan })
    }

    fn depth(&self) -> u32 {
        self.turns.len() as u32
    }
}

impl<F: SecondApi> Benchmark for Ring<F> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        // Half of the slots on each side: neither waits for the other to begin.
        let half = (self.depth() / 2).max(self.batch);
        let (batch, batches) = (self.batch as usize, half / self.batch);
        for _ in 0..pairs / half {
            for _ in 0..batches {
                self.near.station_turn(&mut self.first, &self.recorded, batch, |slot| {
                    self.turns[slot].then(FIRST_STEP);
                    self.turns[slot].then(SECOND_STEP);
                })?;
            }
            for _ in 0..batches {
                self.far.station_turn(&mut self.second, &self.prepared, batch)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        // The last turns are the other side's, and come after all of this side's.
        self.far.finish()
    }

    fn granule(&self) -> u32 {
        self.depth()
    }

    fn handoff(&self) -> String {
        handoff_name(&self.plan).into()
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let depth = self.turns.len();
        let taken = self.first.take_recorded(Wait::No, depth..=depth)?;
        let (batch, part) = taken.context("all slots are back")?;
        self.near.take_buffers(self.first.buffers(), part)?;
        for slot in batch.iter() {
            let (buffer, number) = (self.first.buffer(slot)?, slot.index());
            let (handle, bytes) = (buffer.handle(), buffer.desc().size);
            let (gpu, seed, turns) = (&self.near.gpu, number as u32, &self.turns[number]);
            let checked = verify::check(gpu, handle, bytes, seed, turns)?;
            if checked.is_err() {
                return Ok(checked);
            }
        }
        Ok(Ok(()))
    }
}

impl<F: SecondApi> Drop for Ring<F> {
    fn drop(&mut self) {
        // Nothing may be in flight when the stations go; what is lost has nothing in flight.
        let _ = self.far.finish();
        let _ = self.near.finish();
    }
}
