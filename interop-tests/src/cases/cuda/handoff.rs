//! Group F: handoffs to and from CUDA, by each method of synchronisation. Vulkan owns the semaphores.

use anyhow::{Result, ensure};
use gpu_interop::capabilities::{Rejected, SyncMethod, SyncPlan};
use gpu_interop::handoff::{HandoffOptions, WaitMode};
use gpu_interop::{Api, SemaphoreKind};

use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::harness::{Case, Need, TestGpu};

const BYTES: u64 = 256 << 10;
const ROUNDS: u32 = 50;

const WAYS: [(&str, SyncMethod, WaitMode); 4] = [
    ("by_timeline", SyncMethod::Timeline, WaitMode::Block),
    ("by_binary", SyncMethod::Binary, WaitMode::Block),
    ("by_blocking_host", SyncMethod::HostWait, WaitMode::Block),
    ("by_spinning_host", SyncMethod::HostWait, WaitMode::Spin),
];

type Play = fn(&TestGpu, RoundTrip) -> Result<[SyncPlan; 2]>;

/// Who plays, and the APIs that need semaphores besides Vulkan, which owns them.
const PAIRS: [(&str, &[Api], Play); 3] = [
    ("vulkan→cuda→vulkan", &[Api::Cuda], vulkan_cuda),
    ("cuda→vulkan→cuda", &[Api::Cuda], cuda_vulkan),
    ("cuda→gl→cuda", &[Api::Cuda, Api::OpenGl], cuda_gl),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (pair, apis, play) in PAIRS {
        for (way, method, wait) in WAYS {
            let name = format!("{pair}/opaque_fd/buffer/{way}/50");
            let case = Case::new(name, move |machine| handed_over(machine, play, method, wait));
            cases.push(case.needs(&needs(apis, method)));
        }
    }
    cases
}

fn needs(apis: &[Api], method: SyncMethod) -> Vec<Need> {
    let mut needs = Vec::new();
    for &api in apis {
        match api {
            Api::Cuda => needs.push(Need::Cuda),
            Api::OpenGl => needs.push(Need::Gl),
            _ => {}
        }
        match method {
            SyncMethod::Timeline => needs.push(Need::Semaphore(api, SemaphoreKind::Timeline)),
            SyncMethod::Binary => needs.push(Need::Semaphore(api, SemaphoreKind::Binary)),
            _ => {}
        }
    }
    needs
}

/// The payload goes both ways by the method that was asked for, with two releases under way at most,
/// so that binary semaphores take turns.
fn handed_over(machine: &TestGpu, play: Play, method: SyncMethod, wait: WaitMode) -> Result<()> {
    let options =
        HandoffOptions { method: Some(method), in_flight: 2, wait, ..HandoffOptions::default() };
    for plan in play(machine, RoundTrip { options, ..RoundTrip::of(ROUNDS) })? {
        ensure!(plan.method == method, "{plan:?}");
        let better = SyncMethod::ORDER.iter().take_while(|better| **better != method);
        ensure!(plan.rejected.len() == better.count(), "{plan:?}");
        let unwanted = |(_, why): &(_, Rejected)| *why == Rejected::NotWanted;
        ensure!(plan.rejected.iter().all(unwanted), "{plan:?}");
    }
    Ok(())
}

fn vulkan_cuda(machine: &TestGpu, game: RoundTrip) -> Result<[SyncPlan; 2]> {
    let mut vulkan = PayloadUser::create(machine.vulkan(), BYTES)?;
    let mut cuda = PayloadUser::import(machine.cuda()?, vulkan.export()?)?;
    there_and_back(&machine.vulkan().endpoint, (&mut vulkan, &mut cuda), game)
}

fn cuda_vulkan(machine: &TestGpu, game: RoundTrip) -> Result<[SyncPlan; 2]> {
    let mut vulkan = PayloadUser::create(machine.vulkan(), BYTES)?;
    let mut cuda = PayloadUser::import(machine.cuda()?, vulkan.export()?)?;
    there_and_back(&machine.vulkan().endpoint, (&mut cuda, &mut vulkan), game)
}

/// Neither of the two is Vulkan: it made the memory and owns the semaphores, and stays out of it.
fn cuda_gl(machine: &TestGpu, game: RoundTrip) -> Result<[SyncPlan; 2]> {
    let vulkan = PayloadUser::create(machine.vulkan(), BYTES)?;
    let mut cuda = PayloadUser::import(machine.cuda()?, vulkan.export()?)?;
    let mut gl = PayloadUser::import(machine.gl()?, vulkan.export()?)?;
    there_and_back(&machine.vulkan().endpoint, (&mut cuda, &mut gl), game)
}
