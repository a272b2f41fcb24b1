//! Family E: Vulkan ↔ OpenGL, by semaphores that the application itself waits for and signals.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ash::vk;
use gpu_interop::vulkan::{
    BufferAccess, BufferOptions, SemaphoreSignal, SemaphoreWait, SubmitSync,
};
use gpu_interop::{Api, BufferDesc, Error, SemaphoreKind, gl, vulkan};

use crate::cases::opengl::shared;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::gl::GlContext;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::{Bound, VulkanContext};

const BYTES: u64 = 256 << 10;
const TURNS: usize = 255;
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, kind: SemaphoreKind, run: fn(&TestGpu, SemaphoreKind) -> Result<()>| {
        let name = format!("vulkan→gl/opaque_fd/semaphore/{what}");
        Case::new(name, move |test_gpu| run(test_gpu, kind))
            .needs(&[Need::Gl, Need::Semaphore(Api::OpenGl, kind)])
    };
    let (binary, timeline) = (SemaphoreKind::Binary, SemaphoreKind::Timeline);
    vec![
        case("one_for_both_ways/binary/46a", binary, one_semaphore),
        case("one_for_both_ways/timeline/47a", timeline, one_semaphore),
        case("both_apis_read_the_same_counter/47b", timeline, counter),
        case("opengl_waits_before_the_signal/47c", timeline, waits_first),
        case("a_value_too_many_or_too_few/binary/47d", binary, wrong_values),
        case("a_value_too_many_or_too_few/timeline/47d", timeline, wrong_values),
        case("a_value_that_does_not_increase/47e", timeline, stale_value),
    ]
}

/// A semaphore that Vulkan created, and OpenGL's import of it.
fn semaphore(
    test_gpu: &TestGpu,
    kind: SemaphoreKind,
) -> Result<(vulkan::Semaphore, gl::Semaphore)> {
    let ours = test_gpu.vulkan().endpoint.create_semaphore(kind)?;
    let theirs = test_gpu.gl()?.endpoint.import_semaphore(ours.export()?)?;
    ensure!(theirs.kind() == kind, "imported as {:?}", theirs.kind());
    Ok((ours, theirs))
}

/// Submitted work. Its drop waits for all of it, so that what was created before it can be dropped.
struct Work<'a> {
    vulkan: &'a VulkanContext,
    gl: &'a GlContext,
    commands: Vec<vk::CommandBuffer>,
    bound: Option<Bound>,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.gl.finish();
        // A lost device has nothing in flight.
        let _ = self.vulkan.vulkan.wait_idle();
        self.vulkan.free_command_buffers(&self.commands);
        self.bound.take().into_iter().for_each(|bound| self.vulkan.unbind(bound));
    }
}

/// 255 turns each: one semaphore synchronises both ways. With a timeline the host never waits. A binary
/// semaphore has one state, and a wait takes whichever signal it finds, so the host waits until each side
/// has taken the other's signal.
fn one_semaphore(test_gpu: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let (vulkan, gl) = (test_gpu.vulkan(), test_gpu.gl()?);
    let (ours, theirs) = shared(test_gpu, &BufferDesc::storage(BYTES), BufferOptions::default())?;
    let (semaphore, imported) = semaphore(test_gpu, kind)?;
    // A binary semaphore has no values; those of a timeline increase by one with each handoff.
    let value = |handoff: usize| (kind == SemaphoreKind::Timeline).then_some(handoff as u64);
    let commands = vulkan.command_buffers(u32::try_from(TURNS + 1)?)?;
    let bound = Some(vulkan.bind(ours.handle(), BYTES)?);
    let work = Work { vulkan, gl, commands, bound };
    let bound = work.bound.as_ref().context("bound above")?;
    let mut turns = Passes::default();
    for (turn, &command) in work.commands.iter().enumerate() {
        vulkan.begin(command)?;
        let mut sync = SubmitSync::default();
        let stage = vk::PipelineStageFlags::ALL_COMMANDS;
        if turn > 0 {
            acquire(vulkan, command, &ours)?;
            let (semaphore, value) = (semaphore.clone(), value(2 * turn));
            sync.merge(SubmitSync::new(
                vec![SemaphoreWait { semaphore, value, stage }],
                Vec::new(),
            ));
        } else {
            vulkan.record(command, Kernel::Fill { seed: 46 }, bound, 0);
            vulkan.record_barrier(command);
        }
        if turn == TURNS {
            vulkan.submit(command, sync)?;
            break;
        }
        let step = u32::try_from(turn)?;
        vulkan.record(command, Kernel::PingPong { step }, bound, 0);
        release(vulkan, command, &ours)?;
        let (semaphore, there) = (semaphore.clone(), value(2 * turn + 1));
        sync.merge(SubmitSync::new(Vec::new(), vec![SemaphoreSignal { semaphore, value: there }]));
        vulkan.submit(command, sync)?;
        if kind == SemaphoreKind::Binary {
            // OpenGL's wait must not take the signal that this submit waits for.
            vulkan.vulkan.wait_idle()?;
        }

        gl.endpoint.wait(&imported, there, &[&theirs], &[])?;
        gl.dispatch(Kernel::PingPong { step: step + 1000 }, theirs.name(), BYTES, 0)?;
        gl.endpoint.signal(&imported, value(2 * turn + 2), &[&theirs], &[])?;
        if kind == SemaphoreKind::Binary {
            // Vulkan's next wait must not take the signal that OpenGL waits for.
            gl.finish();
        }
        turns.then(step);
        turns.then(step + 1000);
    }
    let read = vulkan.download(ours.handle(), 0, BYTES)?;
    Ok(oracle::check(&read, 46, &turns)?)
}

fn acquire(gpu: &VulkanContext, command: vk::CommandBuffer, buffer: &vulkan::Buffer) -> Result<()> {
    let (family, used) = (gpu.vulkan.queue_family(), [BufferAccess::compute(buffer)]);
    // SAFETY: the command buffer is being recorded for a queue of that family, its submit waits for
    // OpenGL's release, and the buffer lives until that is done (`Work`).
    Ok(unsafe { gpu.endpoint.record_acquire(command, family, &used) }?)
}

fn release(gpu: &VulkanContext, command: vk::CommandBuffer, buffer: &vulkan::Buffer) -> Result<()> {
    let (family, used) = (gpu.vulkan.queue_family(), [BufferAccess::compute(buffer)]);
    // SAFETY: as above; the family owns the buffer, which it created or has acquired.
    Ok(unsafe { gpu.endpoint.record_release(command, family, &used) }?)
}

/// Vulkan reads the value that OpenGL signalled, and OpenGL sees the value that the host signalled.
fn counter(test_gpu: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = test_gpu.gl()?;
    let (ours, theirs) = semaphore(test_gpu, kind)?;
    ensure!(ours.value()? == 0, "the counter starts at {}", ours.value()?);
    for value in [1, 3, 7, 1 << 20, 1 << 30] {
        gl.endpoint.signal(&theirs, Some(value), &[], &[])?;
        ours.wait(value, TIMEOUT)?;
        ensure!(ours.value()? == value, "{} after OpenGL signalled {value}", ours.value()?);
        // SAFETY: no signal is pending: the one before has been waited for.
        unsafe { ours.signal(value + 1) }?;
        gl.endpoint.wait(&theirs, Some(value + 1), &[], &[])?;
        gl.endpoint
            .fence()?
            .wait(TIMEOUT)
            .context("OpenGL does not see what the host signalled")?;
    }
    Ok(())
}

/// A timeline semaphore may be waited for before its signal is submitted.
fn waits_first(test_gpu: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = test_gpu.gl()?;
    let (ours, theirs) = semaphore(test_gpu, kind)?;
    let (signal, delay) = (ours.clone(), Duration::from_millis(200));
    std::thread::scope(|scope| {
        // On a thread of its own, so that it happens even if OpenGL blocks this one.
        let signalled = scope.spawn(move || {
            std::thread::sleep(delay);
            // SAFETY: nothing else signals this semaphore.
            unsafe { signal.signal(1) }
        });
        let start = std::time::Instant::now();
        gl.endpoint.wait(&theirs, Some(1), &[], &[])?;
        gl.endpoint.fence()?.wait(TIMEOUT).context("OpenGL does not see the signal")?;
        ensure!(start.elapsed() >= delay / 2, "OpenGL continued after {:?}", start.elapsed());
        match signalled.join() {
            Ok(signalled) => Ok(signalled?),
            Err(_) => bail!("the thread that signals panicked"),
        }
    })
}

/// A wait for a timeline semaphore without a value, or for a binary one with a value, is refused before
/// OpenGL sees it.
fn wrong_values(test_gpu: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = test_gpu.gl()?;
    let (_ours, theirs) = semaphore(test_gpu, kind)?;
    let wrong = (kind == SemaphoreKind::Binary).then_some(1);
    for refused in
        [gl.endpoint.wait(&theirs, wrong, &[], &[]), gl.endpoint.signal(&theirs, wrong, &[], &[])]
    {
        match refused {
            Err(Error::Invalid(refused)) => {
                ensure!(refused.parameter == "value" && refused.help.is_some(), "{refused}");
            }
            other => bail!("{kind:?} with {wrong:?}: {other:?}"),
        }
    }
    gl.check("a refused call")
}

/// A signal of a smaller value, or of the same, is refused before OpenGL sees it.
fn stale_value(test_gpu: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = test_gpu.gl()?;
    let (ours, theirs) = semaphore(test_gpu, kind)?;
    gl.endpoint.signal(&theirs, Some(5), &[], &[])?;
    ours.wait(5, TIMEOUT)?;
    for value in [0, 4, 5] {
        let refused = gl.endpoint.signal(&theirs, Some(value), &[], &[]);
        ensure!(matches!(refused, Err(Error::Invalid(_))), "OpenGL, {value}: {refused:?}");
        // SAFETY: no signal is pending.
        let refused = unsafe { ours.signal(value) };
        ensure!(matches!(refused, Err(Error::Invalid(_))), "Vulkan, {value}: {refused:?}");
    }
    gl.endpoint.signal(&theirs, Some(6), &[], &[])?;
    Ok(ours.wait(6, TIMEOUT)?)
}
