//! The kernels in CUDA: PTX modules, launches on one stream, event timers.

pub mod images;
pub mod texels;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::cuda::Endpoint;
use gpu_interop::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, CudaStream, CudaViewMut, LaunchConfig, PushKernelArg, sys,
};
use gpu_interop::cudarc::nvrtc::Ptx;
use gpu_interop::headless::Cuda;

use super::kernel::{ELEMENT_BYTES, GROUP_SIZE, Kernel};

const FILL: &str = include_str!("../../../shaders/fill.ptx");
const PING_PONG: &str = include_str!("../../../shaders/ping_pong.ptx");

/// A CUDA context with the kernels loaded, and a stream of its own.
#[derive(Debug)]
pub struct CudaContext {
    /// The context.
    pub cuda: Cuda,
    /// The library's endpoint over it.
    pub endpoint: Endpoint,
    /// The stream that everything here runs on.
    pub stream: Arc<CudaStream>,
    fill: CudaFunction,
    ping_pong: CudaFunction,
    image_kernels: OnceLock<Arc<CudaModule>>,
}

impl CudaContext {
    /// Loads the kernels into `cuda`'s context.
    ///
    /// # Errors
    /// If the driver rejects the PTX.
    pub fn new(cuda: Cuda) -> Result<Self> {
        let endpoint = cuda.endpoint()?;
        let context = cuda.context();
        let load = |ptx: &str, name: &str| {
            let module = context.load_module(Ptx::from_src(ptx))?;
            module.load_function(name)
        };
        let fill = load(FILL, "fill").context("fill.ptx")?;
        let ping_pong = load(PING_PONG, "ping_pong").context("ping_pong.ptx")?;
        let stream = context.new_stream()?;
        let image_kernels = OnceLock::new();
        Ok(Self { cuda, endpoint, stream, fill, ping_pong, image_kernels })
    }

    /// Launches `kernel` over `data`, with `groups` blocks; 0 for one thread per element.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn launch(
        &self,
        kernel: Kernel,
        data: &mut CudaViewMut<'_, u8>,
        groups: u32,
    ) -> Result<()> {
        let count = u32::try_from(data.len() as u64 / ELEMENT_BYTES)?;
        self.launch_elements(kernel, data, count, groups)
    }

    /// Launches `kernel` over the first 256 elements only.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn touch(&self, kernel: Kernel, data: &mut CudaViewMut<'_, u8>) -> Result<()> {
        let count = u32::try_from(data.len() as u64 / ELEMENT_BYTES)?;
        self.launch_elements(kernel, data, count.min(GROUP_SIZE), 1)
    }

    fn launch_elements(
        &self,
        kernel: Kernel,
        data: &mut CudaViewMut<'_, u8>,
        count: u32,
        groups: u32,
    ) -> Result<()> {
        let groups = if groups == 0 { count.div_ceil(GROUP_SIZE) } else { groups };
        let (first, argument) = (0u32, kernel.argument());
        let mut launch = self.stream.launch_builder(self.function(kernel));
        launch.arg(data).arg(&first).arg(&count).arg(&argument);
        // SAFETY: the arguments are the kernel's, and it stays within `count` elements.
        unsafe { launch.launch(config(groups)) }?;
        Ok(())
    }

    fn function(&self, kernel: Kernel) -> &CudaFunction {
        match kernel {
            Kernel::Fill { .. } => &self.fill,
            Kernel::PingPong { .. } => &self.ping_pong,
        }
    }

    /// Launches `kernel` over the `bytes` bytes at `address`, with `groups` blocks; 0 for one thread per
    /// element. cudarc does not track this use of the memory.
    ///
    /// # Safety
    /// The memory must stay allocated, and nothing else may use it, until the stream has finished the launch.
    ///
    /// # Errors
    /// If CUDA fails.
    pub unsafe fn launch_at(
        &self,
        kernel: Kernel,
        address: sys::CUdeviceptr,
        bytes: u64,
        groups: u32,
    ) -> Result<()> {
        let count = u32::try_from(bytes / ELEMENT_BYTES)?;
        let groups = if groups == 0 { count.div_ceil(GROUP_SIZE) } else { groups };
        let (first, argument) = (0u32, kernel.argument());
        let mut launch = self.stream.launch_builder(self.function(kernel));
        launch.arg(&address).arg(&first).arg(&count).arg(&argument);
        // SAFETY: the arguments are the kernel's, and it stays within `count` elements, which the caller
        // promises.
        unsafe { launch.launch(config(groups)) }?;
        Ok(())
    }

    /// Returns how long the work that `launch` puts on the stream takes on the device, measured by events.
    ///
    /// # Errors
    /// Those of `launch`, and if CUDA fails.
    pub fn time(&self, launch: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let start = self.stream.record_event(timed)?;
        launch()?;
        let end = self.stream.record_event(timed)?;
        self.stream.synchronize()?;
        Ok(Duration::from_secs_f64(f64::from(start.elapsed_ms(&end)?) / 1e3))
    }

    /// Allocates private memory, for comparison with shared memory.
    ///
    /// # Errors
    /// If CUDA is out of memory.
    pub fn private_buffer(&self, bytes: u64) -> Result<CudaSlice<u8>> {
        Ok(self.stream.alloc_zeros::<u8>(usize::try_from(bytes)?)?)
    }
}

fn config(groups: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (groups, 1, 1), block_dim: (GROUP_SIZE, 1, 1), shared_mem_bytes: 0 }
}
