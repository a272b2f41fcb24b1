//! One payload that is handed back and forth between two APIs.

use anyhow::{Context, Result};
use demo_common::handoff_name;
use gpu_interop::capabilities::SyncPlan;
use gpu_interop::handoff::{HandoffOptions, Ticket, open};
use gpu_interop::{BufferDesc, Peer as _};
use interop_gpu::oracle::{Passes, Wrong};

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP, check};
use crate::path::create_for;
use crate::user::{Ends, PayloadUser, Work};
use crate::vulkan::{Recorded, VulkanUser};

const SEED: u32 = 11;

/// A handoff from Vulkan to a second API, and one back.
pub(crate) struct Channel<S: PayloadUser> {
    first_pass: Recorded,
    second_pass: S::Prepared,
    first_ends: Ends<VulkanUser>,
    second_ends: Ends<S>,
    first: VulkanUser,
    second: S,
    ticket: Option<Ticket>,
    passes: Passes,
    plan: SyncPlan,
}

impl<S: PayloadUser> Channel<S> {
    /// Opens the handoffs for a filled payload of `bytes` bytes. `works` has one kernel per API.
    pub(crate) fn new(
        first: VulkanUser,
        second: S,
        bytes: u64,
        works: [Work; 2],
        handoff: HandoffOptions,
    ) -> Result<Self> {
        let (owner, desc) = (first.endpoint().clone(), BufferDesc::storage(bytes));
        let importers = [second.endpoint().capabilities(&desc.into())?];
        let buffer = create_for(&owner, &importers, &desc)?;
        let second_buffer = second.endpoint().import_buffer(buffer.export()?)?;
        first.fill_and_release(&buffer, SEED)?;
        let there = open(&owner, &owner, second.endpoint(), handoff)?;
        let back = open(&owner, second.endpoint(), &owner, handoff)?;
        let first_pass = first.prepare(std::slice::from_ref(&buffer), works[0])?;
        let second_pass = second.prepare(std::slice::from_ref(&second_buffer), works[1])?;
        Ok(Self {
            first_pass,
            second_pass,
            first_ends: Ends { acquirer: back.acquire, releaser: there.release, buffer },
            second_ends: Ends {
                acquirer: there.acquire,
                releaser: back.release,
                buffer: second_buffer,
            },
            first,
            second,
            ticket: None,
            passes: Passes::default(),
            plan: there.plan,
        })
    }
}

impl<S: PayloadUser> Benchmark for Channel<S> {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        for _ in 0..pairs {
            let ticket = self.ticket.take();
            let ticket = self.first.pass(ticket, &mut self.first_ends, &self.first_pass)?;
            let ticket =
                self.second.pass(Some(ticket), &mut self.second_ends, &self.second_pass)?;
            self.ticket = Some(ticket);
            self.passes.then(FIRST_STEP);
            self.passes.then(SECOND_STEP);
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
        let ticket = self.ticket.take().context("at least one pair was submitted")?;
        self.first.acquire(ticket, &mut self.first_ends)?;
        let buffer = &self.first_ends.buffer;
        check(&self.first.gpu, buffer.handle(), buffer.desc().size, SEED, &self.passes)
    }
}

impl<S: PayloadUser> Drop for Channel<S> {
    fn drop(&mut self) {
        // Nothing may be in flight when the buffers are destroyed. A lost device has nothing in flight, so
        // errors are ignored.
        let _ = self.second.finish();
        let _ = self.first.finish();
    }
}
