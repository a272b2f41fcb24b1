//! Family E: what a handoff refuses, and what its plan reports.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::capabilities::{Rejected, SyncMethod, SyncPlan};
use gpu_interop::glow::HasContext as _;
use gpu_interop::handoff::{self, HandoffOptions, VulkanCommands};
use gpu_interop::tune::Route;
use gpu_interop::vulkan::{DeviceInfo, Endpoint, Features};
use gpu_interop::{Api, Error, SemaphoreKind};

use super::channel::Channel;
use crate::cases::support::driver::semaphore_is_supported;
use crate::cases::support::routes::{CaseRoute as _, ROUTES};
use crate::harness::{Case, Need, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str, row: &str| format!("vulkan→vulkan/opaque_fd/handoff/{what}/{row}");
    let mut cases = Vec::new();
    for route in ROUTES {
        let case = |what: &str, run: fn(&TestGpu, Route) -> Result<()>| {
            let name = name(&format!("{what}/{}", route.name()), &route.row().to_string());
            Case::new(name, move |test_gpu| run(test_gpu, route)).needs(&route.needs(Api::Vulkan))
        };
        cases.push(case("a_foreign_ticket_is_returned", anothers_ticket));
        cases.push(case("more_than_in_flight_is_refused", more_than_in_flight));
        cases.push(case("out_of_order_keeps_its_place", out_of_order));
        cases.push(case("a_dropped_ticket_keeps_its_place", dropped_ticket));
    }
    cases.push(Case::new(name("none_in_flight_is_refused", "48b"), none_in_flight));
    cases.push(Case::new(name("the_plan_gives_its_reasons", "48c"), |test_gpu| {
        check_plan(test_gpu, Api::Vulkan)
    }));
    let to_gl = "vulkan→gl/opaque_fd/handoff/the_plan_gives_its_reasons/48c";
    let to_gl = Case::new(to_gl, |test_gpu| check_plan(test_gpu, Api::OpenGl));
    cases.push(to_gl.needs(&[Need::Gl]));
    cases.push(Case::new(name("what_is_missing_is_named", "48d"), missing_method));
    cases
}

fn check_invalid(error: &Error, text: &str) -> Result<()> {
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    ensure!(error.to_string().contains(text), "'{text}' is not in: {error}");
    Ok(())
}

/// Only the other end of its own handoff accepts a ticket.
fn anothers_ticket(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let mut own = Channel::open(test_gpu, route.options())?;
    let mut other = Channel::open(test_gpu, route.options())?;
    let acquired = other.handoff.acquire.acquire(own.release()?, VulkanCommands::recorded());
    let (ticket, error) = acquired.err().context("the other handoff accepted it")?.into_parts();
    ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
    ensure!(error.to_string().contains("other end"), "what would help is missing: {error}");
    ensure!(ticket.sequence() == 1, "another ticket came back: {ticket:?}");
    own.acquire(ticket)?;
    // The handoff that refused is unchanged.
    let ticket = other.release()?;
    ensure!(ticket.sequence() == 1, "the refused ticket was counted");
    other.acquire(ticket)
}

/// As many releases as `in_flight`, and one more after each acquire.
fn more_than_in_flight(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let options = HandoffOptions { in_flight: 3, ..route.options() };
    let mut channel = Channel::open(test_gpu, options)?;
    let mut tickets = (0..3).map(|_| channel.release()).collect::<Result<VecDeque<_>>>()?;
    for _ in 0..7 {
        check_invalid(&channel.refused_release("one more than in_flight")?, "in_flight")?;
        channel.acquire(tickets.pop_front().context("three are in flight")?)?;
        tickets.push_back(channel.release()?);
    }
    tickets.into_iter().try_for_each(|ticket| channel.acquire(ticket))
}

/// Tickets may be acquired in any order; but the semaphore of one that was not acquired is not used again.
fn out_of_order(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let options = HandoffOptions { in_flight: 2, ..route.options() };
    let mut channel = Channel::open(test_gpu, options)?;
    let (first, second) = (channel.release()?, channel.release()?);
    channel.acquire(second)?;
    check_invalid(&channel.refused_release("it would use what release 1 uses")?, "in flight")?;
    channel.acquire(first)?;
    for ticket in [channel.release()?, channel.release()?] {
        channel.acquire(ticket)?;
    }
    Ok(())
}

/// The semaphore of a dropped ticket stays signalled, and is not used again until the ticket is recovered
/// and acquired.
fn dropped_ticket(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let options = HandoffOptions { in_flight: 2, ..route.options() };
    let mut channel = Channel::open(test_gpu, options)?;
    drop(channel.release()?);
    let ticket = channel.release()?;
    channel.acquire(ticket)?;
    check_invalid(&channel.refused_release("it would use what release 1 uses")?, "lost_tickets")?;
    let lost = channel.handoff.acquire.lost_tickets();
    let [lost]: [_; 1] = lost.try_into().ok().context("one was lost")?;
    ensure!(lost.sequence() == 1, "another ticket was recovered: {lost:?}");
    ensure!(channel.handoff.release.lost_tickets().is_empty(), "it was recovered twice");
    channel.acquire(lost)?;
    for _ in 0..3 {
        let ticket = channel.release()?;
        channel.acquire(ticket)?;
    }
    Ok(())
}

fn none_in_flight(test_gpu: &TestGpu) -> Result<()> {
    let options = HandoffOptions { in_flight: 0, ..HandoffOptions::default() };
    let (first, second) = (test_gpu.vulkan(), test_gpu.second_device()?);
    let opened = handoff::open(&first.endpoint, &first.endpoint, &second.endpoint, options);
    check_invalid(&opened.err().context("opened with none in flight")?, "at least 1")
}

/// The plan of a handoff from the first device to its second, or to OpenGL.
fn plan(test_gpu: &TestGpu, to: Api, options: HandoffOptions) -> Result<SyncPlan> {
    let owner = &test_gpu.vulkan().endpoint;
    Ok(match to {
        Api::OpenGl => handoff::open(owner, owner, &test_gpu.gl()?.endpoint, options)?.plan,
        _ => handoff::open(owner, owner, &test_gpu.second_device()?.endpoint, options)?.plan,
    })
}

/// Chosen is the first method that the drivers support. For each before it, the plan names an API whose
/// driver doesn't support it, or states that the caller asked for another.
fn check_plan(test_gpu: &TestGpu, to: Api) -> Result<()> {
    let chosen = plan(test_gpu, to, HandoffOptions::default())?;
    let mut rejected = chosen.rejected.iter();
    for method in SyncMethod::ORDER.into_iter().take_while(|method| *method != chosen.method) {
        let lacking = lacking(test_gpu, to, method)?;
        ensure!(!lacking.is_empty(), "{method:?} is supported: {chosen:?}");
        let (passed, why) = rejected.next().context("no reason is given")?;
        ensure!(*passed == method, "{method:?} was rejected, not {passed:?}");
        let Rejected::Missing(missing) = why else { bail!("{why}") };
        ensure!(lacking.contains(&missing.api), "{missing}, but {lacking:?} lack it");
        ensure!(why.to_string().contains(&missing.api.to_string()), "{why} names no API");
    }
    ensure!(rejected.next().is_none(), "a worse method was rejected: {chosen:?}");
    let lacking = lacking(test_gpu, to, chosen.method)?;
    ensure!(lacking.is_empty(), "{lacking:?} lack the method of {chosen:?}");

    let method = Some(SyncMethod::HostWait);
    let chosen = plan(test_gpu, to, HandoffOptions { method, ..HandoffOptions::default() })?;
    ensure!(chosen.method == SyncMethod::HostWait, "{chosen:?}");
    let better = [SyncMethod::Timeline, SyncMethod::Binary];
    ensure!(chosen.rejected == better.map(|method| (method, Rejected::NotWanted)), "{chosen:?}");
    Ok(())
}

/// The APIs whose drivers, asked without the library, don't support `method`.
fn lacking(test_gpu: &TestGpu, to: Api, method: SyncMethod) -> Result<Vec<Api>> {
    let (kind, extension) = match method {
        SyncMethod::Timeline => (SemaphoreKind::Timeline, "GL_NV_timeline_semaphore"),
        SyncMethod::Binary => (SemaphoreKind::Binary, "GL_EXT_semaphore_fd"),
        _ => return Ok(Vec::new()),
    };
    let mut lacking = Vec::new();
    if semaphore_is_supported(test_gpu.vulkan(), kind)? != (true, true) {
        lacking.push(Api::Vulkan);
    }
    if to == Api::OpenGl {
        let extensions = test_gpu.gl()?.gl.glow().supported_extensions();
        if !["GL_EXT_semaphore_fd", extension].iter().all(|name| extensions.contains(*name)) {
            lacking.push(Api::OpenGl);
        }
    }
    Ok(lacking)
}

/// An endpoint of the suite's first device, created as if almost nothing were enabled.
fn bare(test_gpu: &TestGpu) -> Result<Endpoint> {
    let vulkan = &test_gpu.vulkan().vulkan;
    let info = DeviceInfo::new(
        vulkan.instance(),
        vulkan.physical_device(),
        vulkan.device(),
        vulkan.api_version(),
    )
    .enabled_extensions(&[])
    .features(Features::default());
    // SAFETY: the handles belong together; the endpoint keeps the device alive, and knows of less than
    // was enabled, so that it calls less than it might.
    Ok(unsafe { Endpoint::new(&info, Some(std::sync::Arc::new(vulkan.clone()))) }?)
}

/// A requested method that is not supported is an error that names what is missing; waiting on the host
/// requires nothing.
fn missing_method(test_gpu: &TestGpu) -> Result<()> {
    let bare = bare(test_gpu)?;
    let second = &test_gpu.second_device()?.endpoint;
    let open = |owner: &Endpoint, from: &Endpoint, to: &Endpoint, method| {
        let options = HandoffOptions { method: Some(method), ..HandoffOptions::default() };
        handoff::open(owner, from, to, options)
    };
    for method in [SyncMethod::Timeline, SyncMethod::Binary] {
        for (owner, from, to) in
            [(&bare, &bare, second), (second, &bare, second), (second, second, &bare)]
        {
            match open(owner, from, to, method) {
                Err(Error::Missing(missing)) => {
                    ensure!(missing.api == Api::Vulkan && missing.help.is_some(), "{missing}");
                }
                other => bail!("{method:?}: {other:?}"),
            }
        }
    }
    open(&bare, &bare, second, SyncMethod::HostWait)?;
    Ok(())
}
