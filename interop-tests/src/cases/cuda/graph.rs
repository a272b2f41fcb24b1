//! Family F: handoffs in CUDA graphs, which are captured once and launched many times.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::SemaphoreKind::{Binary, Timeline};
use gpu_interop::cuda::{self, SemaphoreNode};
use gpu_interop::cudarc::driver::{CudaGraph, DriverError, result, sys};
use gpu_interop::handoff::{self, Acquirer, GraphHandoff, Handoff, HandoffOptions, Releaser};
use gpu_interop::tune::Route;
use gpu_interop::{Api, BufferDesc, Error, vulkan};

use crate::cases::cuda::capture::{Captured, own_stream};
use crate::cases::cuda::semaphores::SignalOnDrop;
use crate::cases::support::payload_user::PayloadUser;
use crate::cases::support::routes::{BINARY, CaseRoute as _, HOST_WAIT, TIMELINE};
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::oracle::{self, Passes};

use sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as THREAD_LOCAL;

const TIMEOUT: Duration = Duration::from_secs(10);
const BYTES: u64 = 64 << 10;
const SEED: u32 = 7;
/// What the kernel of every graph adds; Vulkan's steps differ from it and from each other.
const CUDA_STEP: u32 = 1 << 20;

pub(crate) fn cases() -> Vec<Case> {
    let (timeline, binary) =
        (Need::Semaphore(Api::Cuda, Timeline), Need::Semaphore(Api::Cuda, Binary));
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>, needs: &[Need]| {
        let name = format!("vulkan→cuda→vulkan/opaque_fd/graph/{what}/53d");
        Case::new(name, run).needs(&[Need::Cuda]).needs(needs)
    };
    let mut cases = vec![
        case("cuda_owns_the_payload_first", cuda_first, &[timeline]),
        case("failed_launches_give_the_ticket_back", failures, &[timeline, binary]),
        case("dropped_in_any_order", drops, &[timeline]),
        case("built_by_hand", by_hand, &[timeline]),
        case("a_fence_of_a_timelines_value", value_fence, &[timeline, binary]),
    ];
    for (route, name) in [(TIMELINE, "timeline"), (BINARY, "binary"), (HOST_WAIT, "host_wait")] {
        let name = format!("vulkan→cuda→vulkan/opaque_fd/graph/1000_replays_by_{name}/53d");
        let run = move |test_gpu: &TestGpu| replays(test_gpu, route);
        cases.push(Case::new(name, run).needs(&route.needs(Api::Cuda)));
    }
    cases
}

type ToCuda = Handoff<vulkan::Endpoint, cuda::Endpoint>;
type ToVulkan = Handoff<cuda::Endpoint, vulkan::Endpoint>;

fn open(
    test_gpu: &TestGpu,
    cuda: &CudaContext,
    options: HandoffOptions,
) -> Result<(ToCuda, ToVulkan)> {
    let (vulkan, cuda) = (&test_gpu.vulkan().endpoint, &cuda.endpoint);
    let there = handoff::open(vulkan, vulkan, cuda, options)?;
    Ok((there, handoff::open(vulkan, cuda, vulkan, options)?))
}

/// Captures a graph that acquires the buffer, changes it and releases it. The graph keeps the memory.
fn captured(
    cuda: &CudaContext,
    buffer: cuda::Buffer,
    acquirer: Acquirer<cuda::Endpoint>,
    releaser: Releaser<cuda::Endpoint>,
) -> Result<(CudaGraph, GraphHandoff)> {
    let captured = Captured::begin(&cuda.stream, THREAD_LOCAL)?;
    let acquired = acquirer.capture(&cuda.stream)?;
    buffer.memory().keep_in_capture(&cuda.stream)?;
    let step = Kernel::PingPong { step: CUDA_STEP };
    // SAFETY: the graph keeps the memory, and each launch has acquired it.
    unsafe { cuda.launch_at(step, buffer.device_ptr(), BYTES, 0) }?;
    let handoff = acquired.release(releaser, &cuda.stream)?;
    Ok((captured.end()?, handoff))
}

/// Vulkan and the graph change the payload in turns. No two passes commute, so that a pass that is lost,
/// doubled, or reads what is old changes every word for good.
fn replays(test_gpu: &TestGpu, route: Route) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let options = HandoffOptions { in_flight: 2, ..route.options() };
    let (mut there, mut back) = open(test_gpu, &cuda, options)?;
    ensure!(Some(there.plan.method) == route.method(), "{:?}", there.plan);
    let mut user = PayloadUser::create(vulkan, BYTES)?;
    let buffer = cuda.endpoint.import_buffer(user.export()?)?;
    let (graph, mut handoff) = captured(&cuda, buffer, there.acquire, back.release)?;

    user.run(Kernel::Fill { seed: SEED })?;
    let mut turns = Passes::default();
    for step in 1..=1000 {
        user.run(Kernel::PingPong { step })?;
        turns.then(step);
        let ticket = user.release(&mut there.release)?;
        // SAFETY: the executable graph is that of the capture; nothing else uses it.
        let ticket = unsafe {
            let launch = || graph.launch();
            handoff.replay(graph.cu_graph_exec(), &cuda.stream, Some(ticket), launch)
        }?;
        ensure!(ticket.sequence() == u64::from(step), "{ticket:?}");
        turns.then(CUDA_STEP);
        user.acquire(&mut back.acquire, ticket)?;
        if step % 50 == 0 {
            oracle::check(&user.read()?, SEED, &turns).with_context(|| format!("step {step}"))?;
        }
    }
    user.finish()?;
    cuda.stream.synchronize()?;
    drop((handoff, graph));
    // What the graph kept is dropped by a later call.
    drop(cuda.endpoint.create_buffer(&BufferDesc::storage(BYTES))?);
    Ok(cuda.cuda.context().check_err()?)
}

/// The first launch needs no ticket.
fn cuda_first(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let (mut there, mut back) = open(test_gpu, &cuda, HandoffOptions::default())?;
    let mut user = PayloadUser::create(vulkan, BYTES)?;
    let mut buffer = cuda.endpoint.import_buffer(user.export()?)?;
    cuda.stream
        .memcpy_htod(&oracle::filled(BYTES as usize, SEED), &mut buffer.as_view_mut::<u8>()?)?;
    let (graph, mut handoff) = captured(&cuda, buffer, there.acquire, back.release)?;
    let (mut turns, mut ticket) = (Passes::default(), None);
    for step in 1..=5 {
        // SAFETY: the executable graph is that of the capture; nothing else uses it.
        let released = unsafe {
            handoff.replay(graph.cu_graph_exec(), &cuda.stream, ticket, || graph.launch())
        }?;
        turns.then(CUDA_STEP);
        user.acquire(&mut back.acquire, released)?;
        oracle::check(&user.read()?, SEED, &turns).with_context(|| format!("step {step}"))?;
        user.run(Kernel::PingPong { step })?;
        turns.then(step);
        ticket = Some(user.release(&mut there.release)?);
    }
    user.finish()?;
    drop(ticket);
    ensure!(handoff.lost_tickets().len() == 1);
    Ok(cuda.cuda.context().check_err()?)
}

/// A ticket of another handoff, a launch that fails, and no ticket for a binary semaphore: refused, and
/// nothing is released.
fn failures(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let stream = &cuda.stream;
    let (mut there, mut back) = open(test_gpu, &cuda, HandoffOptions::default())?;
    let (mut foreign, _) = open(test_gpu, &cuda, HandoffOptions::default())?;
    let mut user = PayloadUser::create(vulkan, BYTES)?;
    let buffer = cuda.endpoint.import_buffer(user.export()?)?;
    // Not captured: the end comes back.
    let refused = there.acquire.capture(stream).err().context("nothing is captured")?;
    let (acquirer, error) = refused.into_parts();
    ensure!(matches!(&error, Error::Invalid(i) if i.help.is_some()), "{error:?}");
    let (graph, mut handoff) = captured(&cuda, buffer, acquirer, back.release)?;
    let exec = graph.cu_graph_exec();

    let mut other = PayloadUser::create(vulkan, BYTES)?;
    let ticket = other.release(&mut foreign.release)?;
    // SAFETY: here and below, the executable graph is that of the capture; nothing else uses it.
    let refused = unsafe { handoff.replay(exec, stream, Some(ticket), failing_launch) };
    let (ticket, error) = refused.err().context("another handoff's ticket")?.into_parts();
    ensure!(matches!(error, Error::Mismatch(_)), "{error:?}");
    foreign.acquire.acquire(ticket.context("it comes back")?, stream)?;

    user.run(Kernel::Fill { seed: SEED })?;
    let ticket = user.release(&mut there.release)?;
    // SAFETY: as above.
    let failed = unsafe { handoff.replay(exec, stream, Some(ticket), failing_launch) };
    let (ticket, error) = failed.err().context("the launch failed")?.into_parts();
    ensure!(matches!(&error, Error::Driver(d) if d.call == "cuGraphLaunch"), "{error:?}");
    // SAFETY: as above.
    // SAFETY: as above.
    let panics = || unsafe { handoff.replay(exec, stream, ticket, || panic!("a launch panics")) };
    ensure!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    let ticket = handoff.lost_tickets().pop();
    ensure!(ticket.is_some(), "the ticket is gone");
    // SAFETY: as above.
    let ticket = unsafe { handoff.replay(exec, stream, ticket, || graph.launch()) }?;
    // The launch that panicked may have signalled the first value; the failed one has not.
    ensure!(ticket.sequence() == 2, "{ticket:?}");
    // One release may be in flight, and the other side has not acquired it.
    // SAFETY: as above.
    let second = unsafe { handoff.replay(exec, stream, None, failing_launch) };
    ensure!(matches!(second.err().map(Error::from), Some(Error::Invalid(_))));
    user.acquire(&mut back.acquire, ticket)?;
    let mut turns = Passes::default();
    turns.then(CUDA_STEP);
    oracle::check(&user.read()?, SEED, &turns)?;

    let (there, back) = open(test_gpu, &cuda, BINARY.options())?;
    let buffer = cuda.endpoint.import_buffer(user.export()?)?;
    let (graph, mut handoff) = captured(&cuda, buffer, there.acquire, back.release)?;
    // SAFETY: as above.
    let refused = unsafe { handoff.replay(graph.cu_graph_exec(), stream, None, failing_launch) };
    ensure!(matches!(refused.err().map(Error::from), Some(Error::Invalid(i)) if i.help.is_some()));
    Ok(cuda.cuda.context().check_err()?)
}

/// A launch that fails.
fn failing_launch() -> Result<(), DriverError> {
    Err(DriverError(sys::CUresult::CUDA_ERROR_LAUNCH_FAILED))
}

/// The graph, the handoff and the memory are dropped in every order while the last launch may still run.
fn drops(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    for order in 0..3 {
        let (mut there, mut back) = open(test_gpu, &cuda, HandoffOptions::default())?;
        let mut user = PayloadUser::create(vulkan, BYTES)?;
        let buffer = cuda.endpoint.import_buffer(user.export()?)?;
        let (graph, mut handoff) = captured(&cuda, buffer, there.acquire, back.release)?;
        user.run(Kernel::Fill { seed: SEED })?;
        let ticket = user.release(&mut there.release)?;
        // SAFETY: the executable graph is that of the capture; nothing else uses it.
        let ticket = unsafe {
            let launch = || graph.launch();
            handoff.replay(graph.cu_graph_exec(), &cuda.stream, Some(ticket), launch)
        }?;
        match order {
            0 => drop((handoff, graph)),
            1 => drop((graph, handoff)),
            _ => {
                let (acquirer, releaser) = handoff.into_ends();
                drop((releaser, graph, acquirer));
            }
        }
        user.acquire(&mut back.acquire, ticket)?;
        let mut turns = Passes::default();
        turns.then(CUDA_STEP);
        oracle::check(&user.read()?, SEED, &turns).with_context(|| format!("order {order}"))?;
        user.finish()?;
        cuda.cuda.context().check_err()?;
    }
    Ok(())
}

/// A graph whose nodes are added by hand, with other values for each launch.
fn by_hand(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let counter = vulkan.endpoint.create_semaphore(Timeline)?;
    let there = cuda.endpoint.import_semaphore(counter.export()?)?;
    let _end = SignalOnDrop(&counter);
    let mut graph = ptr::null_mut();
    // SAFETY: the context is current on this thread, and `graph` is writable.
    let created = unsafe { sys::cuGraphCreate(&mut graph, 0) };
    ensure!(created == sys::CUresult::CUDA_SUCCESS, "{created:?}");
    let nodes = || -> Result<[SemaphoreNode; 2]> {
        // SAFETY: the graph is valid, used by this thread alone, and has the node.
        unsafe {
            let wait = cuda.endpoint.add_wait_node(graph, &[], &there, Some(1))?;
            let signal = cuda.endpoint.add_signal_node(graph, &[wait.handle()], &there, Some(2))?;
            Ok([wait, signal])
        }
    };
    let [wait, signal] = nodes()?;
    // SAFETY: the graph is valid.
    let exec = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) }?;
    for value in (1..300).step_by(2) {
        // SAFETY: the executable graph is that of the nodes' graph; this thread alone uses both, and the
        // semaphore outlives the launches.
        unsafe {
            wait.set(exec, &there, Some(value))?;
            signal.set(exec, &there, Some(value + 1))?;
            result::graph::launch(exec, cuda.stream.cu_stream())?;
        }
        ensure!(counter.value()? == value - 1, "the graph did not wait for {value}");
        // SAFETY: the only pending signal, CUDA's, has a greater value.
        unsafe { counter.signal(value) }?;
        counter.wait(value + 1, TIMEOUT)?;
    }
    cuda.stream.synchronize()?;
    // The graph keeps the semaphore.
    drop(there);
    // SAFETY: both are valid, and their launches are done.
    unsafe {
        result::graph::exec_destroy(exec)?;
        result::graph::destroy(graph)?;
    }
    Ok(cuda.cuda.context().check_err()?)
}

/// CUDA's fence of a timeline's value is signalled once another API has signalled the value.
fn value_fence(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let counter = vulkan.endpoint.create_semaphore(Timeline)?;
    let there = cuda.endpoint.import_semaphore(counter.export()?)?;
    let _end = SignalOnDrop(&counter);
    let [third, seventh] = [there.fence(3)?, there.fence(7)?];
    ensure!(!third.is_signaled()? && !seventh.is_signaled()?);
    // SAFETY: no signal is pending.
    unsafe { counter.signal(4) }?;
    third.wait(TIMEOUT)?;
    ensure!(!seventh.is_signaled()?, "4 is less than 7");
    cuda.endpoint.signal(&cuda.stream, &there, Some(7))?;
    seventh.wait(TIMEOUT)?;
    there.fence(5)?.wait(TIMEOUT)?;
    let binary = vulkan.endpoint.create_semaphore(Binary)?;
    let refused = cuda.endpoint.import_semaphore(binary.export()?)?.fence(1).map(drop);
    match refused {
        Err(Error::Invalid(invalid)) => ensure!(invalid.help.is_some(), "{invalid}"),
        other => bail!("{other:?}"),
    }
    Ok(cuda.cuda.context().check_err()?)
}
