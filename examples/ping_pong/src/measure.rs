//! Measuring a path: throughput, each API's share, the handoff alone; every byte checked.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gpu_interop::handoff::Ticket;
use serde::Serialize;

use super::path::Path;
use super::stage::{Pass, Stage};
use super::user::TOUCHED_BYTES;
use interop_gpu::oracle;
use interop_gpu::statistics::{gb_per_s, median, percentile};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Size of the payload in bytes.
    pub bytes: u64,
    /// Seed of the payload's first content.
    pub seed: u32,
    /// The number of round trips.
    pub iterations: u32,
    /// How many times the handoff alone is timed.
    pub handoffs: u32,
    /// How many times each kernel alone is timed, on shared and on private memory each.
    pub kernels: u32,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Bytes read and written by all kernels, divided by the time, in GB/s.
    pub gb_per_s: f64,
    /// Whether every byte is what the CPU computes.
    pub verified: bool,
    /// The kernel alone, for each API in the order of the path.
    pub per_api: Vec<PerApi>,
    /// The handoff alone.
    pub handoff_us: HandoffTimes,
    /// The first wrong word, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

/// One API's kernel on the shared memory and on memory of its own.
#[derive(Clone, Debug, Serialize)]
pub struct PerApi {
    /// The API.
    pub api: &'static str,
    /// Median on the shared memory, at the grid size that is best for it, in GB/s.
    pub shared_gb_per_s: f64,
    /// Median on private memory, at the grid size that is best for it, in GB/s.
    pub private_gb_per_s: f64,
    /// Shared over private.
    pub ratio: f64,
}

/// One handoff, with a kernel that touches 4 KiB: a round of the path over its handoffs, in µs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HandoffTimes {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Called after each step with the number of steps done and their total.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Work groups to try; 0 is one thread per element.
const GRIDS: [u32; 6] = [0, 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 10];

/// Measures `path`, whose payload was filled with `plan.seed` and has not changed since.
///
/// # Errors
/// If a driver fails. Wrong bytes are part of the result.
pub fn measure(path: &mut Path, plan: &Plan, progress: Progress<'_>) -> Result<Measured> {
    let stages = &mut path.stages;
    let mut run = Run::new(plan, stages.len(), progress);
    let ticket = run.round(stages, None)?;
    let (ticket, per_api) = run.kernels(stages, ticket)?;
    let (ticket, time) = run.rounds(stages, ticket)?;
    let (ticket, handoff_us) = run.handoffs(stages, ticket)?;

    let first = &mut stages[0];
    first.acquire(ticket)?;
    let wrong = run.expected.check(&first.read()?, plan.seed).err();
    let traffic = 2 * plan.bytes * u64::from(plan.iterations) * stages.len() as u64;
    Ok(Measured {
        gb_per_s: gb_per_s(traffic, time),
        verified: wrong.is_none(),
        per_api,
        handoff_us,
        wrong: wrong.map(|wrong| wrong.to_string()),
    })
}

/// Sends the payload, filled with `seed`, on one round trip and checks every byte in the first API.
///
/// # Errors
/// If a driver fails. Wrong bytes are the inner error.
pub fn prove(path: &mut Path, seed: u32) -> Result<Result<(), oracle::Wrong>> {
    let (mut ticket, mut passes) = (None, oracle::Passes::default());
    for stage in &mut path.stages {
        passes.then(stage.step());
        ticket = Some(stage.pass(ticket, Pass::Whole)?);
    }
    let first = &mut path.stages[0];
    first.acquire(ticket.context("a path has stages")?)?;
    Ok(oracle::check(&first.read()?, seed, &passes))
}

/// The expected content of the payload. Kernels that only touch it change its first bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    head: oracle::Passes,
    rest: oracle::Passes,
}

impl Expected {
    fn then(&mut self, step: u32, pass: Pass) {
        self.head.then(step);
        if pass == Pass::Whole {
            self.rest.then(step);
        }
    }

    fn check(&self, data: &[u8], seed: u32) -> Result<(), oracle::Wrong> {
        let (head, rest) = data.split_at((TOUCHED_BYTES as usize).min(data.len()));
        oracle::check(head, seed, &self.head)?;
        oracle::check_from(rest, (TOUCHED_BYTES / 4) as u32, seed, &self.rest)
    }
}

type Stages = [Box<dyn Stage>];

struct Run<'a, 'b> {
    plan: &'a Plan,
    expected: Expected,
    done: u64,
    total: u64,
    progress: Progress<'b>,
}

impl<'a, 'b> Run<'a, 'b> {
    fn new(plan: &'a Plan, stages: usize, progress: Progress<'b>) -> Self {
        let timed = GRIDS.len() as u32 * plan.kernels;
        let total = u64::from(timed) * stages as u64 * 2;
        let total = total + u64::from(plan.iterations) + u64::from(plan.handoffs);
        Self { plan, expected: Expected::default(), done: 0, total, progress }
    }

    fn advance(&mut self) {
        self.done += 1;
        (self.progress)(self.done, self.total);
    }

    /// Sends the payload on one round trip.
    fn send(
        &mut self,
        stages: &mut Stages,
        mut ticket: Option<Ticket>,
        pass: Pass,
    ) -> Result<Ticket> {
        for stage in stages {
            self.expected.then(stage.step(), pass);
            ticket = Some(stage.pass(ticket, pass)?);
        }
        ticket.context("a path has stages")
    }

    fn round(&mut self, stages: &mut Stages, ticket: Option<Ticket>) -> Result<Ticket> {
        self.send(stages, ticket, Pass::Whole)
    }

    /// Times each API's kernel alone, alternately on the shared payload and on private memory, and selects
    /// the number of work groups that is fastest on the shared payload.
    ///
    /// Every grid size is measured completely, and the best median of each side counts: grids differ less than
    /// runs do, so choosing one after a few tries would compare noise.
    fn kernels(
        &mut self,
        stages: &mut Stages,
        mut ticket: Ticket,
    ) -> Result<(Ticket, Vec<PerApi>)> {
        let mut per_api = Vec::new();
        for stage in stages {
            stage.acquire(ticket)?;
            let mut times = [(); GRIDS.len()].map(|()| (Vec::new(), Vec::new()));
            for _ in 0..self.plan.kernels {
                for (groups, times) in GRIDS.into_iter().zip(&mut times) {
                    self.expected.then(stage.step(), Pass::Whole);
                    times.0.push(stage.time_shared(groups)?);
                    self.advance();
                    times.1.push(stage.time_private(groups)?);
                    self.advance();
                }
            }
            let shared = times.iter().map(|times| median(&times.0));
            let private = times.iter().map(|times| median(&times.1)).min().unwrap_or_default();
            let (shared, groups) = shared.zip(GRIDS).min().unwrap_or_default();
            stage.set_groups(groups)?;
            per_api.push(self.compare(stage.api(), shared, private));
            ticket = stage.release()?;
        }
        Ok((ticket, per_api))
    }

    fn compare(&self, api: &'static str, shared: Duration, private: Duration) -> PerApi {
        PerApi {
            api,
            shared_gb_per_s: gb_per_s(2 * self.plan.bytes, shared),
            private_gb_per_s: gb_per_s(2 * self.plan.bytes, private),
            ratio: private.as_secs_f64() / shared.as_secs_f64().max(1e-9),
        }
    }

    /// Sends the payload on several round trips, without waiting in between if the handoffs allow it.
    fn rounds(&mut self, stages: &mut Stages, mut ticket: Ticket) -> Result<(Ticket, Duration)> {
        finish(stages)?;
        let start = Instant::now();
        for _ in 0..self.plan.iterations {
            ticket = self.round(stages, Some(ticket))?;
            self.advance();
        }
        finish(stages)?;
        Ok((ticket, start.elapsed()))
    }

    /// Times single round trips with almost no work, waiting for each.
    fn handoffs(
        &mut self,
        stages: &mut Stages,
        mut ticket: Ticket,
    ) -> Result<(Ticket, HandoffTimes)> {
        let mut times = Vec::new();
        for _ in 0..self.plan.handoffs {
            let start = Instant::now();
            ticket = self.send(stages, Some(ticket), Pass::Touch)?;
            finish(stages)?;
            times.push(start.elapsed() / stages.len() as u32);
            self.advance();
        }
        let us = |percent| percentile(&times, percent).as_secs_f64() * 1e6;
        Ok((ticket, HandoffTimes { p50: us(50.0), p99: us(99.0) }))
    }
}

/// Waits until every stage is done, the last one first, since it waits for all the others.
fn finish(stages: &mut Stages) -> Result<()> {
    stages.iter_mut().rev().try_for_each(|stage| stage.finish())
}
