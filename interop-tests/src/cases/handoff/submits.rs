//! Family E: handoffs that the library submits, that the application submits in its own way, and
//! that are not submitted yet.

use anyhow::{Context, Result, ensure};
use gpu_interop::ash::vk;
use gpu_interop::handoff::{self, HandoffOptions, RoundTrip, VulkanCommands};
use gpu_interop::tune::Route;
use gpu_interop::vulkan::{BufferAccess, BufferOptions, SubmitParts};
use gpu_interop::{Api, BufferDesc, Error};

use crate::cases::opengl::shared;
use crate::cases::support::contexts::all_access;
use crate::cases::support::routes::{CaseRoute as _, ROUTES};
use crate::harness::{Case, Need, TestGpu};
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
    }
    let name = "vulkan→gl/opaque_fd/handoff/a_buffer_that_is_left_out_is_refused/43";
    cases.push(Case::new(name, left_out).needs(&[Need::Gl]));
    cases
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
    let (owner, family) = (&gpu.endpoint, gpu.vulkan.queue_family());
    let options = HandoffOptions { in_flight: 2, ..route.options() };
    let mut there = handoff::open(owner, owner, &gl.endpoint, options)?;
    engine(gpu, Kernel::Fill { seed: 9 }, ours.handle())?;
    let mut release = || {
        gpu.vulkan.record(|commands| {
            // SAFETY: the command buffer is being recorded for this family, and lives until the
            // queue is idle.
            let record = unsafe { VulkanCommands::record(commands, family, all_access(&ours)) };
            there.release.release(record)
        })
    };
    let (_, (ticket, sync)) = release()?;
    let fails = |_: &SubmitParts| Err(anyhow::anyhow!("the engine fails"));
    // SAFETY: nothing is submitted.
    let failed: Result<()> =
        gpu.vulkan.with_queue(|queue| unsafe { sync.submit_with(owner, queue, fails) });
    ensure!(failed.is_err(), "the error is lost");
    drop(ticket);
    let (commands, (ticket, sync)) = release()?;
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
