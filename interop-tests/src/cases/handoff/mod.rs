//! Group E: handoffs by each method from one Vulkan device to another, and several under way at once.

pub(crate) mod hazards;
pub(crate) mod tickets;
pub(crate) mod vulkan_gl;
pub(crate) mod vulkan_gl_semaphores;
pub(crate) mod waits;

use anyhow::{Context, Result, ensure};
use gpu_interop::Api;
use gpu_interop::handoff::{self, Handoff, HandoffOptions};

use crate::cases::handoff::vulkan_gl::Route;
use crate::cases::support::contexts::ApiContext;
use crate::cases::support::importers::Place;
use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::harness::{Case, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Turns};

const BYTES: u64 = 256 << 10;
/// Payloads that are under way at once.
const UNDER_WAY: u32 = 8;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for route in Route::ALL {
        let Route { name: by, row, .. } = route;
        cases.extend(Place::ALL.map(|place| {
            let name = place.name();
            let name =
                format!("vulkan→vulkan→vulkan/opaque_fd/buffer/ping_pong_255/{name}/{by}/{row}");
            Case::new(name, move |machine| ping_pong(machine, place, route))
                .needs(&route.needs(Api::Vulkan))
        }));
        let name = format!("vulkan→vulkan→vulkan/opaque_fd/buffer/eight_under_way/{by}/{row}");
        cases.push(
            Case::new(name, move |machine| eight_in_vulkan(machine, route))
                .needs(&route.needs(Api::Vulkan)),
        );
        let name = format!("vulkan→gl→vulkan/opaque_fd/buffer/eight_under_way/{by}/{row}");
        cases.push(
            Case::new(name, move |machine| eight_in_gl(machine, route))
                .needs(&route.needs(Api::OpenGl)),
        );
    }
    cases
}

/// 255 turns each, unseen until the end.
fn ping_pong(machine: &TestGpu, place: Place, route: Route) -> Result<()> {
    let mut first = PayloadUser::create(machine.vulkan(), BYTES)?;
    let mut other = PayloadUser::import(place.gpu(machine)?, first.export()?)?;
    let game = RoundTrip { options: route.options(), rounds: 255, check_every: 255 };
    for plan in there_and_back(&machine.vulkan().endpoint, (&mut first, &mut other), game)? {
        ensure!(plan.method == route.method, "{plan:?}");
    }
    Ok(())
}

fn options(route: Route) -> HandoffOptions {
    HandoffOptions { in_flight: UNDER_WAY, ..route.options() }
}

fn eight_in_vulkan(machine: &TestGpu, route: Route) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    let owner = &first.endpoint;
    let mut there = handoff::open(owner, owner, &second.endpoint, options(route))?;
    let mut back = handoff::open(owner, &second.endpoint, owner, options(route))?;
    // After the semaphores, so that their work is waited for before those go.
    let mut pairs = Vec::new();
    for _ in 0..UNDER_WAY {
        let ours = PayloadUser::create(first, BYTES)?;
        let theirs = PayloadUser::import(second, ours.export()?)?;
        pairs.push((ours, theirs));
    }
    eight_under_way(&mut there, &mut back, &mut pairs)
}

fn eight_in_gl(machine: &TestGpu, route: Route) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let owner = &vulkan.endpoint;
    let mut there = handoff::open(owner, owner, &gl.endpoint, options(route))?;
    let mut back = handoff::open(owner, &gl.endpoint, owner, options(route))?;
    let mut pairs = Vec::new();
    for _ in 0..UNDER_WAY {
        let ours = PayloadUser::create(vulkan, BYTES)?;
        let theirs = PayloadUser::import(gl, ours.export()?)?;
        pairs.push((ours, theirs));
    }
    eight_under_way(&mut there, &mut back, &mut pairs)
}

/// All payloads are released before the first is acquired, there and back; five times, so that each
/// semaphore is used again.
fn eight_under_way<A: ApiContext, B: ApiContext>(
    there: &mut Handoff<A::Endpoint, B::Endpoint>,
    back: &mut Handoff<B::Endpoint, A::Endpoint>,
    pairs: &mut [(PayloadUser<'_, A>, PayloadUser<'_, B>)],
) -> Result<()> {
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
        for (_, theirs) in pairs.iter_mut() {
            tickets.push(theirs.release(&mut back.release)?);
        }
        for ((ours, _), ticket) in pairs.iter_mut().zip(tickets) {
            ours.acquire(&mut back.acquire, ticket)?;
        }
        let mut turns = Turns::default();
        turns.then(round);
        for (number, (ours, _)) in pairs.iter_mut().enumerate() {
            oracle::check(&ours.read()?, seed(number), &turns)
                .with_context(|| format!("payload {number} in round {round}"))?;
        }
    }
    Ok(())
}
