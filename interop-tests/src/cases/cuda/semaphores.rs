//! Family F: Vulkan's semaphores in CUDA streams, and the handoffs to and from CUDA by each route.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use gpu_interop::SemaphoreKind::{Binary, Timeline};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::{Rejected, SyncMethod, SyncPlan};
use gpu_interop::cudarc::driver::{CudaStream, sys};
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::tune::Route;
use gpu_interop::vulkan::{FencePool, SemaphoreSignal, SemaphoreWait, SubmitSync};
use gpu_interop::{Api, BufferDesc, Error, vulkan};

use crate::cases::support::payload_user::{PayloadUser, RoundTrip, there_and_back};
use crate::cases::support::routes::{BINARY, CaseRoute as _, HOST_WAIT, HOST_WAIT_SPIN, TIMELINE};
use crate::cases::support::stalled_queue::StalledQueue;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

/// Long enough for a stream that does not wait to finish.
const A_WHILE: Duration = Duration::from_millis(30);
const TIMEOUT: Duration = Duration::from_secs(10);
const HANDOFF_BYTES: u64 = 256 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let binary = Need::Semaphore(Api::Cuda, Binary);
    let timeline = Need::Semaphore(Api::Cuda, Timeline);
    let mut cases = vec![
        Case::new("vulkan→host/none/fence/not_done_until_the_work_is/52", fence_of_held_work),
        Case::new(
            "vulkan→cuda/opaque_fd/binary/not_ready_until_signalled/52",
            binary_is_waited_for,
        )
        .needs(&[Need::Cuda, binary]),
        Case::new(
            "vulkan→cuda/opaque_fd/binary/alternating_wait_and_signal/52",
            binary_again_and_again,
        )
        .needs(&[Need::Cuda, binary]),
        Case::new("vulkan→cuda/opaque_fd/timeline/wait_and_signal_pairs/53", timeline_pairs)
            .needs(&[Need::Cuda, timeline]),
        Case::new("vulkan→cuda→vulkan/opaque_fd/timeline/on_the_gpu_alone/53", timeline_chain)
            .needs(&[Need::Cuda, timeline]),
        Case::new("vulkan→cuda→vulkan/opaque_fd/both_kinds/in_one_call/53", both_in_one_call)
            .needs(&[Need::Cuda, binary, timeline]),
    ];
    for (pair, apis, run) in PAIRS {
        for (route_name, route) in [
            ("by_timeline", TIMELINE),
            ("by_binary", BINARY),
            ("by_blocking_host", HOST_WAIT),
            ("by_spinning_host", HOST_WAIT_SPIN),
        ] {
            let name = format!("{pair}/opaque_fd/buffer/{route_name}/50");
            let case = Case::new(name, move |test_gpu| handoffs(test_gpu, run, route));
            let needs: Vec<_> = apis.iter().flat_map(|api| route.needs(*api)).collect();
            cases.push(case.needs(&needs));
        }
    }
    cases
}

type RunTrip = fn(&TestGpu, RoundTrip) -> Result<[SyncPlan; 2]>;

/// Round trips, and the APIs that need semaphores besides Vulkan, which owns them.
const PAIRS: [(&str, &[Api], RunTrip); 3] = [
    ("vulkan→cuda→vulkan", &[Api::Cuda], vulkan_cuda),
    ("cuda→vulkan→cuda", &[Api::Cuda], cuda_vulkan),
    ("cuda→gl→cuda", &[Api::Cuda, Api::OpenGl], cuda_gl),
];

/// The payload passes both ways by the requested route, with at most two releases in flight, so that
/// binary semaphores alternate.
fn handoffs(test_gpu: &TestGpu, run: RunTrip, route: Route) -> Result<()> {
    let options = HandoffOptions { in_flight: 2, ..route.options() };
    for plan in run(test_gpu, RoundTrip { options, ..RoundTrip::of(50) })? {
        ensure!(Some(plan.method) == route.method(), "{plan:?}");
        let better = SyncMethod::ORDER.iter().take_while(|better| **better != plan.method);
        ensure!(plan.rejected.len() == better.count(), "{plan:?}");
        let unwanted = |(_, why): &(_, Rejected)| *why == Rejected::NotWanted;
        ensure!(plan.rejected.iter().all(unwanted), "{plan:?}");
    }
    Ok(())
}

fn vulkan_cuda(test_gpu: &TestGpu, trip: RoundTrip) -> Result<[SyncPlan; 2]> {
    let mut vulkan = PayloadUser::create(test_gpu.vulkan(), HANDOFF_BYTES)?;
    let mut cuda = PayloadUser::import(test_gpu.cuda()?, vulkan.export()?)?;
    there_and_back(&test_gpu.vulkan().endpoint, (&mut vulkan, &mut cuda), trip)
}

fn cuda_vulkan(test_gpu: &TestGpu, trip: RoundTrip) -> Result<[SyncPlan; 2]> {
    let mut vulkan = PayloadUser::create(test_gpu.vulkan(), HANDOFF_BYTES)?;
    let mut cuda = PayloadUser::import(test_gpu.cuda()?, vulkan.export()?)?;
    there_and_back(&test_gpu.vulkan().endpoint, (&mut cuda, &mut vulkan), trip)
}

/// Neither of the two is Vulkan, which allocated the memory, owns the semaphores, and takes no part.
fn cuda_gl(test_gpu: &TestGpu, trip: RoundTrip) -> Result<[SyncPlan; 2]> {
    let vulkan = PayloadUser::create(test_gpu.vulkan(), HANDOFF_BYTES)?;
    let mut cuda = PayloadUser::import(test_gpu.cuda()?, vulkan.export()?)?;
    let mut gl = PayloadUser::import(test_gpu.gl()?, vulkan.export()?)?;
    there_and_back(&test_gpu.vulkan().endpoint, (&mut cuda, &mut gl), trip)
}

/// On the host: until the work before it is done, a fence is not signalled, and a wait for it times out.
fn fence_of_held_work(test_gpu: &TestGpu) -> Result<()> {
    let vulkan = test_gpu.vulkan();
    let mut sync = SubmitSync::default();
    let fence = FencePool::new(&vulkan.endpoint)?.next(&mut sync)?;
    let held = HeldSubmit::new(vulkan, sync)?;
    ensure!(!fence.is_signaled()?, "before the work");
    let waited = fence.wait(A_WHILE);
    ensure!(matches!(waited, Err(Error::Timeout { .. })), "{waited:?}");
    held.release()?;
    fence.wait(TIMEOUT)?;
    ensure!(fence.is_signaled()?, "after the work");
    Ok(())
}

/// A stream that waits for a binary semaphore is not ready while the submit that signals it is held
/// back, and ready after it.
fn binary_is_waited_for(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Binary)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    let held = HeldSubmit::new(vulkan, signals(vec![(&semaphore, None)]))?;
    cuda.endpoint.wait(&cuda.stream, &there, None)?;
    let fence = cuda.endpoint.fence(&cuda.stream)?;
    thread::sleep(A_WHILE);
    ensure!(!fence.is_signaled()?, "CUDA did not wait");
    ensure!(query(&cuda.stream) == sys::CUresult::CUDA_ERROR_NOT_READY);
    held.release()?;
    fence.wait(TIMEOUT)?;
    ensure!(query(&cuda.stream) == sys::CUresult::CUDA_SUCCESS);
    Ok(())
}

/// A wait consumes the signal: the next wait is for the next signal.
fn binary_again_and_again(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Binary)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    for round in 0..10 {
        let held = HeldSubmit::new(vulkan, signals(vec![(&semaphore, None)]))?;
        cuda.endpoint.wait(&cuda.stream, &there, None)?;
        let fence = cuda.endpoint.fence(&cuda.stream)?;
        thread::sleep(Duration::from_millis(2));
        ensure!(
            !fence.is_signaled()?,
            "round {round}: the signal of the round before was not consumed"
        );
        held.release()?;
        fence.wait(TIMEOUT)?;
    }
    Ok(())
}

/// CUDA waits for one value and signals the next; the host signals the first and reads the second by Vulkan.
fn timeline_pairs(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Timeline)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    let _end = SignalOnDrop(&semaphore);
    let mut last = 0;
    for (wait, signal) in [(1, 2), (3, 4), (5, 1000), (1001, 1 << 20), (1 << 24, 1 << 30)] {
        cuda.endpoint.wait(&cuda.stream, &there, Some(wait))?;
        cuda.endpoint.signal(&cuda.stream, &there, Some(signal))?;
        let fence = cuda.endpoint.fence(&cuda.stream)?;
        thread::sleep(A_WHILE);
        ensure!(!fence.is_signaled()? && semaphore.value()? == last, "CUDA did not wait: {wait}");
        // SAFETY: the only pending signal, CUDA's, has a greater value.
        unsafe { semaphore.signal(wait) }?;
        semaphore.wait(signal, TIMEOUT)?;
        ensure!(semaphore.value()? == signal, "{} instead of {signal}", semaphore.value()?);
        fence.wait(TIMEOUT)?;
        last = signal;
    }
    Ok(())
}

/// Both wait for and signal one timeline in a chain that is submitted before its first value is signalled.
/// The host takes no part after that.
fn timeline_chain(test_gpu: &TestGpu) -> Result<()> {
    const LINKS: u64 = 20;
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let semaphore = vulkan.endpoint.create_semaphore(Timeline)?;
    let there = cuda.endpoint.import_semaphore(semaphore.export()?)?;
    let _end = SignalOnDrop(&semaphore);
    for value in (1..).step_by(3).take(LINKS as usize) {
        cuda.endpoint.wait(&cuda.stream, &there, Some(value))?;
        cuda.endpoint.signal(&cuda.stream, &there, Some(value + 1))?;
        let mut sync = signals(vec![(&semaphore, Some(value + 3))]);
        sync.merge(SubmitSync::new(vec![wait_for(&semaphore, Some(value + 1))], Vec::new()));
        submit(vulkan, sync)?;
    }
    thread::sleep(A_WHILE);
    ensure!(semaphore.value()? == 0, "{} before the first signal", semaphore.value()?);
    // SAFETY: all pending signals have greater values.
    unsafe { semaphore.signal(1) }?;
    semaphore.wait(3 * LINKS + 1, TIMEOUT)?;
    cuda.stream.synchronize()?;
    Ok(vulkan.vulkan.wait_idle()?)
}

/// One call waits for a binary and a timeline semaphore, another signals both; the kernel between them is
/// done once Vulkan has waited.
fn both_in_one_call(test_gpu: &TestGpu) -> Result<()> {
    const BYTES: u64 = 64 << 10;
    let (vulkan, cuda) = (test_gpu.vulkan(), test_gpu.cuda()?);
    let made = vulkan.endpoint.create_buffer(&BufferDesc::storage(BYTES), Default::default())?;
    let mut imported = cuda.endpoint.import_buffer(made.export()?)?;
    let create = |kind| vulkan.endpoint.create_semaphore(kind);
    let (there, back, counter) = (create(Binary)?, create(Binary)?, create(Timeline)?);
    let import = |semaphore: &vulkan::Semaphore| -> Result<_> {
        Ok(cuda.endpoint.import_semaphore(semaphore.export()?)?)
    };
    let (waited, signalled, counted) = (import(&there)?, import(&back)?, import(&counter)?);

    let held = HeldSubmit::new(vulkan, signals(vec![(&there, None), (&counter, Some(1))]))?;
    cuda.endpoint.wait_many(&cuda.stream, &[(&waited, None), (&counted, Some(1))])?;
    cuda.launch(Kernel::Fill { seed: 5 }, &mut imported.as_view_mut::<u8>()?, 0)?;
    cuda.endpoint.signal_many(&cuda.stream, &[(&counted, Some(2)), (&signalled, None)])?;
    let fence = cuda.endpoint.fence(&cuda.stream)?;
    thread::sleep(A_WHILE);
    ensure!(!fence.is_signaled()? && counter.value()? == 0, "CUDA did not wait");
    held.release()?;
    fence.wait(TIMEOUT)?;
    counter.wait(2, TIMEOUT)?;
    let waits = vec![wait_for(&counter, Some(2)), wait_for(&back, None)];
    submit(vulkan, SubmitSync::new(waits, Vec::new()))?;
    let data = vulkan.download(made.handle(), 0, BYTES)?;
    oracle::check(&data, 5, &Passes::default())?;
    ensure!(counter.value()? == 2, "{} at the end", counter.value()?);
    Ok(())
}

fn signals(signals: Vec<(&vulkan::Semaphore, Option<u64>)>) -> SubmitSync {
    let signal = |(semaphore, value): (&vulkan::Semaphore, _)| SemaphoreSignal {
        semaphore: semaphore.clone(),
        value,
    };
    SubmitSync::new(Vec::new(), signals.into_iter().map(signal).collect())
}

fn wait_for(semaphore: &vulkan::Semaphore, value: Option<u64>) -> SemaphoreWait {
    let stage = vk::PipelineStageFlags::ALL_COMMANDS;
    SemaphoreWait { semaphore: semaphore.clone(), value, stage }
}

/// Submits the waits and signals of `sync`, and no commands.
fn submit(vulkan: &VulkanContext, sync: SubmitSync) -> Result<()> {
    // SAFETY: the queue is locked; the cases wait until the device is idle before the semaphores are dropped.
    vulkan.vulkan.with_queue(|queue| unsafe { sync.submit(&vulkan.endpoint, queue, &[]) })?;
    Ok(())
}

/// Returns the stream's state.
fn query(stream: &CudaStream) -> sys::CUresult {
    // SAFETY: the stream is alive, so that libcuda is loaded.
    unsafe { sys::cuStreamQuery(stream.cu_stream()) }
}

/// Signals a large value when it is dropped, so that a failed case leaves no stream and no queue waiting for
/// the timeline.
pub(super) struct SignalOnDrop<'a>(pub(super) &'a vulkan::Semaphore);

impl Drop for SignalOnDrop<'_> {
    fn drop(&mut self) {
        // SAFETY: no signal is pending in a case that passed. In one that failed, a later signal of a smaller
        // value would be invalid, which is better than a queue that never ends.
        let _ = unsafe { self.0.signal((1 << 31) - 1) };
    }
}

/// A submit that waits in the queue until it is released.
struct HeldSubmit<'a> {
    held: StalledQueue<'a>,
}

impl<'a> HeldSubmit<'a> {
    fn new(gpu: &'a VulkanContext, sync: SubmitSync) -> Result<Self> {
        let submit = Self { held: StalledQueue::new(gpu)? };
        let command = gpu.command_buffers(1)?[0];
        gpu.begin(command)?;
        gpu.submit(command, sync)?;
        Ok(submit)
    }

    fn release(&self) -> Result<()> {
        self.held.gate().open()
    }
}
