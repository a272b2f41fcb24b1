//! Family E: handoffs that the library submits, that the application submits in its own way, and
//! that are not submitted yet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::handoff::{self, Handoff, HandoffOptions, RoundTrip, Ticket, VulkanCommands};
use gpu_interop::headless::{Commands, Gl, Vulkan};
use gpu_interop::tune::Route;
use gpu_interop::vulkan::{self, Buffer, BufferAccess, BufferOptions, SubmitParts, SubmitSync};
use gpu_interop::{Api, BufferDesc, Error, gl};

use crate::cases::opengl::shared;
use crate::cases::support::contexts::all_access;
use crate::cases::support::routes::{CaseRoute as _, ROUTES};
use crate::harness::{Case, Need, Role, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

const BYTES: u64 = 256 << 10;
const DESC: BufferDesc = BufferDesc::storage(BYTES);
/// More than the submits after which the GPU is queried, so that command buffers are used again.
const ROUNDS: u32 = 40;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for route in ROUTES {
        let mut case = |what: &str, run: fn(&TestGpu, Route) -> Result<()>| {
            let name = format!("vulkan→gl→vulkan/opaque_fd/buffer/{what}/{}", route.name());
            let case = Case::new(format!("{name}/{}", route.row()), move |gpu| run(gpu, route));
            cases.push(case.needs(&route.needs(Api::OpenGl)));
        };
        case("the_library_submits", library_submits);
        case("another_function_submits", other_submit);
        case("the_parts_are_submitted_later", parts_submitted);
    }
    let name = "vulkan→gl/opaque_fd/handoff/a_buffer_that_is_left_out_is_refused/43";
    cases.push(Case::new(name, left_out).needs(&[Need::Gl]));
    let name = "vulkan→gl/opaque_fd/handoff/the_parts_are_never_submitted/59a";
    let never = Case::new(name, |gpu| gpu.run_child(NEVER_SUBMITTED, &[])).needs(&[Need::Gl]);
    cases.push(never.slow());
    cases
}

const NEVER_SUBMITTED: &str = "takes the parts of a submit and never submits them";

/// The child of these cases.
pub(crate) fn roles() -> Vec<Role> {
    vec![(NEVER_SUBMITTED, never_submitted)]
}

/// Submits a kernel alone, as an engine does, with nothing of a handoff.
fn engine(gpu: &VulkanContext, kernel: Kernel, buffer: vk::Buffer) -> Result<()> {
    let bound = gpu.bind(buffer, BYTES)?;
    gpu.run(|command| {
        gpu.record(command, kernel, &bound, 0);
        Ok(())
    })?;
    gpu.unbind(bound);
    Ok(())
}

/// The application owns no submit: the library's own command buffers release and acquire.
fn library_submits(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (gpu, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let (ours, theirs) = shared(test_gpu, &DESC, BufferOptions::default())?;
    let (owner, family) = (&gpu.endpoint, gpu.vulkan.queue_family());
    let RoundTrip { mut there, mut back } =
        handoff::round_trip(owner, &gl.endpoint, route.options())?;
    engine(gpu, Kernel::Fill { seed: 8 }, ours.handle())?;
    let mut passes = Passes::default();
    for step in 1..=ROUNDS {
        engine(gpu, Kernel::PingPong { step }, ours.handle())?;
        passes.then(step);
        // SAFETY: the queue is locked and of this family, which owns the buffer.
        let ticket = gpu.vulkan.with_queue(|queue| unsafe {
            there.release.release_on(queue, family, all_access(&ours))
        })?;
        there.acquire.acquire(ticket, &theirs)?;
        gl.dispatch(Kernel::PingPong { step: 1000 + step }, theirs.name(), BYTES, 0)?;
        passes.then(1000 + step);
        let (ticket, ()) = back.release.release(&theirs)?;
        // SAFETY: as above.
        gpu.vulkan.with_queue(|queue| unsafe {
            back.acquire.acquire_on(ticket, queue, family, all_access(&ours))
        })?;
    }
    Ok(oracle::check(&gpu.download(ours.handle(), 0, BYTES)?, 8, &passes)?)
}

/// `vkQueueSubmit` by the application, with what the library adds. Its failure cancels the handoff.
fn other_submit(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (gpu, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let (ours, theirs) = shared(test_gpu, &DESC, BufferOptions::default())?;
    let owner = &gpu.endpoint;
    let options = HandoffOptions { in_flight: 2, ..route.options() };
    let mut there = handoff::open(owner, owner, &gl.endpoint, options)?;
    engine(gpu, Kernel::Fill { seed: 9 }, ours.handle())?;
    let (_, (ticket, sync)) = release(gpu, &mut there, &ours)?;
    let fails = |_: &SubmitParts| Err(anyhow::anyhow!("the engine fails"));
    // SAFETY: nothing is submitted.
    let failed: Result<()> =
        gpu.vulkan.with_queue(|queue| unsafe { sync.submit_with(owner, queue, fails) });
    ensure!(failed.is_err(), "the error is lost");
    drop(ticket);
    let (commands, (ticket, sync)) = release(gpu, &mut there, &ours)?;
    // SAFETY: the queue is locked, and the submit has all of the parts.
    gpu.vulkan.with_queue(|queue| unsafe {
        sync.submit_with(owner, queue, |parts| submit(gpu, queue, commands.handle(), parts))
    })?;
    there.acquire.acquire(ticket, &theirs)?;
    let read = gl.download(theirs.name(), 0, BYTES)?;
    gpu.vulkan.wait_idle()?;
    drop(commands);
    Ok(oracle::check(&read, 9, &Passes::default())?)
}

/// The application takes the parts, and submits them when it likes.
fn parts_submitted(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (gpu, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let (ours, theirs) = shared(test_gpu, &DESC, BufferOptions::default())?;
    let owner = &gpu.endpoint;
    let mut there = handoff::open(owner, owner, &gl.endpoint, route.options())?;
    for seed in 1..=3 {
        engine(gpu, Kernel::Fill { seed }, ours.handle())?;
        let (commands, (ticket, sync)) = release(gpu, &mut there, &ours)?;
        // SAFETY: the queue is locked until the next submit to it, which has all of the parts.
        gpu.vulkan.with_queue(|queue| unsafe {
            let parts = sync.into_parts(owner, queue)?;
            submit(gpu, queue, commands.handle(), &parts)
        })?;
        there.acquire.acquire(ticket, &theirs)?;
        let read = gl.download(theirs.name(), 0, BYTES)?;
        oracle::check(&read, seed, &Passes::default())?;
        gpu.vulkan.wait_idle()?;
        drop(commands);
        // The next release requires a buffer that Vulkan owns again.
        ours.reclaim();
    }
    Ok(())
}

/// The application takes the parts, and never submits them. The drops end at their timeouts, what the
/// handoff uses is leaked, and the device goes on. In a child, because of the leak.
fn never_submitted() -> Result<()> {
    let selector = std::env::var("INTEROP_DEVICE")?.parse()?;
    let gpu = VulkanContext::new(Vulkan::open(&selector, &TestGpu::options())?)?;
    let gl = Gl::open(&selector)?;
    let (owner, in_gl) = (gpu.vulkan.endpoint()?, gl.endpoint()?);
    let ours = owner.create_buffer(&DESC, BufferOptions::default())?;
    let theirs = in_gl.import_buffer(ours.export()?)?;
    let options = HandoffOptions { timeout: Duration::from_millis(5), ..Default::default() };
    let mut there = handoff::open(&owner, &owner, &in_gl, options)?;
    let (commands, (ticket, sync)) = release(&gpu, &mut there, &ours)?;
    // SAFETY: the commands are never submitted: the handoff's resources are leaked.
    let parts = gpu.vulkan.with_queue(|queue| unsafe { sync.into_parts(&owner, queue) })?;
    ensure!(!parts.signals.is_empty() || parts.fence != vk::Fence::null(), "{parts:?}");
    // With a semaphore, the GPU would wait for the submit.
    let ticket = if there.plan.method == SyncMethod::HostWait {
        let refused = there.acquire.acquire(ticket, &theirs).err();
        let (ticket, error) = refused.context("nothing was submitted")?.into_parts();
        ensure!(matches!(error, Error::Timeout { .. }), "{error:?}");
        ticket
    } else {
        ticket
    };
    drop((parts, commands, ticket));
    drop((there, ours, theirs, owner));
    let other = gpu.endpoint.create_buffer(&DESC, BufferOptions::default())?;
    engine(&gpu, Kernel::Fill { seed: 4 }, other.handle())?;
    Ok(oracle::check(&gpu.download(other.handle(), 0, BYTES)?, 4, &Passes::default())?)
}

/// Records a release of `buffer` to OpenGL.
fn release(
    gpu: &VulkanContext,
    there: &mut Handoff<vulkan::Endpoint, gl::Endpoint>,
    buffer: &Buffer,
) -> gpu_interop::Result<(Commands, (Ticket, SubmitSync))> {
    let family = gpu.vulkan.queue_family();
    gpu.vulkan.record(|commands| {
        // SAFETY: the command buffer is being recorded for this family, and lives until the queue
        // is idle.
        let record = unsafe { VulkanCommands::record(commands, family, all_access(buffer)) };
        there.release.release(record)
    })
}

/// Submits as an application does.
///
/// # Safety
/// The queue is locked.
unsafe fn submit(
    gpu: &VulkanContext,
    queue: vk::Queue,
    commands: vk::CommandBuffer,
    parts: &SubmitParts,
) -> Result<()> {
    ensure!(parts.waits.is_empty(), "a release waits: {parts:?}");
    let semaphores: Vec<_> = parts.signals.iter().map(|one| one.semaphore.handle()).collect();
    let values: Vec<_> = parts.signals.iter().map(|one| one.value.unwrap_or(0)).collect();
    let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
    let buffers = [commands];
    let info = vk::SubmitInfo::default()
        .signal_semaphores(&semaphores)
        .command_buffers(&buffers)
        .push_next(&mut timeline);
    // SAFETY: the caller's promise; the semaphores are of this device.
    Ok(unsafe { gpu.device().queue_submit(queue, &[info], parts.fence) }?)
}

/// An acquire that lists fewer or more buffers than the release is refused, and the ticket stays
/// valid.
fn left_out(test_gpu: &TestGpu) -> Result<()> {
    let (gpu, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let (one, in_gl) = shared(test_gpu, &DESC, BufferOptions::default())?;
    let (two, also_in_gl) = shared(test_gpu, &DESC, BufferOptions::default())?;
    let (owner, family) = (&gpu.endpoint, gpu.vulkan.queue_family());
    let mut there = handoff::open(owner, owner, &gl.endpoint, HandoffOptions::default())?;
    let used = [BufferAccess::transfer(&one), BufferAccess::transfer(&two)];
    // SAFETY: the queue is locked and of this family, which owns the buffers.
    let mut ticket =
        gpu.vulkan.with_queue(|queue| unsafe { there.release.release_on(queue, family, &used) })?;
    for listed in [vec![], vec![&in_gl], vec![&in_gl, &also_in_gl, &in_gl]] {
        let refused = there.acquire.acquire(ticket, &listed).err();
        let (back, error) = refused.context("a list of another length")?.into_parts();
        ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
        ensure!(error.to_string().contains("number of buffers"), "{error}");
        ticket = back;
    }
    Ok(there.acquire.acquire(ticket, &[&in_gl, &also_in_gl])?)
}
