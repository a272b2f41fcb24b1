//! One payload that is handed back and forth between two APIs.

use anyhow::{Context, Result};
use gpu_interop::BufferDesc;
use gpu_interop::Peer as _;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::{Acquirer, HandoffOptions, Releaser, Ticket, open};
use gpu_interop::vulkan::{Buffer, Endpoint};

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP};
use super::second_api::{Ends, SecondApi};
use super::verify;
use super::vulkan_runner::{Recorded, VulkanRunner};
use crate::path::create_for;
use demo_common::handoff_name;
use interop_gpu::oracle::{Turns, Wrong};

const SEED: u32 = 11;

pub struct Channel<F: SecondApi> {
    turn: F::Turn,
    ends: Ends<F>,
    recorded: Recorded,
    there: Releaser<Endpoint>,
    back: Acquirer<Endpoint>,
    ticket: Option<Ticket>,
    turns: Turns,
    buffer: Buffer,
    second: F,
    first: VulkanRunner,
    plan: SyncPlan,
}

impl<F: SecondApi> Channel<F> {
    pub fn new(
        first: VulkanRunner,
        second: F,
        bytes: u64,
        handoff: HandoffOptions,
    ) -> Result<Self> {
        let (owner, desc) = (&first.gpu.endpoint, BufferDesc::storage(bytes));
        let importers = [second.endpoint().capabilities(&desc.into())?];
        let buffer = create_for(owner, &importers, &desc)?;
        let import = second.endpoint().import_buffer(buffer.export()?)?;
        first.fill_and_release(&buffer, SEED)?;
        let there = open(owner, owner, second.endpoint(), handoff)?;
        let back = open(owner, second.endpoint(), owner, handoff)?;
        let recorded = first.record_pass(std::slice::from_ref(&buffer))?;
        let turn = second.prepare(&import)?;
        let ends = Ends { acquirer: there.acquire, releaser: back.release, buffer: import };
        let (there, plan, back) = (there.release, there.plan, back.acquire);
        let (ticket, turns) = (None, Turns::default());
        Ok(Self { turn, ends, recorded, there, back, ticket, turns, buffer, second, first, plan })
    }
}

impl<F: SecondApi> Benchmark for Channel<F> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        for _ in 0..pairs {
            let Self { there, back, recorded, .. } = self;
            let ticket = self.first.turn(self.ticket.take(), back, there, recorded)?;
            self.ticket = Some(self.second.turn(ticket, &mut self.ends, &self.turn)?);
            self.turns.then(FIRST_STEP);
            self.turns.then(SECOND_STEP);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        // The last pass is the second API's, and follows all of the first API's.
        self.second.finish()
    }

    fn handoff(&self) -> String {
        handoff_name(&self.plan).into()
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let ticket = self.ticket.take().context("it ran")?;
        self.first.take_back(ticket, &mut self.back, &self.buffer)?;
        let (handle, bytes) = (self.buffer.handle(), self.buffer.desc().size);
        verify::check(&self.first.gpu, handle, bytes, SEED, &self.turns)
    }
}

impl<F: SecondApi> Drop for Channel<F> {
    fn drop(&mut self) {
        // Nothing may be in flight when the buffers are destroyed. A lost device has nothing in flight, so errors are ignored.
        let _ = self.second.finish();
        let _ = self.first.finish();
    }
}
