//! The endpoint: the application's context, borrowed.

use std::ffi::c_int;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};

use super::capture::{Current, refuse_captured, sweep};
use super::library::{self, check};
use crate::error::{Mismatch, Result};
use crate::fd::check_nvidia_fd;
use crate::identity::Identity;

/// A borrowed CUDA context that can export and import. Cheap to clone; `Send` and `Sync`.
///
/// The endpoint and everything created from it keep the context alive.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Arc<CudaContext>,
    identities: [Identity; 1],
    export_fd: bool,
    timeline: bool,
    workarounds: Workarounds,
    /// Whether the last `wait_before_drop` timed out.
    is_stuck: AtomicBool,
}

impl Endpoint {
    /// Creates an endpoint over the application's context, primary or not.
    ///
    /// # Errors
    /// The errors of [`require`](super::require), and [`Error::Driver`](crate::Error::Driver) if a
    /// query fails.
    ///
    /// # References
    /// `cuDeviceGetUuid_v2`; `CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED`,
    /// `CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED`,
    /// `CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED`,
    /// `CU_DEVICE_ATTRIBUTE_INTEGRATED`.
    pub fn new(context: Arc<CudaContext>) -> Result<Self> {
        use sys::CUdevice_attribute as Attribute;
        // libcuda is loaded, since there is a context. This looks up the functions that cudarc
        // doesn't call.
        library::require()?;
        let device = context.cu_device();
        let identity = library::identity(device)?;
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
        let inner = Inner { context, identities, export_fd, timeline, workarounds, is_stuck };
        Ok(Self(Arc::new(inner)))
    }

    /// Creates an endpoint over a bare context, which another library or the CUDA runtime opened.
    /// It is borrowed: the endpoint never destroys it.
    ///
    /// [`CudaContext::wrap_borrowed_stream`] wraps the bare streams of that context for this crate.
    ///
    /// # Safety
    /// `context` is a valid context, and stays valid until the endpoint, everything created from it
    /// and all cudarc objects of [`context`](Self::context) are dropped.
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    ///
    /// # Examples
    /// ```no_run
    /// use gpu_interop::cuda::Endpoint;
    /// use gpu_interop::cudarc::driver::sys::{CUcontext, CUstream};
    /// use gpu_interop::{Result, SemaphorePayload};
    ///
    /// /// Makes later work in another library's stream wait for `value`.
    /// ///
    /// /// # Safety
    /// /// Both are valid, and outlive the call.
    /// unsafe fn wait(
    ///     (context, stream): (CUcontext, CUstream),
    ///     timeline: SemaphorePayload,
    ///     value: u64,
    /// ) -> Result<()> {
    ///     // SAFETY: the caller's promise.
    ///     let cuda = unsafe { Endpoint::from_raw(context) }?;
    ///     // SAFETY: as above.
    ///     let stream = unsafe { cuda.context().wrap_borrowed_stream(stream) };
    ///     let timeline = cuda.import_semaphore(timeline)?;
    ///     cuda.wait(&stream, &timeline, Some(value))
    /// }
    /// ```
    ///
    /// # References
    /// `cuCtxPushCurrent`, `cuCtxGetDevice`.
    #[doc(alias = "CUcontext")]
    pub unsafe fn from_raw(context: sys::CUcontext) -> Result<Self> {
        library::require()?;
        // SAFETY: libcuda is initialised, and the context is valid (the caller's promise).
        check("cuCtxPushCurrent", unsafe { sys::cuCtxPushCurrent_v2(context) })?;
        let opened = Self::from_current(context);
        let mut popped = std::ptr::null_mut();
        // SAFETY: pops what was pushed above; cudarc found its context current and changed nothing.
        check("cuCtxPopCurrent", unsafe { sys::cuCtxPopCurrent_v2(&mut popped) })?;
        opened
    }

    /// Returns the endpoint of a bare context, which is current and outlives it.
    fn from_current(context: sys::CUcontext) -> Result<Self> {
        let mut device: sys::CUdevice = 0;
        // SAFETY: a context is current, and `device` is writable.
        check("cuCtxGetDevice", unsafe { sys::cuCtxGetDevice(&mut device) })?;
        // A CUdevice is its ordinal.
        let ordinal = usize::try_from(device).unwrap_or(0);
        // SAFETY: a valid context of that device. It is never destroyed by cudarc, since one
        // reference is leaked on the next line.
        let owned = unsafe { CudaContext::from_raw_context(ordinal, device, context) };
        let owned =
            owned.map_err(|DriverError(result)| library::failed("cuCtxSetCurrent", result))?;
        std::mem::forget(owned.clone());
        Self::new(owned)
    }

    /// Returns the application's context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    /// Returns the context's GPU: one entry. CUDA has no driver UUID.
    pub fn identities(&self) -> &[Identity] {
        &self.0.identities
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identities[0]
    }

    /// Returns whether memory that CUDA creates can be exported as a descriptor.
    pub(crate) fn exports_fd(&self) -> bool {
        self.0.export_fd
    }

    /// Returns whether timeline semaphores can be imported.
    pub(crate) fn has_timeline(&self) -> bool {
        self.0.timeline
    }

    /// Returns the value of a device attribute.
    pub(crate) fn attribute(&self, name: sys::CUdevice_attribute) -> Result<c_int> {
        attribute(self.context().cu_device(), name)
    }

    /// Returns the newest CUDA version that the driver supports: 12080 for 12.8.
    pub(crate) fn driver_version(&self) -> Result<c_int> {
        let mut version: c_int = 0;
        // SAFETY: libcuda is loaded and `version` is writable.
        check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) })?;
        Ok(version)
    }

    pub(crate) fn workarounds(&self) -> Workarounds {
        self.0.workarounds
    }

    /// Returns the flag that is set while `wait_before_drop` times out: the GPU seems to hang.
    pub(super) fn is_stuck(&self) -> &AtomicBool {
        &self.0.is_stuck
    }

    /// Makes the context current until the guard is dropped.
    pub(crate) fn enter(&self) -> Result<Current<'_>> {
        Current::enter(&self.0.context)
    }

    /// Makes the context current for enqueueing work on `stream`. Refuses a stream of another
    /// context, and one that is being captured, whose capture stays valid.
    pub(crate) fn enter_stream(&self, stream: &CudaStream) -> Result<Current<'_>> {
        self.check_stream(stream)?;
        let current = self.enter()?;
        refuse_captured(stream.cu_stream())?;
        Ok(current)
    }

    /// Same as [`enter_stream`](Self::enter_stream), for semaphores and events only.
    pub(super) fn enter_handoff(&self, stream: &CudaStream) -> Result<Current<'_>> {
        self.check_stream(stream)?;
        let current = Current::enter_for_stream(&self.0.context)?;
        refuse_captured(stream.cu_stream())?;
        Ok(current)
    }

    /// Frees what was dropped during a stream capture that has ended, and what destroyed graphs
    /// kept. Every creation, import and drop does this too.
    pub fn free_finished(&self) {
        sweep();
    }

    /// Rejects a stream from another context. If it is the default stream, the driver would use the
    /// default stream of the current context instead.
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

fn show(context: &CudaContext) -> String {
    format!("{:p} on device {}", context.cu_ctx(), context.ordinal())
}

fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<c_int> {
    let mut value: c_int = 0;
    // SAFETY: libcuda is initialised and `value` is writable; the driver refuses an unknown
    // attribute or device.
    check("cuDeviceGetAttribute", unsafe {
        sys::cuDeviceGetAttribute(&mut value, attribute, device)
    })?;
    Ok(value)
}

/// The workarounds that depend on the device; the others are always on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workarounds {
    /// `NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS`.
    refuse_foreign_fds: bool,
}

impl Workarounds {
    /// `is_integrated`: the GPU is part of the CPU's chip.
    pub(crate) fn of(is_integrated: bool) -> Self {
        Self { refuse_foreign_fds: !is_integrated }
    }

    /// Rejects a descriptor that would harm the driver.
    pub(crate) fn check_fd(self, fd: impl AsFd) -> Result<()> {
        if self.refuse_foreign_fds { check_nvidia_fd(fd) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::Workarounds;
    use crate::Error;
    use crate::cuda::{
        Array, Buffer, Endpoint, Fence, Memory, Semaphore, SurfaceObject, TextureObject,
    };

    #[test]
    fn all_objects_are_send_and_sync() {
        fn check<T: Send + Sync>() {}
        check::<Endpoint>();
        check::<Memory>();
        check::<Buffer>();
        check::<Array>();
        check::<TextureObject>();
        check::<SurfaceObject>();
        check::<Semaphore>();
        check::<Fence>();
    }

    #[test]
    fn a_foreign_descriptor_does_not_reach_the_driver() {
        let file = tempfile::tempfile().unwrap();
        let refused = Workarounds::of(false).check_fd(&file);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        Workarounds::of(true).check_fd(&file).unwrap();
    }
}
