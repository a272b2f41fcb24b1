//! Group E: what a handoff refuses, and what its plan tells.

use std::cell::RefCell;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::{Capabilities, Rejected, SyncMethod, SyncPlan};
use gpu_interop::fd::SemaphoreHandleType;
use gpu_interop::handoff::{self, Handoff, HandoffOptions, VulkanCommands};
use gpu_interop::vulkan::{DeviceInfo, Endpoint, Features, SubmitSync};
use gpu_interop::{Api, BufferDesc, Error, SemaphoreKind};

use crate::cases::handoff::vulkan_gl::Route;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::vulkan::VulkanContext;

pub(crate) fn cases() -> Vec<Case> {
    let name = |what: &str, row: &str| format!("vulkan→vulkan/opaque_fd/handoff/{what}/{row}");
    let mut cases = Vec::new();
    for route in Route::ALL {
        let case = |what: &str, run: fn(&TestGpu, Route) -> Result<()>| {
            let name = name(&format!("{what}/{}", route.name), &route.row.to_string());
            Case::new(name, move |machine| run(machine, route)).needs(&route.needs(Api::Vulkan))
        };
        cases.push(case("anothers_ticket_comes_back", anothers_ticket));
        cases.push(case("more_than_in_flight_is_refused", more_than_in_flight));
        cases.push(case("out_of_order_keeps_its_place", out_of_order));
        cases.push(case("a_dropped_ticket_keeps_its_place", dropped_ticket));
    }
    cases.push(Case::new(name("none_in_flight_is_refused", "48b"), none_in_flight));
    cases.push(Case::new(name("the_plan_says_why", "48c"), plan_to_vulkan));
    cases.push(
        Case::new("vulkan→gl/opaque_fd/handoff/the_plan_says_why/48c", plan_to_gl)
            .needs(&[Need::Gl]),
    );
    cases.push(Case::new(name("what_is_missing_is_said", "48d"), missing_method));
    cases
}

/// Submits of one device, waited for when it goes.
pub(crate) struct Submits<'a> {
    gpu: &'a VulkanContext,
    commands: RefCell<Vec<vk::CommandBuffer>>,
}

impl<'a> Submits<'a> {
    pub(crate) fn to(gpu: &'a VulkanContext) -> Self {
        Self { gpu, commands: RefCell::default() }
    }

    /// Submits no commands, with the waits and signals of `part`. Waits until they are done where
    /// there are waits: only then may a binary semaphore be signalled again.
    pub(crate) fn submit(&self, part: &SubmitSync) -> Result<()> {
        let commands = self.gpu.command_buffers(1)?;
        self.commands.borrow_mut().extend(&commands);
        self.gpu.begin(commands[0])?;
        self.gpu.submit(commands[0], part)?;
        if !part.waits.is_empty() {
            self.gpu.vulkan.wait_idle()?;
        }
        Ok(())
    }
}

impl Drop for Submits<'_> {
    fn drop(&mut self) {
        // A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
        self.gpu.free_command_buffers(&self.commands.borrow());
    }
}

/// From the machine's first device to its second.
fn lane(machine: &TestGpu, options: HandoffOptions) -> Result<Handoff<Endpoint, Endpoint>> {
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    Ok(handoff::open(&first.endpoint, &first.endpoint, &second.endpoint, options)?)
}

fn invalid(error: &Error, word: &str) -> Result<()> {
    ensure!(matches!(error, Error::Invalid(_)), "{error:?}");
    ensure!(error.to_string().contains(word), "no word of '{word}': {error}");
    Ok(())
}

/// A ticket is taken by its own handoff's other end alone.
fn anothers_ticket(machine: &TestGpu, route: Route) -> Result<()> {
    let mut lane_a = lane(machine, route.options())?;
    let mut lane_b = lane(machine, route.options())?;
    let (first, second) = (Submits::to(machine.vulkan()), Submits::to(machine.second_device()?));
    let (ticket, part) = lane_a.release.release(VulkanCommands::recorded())?;
    first.submit(&part)?;
    let refused = lane_b
        .acquire
        .acquire(ticket, VulkanCommands::recorded())
        .err()
        .context("the other handoff took it")?;
    let (ticket, error): (_, Error) = refused.into_parts();
    ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
    ensure!(error.to_string().contains("other end"), "no word of what would help: {error}");
    ensure!(ticket.sequence() == 1, "another ticket came back: {ticket:?}");
    second.submit(&lane_a.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    // The handoff that refused is as it was.
    let (ticket, part) = lane_b.release.release(VulkanCommands::recorded())?;
    ensure!(ticket.sequence() == 1, "the refused ticket was counted");
    first.submit(&part)?;
    second.submit(&lane_b.acquire.acquire(ticket, VulkanCommands::recorded())?)
}

/// As many releases as were agreed on, and one more when one has been acquired.
fn more_than_in_flight(machine: &TestGpu, route: Route) -> Result<()> {
    let mut lane = lane(machine, HandoffOptions { in_flight: 3, ..route.options() })?;
    let (first, second) = (Submits::to(machine.vulkan()), Submits::to(machine.second_device()?));
    let mut tickets = std::collections::VecDeque::new();
    for _ in 0..3 {
        let (ticket, part) = lane.release.release(VulkanCommands::recorded())?;
        first.submit(&part)?;
        tickets.push_back(ticket);
    }
    for _ in 0..7 {
        let refused = lane
            .release
            .release(VulkanCommands::recorded())
            .err()
            .context("one more than in_flight")?;
        invalid(&refused, "in_flight")?;
        let ticket = tickets.pop_front().context("three are under way")?;
        second.submit(&lane.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
        let (ticket, part) = lane.release.release(VulkanCommands::recorded())?;
        first.submit(&part)?;
        tickets.push_back(ticket);
    }
    for ticket in tickets {
        second.submit(&lane.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    }
    Ok(())
}

/// Tickets may be acquired in any order; but the semaphore of one that was not is not used again.
fn out_of_order(machine: &TestGpu, route: Route) -> Result<()> {
    let mut lane = lane(machine, HandoffOptions { in_flight: 2, ..route.options() })?;
    let (first, second) = (Submits::to(machine.vulkan()), Submits::to(machine.second_device()?));
    let mut release = || -> Result<_> {
        let (ticket, part) = lane.release.release(VulkanCommands::recorded())?;
        first.submit(&part)?;
        Ok(ticket)
    };
    let (one, two) = (release()?, release()?);
    second.submit(&lane.acquire.acquire(two, VulkanCommands::recorded())?)?;
    let error = release().err().context("it would use what release 1 uses")?;
    invalid(error.downcast_ref().context("of the library")?, "in flight")?;
    second.submit(&lane.acquire.acquire(one, VulkanCommands::recorded())?)?;
    let (three, four) = (release()?, release()?);
    second.submit(&lane.acquire.acquire(three, VulkanCommands::recorded())?)?;
    second.submit(&lane.acquire.acquire(four, VulkanCommands::recorded())?)
}

/// A ticket that was dropped: its semaphore stays signalled, and is not used again until the ticket is
/// found and acquired.
fn dropped_ticket(machine: &TestGpu, route: Route) -> Result<()> {
    let mut lane = lane(machine, HandoffOptions { in_flight: 2, ..route.options() })?;
    let (first, second) = (Submits::to(machine.vulkan()), Submits::to(machine.second_device()?));
    let (lost, part) = lane.release.release(VulkanCommands::recorded())?;
    first.submit(&part)?;
    drop(lost);
    let (ticket, part) = lane.release.release(VulkanCommands::recorded())?;
    first.submit(&part)?;
    second.submit(&lane.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    let refused = lane.release.release(VulkanCommands::recorded());
    invalid(&refused.err().context("it would use what release 1 uses")?, "lost_tickets")?;
    let [lost]: [_; 1] = lane.acquire.lost_tickets().try_into().ok().context("one was lost")?;
    ensure!(lost.sequence() == 1, "another ticket was found: {lost:?}");
    ensure!(lane.release.lost_tickets().is_empty(), "it was found twice");
    second.submit(&lane.acquire.acquire(lost, VulkanCommands::recorded())?)?;
    for _ in 0..3 {
        let (ticket, part) = lane.release.release(VulkanCommands::recorded())?;
        first.submit(&part)?;
        second.submit(&lane.acquire.acquire(ticket, VulkanCommands::recorded())?)?;
    }
    Ok(())
}

fn none_in_flight(machine: &TestGpu) -> Result<()> {
    let options = HandoffOptions { in_flight: 0, ..HandoffOptions::default() };
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    let opened = handoff::open(&first.endpoint, &first.endpoint, &second.endpoint, options);
    invalid(&opened.err().context("opened with none in flight")?, "at least 1")
}

fn plan_to_vulkan(machine: &TestGpu) -> Result<()> {
    let (first, second) = (machine.vulkan(), machine.second_device()?);
    let (desc, owner) = (BufferDesc::storage(16).into(), &first.endpoint);
    let there = second.endpoint.capabilities(&desc)?;
    let open = |options| Ok(handoff::open(owner, owner, &second.endpoint, options)?.plan);
    plan_says_why(&owner.capabilities(&desc)?, &there, &open)
}

fn plan_to_gl(machine: &TestGpu) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let (desc, owner) = (BufferDesc::storage(16).into(), &vulkan.endpoint);
    let there = gl.endpoint.capabilities(&desc)?;
    let open = |options| Ok(handoff::open(owner, owner, &gl.endpoint, options)?.plan);
    plan_says_why(&owner.capabilities(&desc)?, &there, &open)
}

/// The first method that both have is chosen, and for each before it the plan says which API lacks
/// what, or that the caller did not want it.
fn plan_says_why(
    owner: &Capabilities,
    there: &Capabilities,
    open: &dyn Fn(HandoffOptions) -> Result<SyncPlan>,
) -> Result<()> {
    let plan = open(HandoffOptions::default())?;
    let mut rejected = plan.rejected.iter();
    for method in SyncMethod::ORDER {
        if method == plan.method {
            break;
        }
        let lack = lacks(owner, there, method).context("a better method was there")?;
        let (passed, why) = rejected.next().context("no reason is given")?;
        ensure!(*passed == method, "{method:?} was passed over, not {passed:?}");
        ensure!(*why == Rejected::Missing(lack.clone()), "{why}, not {lack}");
        ensure!(why.to_string().contains(&lack.api.to_string()), "whose lack? {why}");
    }
    ensure!(rejected.next().is_none(), "more was passed over than is better: {plan:?}");
    ensure!(lacks(owner, there, plan.method).is_none(), "{plan:?} can't be done");

    let method = Some(SyncMethod::HostWait);
    let plan = open(HandoffOptions { method, ..HandoffOptions::default() })?;
    let unwanted = |method| (method, Rejected::NotWanted);
    ensure!(plan.method == SyncMethod::HostWait, "{plan:?}");
    let expected = [SyncMethod::Timeline, SyncMethod::Binary].map(unwanted);
    ensure!(plan.rejected == expected, "{plan:?}");
    Ok(())
}

/// What is missing for `method`, as the endpoints tell it themselves.
fn lacks(
    owner: &Capabilities,
    there: &Capabilities,
    method: SyncMethod,
) -> Option<gpu_interop::error::Missing> {
    let kind = match method {
        SyncMethod::Timeline => SemaphoreKind::Timeline,
        SyncMethod::Binary => SemaphoreKind::Binary,
        _ => return None,
    };
    let of = |side: &Capabilities| side.semaphore(kind, SemaphoreHandleType::OpaqueFd).cloned();
    let all = || {
        of(owner)?.export?;
        of(owner)?.import?;
        of(there)?.import
    };
    all().err()
}

/// The machine's first device, as an app has it that enabled next to nothing.
fn bare(machine: &TestGpu) -> Result<Endpoint> {
    let vulkan = &machine.vulkan().vulkan;
    let info = DeviceInfo::new(
        vulkan.instance(),
        vulkan.physical_device(),
        vulkan.device(),
        vulkan.api_version(),
    )
    .enabled_extensions(&[])
    .features(Features::default());
    // SAFETY: the handles belong together; the endpoint keeps the device alive, and is told of less
    // than was enabled, so that it calls less than it might.
    Ok(unsafe { Endpoint::new(&info, Some(std::sync::Arc::new(vulkan.clone()))) }?)
}

/// A method that is asked for and can't be had is an error that names what is missing; the host's
/// waiting needs nothing.
fn missing_method(machine: &TestGpu) -> Result<()> {
    let bare = bare(machine)?;
    let second = &machine.second_device()?.endpoint;
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
