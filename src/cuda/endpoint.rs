//! The endpoint: the user's context, borrowed.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaStream, sys};

use super::current::Current;
use super::error::{check, record};
use super::poll::poll;
use super::workarounds::Workarounds;
use super::{device, library};
use crate::error::{Api, Mismatch, Result};
use crate::identity::Identity;

/// How long dropping waits for work that still uses what is dropped. Whoever has synchronised waits
/// not at all; a stream that is stuck behind a signal that never comes must not hang the program.
const DROP_PATIENCE: Duration = Duration::from_secs(10);

/// A borrowed CUDA context, able to export and import. Cheap to clone; `Send` and `Sync`.
///
/// It and all that is made from it keep the context alive.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    context: Arc<CudaContext>,
    identities: [Identity; 1],
    export_fd: bool,
    timeline: bool,
    workarounds: Workarounds,
    /// The last wait in `settle` was in vain.
    is_stuck: AtomicBool,
}

impl Endpoint {
    /// An endpoint over the user's context, primary or not.
    ///
    /// # Errors
    /// As [`require`](super::require): [`Missing`](crate::error::Missing) for a libcuda that is too
    /// old, [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuDeviceGetUuid_v2`; `CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED`,
    /// `CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED`,
    /// `CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED`, `CU_DEVICE_ATTRIBUTE_INTEGRATED`.
    pub fn new(context: Arc<CudaContext>) -> Result<Self> {
        use sys::CUdevice_attribute as Attribute;
        // cudarc made a context, so libcuda is there; the functions that cudarc doesn't call are
        // looked up here.
        library::require()?;
        let device = context.cu_device();
        let identity = device::identity(device)?;
        let has = |name| attribute(device, name).map(|value| value != 0);
        let export_fd = has(Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED)?
            && has(Attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED)?;
        let timeline = has(Attribute::CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED)?;
        let workarounds = Workarounds::of(has(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)?);
        tracing::debug!(
            gpu = %identity.name,
            uuid = %identity.device,
            export_fd,
            timeline,
            ?workarounds,
            "CUDA endpoint"
        );
        let is_stuck = AtomicBool::new(false);
        let identities = [identity];
        let shared = Shared { context, identities, export_fd, timeline, workarounds, is_stuck };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.shared.context
    }

    /// The GPU it is on. CUDA tells no driver UUID.
    pub fn identities(&self) -> &[Identity] {
        &self.shared.identities
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.shared.identities[0]
    }

    /// Whether memory made by CUDA can leave it as a descriptor.
    pub(crate) fn exports_fd(&self) -> bool {
        self.shared.export_fd
    }

    /// Whether timeline semaphores can be imported.
    pub(crate) fn has_timeline(&self) -> bool {
        self.shared.timeline
    }

    /// What the device says of itself.
    pub(crate) fn attribute(&self, name: sys::CUdevice_attribute) -> Result<c_int> {
        attribute(self.context().cu_device(), name)
    }

    /// The newest CUDA that the driver knows: 12080 for 12.8.
    pub(crate) fn driver_version(&self) -> Result<c_int> {
        let mut version: c_int = 0;
        // SAFETY: libcuda is loaded and `version` is writable.
        check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) })?;
        Ok(version)
    }

    pub(crate) fn workarounds(&self) -> Workarounds {
        self.shared.workarounds
    }

    /// Makes the context current until the guard is dropped.
    pub(crate) fn enter(&self) -> Result<Current<'_>> {
        Current::enter(&self.shared.context)
    }

    /// For `Drop`: waits for the last use of `what` and says whether what was used may go now. If
    /// not, it has to be left alive; that is logged and recorded in the context.
    ///
    /// One thing that is stuck mostly means that more are, so the next one is only asked about, not
    /// waited for, until something is done again.
    pub(crate) fn settle(
        &self,
        what: &'static str,
        is_done: impl FnMut() -> Result<bool, sys::CUresult>,
    ) -> bool {
        let is_stuck = self.shared.is_stuck.load(Ordering::Relaxed);
        let patience = if is_stuck { Duration::ZERO } else { DROP_PATIENCE };
        match poll(patience, is_done) {
            Ok(is_done) => {
                self.shared.is_stuck.store(!is_done, Ordering::Relaxed);
                if !is_done {
                    record(self.context(), what, sys::CUresult::CUDA_ERROR_NOT_READY);
                }
                is_done
            }
            // The work has failed, or the context is lost and the work with it: nothing is used.
            Err(result) => {
                record(self.context(), what, result);
                true
            }
        }
    }

    /// Refuses a stream of another context, which the driver would take for its own where it is the
    /// default stream.
    pub(crate) fn check_stream(&self, stream: &CudaStream) -> Result<()> {
        self.check_context("the stream's CUDA context", stream.context())
    }

    pub(crate) fn check_context(&self, field: &'static str, other: &CudaContext) -> Result<()> {
        let own = self.context().as_ref();
        if own == other {
            return Ok(());
        }
        Err(Mismatch::new(field, show(own), show(other))
            .help("use a stream and objects of the endpoint's own context")
            .into())
    }
}

crate::peer::impl_peer! {
    Endpoint, Api::Cuda, super::Memory, super::Buffer, super::Array, super::Semaphore,
    unsafe fn wait_idle(&self) -> Result<()> {
        let _current = self.enter()?;
        // SAFETY: libcuda is loaded, and the endpoint's context is current.
        check("cuCtxSynchronize", unsafe { sys::cuCtxSynchronize() })
    }
}

fn show(context: &CudaContext) -> String {
    format!("{:p} on device {}", context.cu_ctx(), context.ordinal())
}

fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<c_int> {
    let mut value: c_int = 0;
    // SAFETY: libcuda is initialised and `value` is writable; an attribute or device that the driver
    // doesn't know is refused.
    check("cuDeviceGetAttribute", unsafe {
        sys::cuDeviceGetAttribute(&mut value, attribute, device)
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use crate::cuda::{
        Array, Buffer, Endpoint, Fence, Memory, Semaphore, SurfaceObject, TextureObject,
    };

    #[test]
    fn everything_may_go_to_another_thread() {
        fn crosses_threads<T: Send + Sync>() {}
        crosses_threads::<Endpoint>();
        crosses_threads::<Memory>();
        crosses_threads::<Buffer>();
        crosses_threads::<Array>();
        crosses_threads::<TextureObject>();
        crosses_threads::<SurfaceObject>();
        crosses_threads::<Semaphore>();
        crosses_threads::<Fence>();
    }
}
