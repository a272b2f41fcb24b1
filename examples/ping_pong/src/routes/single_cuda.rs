//! CUDA alone: both kernels of a pair in one stream, on memory of its own.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::cudarc::driver::sys::CUdeviceptr;
use gpu_interop::cudarc::driver::{CudaSlice, DevicePtr as _};

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP};
use interop_gpu::Kernel;
use interop_gpu::cuda::CudaContext;
use interop_gpu::oracle::{self, Passes, Wrong};

const SEED: u32 = 5;

/// Both kernels of a pair in one CUDA stream.
#[derive(Debug)]
pub struct SingleCuda {
    gpu: Rc<CudaContext>,
    grid: u32,
    address: CUdeviceptr,
    payload: CudaSlice<u8>,
    passes: Passes,
}

impl SingleCuda {
    /// Allocates and fills a payload of `bytes` bytes.
    ///
    /// # Errors
    /// If CUDA fails.
    pub fn new(gpu: Rc<CudaContext>, bytes: u64, grid: u32) -> Result<Self> {
        let mut payload = gpu.private_buffer(bytes)?;
        gpu.launch(Kernel::Fill { seed: SEED }, &mut payload.as_view_mut(), 0)?;
        gpu.stream.synchronize()?;
        let (address, synchronised) = payload.device_ptr(&gpu.stream);
        drop(synchronised);
        Ok(Self { gpu, grid, address, payload, passes: Passes::default() })
    }
}

impl Benchmark for SingleCuda {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        let bytes = self.payload.len() as u64;
        for _ in 0..pairs {
            for step in [FIRST_STEP, SECOND_STEP] {
                // SAFETY: the payload is this benchmark's own, which waits in `finish`.
                unsafe {
                    self.gpu.launch_at(Kernel::PingPong { step }, self.address, bytes, self.grid)
                }?;
                self.passes.then(step);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.gpu.stream.synchronize()?)
    }

    fn handoff(&self) -> String {
        "stream order".into()
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let data = self.gpu.stream.clone_dtoh(&self.payload)?;
        Ok(oracle::check(&data, SEED, &self.passes))
    }
}

impl Drop for SingleCuda {
    fn drop(&mut self) {
        // A lost context has nothing in flight.
        let _ = self.gpu.stream.synchronize();
    }
}
