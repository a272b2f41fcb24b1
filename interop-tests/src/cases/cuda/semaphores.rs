//! Group F: Vulkan's semaphores in CUDA streams.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use gpu_interop::SemaphoreKind::{Binary, Timeline};
use gpu_interop::ash::vk;
use gpu_interop::cudarc::driver::{CudaStream, sys};
use gpu_interop::vulkan::{FencePool, SemaphoreSignal, SemaphoreWait, SubmitSync};
use gpu_interop::{Api, BufferDesc, Error, vulkan};

use crate::cases::ring::held::Held;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Turns};
use interop_gpu::vulkan::VulkanContext;

/// Long enough for whoever does not wait to be done.
const A_WHILE: Duration = Duration::from_millis(30);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    let binary = Need::Semaphore(Api::Cuda, Binary);
    let timeline = Need::Semaphore(Api::Cuda, Timeline);
    vec![
        Case::new("vulkan→host/none/fence/not_done_until_the_work_is/52", fence_of_held_work),
        Case::new(
            "vulkan→cuda/opaque_fd/binary/not_ready_until_signalled/52",
            binary_is_waited_for,
        )
        .needs(&[Need::Cuda, binary]),
        Case::new("vulkan→cuda/opaque_fd/binary/a_wait_a_signal/52", binary_again_and_again)
            .needs(&[Need::Cuda, binary]),
        Case::new("vulkan→cuda/opaque_fd/timeline/wait_and_signal_pairs/53", timeline_pairs)
            .needs(&[Need::Cuda, timeline]),
        Case::new("vulkan→cuda→vulkan/opaque_fd/timeline/on_the_gpu_alone/53", timeline_chain)
            .needs(&[Need::Cuda, timeline]),
        Case::new("vulkan→cuda→vulkan/opaque_fd/both_kinds/in_one_call/53", both_in_one_call)
            .needs(&[Need::Cuda, binary, timeline]),
    ]
}

/// The host's own view: a fence is not signalled, and waiting for it ends by its timeout, until the
/// work before it is done.
fn fence_of_held_work(machine: &TestGpu) -> Result<()> {
    let vulkan = machine.vulkan();
    let mut part = SubmitSync::default();
    let fence = FencePool::new(&vulkan.endpoint)?.next(&mut part)?;
    let held = Later::submit(vulkan, part)?;
    ensure!(!fence.is_signaled()?, "before the work");
    let waited = fence.wait(A_WHILE);
    ensure!(matches!(waited, Err(Error::Timeout { .. })), "{waited:?}");
    held.let_go()?;
    fence.wait(TIMEOUT)?;
    ensure!(fence.is_signaled()?, "after the work");
    Ok(())
}

/// A stream that waits for a binary semaphore is not ready while the submit that signals it is held
/// back, and ready after it.
fn binary_is_waited_for(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Binary)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    let held = Later::submit(vulkan, signalling(vec![(&semaphore, None)]))?;
    cuda.endpoint.wait(&cuda.stream, &there, None)?;
    let fence = cuda.endpoint.fence(&cuda.stream)?;
    thread::sleep(A_WHILE);
    ensure!(!fence.is_signaled()?, "CUDA did not wait");
    ensure!(query(&cuda.stream) == sys::CUresult::CUDA_ERROR_NOT_READY);
    held.let_go()?;
    fence.wait(TIMEOUT)?;
    ensure!(query(&cuda.stream) == sys::CUresult::CUDA_SUCCESS);
    Ok(())
}

/// The wait takes the signal away: the next wait is for the next signal.
fn binary_again_and_again(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Binary)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    for round in 0..10 {
        let held = Later::submit(vulkan, signalling(vec![(&semaphore, None)]))?;
        cuda.endpoint.wait(&cuda.stream, &there, None)?;
        let fence = cuda.endpoint.fence(&cuda.stream)?;
        thread::sleep(Duration::from_millis(2));
        ensure!(!fence.is_signaled()?, "round {round}: the last round's signal is still there");
        held.let_go()?;
        fence.wait(TIMEOUT)?;
    }
    Ok(())
}

/// CUDA waits for one value and signals the next; the host signals the one and reads the other back
/// in Vulkan.
fn timeline_pairs(machine: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Timeline)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    let _end = Unstuck(&semaphore);
    let mut last = 0;
    for (wait, signal) in [(1, 2), (3, 4), (5, 1000), (1001, 1 << 20), (1 << 24, 1 << 30)] {
        cuda.endpoint.wait(&cuda.stream, &there, Some(wait))?;
        cuda.endpoint.signal(&cuda.stream, &there, Some(signal))?;
        let fence = cuda.endpoint.fence(&cuda.stream)?;
        thread::sleep(A_WHILE);
        ensure!(!fence.is_signaled()? && semaphore.value()? == last, "CUDA did not wait: {wait}");
        // SAFETY: the only signal that is pending, CUDA's, has a greater value.
        unsafe { semaphore.signal(wait) }?;
        semaphore.wait(signal, TIMEOUT)?;
        ensure!(semaphore.value()? == signal, "{} instead of {signal}", semaphore.value()?);
        fence.wait(TIMEOUT)?;
        last = signal;
    }
    Ok(())
}

/// A chain of waits and signals of one timeline by both, all of it submitted before its first link is
/// signalled; no host takes part after that.
fn timeline_chain(machine: &TestGpu) -> Result<()> {
    const LINKS: u64 = 20;
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Timeline)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    let _end = Unstuck(&semaphore);
    for value in (1..).step_by(3).take(LINKS as usize) {
        cuda.endpoint.wait(&cuda.stream, &there, Some(value))?;
        cuda.endpoint.signal(&cuda.stream, &there, Some(value + 1))?;
        let mut part = signalling(vec![(&semaphore, Some(value + 3))]);
        part.waits.push(waiting(&semaphore, Some(value + 1)));
        submit_nothing(vulkan, &part)?;
    }
    thread::sleep(A_WHILE);
    ensure!(semaphore.value()? == 0, "{} before anybody signalled", semaphore.value()?);
    // SAFETY: all signals that are pending have greater values.
    unsafe { semaphore.signal(1) }?;
    semaphore.wait(3 * LINKS + 1, TIMEOUT)?;
    cuda.stream.synchronize()?;
    Ok(vulkan.vulkan.wait_idle()?)
}

/// One call waits for a binary and a timeline semaphore, another signals both; the kernel between
/// them is done when Vulkan has waited.
fn both_in_one_call(machine: &TestGpu) -> Result<()> {
    const BYTES: u64 = 64 << 10;
    let (vulkan, cuda) = (machine.vulkan(), machine.cuda()?);
    let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(BYTES), Default::default())?;
    let mut imported = cuda.endpoint.import_buffer(made.export()?)?;
    let create = |kind| vulkan.endpoint.create_semaphore(kind);
    let (there, back, counter) = (create(Binary)?, create(Binary)?, create(Timeline)?);
    let import = |semaphore: &vulkan::Semaphore| -> Result<_> {
        Ok(cuda.endpoint.import_semaphore(semaphore.export()?)?)
    };
    let (waited, signalled, counted) = (import(&there)?, import(&back)?, import(&counter)?);

    let held = Later::submit(vulkan, signalling(vec![(&there, None), (&counter, Some(1))]))?;
    cuda.endpoint.wait_many(&cuda.stream, &[(&waited, None), (&counted, Some(1))])?;
    cuda.launch(Kernel::Fill { seed: 5 }, &mut imported.as_view_mut::<u8>()?, 0)?;
    cuda.endpoint.signal_many(&cuda.stream, &[(&counted, Some(2)), (&signalled, None)])?;
    let fence = cuda.endpoint.fence(&cuda.stream)?;
    thread::sleep(A_WHILE);
    ensure!(!fence.is_signaled()? && counter.value()? == 0, "CUDA did not wait");
    held.let_go()?;
    fence.wait(TIMEOUT)?;
    counter.wait(2, TIMEOUT)?;
    let waits = vec![waiting(&counter, Some(2)), waiting(&back, None)];
    submit_nothing(vulkan, &SubmitSync { waits, ..SubmitSync::default() })?;
    let data = vulkan.download(made.handle(), 0, BYTES)?;
    oracle::check(&data, 5, &Turns::default())?;
    ensure!(counter.value()? == 2, "{} at the end", counter.value()?);
    Ok(())
}

fn signalling(signals: Vec<(&vulkan::Semaphore, Option<u64>)>) -> SubmitSync {
    let signal = |(semaphore, value): (&vulkan::Semaphore, _)| SemaphoreSignal {
        semaphore: semaphore.clone(),
        value,
    };
    SubmitSync { signals: signals.into_iter().map(signal).collect(), ..SubmitSync::default() }
}

fn waiting(semaphore: &vulkan::Semaphore, value: Option<u64>) -> SemaphoreWait {
    let stage = vk::PipelineStageFlags::ALL_COMMANDS;
    SemaphoreWait { semaphore: semaphore.clone(), value, stage }
}

/// Submits the waits and signals of `part`, and no commands.
fn submit_nothing(vulkan: &VulkanContext, part: &SubmitSync) -> Result<()> {
    // SAFETY: the queue is guarded; the cases wait until the device is idle before the semaphores go.
    vulkan.vulkan.with_queue(|queue| unsafe { part.submit(&vulkan.endpoint, queue, &[]) })?;
    Ok(())
}

/// What a stream tells of itself.
fn query(stream: &CudaStream) -> sys::CUresult {
    // SAFETY: the stream is alive, and libcuda is there, or there was no stream.
    unsafe { sys::cuStreamQuery(stream.cu_stream()) }
}

/// When it goes, whoever still waits for the timeline goes on: a case that has failed must leave no
/// stream and no queue stuck for those that follow.
pub(crate) struct Unstuck<'a>(pub(crate) &'a vulkan::Semaphore);

impl Drop for Unstuck<'_> {
    fn drop(&mut self) {
        // SAFETY: in a case that has passed no signal is pending; in one that has failed, a value
        // that grows no more is the lesser evil.
        let _ = unsafe { self.0.signal((1 << 31) - 1) };
    }
}

/// A submit that the queue holds back until it is let go.
struct Later<'a> {
    held: Held<'a>,
    // The semaphores live until the submit is done, which `held` waits for.
    _part: SubmitSync,
}

impl<'a> Later<'a> {
    fn submit(gpu: &'a VulkanContext, part: SubmitSync) -> Result<Self> {
        let later = Self { held: Held::hold(gpu)?, _part: part };
        let command = gpu.command_buffers(1)?[0];
        gpu.begin(command)?;
        gpu.submit(command, &later._part)?;
        Ok(later)
    }

    fn let_go(&self) -> Result<()> {
        self.held.gate().open()
    }
}
