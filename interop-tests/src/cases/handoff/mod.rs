//! Family E: handoffs by each method from one Vulkan device to another, and several in flight at once.

mod acquirers;
mod channel;
pub(crate) mod hazards;
pub(crate) mod stress;
pub(crate) mod submits;
pub(crate) mod tickets;
pub(crate) mod vulkan_gl;
pub(crate) mod vulkan_gl_semaphores;
pub(crate) mod waits;

use anyhow::{Context, Result, ensure};
use gpu_interop::Api;
use gpu_interop::handoff::{self, HandoffOptions};
use gpu_interop::tune::Route;

pub(crate) use self::channel::Submits;
use crate::cases::support::contexts::ApiContext;
use crate::cases::support::importers::Place;
use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::cases::support::routes::{CaseRoute as _, ROUTES};
use crate::harness::{Case, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};

const BYTES: u64 = 256 << 10;
/// Payloads in flight at once.
const IN_FLIGHT: u32 = 8;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for route in ROUTES {
        let end = format!("{}/{}", route.name(), route.row());
        cases.extend(Place::ALL.map(|place| {
            let name = place.name();
            let name = format!("vulkan→vulkan→vulkan/opaque_fd/buffer/ping_pong_255/{name}/{end}");
            Case::new(name, move |test_gpu| ping_pong(test_gpu, place.gpu(test_gpu)?, route, BYTES))
                .needs(&route.needs(Api::Vulkan))
        }));
        let name = format!("vulkan→vulkan→vulkan/opaque_fd/buffer/eight_in_flight/{end}");
        let in_vulkan = Case::new(name, move |test_gpu| {
            eight_in_flight(test_gpu, test_gpu.second_device()?, route)
        });
        cases.push(in_vulkan.needs(&route.needs(Api::Vulkan)));
        let name = format!("vulkan→gl→vulkan/opaque_fd/buffer/eight_in_flight/{end}");
        let in_gl =
            Case::new(name, move |test_gpu| eight_in_flight(test_gpu, test_gpu.gl()?, route));
        cases.push(in_gl.needs(&route.needs(Api::OpenGl)));
    }
    cases
}

/// 255 turns each, checked only at the end.
fn ping_pong<C: ApiContext>(
    test_gpu: &TestGpu,
    importer: &C,
    route: Route,
    bytes: u64,
) -> Result<()> {
    let mut first = PayloadUser::create(test_gpu.vulkan(), bytes)?;
    let mut other = PayloadUser::import(importer, first.export()?)?;
    let trip = RoundTrip { options: route.options(), rounds: 255, check_every: 255 };
    for plan in there_and_back(&test_gpu.vulkan().endpoint, (&mut first, &mut other), trip)? {
        ensure!(Some(plan.method) == route.method(), "{plan:?}");
    }
    Ok(())
}

/// All payloads are released before the first is acquired, there and back; five times, so that each
/// semaphore is used again.
fn eight_in_flight<C: ApiContext>(test_gpu: &TestGpu, importer: &C, route: Route) -> Result<()> {
    let gpu = test_gpu.vulkan();
    let (owner, other) = (&gpu.endpoint, importer.endpoint());
    let options = HandoffOptions { in_flight: IN_FLIGHT, ..route.options() };
    let mut there = handoff::open(owner, owner, other, options)?;
    let mut back = handoff::open(owner, other, owner, options)?;
    // After the semaphores, so that their work is waited for before those are dropped.
    let mut pairs = Vec::new();
    for _ in 0..IN_FLIGHT {
        let ours = PayloadUser::create(gpu, BYTES)?;
        let theirs = PayloadUser::import(importer, ours.export()?)?;
        pairs.push((ours, theirs));
    }
    for round in 1..=5 {
        let seed = |number: usize| 100 * round + number as u32;
        let mut tickets = Vec::new();
        for (number, (ours, _)) in pairs.iter_mut().enumerate() {
            ours.run(Kernel::Fill { seed: seed(number) })?;
            tickets.push(ours.release(&mut there.release)?);
        }
        for ((_, theirs), ticket) in pairs.iter_mut().zip(tickets) {
            theirs.acquire(&mut there.acquire, ticket)?;
            theirs.run(Kernel::PingPong { step: round })?;
        }
        let mut tickets = Vec::new();
        for (_, theirs) in &mut pairs {
            tickets.push(theirs.release(&mut back.release)?);
        }
        for ((ours, _), ticket) in pairs.iter_mut().zip(tickets) {
            ours.acquire(&mut back.acquire, ticket)?;
        }
        let mut turns = Passes::default();
        turns.then(round);
        for (number, (ours, _)) in pairs.iter_mut().enumerate() {
            oracle::check(&ours.read()?, seed(number), &turns)
                .with_context(|| format!("payload {number} in round {round}"))?;
        }
    }
    Ok(())
}
