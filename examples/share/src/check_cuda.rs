//! Checking frames with CUDA.

use std::sync::Arc;

use anyhow::{Context, Result};
use gpu_interop::cuda::{Buffer, Endpoint, Semaphore};
use gpu_interop::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, LaunchConfig, PushKernelArg,
};
use gpu_interop::cudarc::nvrtc::Ptx;
use gpu_interop::headless::Cuda;
use gpu_interop::session::Frame;

use super::check_vulkan::verdict;
use super::checker::{Checker, NOTHING_FOUND, Parts, TIMEOUT, WARM_UP_BYTES};
use super::frame::Shape;
use super::frame_stats::FrameCheck;
use interop_gpu::kernel::{GROUP_SIZE, Window};

const CHECK: &str = include_str!("../../../shaders/check.ptx");

#[derive(Debug)]
pub(super) struct CudaChecker {
    slots: Vec<Buffer>,
    semaphore: Option<Semaphore>,
    counted: CudaSlice<u32>,
    kernel: CudaFunction,
    shape: Shape,
    stream: Arc<CudaStream>,
    endpoint: Endpoint,
    _cuda: Cuda,
}

impl CudaChecker {
    pub(super) fn new(cuda: Cuda, parts: Parts) -> Result<Self> {
        let Parts { shape, buffers, semaphore } = parts;
        let endpoint = cuda.endpoint()?;
        let context = cuda.context();
        let module = context.load_module(Ptx::from_src(CHECK)).context("check.ptx")?;
        let kernel = module.load_function("check").context("check.ptx")?;
        let stream = context.new_stream()?;
        let import = |payload| endpoint.import_buffer(payload);
        let slots = buffers.into_iter().map(import).collect::<Result<_, _>>()?;
        let import = |payload| endpoint.import_semaphore(payload);
        let semaphore = semaphore.map(import).transpose()?;
        let counted = stream.alloc_zeros(NOTHING_FOUND.len())?;
        let mut made =
            Self { slots, semaphore, counted, kernel, shape, stream, endpoint, _cuda: cuda };
        made.warm_up()?;
        Ok(made)
    }

    /// Runs the kernel once over a private frame: some drivers load it only then.
    fn warm_up(&mut self) -> Result<()> {
        let frame = self.stream.alloc_zeros::<u8>(usize::try_from(WARM_UP_BYTES)?)?;
        let what = (Shape::new(WARM_UP_BYTES)?, 0);
        Self::launch(&self.stream, &self.kernel, &frame.as_view(), &mut self.counted, what)?;
        Ok(self.stream.synchronize()?)
    }

    /// Launches the kernel over the frame in `data`. The counts are added to `counted`.
    fn launch(
        stream: &Arc<CudaStream>,
        kernel: &CudaFunction,
        data: &CudaView<'_, u8>,
        counted: &mut CudaSlice<u32>,
        (shape, number): (Shape, u32),
    ) -> Result<()> {
        let whole = Window { offset: 0, bytes: shape.bytes() };
        let (groups, [first, count, number, width_log2]) = shape.launch(whole, number);
        let config = LaunchConfig {
            grid_dim: (groups, 1, 1),
            block_dim: (GROUP_SIZE, 1, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = stream.launch_builder(kernel);
        launch.arg(data).arg(counted);
        launch.arg(&first).arg(&count).arg(&number).arg(&width_log2);
        // SAFETY: the arguments are the kernel's; it reads `count` elements of the buffer, which has at
        // least that many, and adds to three words.
        unsafe { launch.launch(config) }?;
        Ok(())
    }
}

impl Checker for CudaChecker {
    fn check(&mut self, frame: &Frame, number: u32) -> Result<FrameCheck> {
        if let (Some(point), Some(semaphore)) = (frame.point(), &self.semaphore) {
            // CUDA can't wait for a semaphore on the host: if the producer dies before it signals, the wait
            // for the fence below times out.
            self.endpoint.wait(&self.stream, semaphore, Some(point.value))?;
        }
        self.stream.memcpy_htod(&NOTHING_FOUND, &mut self.counted)?;
        let data =
            self.slots.get(frame.slot()).context("the ring has no such slot")?.as_view::<u8>()?;
        let what = (self.shape, number);
        Self::launch(&self.stream, &self.kernel, &data, &mut self.counted, what)?;
        let fence = self.endpoint.fence(&self.stream)?;
        frame.wait(TIMEOUT, |_, time| fence.wait(time))?;
        fence.wait(TIMEOUT)?;
        let mut found = NOTHING_FOUND;
        self.stream.memcpy_dtoh(&self.counted, &mut found)?;
        self.stream.synchronize()?;
        Ok(verdict(found))
    }

    fn read(&mut self, slot: usize) -> Result<Vec<u8>> {
        let buffer = self.slots.get(slot).context("the ring has no such slot")?;
        let view = buffer.as_view::<u8>()?;
        let whole = view.slice(..usize::try_from(self.shape.bytes())?);
        let data = self.stream.clone_dtoh(&whole)?;
        self.stream.synchronize()?;
        Ok(data)
    }
}
