//! Host waits for CUDA: events, which are polled with a timeout.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{hint, ptr, thread};

use cudarc::driver::{CudaContext, CudaStream, sys};

use super::capture::{Current, Relaxed};
use super::endpoint::Endpoint;
use super::library::{check, failed, record};
use crate::error::{Error, Result};

/// How long dropping waits for work that still uses the dropped object. After a synchronisation
/// there is nothing to wait for; a stream that waits for a signal that never comes must not hang
/// the program.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

/// A point in a stream that the host can wait for. `Send`, `Sync` and cheap to clone.
///
/// Dropping it does not wait.
#[derive(Clone, Debug)]
#[must_use = "a fence orders nothing unless something waits for it"]
pub struct Fence {
    event: Arc<Event>,
}

impl Endpoint {
    /// Creates a fence after all work enqueued on `stream` so far.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a stream from another context; [`Error::Invalid`] for one that is
    /// being captured into a graph; [`Error::Driver`], also for work that failed earlier.
    ///
    /// # References
    /// `cuEventCreate` with `CU_EVENT_DISABLE_TIMING`, `cuEventRecord`.
    #[doc(alias = "cuEventRecord")]
    pub fn fence(&self, stream: &CudaStream) -> Result<Fence> {
        let current = self.enter_stream(stream)?;
        let event = Event::new(&current)?;
        event.record(&current, stream.cu_stream())?;
        Ok(Fence::new(event))
    }

    /// For `Drop`: waits for the last use of an object and returns whether it may be destroyed. If
    /// not, the object must be leaked; that is logged and recorded in the context under `what`.
    ///
    /// One stuck object usually means that others are stuck too. So the next one is only queried,
    /// without waiting, until a query finds its work done.
    pub(crate) fn wait_before_drop(
        &self,
        what: &'static str,
        is_done: impl FnMut() -> Result<bool, sys::CUresult>,
    ) -> bool {
        let is_stuck = self.is_stuck().load(Ordering::Relaxed);
        let timeout = if is_stuck { Duration::ZERO } else { DROP_TIMEOUT };
        match poll(timeout, is_done) {
            Ok(is_done) => {
                self.is_stuck().store(!is_done, Ordering::Relaxed);
                if !is_done {
                    record(self.context(), what, sys::CUresult::CUDA_ERROR_NOT_READY);
                }
                is_done
            }
            // The work has failed, or the context and its work are lost: nothing uses the object.
            Err(result) => {
                record(self.context(), what, result);
                true
            }
        }
    }
}

impl Fence {
    pub(super) fn new(event: Event) -> Self {
        Self { event: Arc::new(event) }
    }

    /// Returns whether both are the same point.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn is_same(&self, other: &Fence) -> bool {
        Arc::ptr_eq(&self.event, &other.event)
    }

    /// Returns whether the work is done. All APIs on that GPU can then read what it wrote.
    ///
    /// # Errors
    /// [`Error::Driver`], also if the work itself failed.
    ///
    /// # References
    /// `cuEventQuery`.
    #[doc(alias = "cuEventQuery")]
    pub fn is_signaled(&self) -> Result<bool> {
        self.event.is_complete().map_err(|result| failed("cuEventQuery", result))
    }

    /// Waits until the work is done, for at most `timeout`; `Duration::MAX` waits indefinitely.
    ///
    /// `cuEventSynchronize` has no timeout, so the event is polled: first without a pause, because
    /// a handoff is short, then yielding to other threads, then sleeping up to a millisecond
    /// between queries.
    ///
    /// # Errors
    /// [`Error::Timeout`], after which the fence may be waited for again; [`Error::Driver`], also
    /// if the work itself failed.
    ///
    /// # References
    /// `cuEventQuery`.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        if poll(timeout, || self.is_signaled())? {
            return Ok(());
        }
        Err(Error::Timeout { what: "the work in a CUDA stream".into(), waited: timeout })
    }
}

/// A `CUevent` without timing.
///
/// Not cudarc's `CudaEvent`: its calls first return (and clear) errors that were recorded while
/// something else was dropped, which would then be attributed to the call made here.
#[derive(Debug)]
pub(super) struct Event {
    raw: sys::CUevent,
    context: Arc<CudaContext>,
}

// SAFETY: a CUevent belongs to a context, not to a thread, and the driver API may be called from
// several threads at once.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// Creates an event. Until it is recorded, it counts as complete.
    pub(super) fn new(current: &Current<'_>) -> Result<Self> {
        let mut raw = ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the context is current and `raw` is writable.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut raw, flags) })?;
        Ok(Self { raw, context: current.context().clone() })
    }

    /// Records the event after all work enqueued so far on `stream`, which is alive and of the same
    /// context. The stream must not be captured: an event recorded in a capture can't be queried.
    pub(super) fn record(&self, _current: &Current<'_>, stream: sys::CUstream) -> Result<()> {
        // SAFETY: the event is valid until it is dropped, and the stream is alive; another
        // context's stream would be refused (CUDA_ERROR_INVALID_HANDLE).
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw, stream) })
    }

    /// Returns whether the event's work is done. Needs no current context, so a query is cheap.
    ///
    /// A failure may be of the work itself.
    pub(super) fn is_complete(&self) -> Result<bool, sys::CUresult> {
        let _relaxed = Relaxed::enter();
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

/// Returns whether all work enqueued on `stream` so far is done. The stream must not be captured.
pub(super) fn is_idle(stream: &CudaStream) -> Result<bool, sys::CUresult> {
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

/// The duration of polling without a pause. A handoff between two APIs takes a few hundred
/// microseconds, and a sleeping thread wakes up tens of microseconds late.
const SPIN: Duration = Duration::from_millis(1);
/// The time until which other threads may run between two queries.
const YIELD: Duration = Duration::from_millis(10);
/// The first sleep after that; each later one is twice as long,
const FIRST_SLEEP: Duration = Duration::from_micros(50);
/// but at most for this long.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// Calls `ready` until it returns true, fails, or `timeout` has passed; at least once. CUDA's own
/// host waits have no timeout.
pub(crate) fn poll<E>(
    timeout: Duration,
    mut ready: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let start = Instant::now();
    let mut sleep = FIRST_SLEEP;
    loop {
        if ready()? {
            return Ok(true);
        }
        let waited = start.elapsed();
        if waited >= timeout {
            return Ok(false);
        }
        if waited < SPIN {
            hint::spin_loop();
        } else if waited < YIELD {
            thread::yield_now();
        } else {
            thread::sleep(sleep.min(timeout - waited));
            sleep = (sleep * 2).min(LONGEST_SLEEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn polling_ends_when_it_is_ready_or_fails() {
        let mut queries = 0;
        let ready = poll(Duration::ZERO, || {
            queries += 1;
            Ok::<_, Infallible>(true)
        });
        assert_eq!((ready, queries), (Ok(true), 1));
        let failed = poll(Duration::MAX, || {
            queries += 1;
            if queries < 5 { Ok(false) } else { Err("lost") }
        });
        assert_eq!((failed, queries), (Err("lost"), 5));
    }

    #[test]
    fn polling_ends_at_the_timeout_and_not_before() {
        for timeout in [Duration::ZERO, Duration::from_millis(30)] {
            let start = Instant::now();
            assert_eq!(poll(timeout, || Ok::<_, Infallible>(false)), Ok(false));
            assert!(start.elapsed() >= timeout);
        }
    }
}
