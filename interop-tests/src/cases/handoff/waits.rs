//! Family E: waiting on the host: timeouts, fences instead of timelines, and a context that is not current.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::capabilities::{Rejected, SyncMethod};
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands, WaitMode};
use gpu_interop::tune::Route;
use gpu_interop::vulkan::{BufferOptions, DeviceInfo, Endpoint, Features};
use gpu_interop::{Api, BufferDesc, Error};

use crate::cases::handoff::Submits;
use crate::cases::opengl::shared;
use crate::cases::support::contexts::ApiContext;
use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::cases::support::routes::{CaseRoute as _, ROUTES};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};
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
                move |test_gpu| timeout(test_gpu, wait, Timelines::Enabled),
            ),
            Case::new(
                name("vulkan→vulkan/opaque_fd/handoff/a_timeout_is_an_error/by_fence"),
                move |test_gpu| timeout(test_gpu, wait, Timelines::Absent),
            ),
            Case::new(
                name("vulkan→vulkan→vulkan/opaque_fd/buffer/ping_pong_255/without_timelines"),
                move |test_gpu| fences_to_vulkan(test_gpu, wait),
            ),
            Case::new(
                name("vulkan→gl→vulkan/opaque_fd/buffer/ping_pong_255/without_timelines"),
                move |test_gpu| fences_to_gl(test_gpu, wait),
            )
            .needs(&[Need::Gl]),
            Case::new(
                name("gl→vulkan/opaque_fd/handoff/a_timeout_is_an_error"),
                move |test_gpu| timeout_in_gl(test_gpu, wait),
            )
            .needs(&[Need::Gl, Need::Hardware]),
        ]);
    }
    cases.push(Case::new("vulkan/none/handoff/two_fences_in_a_submit_are_one/48e", two_fences));
    for route in ROUTES {
        let name = "vulkan→gl→vulkan/opaque_fd/handoff/without_its_context_the_ticket_comes_back";
        let name = format!("{name}/{}/{}", route.name(), route.row());
        let case = Case::new(name, move |test_gpu| not_current(test_gpu, route));
        cases.push(case.needs(&route.needs(Api::OpenGl)));
    }
    cases
}

/// Whether the library knows the device as one with timeline semaphores enabled.
#[derive(Clone, Copy, PartialEq)]
enum Timelines {
    Enabled,
    Absent,
}

/// Another device. Without timelines, it has no features enabled: the library creates a `VkFence` per
/// release.
fn device(test_gpu: &TestGpu, timelines: Timelines) -> Result<VulkanContext> {
    let vulkan = test_gpu.vulkan().vulkan.second_device()?;
    let info = DeviceInfo::new(
        vulkan.instance(),
        vulkan.physical_device(),
        vulkan.device(),
        vulkan.api_version(),
    )
    .enabled_extensions(vulkan.enabled_extensions())
    .features(match timelines {
        Timelines::Enabled => vulkan.features(),
        Timelines::Absent => Features::default(),
    });
    // SAFETY: the handles belong together; the endpoint keeps the device alive, and knows of no more
    // features than were enabled.
    let endpoint = unsafe { Endpoint::new(&info, Some(Arc::new(vulkan.clone()))) }?;
    let mut gpu = VulkanContext::new(vulkan)?;
    gpu.endpoint = endpoint;
    Ok(gpu)
}

fn host_wait(wait: WaitMode, timeout: Duration) -> HandoffOptions {
    let method = Some(SyncMethod::HostWait);
    HandoffOptions { method, wait, timeout, ..HandoffOptions::default() }
}

/// A wait for a release that is not submitted ends in time, and the ticket comes back; once it is
/// submitted, it is acquired.
fn timeout(test_gpu: &TestGpu, wait: WaitMode, timelines: Timelines) -> Result<()> {
    let (gpu, to) = (device(test_gpu, timelines)?, test_gpu.vulkan());
    let short = Duration::from_millis(30);
    let mut channel =
        handoff::open(&to.endpoint, &gpu.endpoint, &to.endpoint, host_wait(wait, short))?;
    let submits = Submits::to(&gpu);
    let taken_back = Submits::to(to);
    for round in 1..=3 {
        let (mut ticket, sync) = channel.release.release(VulkanCommands::recorded())?;
        ensure!(sync.signals().is_empty() == (timelines == Timelines::Absent), "{sync:?}");
        for _ in 0..2 {
            let start = Instant::now();
            let refused = channel
                .acquire
                .acquire(ticket, VulkanCommands::recorded())
                .err()
                .context("acquired before the submit")?;
            let waited = start.elapsed();
            ensure!(waited >= short && waited < Duration::from_secs(5), "took {waited:?}");
            let (back, error) = refused.into_parts();
            ensure!(matches!(error, Error::Timeout { waited, .. } if waited == short), "{error:?}");
            ensure!(error.to_string().contains("not submitted yet"), "{error}");
            ticket = back;
        }
        submits.submit(sync)?;
        gpu.vulkan.wait_idle()?;
        ensure!(ticket.sequence() == round, "another ticket came back");
        let taken = channel.acquire.acquire(ticket, VulkanCommands::recorded())?;
        ensure!(
            taken.waits().is_empty(),
            "the host has waited, and the GPU would wait too: {taken:?}"
        );
        taken_back.submit(taken)?;
    }
    Ok(())
}

fn fences_to_vulkan(test_gpu: &TestGpu, wait: WaitMode) -> Result<()> {
    let (bare, to) = (device(test_gpu, Timelines::Absent)?, test_gpu.vulkan());
    // By default, a wait on the host is chosen, because timelines are missing.
    let options = HandoffOptions { wait, ..HandoffOptions::default() };
    let plan = handoff::open(&bare.endpoint, &bare.endpoint, &to.endpoint, options)?.plan;
    ensure!(matches!(&plan.rejected[0], (SyncMethod::Timeline, Rejected::Missing(_))), "{plan:?}");
    without_timelines(&bare, to, host_wait(wait, options.timeout))
}

fn fences_to_gl(test_gpu: &TestGpu, wait: WaitMode) -> Result<()> {
    let bare = device(test_gpu, Timelines::Absent)?;
    // The longest timeout must not overflow anywhere.
    without_timelines(&bare, test_gpu.gl()?, host_wait(wait, Duration::MAX))
}

/// 255 turns each, checked only at the end.
fn without_timelines<C: ApiContext>(
    bare: &VulkanContext,
    importer: &C,
    options: HandoffOptions,
) -> Result<()> {
    let mut ours = PayloadUser::create(bare, BYTES)?;
    let mut theirs = PayloadUser::import(importer, ours.export()?)?;
    let trip = RoundTrip { options, rounds: 255, check_every: 255 };
    there_and_back(&bare.endpoint, (&mut ours, &mut theirs), trip).map(drop)
}

/// OpenGL's release waits for its own work. If that takes too long, nothing is released, and it can be
/// tried again.
fn timeout_in_gl(test_gpu: &TestGpu, wait: WaitMode) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let bytes = 256 << 20;
    let (ours, theirs) = shared(test_gpu, &BufferDesc::storage(bytes), BufferOptions::default())?;
    let too_short = Duration::from_millis(1);
    let owner = &vulkan.endpoint;
    let mut channel = handoff::open(owner, &gl.endpoint, owner, host_wait(wait, too_short))?;
    gl.dispatch(Kernel::Fill { seed: 48 }, theirs.name(), bytes, 0)?;
    let mut turns = Passes::default();
    // About 20 ms of work.
    for step in 1..=100 {
        gl.dispatch(Kernel::PingPong { step }, theirs.name(), bytes, 0)?;
        turns.then(step);
    }
    match channel.release.release(&[&theirs]) {
        Err(Error::Timeout { waited, .. }) if waited == too_short => {}
        other => bail!("released before the work was done: {other:?}"),
    }
    gl.finish();
    // Each release waits for a new fence, so that even now one or two may time out.
    let start = Instant::now();
    let ticket = loop {
        match channel.release.release(&[&theirs]) {
            Ok((ticket, ())) => break ticket,
            Err(Error::Timeout { .. }) if start.elapsed() < Duration::from_secs(10) => {}
            Err(error) => return Err(error.into()),
        }
    };
    ensure!(ticket.sequence() == 1, "a release that timed out was counted: {ticket:?}");
    let submits = Submits::to(vulkan);
    submits.submit(channel.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    let read = vulkan.download(ours.handle(), 0, 1 << 20)?;
    Ok(oracle::check(&read, 48, &turns)?)
}

/// A submit has one fence, which serves two releases that need one each.
fn two_fences(test_gpu: &TestGpu) -> Result<()> {
    let (bare, to) = (device(test_gpu, Timelines::Absent)?, test_gpu.vulkan());
    let options = host_wait(WaitMode::Block, Duration::from_secs(10));
    let open = || handoff::open(&to.endpoint, &bare.endpoint, &to.endpoint, options);
    let (mut one, mut other) = (open()?, open()?);
    let submits = Submits::to(&bare);
    let (ticket_a, mut sync) = one.release.release(VulkanCommands::recorded())?;
    let (ticket_b, other_sync) = other.release.release(VulkanCommands::recorded())?;
    sync.merge(other_sync);
    submits.submit(sync)?;
    for taken in [
        one.acquire.acquire(ticket_a, VulkanCommands::recorded())?,
        other.acquire.acquire(ticket_b, VulkanCommands::recorded())?,
    ] {
        ensure!(taken.waits().is_empty(), "the host has waited: {taken:?}");
        Submits::to(to).submit(taken)?;
    }
    Ok(())
}

/// If its context is not current, OpenGL neither acquires nor releases: the ticket comes back, no release is
/// counted, and once the context is current both succeed.
fn not_current(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let (owner, options) = (&vulkan.endpoint, route.options());
    let mut there = handoff::open(owner, owner, &gl.endpoint, options)?;
    let mut back = handoff::open(owner, &gl.endpoint, owner, options)?;
    let submits = Submits::to(vulkan);
    let (ours, theirs) = shared(test_gpu, &BufferDesc::storage(BYTES), BufferOptions::default())?;
    vulkan.upload(ours.handle(), 0, &oracle::filled(BYTES as usize, 5))?;
    let (ticket, sync) = there.release.release(VulkanCommands::recorded())?;
    submits.submit(sync)?;

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
    oracle::check(&read, 5, &Passes::default())?;
    let (ticket, ()) = back.release.release(&[&theirs])?;
    ensure!(ticket.sequence() == 1, "a refused release was counted: {ticket:?}");
    submits.submit(back.acquire.acquire(ticket, VulkanCommands::recorded())?)
}
