//! Family F: streams that are being captured into a graph. Nothing that the library does touches the capture.

use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::cuda::{Endpoint, TextureOptions};
use gpu_interop::cudarc::driver::{CudaGraph, CudaStream, sys};
use gpu_interop::desc::Tiling;
use gpu_interop::format::Format;
use gpu_interop::handoff::{self, HandoffOptions};
use gpu_interop::vulkan::ImageOptions;
use gpu_interop::{
    Api, BufferDesc, BufferPayload, Error, ImagePayload, Peer as _, SemaphoreKind, SemaphorePayload,
};

use crate::cases::images_cuda::needs;
use crate::cases::images_vulkan::USAGE;
use crate::harness::{Case, Need, TestGpu};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::image::{SIZES, Shape};
use interop_gpu::oracle::{self, Passes};
use interop_gpu::vulkan::VulkanContext;

use sys::CUstreamCaptureMode::{
    self as Mode, CU_STREAM_CAPTURE_MODE_GLOBAL as GLOBAL,
    CU_STREAM_CAPTURE_MODE_RELAXED as RELAXED, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as THREAD_LOCAL,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const BYTES: u64 = 64 << 10;

pub(crate) fn cases() -> Vec<Case> {
    let timeline = Need::Semaphore(Api::Cuda, SemaphoreKind::Timeline);
    let binary = Need::Semaphore(Api::Cuda, SemaphoreKind::Binary);
    let case = |what: &str, run: fn(&TestGpu) -> Result<()>| {
        let case = Case::new(format!("vulkan→cuda/opaque_fd/capture/{what}/53c"), run);
        case.needs(&[Need::Cuda, timeline, binary]).needs(&needs(&[image()]))
    };
    vec![
        case("library_calls_leave_a_global_capture_valid", |gpu| same_thread(gpu, GLOBAL)),
        case("library_calls_leave_a_thread_local_capture_valid", |gpu| {
            same_thread(gpu, THREAD_LOCAL)
        }),
        case("library_calls_leave_a_relaxed_capture_valid", |gpu| same_thread(gpu, RELAXED)),
        case("calls_on_another_thread_leave_a_global_capture_valid", other_thread),
        case("the_threads_own_mode_is_restored", own_mode),
        case("captured_streams_are_refused_and_stay_valid", refused),
        // It compares the GPU's free memory.
        case("drops_during_a_capture_of_a_blocking_stream_are_put_off", put_off).alone(),
    ]
}

fn image() -> gpu_interop::ImageDesc {
    Shape::MipChain.desc(Format::Rgba8Unorm, Tiling::Optimal, SIZES[0], USAGE)
}

/// The suite's CUDA context with a stream of its own, so that no other case sees a stream that is captured.
pub(super) fn own_stream(test_gpu: &TestGpu) -> Result<CudaContext> {
    CudaContext::new(test_gpu.cuda()?.cuda.clone())
}

/// A capture that is ended in any case.
pub(super) struct Captured<'a>(Option<&'a Arc<CudaStream>>);

impl<'a> Captured<'a> {
    pub(super) fn begin(stream: &'a Arc<CudaStream>, mode: Mode) -> Result<Self> {
        stream.begin_capture(mode)?;
        Ok(Self(Some(stream)))
    }

    /// Fails if the capture was invalidated.
    pub(super) fn end(mut self) -> Result<CudaGraph> {
        let stream = self.0.take().context("not ended before")?;
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        graph.context("the capture was invalidated")?.context("a graph")
    }
}

impl Drop for Captured<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0 {
            let _ = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        }
    }
}

/// Payloads of Vulkan's, and what was imported and used before a capture.
struct Given {
    buffer: BufferPayload,
    image: ImagePayload,
    semaphores: [SemaphorePayload; 2],
}

impl Given {
    fn new(vulkan: &VulkanContext) -> Result<Self> {
        let desc = BufferDesc::storage(BYTES);
        let timeline = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
        let binary = vulkan.endpoint.create_semaphore(SemaphoreKind::Binary)?;
        Ok(Self {
            buffer: vulkan.endpoint.create_buffer(&desc, Default::default())?.export()?,
            image: vulkan.endpoint.create_image(&image(), ImageOptions::default())?.export()?,
            semaphores: [timeline.export()?, binary.export()?],
        })
    }

    /// Imports, creates, exports, signals, waits, queries and drops.
    fn use_up(self, endpoint: &Endpoint, stream: &CudaStream) -> Result<()> {
        let buffer = endpoint.import_buffer(self.buffer)?;
        let part = buffer.memory().buffer(256, &BufferDesc::storage(256))?;
        let array = endpoint.import_image(self.image)?;
        let texture = array.level_texture(0, &TextureOptions::texels())?;
        let surface = array.surface(1)?;
        let own = endpoint.create_buffer(&BufferDesc::storage(BYTES))?;
        let again = own.export()?;
        let [timeline, binary] = self.semaphores;
        let timeline = endpoint.import_semaphore(timeline)?;
        let binary = endpoint.import_semaphore(binary)?;
        endpoint.signal_many(stream, &[(&timeline, Some(1)), (&binary, None)])?;
        endpoint.wait_many(stream, &[(&timeline, Some(1)), (&binary, None)])?;
        let fence = endpoint.fence(stream)?;
        fence.wait(TIMEOUT)?;
        ensure!(fence.is_signaled()?);
        timeline.fence(1)?.wait(TIMEOUT)?;
        drop((timeline, binary, fence));
        drop((texture, surface, array, part, buffer, own, again));
        Ok(endpoint.context().check_err()?)
    }
}

/// What was used in streams before the capture, to be dropped during it.
fn used(cuda: &CudaContext, given: Given, stream: &CudaStream) -> Result<impl Send + use<>> {
    let mut buffer = cuda.endpoint.import_buffer(given.buffer)?;
    cuda.launch(Kernel::Fill { seed: 9 }, &mut buffer.as_view_mut::<u8>()?, 0)?;
    let array = cuda.endpoint.import_image(given.image)?;
    let surface = array.surface(0)?;
    let [timeline, _] = given.semaphores;
    let timeline = cuda.endpoint.import_semaphore(timeline)?;
    cuda.endpoint.signal(stream, &timeline, Some(1))?;
    cuda.stream.synchronize()?;
    Ok((buffer, array, surface, timeline))
}

/// The same thread captures and uses the library, on another stream.
fn same_thread(test_gpu: &TestGpu, mode: Mode) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let other = cuda.cuda.context().new_stream()?;
    let used = used(&cuda, Given::new(vulkan)?, &other)?;
    let given = Given::new(vulkan)?;
    let target = vulkan.endpoint.create_buffer(&BufferDesc::storage(BYTES), Default::default())?;
    let imported = cuda.endpoint.import_buffer(target.export()?)?;

    let captured = Captured::begin(&cuda.stream, mode)?;
    given.use_up(&cuda.endpoint, &other).context("during the capture")?;
    drop(used);
    imported.memory().keep_in_capture(&cuda.stream)?;
    // SAFETY: the graph keeps the memory, and nothing else uses it until the launch is done.
    unsafe { cuda.launch_at(Kernel::Fill { seed: 3 }, imported.device_ptr(), BYTES, 0) }?;
    drop(imported);
    let graph = captured.end()?;
    cuda.cuda.context().check_err()?;

    graph.launch()?;
    cuda.stream.synchronize()?;
    oracle::check(&vulkan.download(target.handle(), 0, BYTES)?, 3, &Passes::default())?;
    drop(graph);
    // What the graph kept is dropped by a later call.
    drop(cuda.endpoint.import_buffer(target.export()?)?);
    Ok(cuda.cuda.context().check_err()?)
}

/// Another thread uses the library during a capture in the mode that concerns all threads.
fn other_thread(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let other = cuda.cuda.context().new_stream()?;
    let used = used(&cuda, Given::new(vulkan)?, &other)?;
    let given = Given::new(vulkan)?;
    let counter = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let there = cuda.endpoint.import_semaphore(counter.export()?)?;
    let endpoint = cuda.endpoint.clone();

    let captured = Captured::begin(&cuda.stream, GLOBAL)?;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            drop(used);
            given.use_up(&endpoint, &other)
        });
        thread.join().unwrap_or_else(|_| bail!("the thread panicked"))
    })?;
    cuda.endpoint.capture_signal(&cuda.stream, &there, Some(5))?;
    let graph = captured.end()?;
    graph.launch()?;
    counter.wait(5, TIMEOUT)?;
    cuda.stream.synchronize()?;
    Ok(cuda.cuda.context().check_err()?)
}

/// The library's calls change the thread's mode while they run; afterwards it is the application's again.
fn own_mode(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let exchange = |mut mode: Mode| -> Result<Mode> {
        // SAFETY: `mode` is a value of the enum, and the driver writes another.
        let result = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
        ensure!(result == sys::CUresult::CUDA_SUCCESS, "{result:?}");
        Ok(mode)
    };
    for mode in [THREAD_LOCAL, RELAXED, GLOBAL] {
        let before = exchange(mode)?;
        let done = Given::new(vulkan)?.use_up(&cuda.endpoint, &cuda.stream);
        let after = exchange(before)?;
        done?;
        ensure!(after == mode, "{after:?}, not {mode:?}");
    }
    Ok(())
}

/// What can't be done in a capture is refused by name, and the capture stays valid.
fn refused(test_gpu: &TestGpu) -> Result<()> {
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let (endpoint, stream) = (&cuda.endpoint, &cuda.stream);
    let counter = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let there = endpoint.import_semaphore(counter.export()?)?;
    let options = HandoffOptions { in_flight: 4, ..HandoffOptions::default() };
    let mut handoff = handoff::open(&vulkan.endpoint, endpoint, endpoint, options)?;
    let (ticket, ()) = handoff.release.release(stream)?;
    let not_captured = [
        endpoint.capture_wait(stream, &there, Some(1)).map(drop),
        endpoint.capture_signal(stream, &there, Some(1)).map(drop),
    ];

    let captured = Captured::begin(stream, THREAD_LOCAL)?;
    let acquired = handoff.acquire.acquire(ticket, stream);
    let refused = [
        endpoint.wait(stream, &there, Some(1)),
        endpoint.signal(stream, &there, Some(1)),
        endpoint.wait_many(stream, &[]),
        endpoint.fence(stream).map(drop),
        handoff.release.release(stream).map(drop),
        endpoint.capture_signal(stream, &there, Some(0)).map(drop),
        endpoint.capture_wait(stream, &there, None).map(drop),
    ];
    endpoint.capture_signal(stream, &there, Some(7))?;
    let graph = captured.end()?;
    graph.launch()?;
    counter.wait(7, TIMEOUT)?;
    stream.synchronize()?;

    for answer in refused.into_iter().chain(not_captured) {
        match answer {
            Err(Error::Invalid(invalid)) => ensure!(invalid.help.is_some(), "{invalid}"),
            other => bail!("{other:?}"),
        }
    }
    // The ticket came back, and can be acquired now.
    let (ticket, error) = acquired.err().context("a captured stream acquired")?.into_parts();
    ensure!(matches!(&error, Error::Invalid(i) if i.parameter == "stream"), "{error:?}");
    handoff.acquire.acquire(ticket, stream)?;
    // Nothing was released.
    let (ticket, ()) = handoff.release.release(stream)?;
    ensure!(ticket.sequence() == 2, "{ticket:?}");
    handoff.acquire.acquire(ticket, stream)?;
    stream.synchronize()?;
    Ok(cuda.cuda.context().check_err()?)
}

/// While a stream that synchronises with the default stream is captured, CUDA forbids the use of the default
/// stream: what waits for it at its drop is put off, and freed by a later call.
fn put_off(test_gpu: &TestGpu) -> Result<()> {
    const LARGE: u64 = 256 << 20;
    let (vulkan, cuda) = (test_gpu.vulkan(), own_stream(test_gpu)?);
    let context = cuda.cuda.context();
    let used = used(&cuda, Given::new(vulkan)?, &cuda.stream)?;
    let given = Given::new(vulkan)?;
    let mut large = cuda.endpoint.create_buffer(&BufferDesc::storage(LARGE))?;
    cuda.launch(Kernel::Fill { seed: 1 }, &mut large.as_view_mut::<u8>()?, 0)?;
    cuda.stream.synchronize()?;
    let counter = vulkan.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    let there = cuda.endpoint.import_semaphore(counter.export()?)?;
    let mut raw = ptr::null_mut();
    // SAFETY: the context is current on this thread, and `raw` is writable.
    let created = unsafe { sys::cuStreamCreate(&mut raw, 0) };
    ensure!(created == sys::CUresult::CUDA_SUCCESS, "{created:?}");
    // SAFETY: created just now, of this context, and destroyed after its last use.
    let blocking = unsafe { context.wrap_borrowed_stream(raw) };

    let captured = Captured::begin(&blocking, THREAD_LOCAL)?;
    given.use_up(&cuda.endpoint, &cuda.stream).context("during the capture")?;
    drop((used, large));
    // SAFETY: CUDA requires nothing.
    let idle = unsafe { cuda.endpoint.wait_idle() };
    let default = cuda.endpoint.fence(&context.default_stream()).map(drop);
    cuda.endpoint.capture_signal(&blocking, &there, Some(2))?;
    let graph = captured.end()?;
    graph.launch()?;
    counter.wait(2, TIMEOUT)?;
    blocking.synchronize()?;
    for refused in [idle, default] {
        ensure!(matches!(&refused, Err(Error::Invalid(i)) if i.help.is_some()), "{refused:?}");
    }

    let (before, _) = context.mem_get_info()?;
    drop(cuda.endpoint.create_buffer(&BufferDesc::storage(BYTES))?);
    let (after, _) = context.mem_get_info()?;
    ensure!(after >= before + LARGE as usize / 2, "{before} bytes free before, {after} after");
    drop((graph, there));
    // SAFETY: created above; nothing uses it any longer.
    let destroyed = unsafe { sys::cuStreamDestroy_v2(raw) };
    ensure!(destroyed == sys::CUresult::CUDA_SUCCESS, "{destroyed:?}");
    Ok(context.check_err()?)
}
