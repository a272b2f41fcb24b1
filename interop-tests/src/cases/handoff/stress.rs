//! Family E: each step of a handoff fails in turn while the GPU works, and everything is dropped in every
//! order. Nothing that the GPU uses is freed, and nothing stays behind.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::handoff::{self, Handoff, HandoffOptions, VulkanCommands};
use gpu_interop::headless::Commands;
use gpu_interop::tune::Route;
use gpu_interop::vulkan::{self, Buffer, BufferAccess, BufferOptions, Endpoint, SubmitSync};
use gpu_interop::{Api, BufferDesc, Error, Peer as _, gl};

use super::acquirers::{Acquirer, BufferOf};
use crate::cases::multi_api::teardown::orders;
use crate::cases::support::routes::{BINARY, CaseRoute as _, HOST_WAIT, TIMELINE};
use crate::cases::support::stalled_queue::StalledQueue;
use crate::harness::{Case, NVIDIA_UNMAPS_IN_BATCHES, Need, ProcessResources, TestGpu};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 1 << 20;
const DESC: BufferDesc = BufferDesc::storage(BYTES);
/// The timeout of the handoffs. It ends before the work does.
const SHORT: Duration = Duration::from_millis(1);
/// When the work may begin, after the drops have.
const LATER: Duration = Duration::from_millis(4);
/// Rounds in which a driver may still open what it keeps.
const WARM_UP: usize = 4;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Acquired,
    /// The submit of the release is never made.
    ReleaseDropped,
    /// The submit of the release is refused.
    SubmitRefused,
    /// A panic between the release and its submit.
    Panic,
    /// The payload is released twice.
    ReleasedTwice,
    /// The ticket is dropped.
    TicketDropped,
    /// The acquire lists something else than the release.
    OtherList,
    /// The host's wait takes too long; otherwise, what the acquire adds to a submit is dropped.
    AcquireFails,
}

const STEPS: [(&str, Step); 8] = [
    ("nothing_fails", Step::Acquired),
    ("the_release_is_not_submitted", Step::ReleaseDropped),
    ("the_submit_is_refused", Step::SubmitRefused),
    ("a_panic_before_the_submit", Step::Panic),
    ("released_twice", Step::ReleasedTwice),
    ("the_ticket_is_dropped", Step::TicketDropped),
    ("another_list_is_acquired", Step::OtherList),
    ("the_acquire_fails", Step::AcquireFails),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (route_name, route) in
        [("timeline", TIMELINE), ("binary", BINARY), ("host_wait", HOST_WAIT)]
    {
        for (what, step) in STEPS {
            let mut case = |pair: &str, api, run: fn(&TestGpu, Step, Route) -> Result<()>| {
                let name = format!("{pair}/opaque_fd/stress/{what}/{route_name}/59a");
                let case = Case::new(name, move |test_gpu| run(test_gpu, step, route));
                cases.push(case.needs(&route.needs(api)).needs(&[Need::TimelineFeature]));
            };
            case("vulkan→vulkan", Api::Vulkan, |gpu, step, route| {
                from_vulkan(gpu, gpu.second_device()?, step, route)
            });
            case("vulkan→gl", Api::OpenGl, |gpu, step, route| {
                from_vulkan(gpu, gpu.gl()?, step, route)
            });
            case("vulkan→cuda", Api::Cuda, |gpu, step, route| {
                from_vulkan(gpu, gpu.cuda()?, step, route)
            });
            case("gl→vulkan", Api::OpenGl, from_gl);
        }
    }
    let name = "vulkan→gl/opaque_fd/stress/an_early_return_during_a_long_fill/59a";
    cases.push(Case::new(name, early_return).needs(&[Need::Gl]));
    cases
}

/// A Vulkan device whose queue is stalled, and the endpoint that is dropped.
struct Stalled<'a> {
    // Dropped last: the command buffers are the application's.
    queue: StalledQueue<'a>,
    gpu: &'a VulkanContext,
    /// Of another device.
    other: &'a Endpoint,
    endpoint: Endpoint,
    commands: Vec<Commands>,
}

impl<'a> Stalled<'a> {
    fn new(gpu: &'a VulkanContext, test_gpu: &'a TestGpu) -> Result<Self> {
        let (endpoint, queue) = (gpu.vulkan.endpoint()?, StalledQueue::new(gpu)?);
        Ok(Self { queue, gpu, other: &test_gpu.vulkan().endpoint, endpoint, commands: Vec::new() })
    }

    /// Records a fill of `buffer` beside what `record` records.
    fn record<T>(
        &mut self,
        buffer: &Buffer,
        record: impl FnOnce(VulkanCommands<'_>) -> gpu_interop::Result<T>,
    ) -> gpu_interop::Result<T> {
        let (device, family) = (self.gpu.device(), self.gpu.vulkan.queue_family());
        let (commands, recorded) = self.gpu.vulkan.record(|commands| {
            // SAFETY: the command buffer is being recorded for this family and lives until the queue is idle;
            // the buffer is its device's.
            unsafe {
                device.cmd_fill_buffer(commands, buffer.handle(), 0, vk::WHOLE_SIZE, 1);
                record(VulkanCommands::record(commands, family, BufferAccess::transfer(buffer)))
            }
        })?;
        self.commands.push(commands);
        Ok(recorded)
    }

    /// Submits what was recorded last.
    fn submit(&mut self, sync: SubmitSync) -> gpu_interop::Result<()> {
        let endpoint = self.endpoint.clone();
        self.submit_by(&endpoint, sync)
    }

    fn submit_by(&self, endpoint: &Endpoint, sync: SubmitSync) -> gpu_interop::Result<()> {
        let commands = self.commands.last().map(Commands::handle);
        // SAFETY: the queue is locked; the command buffer lives until the queue is idle.
        self.gpu
            .vulkan
            .with_queue(|queue| unsafe { sync.submit(endpoint, queue, commands.as_slice()) })
    }

    /// Drops `objects` in this order. The work begins meanwhile.
    fn drop_all(self, mut objects: Vec<Option<Box<dyn Any>>>, order: &[usize]) -> Result<()> {
        let gate = self.queue.gate();
        let Self { queue, endpoint, commands, .. } = self;
        objects.push(Some(Box::new(endpoint)));
        ensure!(objects.len() == order.len(), "{} objects", objects.len());
        thread::scope(|scope| {
            let opened = scope.spawn(move || {
                thread::sleep(LATER);
                gate.open()
            });
            order.iter().for_each(|&next| objects[next] = None);
            opened.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))
        })?;
        queue.release_and_wait()?;
        drop(commands);
        Ok(())
    }
}

fn options(route: Route) -> HandoffOptions {
    HandoffOptions { timeout: SHORT, in_flight: 2, ..route.options() }
}

/// Runs `run` once for each order of the objects, each time with an endpoint of its own, on a device that is
/// destroyed in the end. Nothing stays behind.
fn for_each_order(
    test_gpu: &TestGpu,
    (api, route): (Api, Route),
    run: impl Fn(&VulkanContext, &[usize]) -> Result<()>,
) -> Result<()> {
    const OBJECTS: usize = 5;
    let gpu = VulkanContext::new(test_gpu.vulkan().vulkan.second_device()?)?;
    let orders = orders(OBJECTS);
    // OpenGL may free what was dropped later.
    let resources = || {
        if let Ok(gl) = test_gpu.gl() {
            gl.endpoint.delete_dropped()?;
        }
        ProcessResources::now()
    };
    let mut before = None;
    for (round, order) in orders.iter().cycle().take(orders.len() + WARM_UP).enumerate() {
        if round == WARM_UP {
            before = Some(resources()?);
        }
        run(&gpu, order).with_context(|| format!("dropped in the order {order:?}"))?;
    }
    let (before, now) = (before.context("there are orders")?, resources()?);
    // valgrind takes address space for itself.
    let is_valgrind = std::env::var("LD_PRELOAD").is_ok_and(|name| name.contains("vgpreload"));
    let address_space_kib =
        if is_valgrind { before.address_space_kib } else { now.address_space_kib };
    // Those of semaphores that OpenGL imported. `dropped_semaphores_leave_few_mappings` counts them.
    let has_semaphores = api == Api::OpenGl && route != HOST_WAIT && test_gpu.is_hardware();
    let kept = if has_semaphores { NVIDIA_UNMAPS_IN_BATCHES } else { 0 };
    before.require_at_most(&ProcessResources { address_space_kib, ..now }, kept)
}

/// Vulkan releases. The objects are the two ends, the two buffers, and the endpoint.
fn from_vulkan<A: Acquirer>(test_gpu: &TestGpu, to: &A, step: Step, route: Route) -> Result<()>
where
    BufferOf<A>: 'static,
    A::Peer: 'static,
{
    for_each_order(test_gpu, (to.peer().api(), route), |gpu, order| {
        let mut stalled = Stalled::new(gpu, test_gpu)?;
        let ours = stalled.endpoint.create_buffer(&DESC, BufferOptions::default())?;
        let theirs = to.import(&ours)?;
        let owner = &stalled.endpoint;
        let mut handoff = handoff::open(owner, owner, to.peer(), options(route))?;
        fail(&mut stalled, (&ours, &theirs), to, &mut handoff, step)?;
        let Handoff { release, acquire, .. } = handoff;
        let objects: [Box<dyn Any>; 4] =
            [Box::new(release), Box::new(acquire), Box::new(ours), Box::new(theirs)];
        stalled.drop_all(objects.into_iter().map(Some).collect(), order)
    })
}

/// Lets `step` fail, and checks that the handoff goes on.
fn fail<A: Acquirer>(
    stalled: &mut Stalled<'_>,
    (ours, theirs): (&Buffer, &BufferOf<A>),
    to: &A,
    handoff: &mut Handoff<Endpoint, A::Peer>,
    step: Step,
) -> Result<()> {
    let waits = handoff.plan.method == SyncMethod::HostWait;
    let mut release = |stalled: &mut Stalled<'_>| {
        stalled.record(ours, |commands| handoff.release.release(commands))
    };
    if let Step::ReleaseDropped | Step::SubmitRefused | Step::Panic = step {
        let (ticket, sync) = release(stalled)?;
        match step {
            Step::SubmitRefused => {
                let refused = stalled.submit_by(stalled.other, sync);
                ensure!(matches!(refused, Err(Error::Mismatch(_))), "{refused:?}");
            }
            Step::Panic => {
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    let _sync = sync;
                    std::panic::resume_unwind(Box::new("the application panics"));
                }));
                ensure!(panicked.is_err(), "no panic");
            }
            _ => drop(sync),
        }
        let refused = to.acquire(&mut handoff.acquire, ticket, &[theirs]).err();
        let refused = refused.context("acquired what was never submitted")?;
        ensure!(refused.to_string().contains("never submitted"), "{refused}");
        drop(refused);
    }
    let mut release = |stalled: &mut Stalled<'_>| {
        stalled.record(ours, |commands| handoff.release.release(commands))
    };
    let (ticket, sync) = release(stalled)?;
    stalled.submit(sync)?;
    match step {
        Step::ReleasedTwice => {
            let refused = release(stalled).err().context("released twice")?;
            ensure!(refused.to_string().contains("released already"), "{refused}");
        }
        Step::TicketDropped => {
            drop(ticket);
            let lost = handoff.release.lost_tickets();
            ensure!(lost.len() == 1, "{} tickets", lost.len());
            // And again.
            drop(lost);
            return Ok(());
        }
        _ => {}
    }
    let api = to.peer().api();
    let ticket = if step == Step::OtherList && api != Api::Cuda {
        let refused = to.acquire(&mut handoff.acquire, ticket, &[theirs, theirs]).err();
        let (ticket, error) = refused.context("another list was acquired")?.into_parts();
        // If the host waits, it does so first.
        let is_right =
            matches!(error, Error::Mismatch(_)) || waits && matches!(error, Error::Timeout { .. });
        ensure!(is_right, "{error:?}");
        ticket
    } else {
        ticket
    };
    let acquired = to.acquire(&mut handoff.acquire, ticket, &[theirs]);
    if waits {
        let (ticket, error) = acquired.err().context("the work is not done")?.into_parts();
        ensure!(matches!(error, Error::Timeout { .. }), "{error:?}");
        drop(ticket);
        return Ok(());
    }
    let done = acquired?;
    if step == Step::Acquired {
        return to.submit(done);
    }
    // With Vulkan, it is never submitted.
    drop(done.0);
    let lost = handoff.acquire.lost_tickets();
    ensure!(lost.len() == usize::from(api == Api::Vulkan), "{} tickets were lost", lost.len());
    Ok(())
}

/// OpenGL releases, and Vulkan acquires.
fn from_gl(test_gpu: &TestGpu, step: Step, route: Route) -> Result<()> {
    for_each_order(test_gpu, (Api::OpenGl, route), |gpu, order| {
        let from = test_gpu.gl()?;
        let mut stalled = Stalled::new(gpu, test_gpu)?;
        let ours = stalled.endpoint.create_buffer(&DESC, BufferOptions::default())?;
        let theirs = from.endpoint.import_buffer(ours.export()?)?;
        let owner = &stalled.endpoint;
        let options = HandoffOptions { in_flight: 2, ..route.options() };
        let mut handoff = handoff::open(owner, &from.endpoint, owner, options)?;
        from.dispatch(interop_gpu::Kernel::Fill { seed: 3 }, theirs.name(), BYTES, 0)?;
        let (mut ticket, ()) = handoff.release.release(&theirs)?;
        if step == Step::ReleasedTwice {
            let refused = handoff.release.release(&theirs).err().context("released twice")?;
            ensure!(refused.to_string().contains("released already"), "{refused}");
        }
        if step == Step::TicketDropped {
            drop(ticket);
            ticket = handoff.acquire.lost_tickets().pop().context("it was dropped")?;
        }
        if let Step::AcquireFails | Step::SubmitRefused | Step::Panic = step {
            let sync = stalled
                .record(&ours, |commands| Ok(handoff.acquire.acquire(ticket, commands)?))?;
            match step {
                Step::SubmitRefused => {
                    let refused = stalled.submit_by(stalled.other, sync);
                    ensure!(matches!(refused, Err(Error::Mismatch(_))), "{refused:?}");
                }
                _ => drop(sync),
            }
            ticket = handoff.acquire.lost_tickets().pop().context("it was not submitted")?;
        }
        let sync =
            stalled.record(&ours, |commands| Ok(handoff.acquire.acquire(ticket, commands)?))?;
        stalled.submit(sync)?;
        ensure!(handoff.acquire.lost_tickets().is_empty(), "it is acquired");
        stalled.drop_all(boxes(handoff, ours, theirs), order)
    })
}

fn boxes(
    handoff: Handoff<gl::Endpoint, Endpoint>,
    ours: Buffer,
    theirs: gl::Buffer,
) -> Vec<Option<Box<dyn Any>>> {
    let Handoff { release, acquire, .. } = handoff;
    let objects: [Box<dyn Any>; 4] =
        [Box::new(release), Box::new(acquire), Box::new(ours), Box::new(theirs)];
    objects.into_iter().map(Some).collect()
}

/// The README's function: its `?` drops everything while a long fill runs.
fn early_return(test_gpu: &TestGpu) -> Result<()> {
    const LONG: u64 = 64 << 20;
    // At least 20 ms of work.
    let fills = if test_gpu.is_hardware() { 2000 } else { 20 };
    let (gpu, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let mut kept = Vec::new();
    let mut share = |vulkan: &vulkan::Endpoint| -> gpu_interop::Result<()> {
        let buffer = vulkan.create_buffer(&BufferDesc::storage(LONG), BufferOptions::default())?;
        let in_gl = gl.endpoint.import_buffer(buffer.export()?)?;
        let options = HandoffOptions { timeout: SHORT, ..HOST_WAIT.options() };
        let mut to_gl = handoff::open(vulkan, vulkan, &gl.endpoint, options)?;
        let (commands, (ticket, sync)) = gpu.vulkan.record(|commands| {
            let used = BufferAccess::transfer(&buffer);
            // SAFETY: the command buffer is being recorded for this family, and lives until the queue is idle.
            unsafe {
                for value in 0..fills {
                    let (handle, all) = (buffer.handle(), vk::WHOLE_SIZE);
                    gpu.device().cmd_fill_buffer(commands, handle, 0, all, value);
                }
                let family = gpu.vulkan.queue_family();
                to_gl.release.release(VulkanCommands::record(commands, family, used))
            }
        })?;
        let handle = commands.handle();
        kept.push(commands);
        // SAFETY: as above; the queue is locked.
        gpu.vulkan.with_queue(|queue| unsafe { sync.submit(vulkan, queue, &[handle]) })?;
        to_gl.acquire.acquire(ticket, &in_gl)?;
        Ok(())
    };
    for _ in 0..4 {
        let failed = share(&gpu.vulkan.endpoint()?);
        ensure!(matches!(failed, Err(Error::Timeout { .. })), "{failed:?}");
    }
    drop(kept);
    // The device still works.
    let buffer = gpu.endpoint.create_buffer(&DESC, BufferOptions::default())?;
    gpu.upload(buffer.handle(), 0, &oracle::filled(BYTES as usize, 4))?;
    Ok(oracle::check(&gpu.download(buffer.handle(), 0, BYTES)?, 4, &Passes::default())?)
}
