//! Calls in the user's context: result codes as this crate's errors, and the current context.

use std::marker::PhantomData;
use std::ptr;

use cudarc::driver::{CudaContext, DriverError as CudarcError, sys};

use crate::error::{Api, DriverError, Error, Result, Text};

/// Returns `Ok` if `call` returned `CUDA_SUCCESS`.
///
/// A failure may be that of work queued earlier: nearly every CUDA call reports those too.
pub(crate) fn check(call: &'static str, result: sys::CUresult) -> Result<()> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        failure => Err(failed(call, failure)),
    }
}

/// The error for `result`, a failure that `call` returned.
pub(crate) fn failed(call: &'static str, result: sys::CUresult) -> Error {
    DriverError::new(Api::Cuda, call, result as u32, name(result)).into()
}

/// For `Drop`, which can't return: logs a failure of `call` and records it in the context, whose
/// next cudarc call returns it.
pub(crate) fn record(context: &CudaContext, call: &'static str, result: sys::CUresult) {
    if let Err(error) = check(call, result) {
        tracing::error!(%error, "while dropping");
        context.record_err(Err::<(), _>(CudarcError(result)));
    }
}

fn name(result: sys::CUresult) -> Text {
    // Not by `Debug`: a driver newer than cudarc's bindings has codes that its enum lacks.
    match CudarcError(result).error_name() {
        Ok(name) => name.to_string_lossy().into_owned().into(),
        Err(_) => "a code that cuGetErrorName doesn't know".into(),
    }
}

/// Keeps the context current on this thread until it is dropped, then restores the previous one.
///
/// cudarc's `bind_to_thread` replaces the current context and does not restore it. A caller of this
/// crate may be on a thread on which the CUDA runtime or another library works in a context of its
/// own; `cuCtxPushCurrent` and `cuCtxPopCurrent` are made for that. Within the guard, cudarc finds
/// its context current and changes nothing.
pub(crate) struct Current<'a> {
    pushed: Option<&'a CudaContext>,
    /// Neither `Send` nor `Sync`: the stack of contexts is the thread's.
    _thread: PhantomData<*const ()>,
}

impl<'a> Current<'a> {
    /// Makes `context` current, unless it is already.
    pub(crate) fn enter(context: &'a CudaContext) -> Result<Self> {
        let mut current = ptr::null_mut();
        // SAFETY: libcuda is loaded and initialised, otherwise there would be no context; `current`
        // is writable.
        let got = unsafe { sys::cuCtxGetCurrent(&mut current) };
        check("cuCtxGetCurrent", got)?;
        let pushed = if current == context.cu_ctx() {
            None
        } else {
            // SAFETY: `context` owns a valid CUcontext and outlives this guard.
            let pushed = unsafe { sys::cuCtxPushCurrent_v2(context.cu_ctx()) };
            check("cuCtxPushCurrent", pushed)?;
            Some(context)
        };
        Ok(Self { pushed, _thread: PhantomData })
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let Some(context) = self.pushed else { return };
        let mut popped = ptr::null_mut();
        // SAFETY: on this thread (the guard is not `Send`), and guards are dropped in the opposite
        // order, so the top of the stack is what `enter` pushed.
        let result = unsafe { sys::cuCtxPopCurrent_v2(&mut popped) };
        record(context, "cuCtxPopCurrent", result);
        debug_assert!(
            popped == context.cu_ctx() || result != sys::CUresult::CUDA_SUCCESS,
            "another context was left on top of the thread's stack"
        );
    }
}
