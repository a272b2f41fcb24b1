//! Making a context current, and putting back what was.

use std::marker::PhantomData;
use std::ptr;

use cudarc::driver::{CudaContext, sys};

use super::error::{check, record};
use crate::error::Result;

/// The context is current on this thread until this is dropped; then what was current before is
/// again.
///
/// cudarc's `bind_to_thread` replaces the current context and leaves it at that. Whoever calls
/// cudarc expects it; whoever calls this crate, perhaps on a thread where a CUDA runtime or another
/// library works in a context of its own, does not. `cuCtxPushCurrent` and `cuCtxPopCurrent` are
/// made for that. Within the guard cudarc finds its context current and changes nothing.
pub(crate) struct Current<'a> {
    pushed: Option<&'a CudaContext>,
    /// Neither `Send` nor `Sync`: the stack of contexts is the thread's.
    _thread: PhantomData<*const ()>,
}

impl<'a> Current<'a> {
    /// Makes `context` current, unless it is already.
    pub(crate) fn enter(context: &'a CudaContext) -> Result<Self> {
        let mut current = ptr::null_mut();
        // SAFETY: libcuda is loaded and initialised, else there was no context; `current` is
        // writable.
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
