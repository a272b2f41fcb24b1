//! A CUDA context, opened by UUID.

use std::sync::Arc;

use cudarc::driver::CudaContext;

use super::error;
use super::init_lock::InitLock;
use super::options::{GpuSelector, cuda_device};
use crate::cuda::library::failed;
use crate::cuda::{self, Device, Endpoint};
use crate::error::{Api, Result};
use crate::identity::{Identity, Uuid};

/// The primary CUDA context of a GPU. Cheap to clone; `Send` and `Sync`.
///
/// # References
/// `cuDevicePrimaryCtxRetain`, `cuDeviceGetUuid`.
#[derive(Clone, Debug)]
pub struct Cuda {
    context: Arc<CudaContext>,
    identity: Identity,
}

impl Cuda {
    /// Opens the primary context of the selected GPU and binds it to this thread.
    /// [`GpuSelector::Any`] is CUDA's first GPU.
    ///
    /// # Errors
    /// [`Missing`](crate::Error::Missing) if libcuda or the GPU is absent (the error lists the GPUs that
    /// CUDA sees); [`Driver`](crate::Error::Driver) if CUDA refuses a call.
    #[doc(alias = "cuDevicePrimaryCtxRetain")]
    pub fn open(gpu: &GpuSelector) -> Result<Self> {
        let _lock = InitLock::take();
        let Device { ordinal, identity, .. } = match *gpu {
            GpuSelector::Any => cuda_device(0)?,
            GpuSelector::CudaOrdinal(ordinal) => cuda_device(ordinal)?,
            GpuSelector::Uuid(uuid) => with_uuid(uuid)?,
        };
        // libcuda is loaded, or the device would not have been found, so cudarc doesn't panic.
        let context = CudaContext::new(ordinal)
            .map_err(|error| failed("cuDevicePrimaryCtxRetain", error.0))?;
        tracing::debug!(gpu = %identity.name, uuid = %identity.device, ordinal, "CUDA context");
        Ok(Self { context, identity })
    }

    /// Returns the context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Returns the GPU. CUDA has no driver UUID.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Creates an endpoint over the context, which it keeps alive.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        Endpoint::new(self.context.clone())
    }
}

fn with_uuid(uuid: Uuid) -> Result<Device> {
    let devices = cuda::devices()?;
    match devices.iter().find(|device| device.identity.device == uuid) {
        Some(device) => Ok(device.clone()),
        None => {
            let seen = devices.iter().map(|device| &device.identity);
            Err(error::no_such_gpu(Api::Cuda, uuid, seen).into())
        }
    }
}
