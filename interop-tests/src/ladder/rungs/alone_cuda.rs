//! CUDA alone: both kernels of a pair in one stream, on memory of its own.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::cudarc::driver::sys::CUdeviceptr;
use gpu_interop::cudarc::driver::{CudaSlice, DevicePtr as _};

use crate::ladder::rung::{FIRST_STEP, Rung, SECOND_STEP};
use crate::rig::Kernel;
use crate::rig::cuda::CudaRig;
use crate::rig::oracle::{self, Turns, Wrong};

const SEED: u32 = 5;

pub(crate) struct AloneCuda {
    rig: Rc<CudaRig>,
    grid: u32,
    address: CUdeviceptr,
    payload: CudaSlice<u8>,
    turns: Turns,
}

impl AloneCuda {
    pub(crate) fn new(rig: Rc<CudaRig>, bytes: u64, grid: u32) -> Result<Self> {
        let mut payload = rig.private_buffer(bytes)?;
        rig.launch(Kernel::Fill { seed: SEED }, &mut payload.as_view_mut(), 0)?;
        rig.stream.synchronize()?;
        let (address, synchronised) = payload.device_ptr(&rig.stream);
        drop(synchronised);
        Ok(Self { rig, grid, address, payload, turns: Turns::default() })
    }
}

impl Rung for AloneCuda {
    fn submit(&mut self, pairs: u32) -> Result<()> {
        let bytes = self.payload.len() as u64;
        for _ in 0..pairs {
            for step in [FIRST_STEP, SECOND_STEP] {
                // SAFETY: the payload is this rung's own, which waits in `finish`.
                unsafe {
                    self.rig.launch_at(Kernel::PingPong { step }, self.address, bytes, self.grid)
                }?;
                self.turns.then(step);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(self.rig.stream.synchronize()?)
    }

    fn handoff(&self) -> String {
        "stream order".into()
    }

    fn verify(&mut self) -> Result<Result<(), Wrong>> {
        let data = self.rig.stream.clone_dtoh(&self.payload)?;
        Ok(oracle::check(&data, SEED, &self.turns))
    }
}

impl Drop for AloneCuda {
    fn drop(&mut self) {
        // A lost context has nothing in flight.
        let _ = self.rig.stream.synchronize();
    }
}
