//! A point in a stream that the host can ask for.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, sys};

use super::current::Current;
use super::error::{check, record};
use crate::error::Result;

/// A `CUevent` without timing.
///
/// Not cudarc's `CudaEvent`: its calls begin by returning (and forgetting) what was recorded while
/// something else was dropped, which would be blamed on the call made here.
#[derive(Debug)]
pub(crate) struct Event {
    raw: sys::CUevent,
    context: Arc<CudaContext>,
}

// SAFETY: a CUevent belongs to a context, not to a thread, and the driver API may be called from
// several threads at once.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that nothing was recorded in yet: it counts as complete.
    pub(crate) fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let _current = Current::enter(context)?;
        let mut raw = ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the context is current and `raw` is writable.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut raw, flags) })?;
        Ok(Self { raw, context: context.clone() })
    }

    /// From now on the event stands for what `stream`, of the same context, has been given so far.
    pub(crate) fn record(&self, stream: &CudaStream) -> Result<()> {
        let _current = Current::enter(&self.context)?;
        // SAFETY: both are valid for as long as they are borrowed; another context's stream would
        // be refused (CUDA_ERROR_INVALID_HANDLE).
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw, stream.cu_stream()) })
    }

    /// Whether the work it stands for is done. Needs no current context, so it is cheap to ask.
    ///
    /// A failure may be that of the work itself.
    pub(crate) fn is_complete(&self) -> Result<bool, sys::CUresult> {
        // SAFETY: the event is valid until it is dropped.
        done(unsafe { sys::cuEventQuery(self.raw) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let current = Current::enter(&self.context);
        // SAFETY: destroyed once, here. An event may be destroyed before it is complete.
        let result = unsafe { sys::cuEventDestroy_v2(self.raw) };
        record(&self.context, "cuEventDestroy", result);
        drop(current);
    }
}

/// Whether all that `stream` has been given so far is done.
pub(crate) fn is_idle(stream: &CudaStream) -> Result<bool, sys::CUresult> {
    // SAFETY: the stream is valid for as long as it is borrowed. (The default stream's number means
    // that of the current context, which the caller has made current.)
    done(unsafe { sys::cuStreamQuery(stream.cu_stream()) })
}

fn done(result: sys::CUresult) -> Result<bool, sys::CUresult> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(true),
        sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
        failure => Err(failure),
    }
}
