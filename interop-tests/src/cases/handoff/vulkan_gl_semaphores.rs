//! Group E: Vulkan ↔ OpenGL, by semaphores that the app itself waits for and signals.

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
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::{Bound, VulkanContext};

const BYTES: u64 = 256 << 10;
const TURNS: usize = 255;
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    let case = |what: &str, kind: SemaphoreKind, run: fn(&TestGpu, SemaphoreKind) -> Result<()>| {
        let name = format!("vulkan→gl/opaque_fd/semaphore/{what}");
        Case::new(name, move |machine| run(machine, kind))
            .needs(&[Need::Gl, Need::Semaphore(Api::OpenGl, kind)])
    };
    let (binary, timeline) = (SemaphoreKind::Binary, SemaphoreKind::Timeline);
    vec![
        case("one_for_both_ways/binary/46a", binary, one_semaphore),
        case("one_for_both_ways/timeline/47a", timeline, one_semaphore),
        case("the_counter_is_one/47b", timeline, counter),
        case("opengl_waits_before_the_signal/47c", timeline, waits_first),
        case("a_value_too_many_or_too_few/binary/47d", binary, wrong_values),
        case("a_value_too_many_or_too_few/timeline/47d", timeline, wrong_values),
        case("a_value_that_does_not_grow/47e", timeline, stale_value),
    ]
}

/// A semaphore of Vulkan's, and OpenGL's import of it.
fn semaphore(machine: &TestGpu, kind: SemaphoreKind) -> Result<(vulkan::Semaphore, gl::Semaphore)> {
    let ours = machine.vulkan().endpoint.create_semaphore(kind)?;
    let theirs = machine.gl()?.endpoint.import_semaphore(ours.export()?)?;
    ensure!(theirs.kind() == kind, "imported as {:?}", theirs.kind());
    Ok((ours, theirs))
}

/// Waits, when it goes, for all that was submitted: what it stands in front of can go then.
struct Settled<'a> {
    vulkan: &'a VulkanContext,
    gl: &'a GlContext,
    commands: Vec<vk::CommandBuffer>,
    bound: Option<Bound>,
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        self.gl.finish();
        // A lost device has nothing in flight.
        let _ = self.vulkan.vulkan.wait_idle();
        self.vulkan.free_command_buffers(&self.commands);
        self.bound.take().into_iter().for_each(|bound| self.vulkan.unbind(bound));
    }
}

/// 255 turns each: one semaphore carries the payload there and back. Nobody waits on the host.
fn one_semaphore(machine: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let (vulkan, gl) = (machine.vulkan(), machine.gl()?);
    let (ours, theirs) = shared(machine, &BufferDesc::storage(BYTES), BufferOptions::default())?;
    let (semaphore, imported) = semaphore(machine, kind)?;
    // A binary semaphore has no values; a timeline's grow by one with every hop.
    let value = |hop: usize| (kind == SemaphoreKind::Timeline).then_some(hop as u64);
    let commands = vulkan.command_buffers(u32::try_from(TURNS + 1)?)?;
    let bound = Some(vulkan.bind(ours.handle(), BYTES)?);
    let settled = Settled { vulkan, gl, commands, bound };
    let bound = settled.bound.as_ref().context("bound above")?;
    let mut turns = Turns::default();
    for (turn, &command) in settled.commands.iter().enumerate() {
        vulkan.begin(command)?;
        let mut part = SubmitSync::default();
        let stage = vk::PipelineStageFlags::ALL_COMMANDS;
        if turn > 0 {
            acquire(vulkan, command, &ours)?;
            let (semaphore, value) = (semaphore.clone(), value(2 * turn));
            part.waits.push(SemaphoreWait { semaphore, value, stage });
        } else {
            vulkan.record(command, Kernel::Fill { seed: 46 }, bound, 0);
            vulkan.record_barrier(command);
        }
        if turn == TURNS {
            vulkan.submit(command, &part)?;
            break;
        }
        let step = u32::try_from(turn)?;
        vulkan.record(command, Kernel::PingPong { step }, bound, 0);
        release(vulkan, command, &ours)?;
        let (semaphore, there) = (semaphore.clone(), value(2 * turn + 1));
        part.signals.push(SemaphoreSignal { semaphore, value: there });
        vulkan.submit(command, &part)?;

        gl.endpoint.wait(&imported, there, &[&theirs], &[])?;
        gl.dispatch(Kernel::PingPong { step: step + 1000 }, theirs.name(), BYTES, 0)?;
        gl.endpoint.signal(&imported, value(2 * turn + 2), &[&theirs], &[])?;
        if kind == SemaphoreKind::Binary {
            // Vulkan's next wait must not take the signal that OpenGL's wait is for.
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
    // OpenGL's release, and the buffer lives until that is done (`Settled`).
    Ok(unsafe { gpu.endpoint.record_acquire(command, family, &used) }?)
}

fn release(gpu: &VulkanContext, command: vk::CommandBuffer, buffer: &vulkan::Buffer) -> Result<()> {
    let (family, used) = (gpu.vulkan.queue_family(), [BufferAccess::compute(buffer)]);
    // SAFETY: as above; the family owns the buffer, which it made or has acquired.
    Ok(unsafe { gpu.endpoint.record_release(command, family, &used) }?)
}

/// What OpenGL signals Vulkan reads, and what Vulkan's host signals OpenGL sees.
fn counter(machine: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = machine.gl()?;
    let (ours, theirs) = semaphore(machine, kind)?;
    ensure!(ours.value()? == 0, "starts at {}", ours.value()?);
    for value in [1, 3, 7, 1 << 20, 1 << 30] {
        gl.endpoint.signal(&theirs, Some(value), &[], &[])?;
        ours.wait(value, TIMEOUT)?;
        ensure!(ours.value()? == value, "{} after OpenGL signalled {value}", ours.value()?);
        // SAFETY: no signal is pending: the one before has been waited for.
        unsafe { ours.signal(value + 1) }?;
        gl.endpoint.wait(&theirs, Some(value + 1), &[], &[])?;
        gl.endpoint.fence()?.wait(TIMEOUT).context("what the host has signalled")?;
    }
    Ok(())
}

/// A timeline semaphore may be waited for before anybody has submitted its signal.
fn waits_first(machine: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = machine.gl()?;
    let (ours, theirs) = semaphore(machine, kind)?;
    let (signal, delay) = (ours.clone(), Duration::from_millis(200));
    std::thread::scope(|scope| {
        // On a thread of its own, so that it comes even where OpenGL makes this one wait.
        let signalled = scope.spawn(move || {
            std::thread::sleep(delay);
            // SAFETY: nothing else signals this semaphore.
            unsafe { signal.signal(1) }
        });
        let start = std::time::Instant::now();
        gl.endpoint.wait(&theirs, Some(1), &[], &[])?;
        gl.endpoint.fence()?.wait(TIMEOUT).context("OpenGL does not see the signal")?;
        ensure!(start.elapsed() >= delay / 2, "OpenGL went on after {:?}", start.elapsed());
        match signalled.join() {
            Ok(signalled) => Ok(signalled?),
            Err(_) => bail!("the thread that signals panicked"),
        }
    })
}

/// A timeline semaphore is not waited for without a value, nor a binary one with; OpenGL is not asked.
fn wrong_values(machine: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = machine.gl()?;
    let (_ours, theirs) = semaphore(machine, kind)?;
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
    gl.check("what was refused")
}

/// The counter only grows: a smaller value, or the same, is refused before OpenGL sees it.
fn stale_value(machine: &TestGpu, kind: SemaphoreKind) -> Result<()> {
    let gl = machine.gl()?;
    let (ours, theirs) = semaphore(machine, kind)?;
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
