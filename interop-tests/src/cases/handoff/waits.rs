//! Group E: the host waits, too long, with fences instead of timelines, or without its context.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::capabilities::{Rejected, SyncMethod};
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands, WaitMode};
use gpu_interop::vulkan::{BufferOptions, DeviceInfo, Endpoint, Features};
use gpu_interop::{Api, BufferDesc, Error};

use crate::cases::handoff::tickets::Submits;
use crate::cases::handoff::vulkan_gl::Route;
use crate::cases::opengl::shared;
use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 64 << 10;
const WAITS: [(&str, WaitMode); 2] = [("block", WaitMode::Block), ("spin", WaitMode::Spin)];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (wait_name, wait) in WAITS {
        let name = |what: &str| format!("{what}/{wait_name}/48");
        cases.extend([
            Case::new(
                name("vulkan→vulkan/opaque_fd/handoff/a_timeout_is_an_error/by_timeline"),
                move |machine| timeout(machine, wait, Timelines::There),
            ),
            Case::new(
                name("vulkan→vulkan/opaque_fd/handoff/a_timeout_is_an_error/by_fence"),
                move |machine| timeout(machine, wait, Timelines::Absent),
            ),
            Case::new(
                name("vulkan→vulkan→vulkan/opaque_fd/buffer/ping_pong_255/without_timelines"),
                move |machine| fences_to_vulkan(machine, wait),
            ),
            Case::new(
                name("vulkan→gl→vulkan/opaque_fd/buffer/ping_pong_255/without_timelines"),
                move |machine| fences_to_gl(machine, wait),
            )
            .needs(&[Need::Gl]),
            Case::new(name("gl→vulkan/opaque_fd/handoff/a_timeout_is_an_error"), move |machine| {
                timeout_in_gl(machine, wait)
            })
            .needs(&[Need::Gl, Need::Hardware]),
        ]);
    }
    cases.push(Case::new("vulkan/none/handoff/two_fences_in_a_submit_are_refused/48e", two_fences));
    for route in Route::ALL {
        let name = "vulkan→gl→vulkan/opaque_fd/handoff/without_its_context_the_ticket_comes_back";
        let name = format!("{name}/{}/{}", route.name, route.row);
        let case = Case::new(name, move |machine| not_current(machine, route));
        cases.push(case.needs(&route.needs(Api::OpenGl)));
    }
    cases
}

/// Whether a device has timeline semaphores enabled, as far as the library is told.
#[derive(Clone, Copy, PartialEq)]
enum Timelines {
    There,
    Absent,
}

/// Another device, as an app has it that enabled no features: the library makes a `VkFence` a release.
fn device(machine: &TestGpu, timelines: Timelines) -> Result<VulkanContext> {
    let vulkan = machine.vulkan().vulkan.second_device()?;
    let info = DeviceInfo::new(
        vulkan.instance(),
        vulkan.physical_device(),
        vulkan.device(),
        vulkan.api_version(),
    )
    .enabled_extensions(vulkan.enabled_extensions())
    .features(match timelines {
        Timelines::There => vulkan.features(),
        Timelines::Absent => Features::default(),
    });
    // SAFETY: the handles belong together; the endpoint keeps the device alive, and is told of no
    // more features than were enabled.
    let endpoint = unsafe { Endpoint::new(&info, Some(Arc::new(vulkan.clone()))) }?;
    let mut gpu = VulkanContext::new(vulkan)?;
    gpu.endpoint = endpoint;
    Ok(gpu)
}

fn host_wait(wait: WaitMode, timeout: Duration) -> HandoffOptions {
    let method = Some(SyncMethod::HostWait);
    HandoffOptions { method, wait, timeout, ..HandoffOptions::default() }
}

/// Waiting for what was not even submitted ends in time, and the ticket comes back; once it is
/// submitted, it is acquired.
fn timeout(machine: &TestGpu, wait: WaitMode, timelines: Timelines) -> Result<()> {
    let (gpu, to) = (device(machine, timelines)?, machine.vulkan());
    let short = Duration::from_millis(30);
    let mut lane =
        handoff::open(&to.endpoint, &gpu.endpoint, &to.endpoint, host_wait(wait, short))?;
    let submits = Submits::to(&gpu);
    for round in 1..=3 {
        let (mut ticket, part) = lane.release.release(VulkanCommands::recorded())?;
        ensure!(part.fence.is_some() == (timelines == Timelines::Absent), "by {part:?}");
        for _ in 0..2 {
            let start = Instant::now();
            let refused = lane
                .acquire
                .acquire(ticket, VulkanCommands::recorded())
                .err()
                .context("it was not submitted")?;
            let waited = start.elapsed();
            ensure!(waited >= short && waited < Duration::from_secs(5), "took {waited:?}");
            let (back, error) = refused.into_parts();
            ensure!(matches!(error, Error::Timeout { waited, .. } if waited == short), "{error:?}");
            ticket = back;
        }
        submits.submit(&part)?;
        gpu.vulkan.wait_idle()?;
        ensure!(ticket.sequence() == round, "another ticket came back");
        let taken = lane.acquire.acquire(ticket, VulkanCommands::recorded())?;
        ensure!(
            taken.waits.is_empty(),
            "the host has waited, and the GPU is to wait too: {taken:?}"
        );
    }
    Ok(())
}

fn fences_to_vulkan(machine: &TestGpu, wait: WaitMode) -> Result<()> {
    let (bare, to) = (device(machine, Timelines::Absent)?, machine.vulkan());
    let mut ours = PayloadUser::create(&bare, BYTES)?;
    let mut theirs = PayloadUser::import(to, ours.export()?)?;
    // The best there is must be the host's waiting, for want of timelines and nothing else wanted.
    let options = HandoffOptions { wait, ..HandoffOptions::default() };
    let plan = handoff::open(&bare.endpoint, &bare.endpoint, &to.endpoint, options)?.plan;
    ensure!(matches!(&plan.rejected[0], (SyncMethod::Timeline, Rejected::Missing(_))), "{plan:?}");
    let game =
        RoundTrip { options: host_wait(wait, options.timeout), rounds: 255, check_every: 255 };
    there_and_back(&bare.endpoint, (&mut ours, &mut theirs), game)?;
    Ok(())
}

fn fences_to_gl(machine: &TestGpu, wait: WaitMode) -> Result<()> {
    let bare = device(machine, Timelines::Absent)?;
    let mut ours = PayloadUser::create(&bare, BYTES)?;
    let mut theirs = PayloadUser::import(machine.gl()?, ours.export()?)?;
    // As long as a timeout can be: it doesn't overflow anywhere.
    let game = RoundTrip { options: host_wait(wait, Duration::MAX), rounds: 255, check_every: 255 };
    there_and_back(&bare.endpoint, (&mut ours, &mut theirs), game)?;
    Ok(())
}

/// OpenGL's release waits for its own work. Where that takes too long nothing was released, and it can
/// be tried again.
fn timeout_in_gl(machine: &TestGpu, wait: WaitMode) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let bytes = 256 << 20;
    let (ours, theirs) = shared(machine, &BufferDesc::storage(bytes), BufferOptions::default())?;
    let no_time = Duration::from_millis(1);
    let owner = &vulkan.endpoint;
    let mut lane = handoff::open(owner, &gl.endpoint, owner, host_wait(wait, no_time))?;
    gl.dispatch(Kernel::Fill { seed: 48 }, theirs.name(), bytes, 0)?;
    let mut turns = Turns::default();
    // Some 20 ms of work.
    for step in 1..=100 {
        gl.dispatch(Kernel::PingPong { step }, theirs.name(), bytes, 0)?;
        turns.then(step);
    }
    match lane.release.release(&[&theirs]) {
        Err(Error::Timeout { waited, .. }) if waited == no_time => {}
        other => bail!("released before the work was done: {other:?}"),
    }
    gl.finish();
    // A release has a fence of its own, so that even now it may take another try or two.
    let start = Instant::now();
    let ticket = loop {
        match lane.release.release(&[&theirs]) {
            Ok((ticket, ())) => break ticket,
            Err(Error::Timeout { .. }) if start.elapsed() < Duration::from_secs(10) => {}
            Err(error) => return Err(error.into()),
        }
    };
    ensure!(ticket.sequence() == 1, "what timed out was counted: {ticket:?}");
    let submits = Submits::to(vulkan);
    submits.submit(&lane.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    let read = vulkan.download(ours.handle(), 0, 1 << 20)?;
    Ok(oracle::check(&read, 48, &turns)?)
}

/// A submit has one fence: two releases that need one each can't be put into it.
fn two_fences(machine: &TestGpu) -> Result<()> {
    let (bare, to) = (device(machine, Timelines::Absent)?, machine.vulkan());
    let options = host_wait(WaitMode::Block, Duration::from_secs(10));
    let open = || handoff::open(&to.endpoint, &bare.endpoint, &to.endpoint, options);
    let (mut lane_a, mut lane_b) = (open()?, open()?);
    let submits = Submits::to(&bare);
    let (ticket_a, mut part) = lane_a.release.release(VulkanCommands::recorded())?;
    let (ticket_b, other) = lane_b.release.release(VulkanCommands::recorded())?;
    match part.merge(other.clone()) {
        Err(Error::Invalid(refused)) => {
            ensure!(refused.to_string().contains("submit twice"), "{refused}");
        }
        merged => bail!("{merged:?}"),
    }
    // As the error says: submitted one after the other.
    submits.submit(&part)?;
    submits.submit(&other)?;
    for taken in [
        lane_a.acquire.acquire(ticket_a, VulkanCommands::recorded())?,
        lane_b.acquire.acquire(ticket_b, VulkanCommands::recorded())?,
    ] {
        ensure!(taken.waits.is_empty(), "the host has waited: {taken:?}");
    }
    Ok(())
}

/// OpenGL neither acquires nor releases where its context is not current: the ticket comes back, no
/// release is counted, and with the context all goes on.
fn not_current(machine: &TestGpu, route: Route) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let (owner, options) = (&vulkan.endpoint, route.options());
    let mut there = handoff::open(owner, owner, &gl.endpoint, options)?;
    let mut back = handoff::open(owner, &gl.endpoint, owner, options)?;
    let submits = Submits::to(vulkan);
    let (ours, theirs) = shared(machine, &BufferDesc::storage(BYTES), BufferOptions::default())?;
    vulkan.upload(ours.handle(), 0, &oracle::filled(BYTES as usize, 5))?;
    let (ticket, part) = there.release.release(VulkanCommands::recorded())?;
    submits.submit(&part)?;

    gl.gl.release_current()?;
    let acquired = there.acquire.acquire(ticket, &[&theirs]);
    let released = back.release.release(&[&theirs]);
    gl.gl.make_current()?;
    let (ticket, error) = acquired.err().context("acquired without a context")?.into_parts();
    for error in [error, released.err().context("released without a context")?] {
        ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
        ensure!(error.to_string().contains("make it current"), "{error}");
    }
    there.acquire.acquire(ticket, &[&theirs])?;
    let read = gl.download(theirs.name(), 0, BYTES)?;
    oracle::check(&read, 5, &Turns::default())?;
    let (ticket, ()) = back.release.release(&[&theirs])?;
    ensure!(ticket.sequence() == 1, "what was refused was counted: {ticket:?}");
    submits.submit(&back.acquire.acquire(ticket, VulkanCommands::recorded())?)
}
