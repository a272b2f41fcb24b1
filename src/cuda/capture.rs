//! The current context, and stream captures, which the library's own calls never invalidate.
//!
//! While a stream is being captured into a graph, CUDA refuses "potentially unsafe" calls
//! (allocations, frees, imports, queries of events), and the refusal invalidates the capture. A
//! thread in the relaxed mode may make them; [`Current`] sets that mode for the library's calls and
//! restores the thread's own mode afterwards. Three kinds of calls conflict with a capture in every
//! mode, and are not made:
//!
//! - Work on a captured stream, and events recorded in one. [`refuse_captured`] refuses such a
//!   stream before anything is changed.
//! - The default stream while a stream that synchronises with it is captured (one created without
//!   `CU_STREAM_NON_BLOCKING`). [`free`] postpones calls that would wait for it.
//! - `cuCtxSynchronize` while a stream of the context is captured. The library never calls it on
//!   its own.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, sys};

use super::library::{capture_info, check, record};
use crate::error::{Invalid, Result};

use sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED as RELAXED;
use sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE as ACTIVE;
use sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE as NONE;

/// Keeps the context current on this thread until it is dropped, then restores the previous one.
/// Stream captures are not disturbed in the meantime ([`Relaxed`]).
///
/// cudarc's `bind_to_thread` replaces the current context and does not restore it. A caller's
/// thread may be one on which the CUDA runtime or another library uses a context of its own;
/// `cuCtxPushCurrent` and `cuCtxPopCurrent` are made for that. Within the guard, cudarc finds its
/// context current and changes nothing.
pub(crate) struct Current<'a> {
    context: &'a Arc<CudaContext>,
    is_pushed: bool,
    // Dropped after the context is restored.
    _relaxed: Option<Relaxed>,
}

impl<'a> Current<'a> {
    /// Makes `context` current, unless it is already.
    pub(crate) fn enter(context: &'a Arc<CudaContext>) -> Result<Self> {
        let mut current = Self::enter_for_stream(context)?;
        current._relaxed = Some(Relaxed::enter());
        Ok(current)
    }

    /// Same as [`enter`](Self::enter), for putting work on a stream that is not captured, which
    /// CUDA allows in every mode: each handoff saves two calls.
    pub(crate) fn enter_for_stream(context: &'a Arc<CudaContext>) -> Result<Self> {
        let mut current = ptr::null_mut();
        // SAFETY: libcuda is loaded and initialised, otherwise there would be no context; `current`
        // is writable.
        let got = unsafe { sys::cuCtxGetCurrent(&mut current) };
        check("cuCtxGetCurrent", got)?;
        let is_pushed = current != context.cu_ctx();
        if is_pushed {
            // SAFETY: `context` owns a valid CUcontext and outlives this guard.
            let pushed = unsafe { sys::cuCtxPushCurrent_v2(context.cu_ctx()) };
            check("cuCtxPushCurrent", pushed)?;
        }
        Ok(Self { context, is_pushed, _relaxed: None })
    }

    /// Returns the context that is current.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        self.context
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if !self.is_pushed {
            return;
        }
        let context = self.context;
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

/// While this lives, its thread may make calls that CUDA otherwise refuses while any stream is
/// captured. Needs no current context.
pub(crate) struct Relaxed {
    /// The thread's own mode, as a number; `None` if it could not be changed.
    own: Option<u32>,
    /// Neither `Send` nor `Sync`: the mode is the thread's.
    _thread: PhantomData<*const ()>,
}

impl Relaxed {
    pub(crate) fn enter() -> Self {
        Self { own: exchange_mode(RELAXED as u32), _thread: PhantomData }
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        if let Some(own) = self.own {
            exchange_mode(own);
        }
    }
}

/// Sets the thread's capture mode, and returns the previous one.
fn exchange_mode(mut mode: u32) -> Option<u32> {
    const { assert!(size_of::<sys::CUstreamCaptureMode>() == size_of::<u32>()) }
    // SAFETY: libcuda is loaded, since the callers have a context. `mode` is a value of the C enum,
    // and the driver writes another to it.
    let result = unsafe { sys::cuThreadExchangeStreamCaptureMode((&raw mut mode).cast()) };
    (result == sys::CUresult::CUDA_SUCCESS).then_some(mode)
}

/// The capture status of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capturing {
    No,
    Yes,
    /// It is captured, but the capture was invalidated by an earlier call.
    Invalidated,
    /// It is the default stream, and a stream that synchronises with it is captured.
    ByAnother,
}

/// Returns the capture status of `stream`. The context must be current.
fn capturing(stream: sys::CUstream) -> Result<Capturing> {
    let mut status = NONE as u32;
    // SAFETY: the caller's stream is alive, and its context current; `status` is writable and as
    // large as the C enum.
    let result = unsafe { sys::cuStreamIsCapturing(stream, (&raw mut status).cast()) };
    if result == sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT {
        // "The blocking stream capture is not invalidated."
        return Ok(Capturing::ByAnother);
    }
    check("cuStreamIsCapturing", result)?;
    Ok(state(status))
}

/// Decodes a `CUstreamCaptureStatus`.
fn state(status: u32) -> Capturing {
    match status {
        status if status == NONE as u32 => Capturing::No,
        status if status == ACTIVE as u32 => Capturing::Yes,
        _ => Capturing::Invalidated,
    }
}

/// Refuses to enqueue work on a stream in this state.
fn refuse(state: Capturing) -> Result<()> {
    let (problem, help) = match state {
        Capturing::No => return Ok(()),
        Capturing::Yes => (
            "is being captured into a graph",
            "end the capture first; or record the handoff into the graph (handoff::GraphHandoff, \
             Endpoint::capture_wait, Endpoint::capture_signal)",
        ),
        Capturing::Invalidated => {
            ("is being captured, and the capture is invalidated", "end it (cuStreamEndCapture)")
        }
        Capturing::ByAnother => (
            "is the default stream while a stream that synchronises with it is being captured",
            "end that capture first, or create streams with CU_STREAM_NON_BLOCKING",
        ),
    };
    Err(Invalid::new("stream", problem).help(help).into())
}

/// Refuses a stream on which no work can be enqueued because it, or one that it synchronises with,
/// is being captured; the capture stays valid. The context must be current.
pub(super) fn refuse_captured(stream: sys::CUstream) -> Result<()> {
    refuse(capturing(stream)?)
}

/// A capture in progress.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) graph: sys::CUgraph,
    /// The nodes that the next captured node will depend on.
    pub(super) last: Vec<sys::CUgraphNode>,
}

impl Capture {
    /// Returns the capture of `stream`. The context must be current.
    pub(super) fn of(stream: &CudaStream) -> Result<Self> {
        const CALL: &str = "cuStreamGetCaptureInfo_v2";
        let info = capture_info()?;
        let (mut status, mut id, mut graph) = (NONE as u32, 0u64, ptr::null_mut());
        let (mut nodes, mut count) = (ptr::null(), 0usize);
        // SAFETY: the stream is alive, and its context current; all results are writable, the
        // status as large as the C enum.
        let result = unsafe {
            info(stream.cu_stream(), &mut status, &mut id, &mut graph, &mut nodes, &mut count)
        };
        if result != sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT {
            check(CALL, result)?;
        }
        if result != sys::CUresult::CUDA_SUCCESS || state(status) != Capturing::Yes {
            return Err(not_captured().into());
        }
        let last = if nodes.is_null() {
            Vec::new()
        } else {
            // SAFETY: the driver's array has `count` elements and "may be freed or modified on the
            // next operation on the stream"; it is copied here, and no other thread uses a captured
            // stream.
            unsafe { std::slice::from_raw_parts(nodes, count) }.to_vec()
        };
        Ok(Self { graph, last })
    }
}

fn not_captured() -> Invalid {
    Invalid::new("stream", "is not being captured into a graph")
        .help("begin the capture first (CudaStream::begin_capture)")
}

/// The frees that could not be done at the drop.
static LATER: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());
static LATER_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Makes [`sweep`] call `run` during a later call.
pub(super) fn later(run: impl FnOnce() + Send + 'static) {
    let mut list = LATER.lock().unwrap_or_else(PoisonError::into_inner);
    list.push(Box::new(run));
    LATER_COUNT.store(list.len(), Ordering::Relaxed);
}

/// Frees what was postponed, if that is possible now. Called by every import, creation and drop.
pub(super) fn sweep() {
    if LATER_COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let list = {
        let mut list = LATER.lock().unwrap_or_else(PoisonError::into_inner);
        LATER_COUNT.store(0, Ordering::Relaxed);
        mem::take(&mut *list)
    };
    // Without the lock: what can't be freed yet is added again.
    list.into_iter().for_each(|run| run());
}

/// For `Drop`: calls `run` with the context current. If a capture forbids the use of the default
/// stream, which frees and waits imply, this is postponed until a later call.
pub(super) fn free(
    context: &Arc<CudaContext>,
    run: impl FnOnce(&Arc<CudaContext>) + Send + 'static,
) {
    sweep();
    free_boxed(context.clone(), Box::new(run));
}

type Free = dyn FnOnce(&Arc<CudaContext>) + Send;

fn free_boxed(context: Arc<CudaContext>, run: Box<Free>) {
    let current = Current::enter(&context);
    if capturing(ptr::null_mut()) == Ok(Capturing::ByAnother) {
        drop(current);
        later(move || free_boxed(context, run));
        return;
    }
    run(&context);
    drop(current);
}

/// Keeps `object` alive as long as `graph`, its executable graphs, and their launches. It is then
/// dropped during a later call of the library.
///
/// # Safety
/// `graph` is valid, and no other thread uses it during the call. The context is current.
pub(super) unsafe fn keep(graph: sys::CUgraph, object: impl Send + 'static) -> Result<()> {
    // Boxed twice: the pointer of the outer one is thin.
    let kept: Box<Box<dyn Send>> = Box::new(Box::new(object));
    let kept = Box::into_raw(kept).cast::<c_void>();
    let mut user_object = ptr::null_mut();
    let flags = sys::CUuserObject_flags::CU_USER_OBJECT_NO_DESTRUCTOR_SYNC as u32;
    // SAFETY: the destructor is given the box once, when the last reference is gone; this is the
    // first reference; the flag is the required one; `user_object` is writable.
    let created = check("cuUserObjectCreate", unsafe {
        sys::cuUserObjectCreate(&mut user_object, kept, Some(released), 1, flags)
    });
    if let Err(error) = created {
        // SAFETY: made above, and not passed on.
        drop(unsafe { Box::from_raw(kept.cast::<Box<dyn Send>>()) });
        return Err(error);
    }
    let flags = sys::CUuserObjectRetain_flags::CU_GRAPH_USER_OBJECT_MOVE as u32;
    // SAFETY: the graph is valid (the caller's promise), and takes over the only reference.
    let retained = check("cuGraphRetainUserObject", unsafe {
        sys::cuGraphRetainUserObject(graph, user_object, 1, flags)
    });
    if retained.is_err() {
        // SAFETY: the reference is still this one. The driver calls the destructor.
        let _ = unsafe { sys::cuUserObjectRelease(user_object, 1) };
    }
    retained
}

/// The destructor of a user object. The driver calls it once, on a thread on which no CUDA call is
/// allowed.
unsafe extern "C" fn released(kept: *mut c_void) {
    // SAFETY: the box that `keep` passed, returned once.
    let kept = unsafe { Box::from_raw(kept.cast::<Box<dyn Send>>()) };
    later(move || drop(kept));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::error::Error;

    /// Held by the tests that sweep, which would otherwise run each other's closures.
    static SWEEPING: Mutex<()> = Mutex::new(());

    #[test]
    fn work_is_refused_on_every_stream_that_a_capture_forbids() {
        for (status, expected) in [
            (0, Capturing::No),
            (1, Capturing::Yes),
            (2, Capturing::Invalidated),
            (7, Capturing::Invalidated),
        ] {
            assert_eq!(state(status), expected);
        }
        assert_eq!(refuse(Capturing::No), Ok(()));
        for (state, text) in [
            (Capturing::Yes, "into a graph"),
            (Capturing::Invalidated, "invalidated"),
            (Capturing::ByAnother, "default stream"),
        ] {
            match refuse(state) {
                Err(Error::Invalid(refused)) => {
                    assert!(refused.parameter == "stream" && refused.help.is_some());
                    assert!(refused.problem.contains(text), "{refused}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_postponed_runs_once_even_if_it_is_postponed_again() {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let _alone = SWEEPING.lock();
        later(|| {
            RUNS.fetch_add(1, Ordering::Relaxed);
            later(|| {
                RUNS.fetch_add(10, Ordering::Relaxed);
            });
        });
        assert_eq!(RUNS.load(Ordering::Relaxed), 0);
        sweep();
        assert_eq!(RUNS.load(Ordering::Relaxed), 1);
        sweep();
        sweep();
        assert_eq!(RUNS.load(Ordering::Relaxed), 11);
    }

    #[test]
    fn what_a_graph_has_kept_is_dropped_in_a_later_call() {
        let _alone = SWEEPING.lock();
        let object = Arc::new(());
        let kept: Box<Box<dyn Send>> = Box::new(Box::new(object.clone()));
        // SAFETY: the pointer that `keep` would pass, once.
        unsafe { released(Box::into_raw(kept).cast()) };
        sweep();
        assert_eq!(Arc::strong_count(&object), 1);
    }
}
