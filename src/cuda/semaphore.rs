//! Imported semaphores, waited for and signalled in CUDA streams.

use std::ffi::c_uint;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::{CudaStream, sys};

use super::descriptors::{self, signal_params, wait_params};
use super::endpoint::Endpoint;
use super::fence::{Event, poll};
use super::library::{check, failed, record};
use crate::capabilities::Support;
use crate::error::{Api, Error, ImportError, ImportResult, Invalid, Missing, Result};
use crate::fd::{SemaphoreHandleType, transfer_duplicate};
use crate::payload::{SemaphoreKind, SemaphorePayload};

/// An imported semaphore. Cheap to clone: clones are the same semaphore.
///
/// # Dropping
/// CUDA forbids destroying a semaphore before its waits and signals are done. So dropping the last
/// clone waits up to ten seconds for those that were submitted here. After that the semaphore is
/// leaked, and `CUDA_ERROR_NOT_READY` is recorded in the context. After a synchronise there is nothing
/// to wait for. The semaphore is also leaked if a use could not be recorded in an event.
#[derive(Clone, Debug)]
pub struct Semaphore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    external: External,
    kind: SemaphoreKind,
    /// For each stream it was used in, an event after its last use there.
    uses: Mutex<Vec<(StreamId, Event)>>,
    /// A use was submitted that is not in `uses`.
    is_use_lost: AtomicBool,
}

#[derive(Debug)]
struct External(sys::CUexternalSemaphore);

// SAFETY: an external semaphore belongs to a context, not to a thread, and the driver API may be
// called from several threads at once.
unsafe impl Send for External {}
// SAFETY: as above.
unsafe impl Sync for External {}

/// The address of a stream, used only to distinguish streams.
type StreamId = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Wait,
    Signal,
}

impl Endpoint {
    /// Imports a semaphore.
    ///
    /// # Errors
    /// Returns the payload with [`Error::Mismatch`] for another GPU, [`Error::Invalid`] for a descriptor
    /// that is not a semaphore, [`Error::Missing`] for a sync fd or if the driver doesn't support
    /// timeline semaphores, and [`Error::Driver`] if a CUDA call fails.
    ///
    /// # References
    /// `cuImportExternalSemaphore` with `CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD` or
    /// `CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD`.
    #[doc(alias = "cuImportExternalSemaphore")]
    pub fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore, SemaphorePayload> {
        self.try_import_semaphore(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports a duplicate of the descriptor, so that the payload stays usable if this fails.
    fn try_import_semaphore(&self, payload: &SemaphorePayload) -> Result<Semaphore> {
        payload.check(self.identities())?;
        let kind = payload.info().kind;
        import_of_semaphores(self, kind, payload.info().handle_type)?;
        self.workarounds().check_fd(payload)?;
        let _current = self.enter()?;
        let external = transfer_duplicate(payload, |raw| {
            let desc = descriptors::semaphore_handle(raw, kind);
            let mut external = ptr::null_mut();
            // SAFETY: the context is current; the structure is complete, its descriptor is open
            // (`transfer_duplicate`), and the driver owns it once the call succeeds.
            let result = unsafe { sys::cuImportExternalSemaphore(&mut external, desc.as_ptr()) };
            check("cuImportExternalSemaphore", result).map(|()| External(external))
        })?;
        tracing::debug!(?kind, "imported a semaphore into CUDA");
        let (uses, is_use_lost) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let endpoint = self.clone();
        Ok(Semaphore { shared: Arc::new(Shared { endpoint, external, kind, uses, is_use_lost }) })
    }

    /// Makes all later work in `stream` wait until `semaphore` is signalled, or a timeline semaphore
    /// has reached `value`.
    ///
    /// The wait unsignals a binary semaphore: one wait per signal.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timeline semaphore without a value or a binary one with a value;
    /// [`Error::Mismatch`] for a stream or a semaphore from another context; [`Error::Driver`] if a CUDA call fails.
    ///
    /// # References
    /// `cuWaitExternalSemaphoresAsync`.
    #[doc(alias = "cuWaitExternalSemaphoresAsync")]
    pub fn wait(
        &self,
        stream: &CudaStream,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<()> {
        self.wait_many(stream, &[(semaphore, value)])
    }

    /// Waits for all of `waits` in one call; binary and timeline semaphores may be mixed.
    ///
    /// # Errors
    /// Same as [`wait`](Self::wait). After an error, no wait is submitted.
    #[doc(alias = "cuWaitExternalSemaphoresAsync")]
    pub fn wait_many(
        &self,
        stream: &CudaStream,
        waits: &[(&Semaphore, Option<u64>)],
    ) -> Result<()> {
        self.submit(Operation::Wait, stream, waits)
    }

    /// Signals `semaphore`, a timeline semaphore with `value`, after all work that `stream` has been
    /// given so far.
    ///
    /// Each signal of a timeline semaphore, in any API, must have a larger value than the one before. A
    /// binary semaphore may be signalled again only after it was waited for. Neither is checked.
    ///
    /// # Errors
    /// Same as [`wait`](Self::wait); also [`Error::Invalid`] for value 0, which is the initial value of a
    /// timeline semaphore.
    ///
    /// # References
    /// `cuSignalExternalSemaphoresAsync`; VUID-VkSemaphoreSignalInfo-value-03258 for the values.
    #[doc(alias = "cuSignalExternalSemaphoresAsync")]
    pub fn signal(
        &self,
        stream: &CudaStream,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<()> {
        self.signal_many(stream, &[(semaphore, value)])
    }

    /// Signals all of `signals` in one call; binary and timeline semaphores may be mixed.
    ///
    /// # Errors
    /// Same as [`signal`](Self::signal). After an error, no signal is submitted.
    #[doc(alias = "cuSignalExternalSemaphoresAsync")]
    pub fn signal_many(
        &self,
        stream: &CudaStream,
        signals: &[(&Semaphore, Option<u64>)],
    ) -> Result<()> {
        self.submit(Operation::Signal, stream, signals)
    }

    fn submit(
        &self,
        operation: Operation,
        stream: &CudaStream,
        list: &[(&Semaphore, Option<u64>)],
    ) -> Result<()> {
        if list.is_empty() {
            return Ok(());
        }
        self.check_stream(stream)?;
        for (semaphore, value) in list {
            let shared = &semaphore.shared;
            self.check_context("the semaphore's CUDA context", shared.endpoint.context())?;
            check_value(operation, shared.kind, *value)?;
        }
        let too_many = |_| Invalid::new("semaphores", format!("{} are too many", list.len()));
        let count = c_uint::try_from(list.len()).map_err(too_many)?;
        // Everything that can fail comes first, because a submission can't be taken back.
        for (semaphore, _) in list {
            semaphore.shared.prepare_use(stream)?;
        }
        self.enqueue(operation, stream, list, count)?;
        for (semaphore, _) in list {
            semaphore.shared.note_use(stream);
        }
        Ok(())
    }

    /// Submits a checked list of `count` semaphores.
    fn enqueue(
        &self,
        operation: Operation,
        stream: &CudaStream,
        list: &[(&Semaphore, Option<u64>)],
        count: c_uint,
    ) -> Result<()> {
        let _current = self.enter()?;
        let stream = stream.cu_stream();
        with_each(
            list,
            |(semaphore, _)| semaphore.shared.external.0,
            |handles| match operation {
                Operation::Wait => {
                    let params = |(_, value): &(_, Option<u64>)| wait_params(value.unwrap_or(0));
                    // SAFETY: the context is current; both arrays have `count` elements, which the driver
                    // copies; the stream and the semaphores are of this context and alive, and the
                    // semaphores stay alive until the operation is done (`Shared::drop`).
                    let result = with_each(list, params, |params| unsafe {
                        let (handles, params) = (handles.as_ptr(), params.as_ptr().cast());
                        sys::cuWaitExternalSemaphoresAsync(handles, params, count, stream)
                    });
                    check("cuWaitExternalSemaphoresAsync", result)
                }
                Operation::Signal => {
                    let params = |(_, value): &(_, Option<u64>)| signal_params(value.unwrap_or(0));
                    // SAFETY: as above.
                    let result = with_each(list, params, |params| unsafe {
                        let (handles, params) = (handles.as_ptr(), params.as_ptr().cast());
                        sys::cuSignalExternalSemaphoresAsync(handles, params, count, stream)
                    });
                    check("cuSignalExternalSemaphoresAsync", result)
                }
            },
        )
    }
}

const HANDOFF: &str = "a handoff on the GPU";

/// Whether semaphores of `kind` can be imported by `handle_type`.
pub(crate) fn import_of_semaphores(
    endpoint: &Endpoint,
    kind: SemaphoreKind,
    handle_type: SemaphoreHandleType,
) -> Support {
    match (handle_type, kind) {
        (SemaphoreHandleType::OpaqueFd, SemaphoreKind::Binary) => Ok(()),
        (SemaphoreHandleType::OpaqueFd, SemaphoreKind::Timeline) if endpoint.has_timeline() => {
            Ok(())
        }
        (SemaphoreHandleType::OpaqueFd, SemaphoreKind::Timeline) => {
            let what = "CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED";
            Err(Missing::new(Api::Cuda, what, HANDOFF).help("use binary semaphores"))
        }
        (SemaphoreHandleType::SyncFd, _) => {
            Err(Missing::new(Api::Cuda, "semaphores as sync fd", HANDOFF)
                .help("export the semaphore as an opaque fd"))
        }
    }
}

/// Calls `apply` with `make` of each element. A list of one, as every handoff has, is not allocated.
fn with_each<T, U, R>(list: &[T], make: impl Fn(&T) -> U, apply: impl FnOnce(&[U]) -> R) -> R {
    match list {
        [one] => apply(&[make(one)]),
        many => apply(&many.iter().map(make).collect::<Vec<_>>()),
    }
}

impl Semaphore {
    /// Returns whether the semaphore is binary or timeline.
    pub fn kind(&self) -> SemaphoreKind {
        self.shared.kind
    }

    /// Waits on the host until all waits and signals that were submitted here, in any stream, and the
    /// work before them, are done.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn wait_for_uses(&self, timeout: Duration) -> Result<()> {
        let what = "the last use of a semaphore in CUDA";
        if self.shared.is_use_lost.load(Ordering::Relaxed) {
            return Err(Error::Timeout { what: what.into(), waited: Duration::ZERO });
        }
        let uses = self.shared.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, event) in uses.iter() {
            let is_done = || event.is_complete().map_err(|result| failed("cuEventQuery", result));
            if !poll(timeout, is_done)? {
                return Err(Error::Timeout { what: what.into(), waited: timeout });
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Creates the event that `note_use` records, so that less can fail after the submission.
    fn prepare_use(&self, stream: &CudaStream) -> Result<()> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        self.event_of(&mut uses, stream)?;
        Ok(())
    }

    /// Records a use that was submitted to `stream`.
    ///
    /// The work is already submitted. Returning an error would make the caller submit it twice, so it
    /// is logged, and the semaphore is leaked, because its last use is no longer known.
    fn note_use(&self, stream: &CudaStream) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = self.event_of(&mut uses, stream).and_then(|event| event.record(stream));
        if let Err(error) = noted {
            self.is_use_lost.store(true, Ordering::Relaxed);
            tracing::error!(%error, "a use of a semaphore can't be recorded: it will be leaked");
        }
    }

    /// The event for `stream`; created if it is absent, also because another thread has removed it
    /// since `prepare_use`.
    fn event_of<'a>(
        &self,
        uses: &'a mut Vec<(StreamId, Event)>,
        stream: &CudaStream,
    ) -> Result<&'a Event> {
        let id = stream_id(stream);
        let at = match uses.iter().position(|(used, _)| *used == id) {
            Some(at) => at,
            None => {
                // Remove the streams whose work is done, so that the list doesn't grow.
                uses.retain(|(_, event)| event.is_complete() != Ok(true));
                uses.push((id, Event::new(self.endpoint.context())?));
                uses.len() - 1
            }
        };
        Ok(&uses[at].1)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if *self.is_use_lost.get_mut() {
            return;
        }
        let context = self.endpoint.context();
        let uses = self.uses.get_mut().unwrap_or_else(PoisonError::into_inner);
        let is_done =
            self.endpoint.wait_before_drop("waiting for the last use of a semaphore", || {
                uses.iter().try_fold(true, |done, (_, event)| Ok(done & event.is_complete()?))
            });
        if !is_done {
            return;
        }
        let current = self.endpoint.enter();
        // SAFETY: imported once, destroyed once, here; all waits and signals are done.
        let result = unsafe { sys::cuDestroyExternalSemaphore(self.external.0) };
        record(context, "cuDestroyExternalSemaphore", result);
        drop(current);
    }
}

fn stream_id(stream: &CudaStream) -> StreamId {
    stream.cu_stream() as StreamId
}

/// Checks the value of a wait or a signal.
fn check_value(operation: Operation, kind: SemaphoreKind, value: Option<u64>) -> Result<()> {
    kind.check_value(value)?;
    if operation == Operation::Signal && value == Some(0) {
        return Err(Invalid::new("value", "is 0, the initial value of a timeline semaphore")
            .vuid("VUID-VkSemaphoreSignalInfo-value-03258")
            .help("signal with a value above the current one")
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use SemaphoreKind::{Binary, Timeline};

    #[test]
    fn only_a_timeline_has_a_value_and_it_is_not_signalled_with_0() {
        for operation in [Operation::Wait, Operation::Signal] {
            assert_eq!(check_value(operation, Binary, None), Ok(()));
            assert_eq!(check_value(operation, Timeline, Some(7)), Ok(()));
            for (kind, value) in [(Binary, Some(1)), (Timeline, None)] {
                let refused = check_value(operation, kind, value);
                assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
            }
        }
        assert_eq!(check_value(Operation::Wait, Timeline, Some(0)), Ok(()));
        assert!(check_value(Operation::Signal, Timeline, Some(0)).is_err());
    }
}
