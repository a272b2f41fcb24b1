//! Work that still uses an object: events after its last uses, and kernel arguments whose uses
//! cudarc tracks.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::{CudaSlice, CudaStream, DriverError as CudarcError, sys};

use super::capture::{Current, Relaxed, free};
use super::endpoint::Endpoint;
use super::fence::{Event, is_idle, poll};
use super::library::{check, failed, record, stream_id};
use crate::error::{Error, Result};

/// The uses of an object in streams, so that it is not destroyed before they are done.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// For each stream it was used in, an event after its last use there.
    events: Mutex<Vec<(StreamId, Event)>>,
    /// Whether a use was submitted that is not in `events`.
    is_one_lost: AtomicBool,
}

/// Distinguishes streams; `None` for a stream that is used once.
type StreamId = Option<u64>;

/// A stream, and its identifier, which is queried once per operation.
pub(crate) struct UsedStream<'a> {
    stream: &'a CudaStream,
    id: StreamId,
}

impl<'a> UsedStream<'a> {
    pub(crate) fn new(_current: &Current<'_>, stream: &'a CudaStream) -> Self {
        Self { stream, id: Some(stream_id(stream)) }
    }
}

impl Uses {
    /// Creates the event that [`note`](Self::note) records, so that less can fail after the
    /// submission. The stream must not be captured.
    pub(super) fn prepare(&self, current: &Current<'_>, stream: &UsedStream<'_>) -> Result<()> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        event_of(&mut events, current, stream.id)?;
        Ok(())
    }

    /// Records a use that was submitted to `stream`.
    ///
    /// The work is already submitted. Returning an error would make the caller submit it twice, so
    /// it is logged, and the object is leaked, because its last use is no longer known.
    pub(super) fn note(&self, current: &Current<'_>, stream: &UsedStream<'_>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = event_of(&mut events, current, stream.id)
            .and_then(|event| event.record(current, stream.stream.cu_stream()));
        self.log(noted);
    }

    /// Records a use in a stream that is used once, with its event.
    pub(super) fn add(&self, current: &Current<'_>, stream: &OwnStream<'_>, event: Event) {
        let noted = event.record(current, stream.raw);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.retain(|(_, event)| event.is_complete() != Ok(true));
        events.push((None, event));
        self.log(noted);
    }

    fn log(&self, noted: Result<()>) {
        if let Err(error) = noted {
            self.is_one_lost.store(true, Ordering::Relaxed);
            tracing::error!(%error, "a use of an object can't be recorded: it will be leaked");
        }
    }

    /// Waits on the host until all uses, and the work before them, are done.
    pub(super) fn wait(&self, timeout: Duration, what: &'static str) -> Result<()> {
        if self.is_one_lost.load(Ordering::Relaxed) {
            return Err(Error::Timeout { what: what.into(), waited: Duration::ZERO });
        }
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, event) in events.iter() {
            let is_done = || event.is_complete().map_err(|result| failed("cuEventQuery", result));
            if !poll(timeout, is_done)? {
                return Err(Error::Timeout { what: what.into(), waited: timeout });
            }
        }
        Ok(())
    }

    /// For `Drop`: waits for the uses, and returns whether the object may be destroyed. If not, it
    /// must be leaked.
    pub(super) fn wait_before_drop(self, endpoint: &Endpoint, what: &'static str) -> bool {
        if self.is_one_lost.into_inner() {
            return false;
        }
        let events = self.events.into_inner().unwrap_or_else(PoisonError::into_inner);
        endpoint.wait_before_drop(what, || {
            events.iter().try_fold(true, |done, (_, event)| Ok(done & event.is_complete()?))
        })
    }
}

/// Returns the event for the stream `id`; creates it if it is absent, for example because another
/// thread has removed it since `prepare`.
fn event_of<'a>(
    events: &'a mut Vec<(StreamId, Event)>,
    current: &Current<'_>,
    id: StreamId,
) -> Result<&'a Event> {
    let at = match events.iter().position(|(used, _)| *used == id) {
        Some(at) => at,
        None => {
            let _relaxed = Relaxed::enter();
            // Remove the streams whose work is done, so that the list doesn't grow.
            events.retain(|(_, event)| event.is_complete() != Ok(true));
            events.push((id, Event::new(current)?));
            events.len() - 1
        }
    };
    Ok(&events[at].1)
}

/// A stream that is used once. Dropping it doesn't wait for its work.
pub(super) struct OwnStream<'a> {
    pub(super) raw: sys::CUstream,
    current: &'a Current<'a>,
}

impl<'a> OwnStream<'a> {
    /// Creates a stream that does not synchronise with the default stream.
    pub(super) fn new(current: &'a Current<'a>) -> Result<Self> {
        let mut raw = ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current and `raw` is writable.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut raw, flags) })?;
        Ok(Self { raw, current })
    }
}

impl Drop for OwnStream<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once, here. If work is left, the driver releases the
        // stream when it is done.
        let result = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        record(self.current.context(), "cuStreamDestroy", result);
    }
}

/// A 64-bit kernel argument in a cudarc slice, so that cudarc's launches and copies record their
/// uses in the slice's events.
///
/// Dropping it does nothing and leaks the events; call [`finish`](Self::finish) first.
#[derive(Debug)]
pub(crate) struct TrackedSlice {
    /// Dropping a cudarc slice frees its memory, which cudarc has not allocated here.
    slice: ManuallyDrop<CudaSlice<u8>>,
}

impl TrackedSlice {
    /// Tracks `len` bytes at the address `number`.
    ///
    /// # Safety
    /// `len` bytes are mapped at that address until `finish` returns. If `len` is 0, `number` may
    /// be any number.
    pub(crate) unsafe fn new(
        endpoint: &Endpoint,
        number: sys::CUdeviceptr,
        len: usize,
    ) -> Result<Self> {
        let context = endpoint.context();
        let _current = endpoint.enter()?;
        if context.is_event_tracking() {
            // `upgrade_device_ptr` creates two events and panics if that fails, so its
            // preconditions are checked first: no error recorded earlier, a context that is not
            // lost, free memory.
            let earlier = context.check_err();
            earlier.map_err(|CudarcError(result)| {
                failed("a call made while an object was dropped", result)
            })?;
            let event = context.new_event(None);
            event.map_err(|CudarcError(result)| failed("cuEventCreate", result))?;
        }
        let stream = context.default_stream();
        // SAFETY: the caller promises that the memory is mapped there and is that long, and any
        // bits are valid bytes. The slice itself is never dropped, which would free memory that
        // cudarc did not allocate.
        let upgraded = catch_unwind(AssertUnwindSafe(|| unsafe {
            stream.upgrade_device_ptr::<u8>(number, len)
        }));
        // Happens only if another thread has lost the context or recorded an error since the
        // checks.
        let slice =
            upgraded.map_err(|_| failed("cuEventCreate", sys::CUresult::CUDA_ERROR_UNKNOWN))?;
        Ok(Self { slice: ManuallyDrop::new(slice) })
    }

    /// Returns the argument of a kernel that only reads.
    pub(crate) fn slice(&self) -> &CudaSlice<u8> {
        &self.slice
    }

    /// Returns the argument of a kernel that also writes.
    pub(crate) fn slice_mut(&mut self) -> &mut CudaSlice<u8> {
        &mut self.slice
    }

    /// For `Drop`: waits for the last use that cudarc has recorded, and passes to `then` whether
    /// the object, which `what` describes, may be destroyed. If a capture forbids the use of the
    /// default stream, this happens during a later call.
    ///
    /// # Safety
    /// Called only once, and no other method is called afterwards.
    pub(crate) unsafe fn finish(
        &mut self,
        endpoint: Endpoint,
        what: &'static str,
        then: impl FnOnce(bool) + Send + 'static,
    ) {
        // SAFETY: taken only once, as the caller promises.
        let slice = ManuallyDrop::new(unsafe { ManuallyDrop::take(&mut self.slice) });
        let context = endpoint.context().clone();
        free(&context, move |context| {
            // A cudarc call that finds an error recorded earlier returns it and does nothing. So it
            // is taken out while waiting, and recorded again afterwards.
            let earlier = context.check_err();
            let slice = ManuallyDrop::into_inner(slice);
            let stream = slice.stream().clone();
            // Makes the default stream wait for the recorded uses, then drops the slice's events
            // and keeps the memory.
            let _number = slice.leak();
            if let Err(CudarcError(result)) = context.check_err() {
                // The events were recorded in a capture, or the context is lost.
                let error = failed("cuStreamWaitEvent", result);
                tracing::warn!(%error, "a dropped object's last use is unknown");
            }
            let is_done = endpoint.wait_before_drop(what, || is_idle(&stream));
            if let Err(CudarcError(result)) = earlier {
                context.record_err(Err::<(), _>(CudarcError(result)));
            }
            then(is_done);
        });
    }
}
