//! A CUDA context, opened by UUID.

use std::ffi::CStr;
use std::sync::Arc;

use cudarc::driver::CudaContext;

use super::error;
use super::init_lock::InitLock;
use super::selector::GpuSelector;
use crate::cuda::{self, Device, Endpoint};
use crate::error::{Api, DriverError, Error, Missing, Result};
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
    /// Opens the primary context of the GPU that is wished for; any is CUDA's first. It is bound to
    /// this thread.
    ///
    /// # Errors
    /// [`Error::Missing`] where libcuda, a GPU or the GPU that is wished for (the error lists those
    /// there are) is not there; [`Error::Driver`] where CUDA refuses a call.
    pub fn open(wish: &GpuSelector) -> Result<Self> {
        let _turn = InitLock::take();
        let Device { ordinal, identity, .. } = match *wish {
            GpuSelector::Any => at_ordinal(0)?,
            GpuSelector::CudaOrdinal(ordinal) => at_ordinal(ordinal)?,
            GpuSelector::Uuid(wanted) => with_uuid(wanted)?,
        };
        // libcuda is there, or the device would not have been found; cudarc doesn't panic.
        let context = CudaContext::new(ordinal).map_err(|error| {
            let name = error.error_name().map(CStr::to_string_lossy);
            let name = name.unwrap_or_default().into_owned().into();
            let code = i64::from(error.0 as u32);
            let call = "cuDevicePrimaryCtxRetain";
            Error::from(DriverError { api: Api::Cuda, call, code, name })
        })?;
        tracing::debug!(gpu = %identity.name, uuid = %identity.device, ordinal, "CUDA context");
        Ok(Self { context, identity })
    }

    /// The context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The GPU. CUDA tells no driver UUID.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A sharing endpoint over the context, which it keeps alive.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        Endpoint::new(self.context.clone())
    }
}

/// The GPU with an ordinal.
pub(super) fn identity_of(ordinal: usize) -> Result<Identity> {
    at_ordinal(ordinal).map(|device| device.identity)
}

fn at_ordinal(ordinal: usize) -> Result<Device> {
    let devices = cuda::devices()?;
    let count = devices.len();
    let mut with_ordinal = devices.into_iter().filter(|device| device.ordinal == ordinal);
    with_ordinal.next().ok_or_else(|| {
        let needed_for = "opening it by its ordinal";
        Missing::new(Api::Cuda, format!("GPU cuda:{ordinal}"), needed_for)
            .help(format!("CUDA sees {count}; CUDA_VISIBLE_DEVICES may hide others"))
            .into()
    })
}

fn with_uuid(wanted: Uuid) -> Result<Device> {
    let devices = cuda::devices()?;
    match devices.iter().find(|device| device.identity.device == wanted) {
        Some(device) => Ok(device.clone()),
        None => {
            let seen = devices.iter().map(|device| &device.identity);
            Err(error::no_such_gpu(Api::Cuda, wanted, seen).into())
        }
    }
}
