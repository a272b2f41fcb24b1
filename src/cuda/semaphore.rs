//! Imported semaphores, waited for and signalled in CUDA streams.

use std::ffi::c_uint;
use std::sync::Arc;
use std::time::Duration;
use std::{mem, ptr};

use cudarc::driver::{CudaStream, sys};

use super::capture::{Current, free, sweep};
use super::descriptors::{self, signal_params, wait_params};
use super::endpoint::Endpoint;
use super::fence::{Event, Fence};
use super::library::{check, record};
use super::uses::{OwnStream, UsedStream, Uses};
use crate::capabilities::Support;
use crate::error::{Api, Error, ImportError, ImportResult, Invalid, Missing, Result};
use crate::fd::{SemaphoreHandleType, check_no_file, transfer_duplicate};
use crate::payload::{SemaphoreKind, SemaphorePayload};

/// An imported semaphore. Cheap to clone: clones are the same semaphore.
///
/// # Dropping
/// CUDA forbids destroying a semaphore before its waits and signals are done, so dropping the last
/// clone waits up to ten seconds for those submitted through it. After that the semaphore is
/// leaked, and `CUDA_ERROR_NOT_READY` is recorded in the context. After a synchronisation there is
/// nothing to wait for. The semaphore is also leaked if a use could not be recorded in an event. A
/// graph keeps the semaphores of its nodes ([`Endpoint::capture_wait`]).
#[derive(Clone, Debug)]
pub struct Semaphore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    external: External,
    kind: SemaphoreKind,
    /// Waits and signals that were submitted to streams.
    uses: Uses,
}

#[derive(Debug)]
struct External(sys::CUexternalSemaphore);

impl External {
    /// Returns the handle. (A closure that used the field would capture the bare pointer.)
    fn into_raw(self) -> sys::CUexternalSemaphore {
        self.0
    }
}

// SAFETY: an external semaphore belongs to a context, not to a thread, and the driver API may be
// called from several threads at once.
unsafe impl Send for External {}
// SAFETY: as above.
unsafe impl Sync for External {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Wait,
    Signal,
}

impl Endpoint {
    /// Imports a semaphore.
    ///
    /// # Errors
    /// Returns the payload with [`Error::Mismatch`] for another GPU, [`Error::Invalid`] for a
    /// descriptor that is not a semaphore, [`Error::Missing`] for a sync fd or if the driver
    /// doesn't support timeline semaphores, and [`Error::Driver`] if a CUDA call fails.
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

    /// Imports a duplicate of the descriptor, so that the payload can be returned if this fails.
    fn try_import_semaphore(&self, payload: &SemaphorePayload) -> Result<Semaphore> {
        payload.check(self.identities())?;
        let kind = payload.info().kind;
        import_of_semaphores(self, kind, payload.info().handle_type)?;
        check_no_file(payload)?;
        self.workarounds().check_fd(payload)?;
        sweep();
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
        let (endpoint, uses) = (self.clone(), Uses::default());
        Ok(Semaphore { shared: Arc::new(Shared { endpoint, external, kind, uses }) })
    }

    /// Makes all later work in `stream` wait until `semaphore` is signalled, or a timeline
    /// semaphore has reached `value`.
    ///
    /// The wait resets a binary semaphore: one wait per signal.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a timeline semaphore without a value or a binary one with a value,
    /// and for a stream that is being captured into a graph (see
    /// [`capture_wait`](Self::capture_wait)); [`Error::Mismatch`] for a stream or a semaphore from
    /// another context; [`Error::Driver`] if a CUDA call fails.
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

    /// Signals `semaphore`, a timeline semaphore with `value`, after all work enqueued on `stream`
    /// so far.
    ///
    /// Each signal of a timeline semaphore, in any API, must have a larger value than the one
    /// before. A binary semaphore may be signalled again only after it was waited for. Neither is
    /// checked.
    ///
    /// # Errors
    /// Same as [`wait`](Self::wait); also [`Error::Invalid`] for value 0, which is the initial
    /// value of a timeline semaphore.
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
        let current = self.enter_handoff(stream)?;
        if list.is_empty() {
            return Ok(());
        }
        for (semaphore, value) in list {
            self.check_operation(operation, semaphore, *value)?;
        }
        let too_many =
            |_| Invalid::new("semaphores", format!("{} are more than CUDA accepts", list.len()));
        let count = c_uint::try_from(list.len()).map_err(too_many)?;
        // Everything that can fail comes first, because a submission can't be undone.
        let used = UsedStream::new(&current, stream);
        for (semaphore, _) in list {
            semaphore.prepare_use(&current, &used)?;
        }
        self.enqueue(&current, operation, stream.cu_stream(), list, count)?;
        list.iter().for_each(|(semaphore, _)| semaphore.note_use(&current, &used));
        Ok(())
    }

    /// Checks a wait for or a signal of `semaphore`.
    pub(super) fn check_operation(
        &self,
        operation: Operation,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<()> {
        let shared = &semaphore.shared;
        self.check_context("the semaphore's CUDA context", shared.endpoint.context())?;
        check_value(operation, shared.kind, value)
    }

    /// Submits a checked list of `count` semaphores to a stream of this context, or captures it.
    pub(super) fn enqueue(
        &self,
        _current: &Current<'_>,
        operation: Operation,
        stream: sys::CUstream,
        list: &[(&Semaphore, Option<u64>)],
        count: c_uint,
    ) -> Result<()> {
        with_each(
            list,
            |(semaphore, _)| semaphore.shared.external.0,
            |handles| match operation {
                Operation::Wait => {
                    let params = |(_, value): &(_, Option<u64>)| wait_params(value.unwrap_or(0));
                    // SAFETY: the context is current; both arrays have `count` elements, which the
                    // driver copies; the stream and the semaphores are of this context and alive,
                    // and the semaphores stay alive until the operation is done (`Shared::drop`),
                    // or as long as the graph (`keep_in_graph`).
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

/// Returns whether semaphores of `kind` can be imported as `handle_type`.
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

/// Calls `apply` with `make` of each element. A list of one, as in most handoffs, is not allocated.
fn with_each<T, U, R>(list: &[T], make: impl Fn(&T) -> U, apply: impl FnOnce(&[U]) -> R) -> R {
    match list {
        [one] => apply(&[make(one)]),
        many => apply(&many.iter().map(make).collect::<Vec<_>>()),
    }
}

impl Semaphore {
    /// Returns the endpoint that imported the semaphore.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Returns whether the semaphore is binary or timeline.
    pub fn kind(&self) -> SemaphoreKind {
        self.shared.kind
    }

    /// Returns the CUDA handle, valid as long as this or a clone of it. Waits and signals submitted
    /// with the handle are not tracked: synchronise their streams before the last clone is dropped.
    pub fn handle(&self) -> sys::CUexternalSemaphore {
        self.shared.external.0
    }

    /// Returns a fence that is signalled once a timeline semaphore reaches `value`.
    ///
    /// CUDA can't read a timeline's value, so this waits for it in a stream of its own, which
    /// doesn't delay the application's streams. `fence(value)?.is_signaled()` may return false for
    /// a short time after the value was reached. In the process that exported the semaphore, use
    /// `vulkan::Semaphore::value`.
    ///
    /// Drop the last clone of the semaphore only after the value was reached; otherwise the
    /// semaphore is leaked after ten seconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a binary semaphore, whose signal the wait would consume;
    /// [`Error::Driver`] if a CUDA call fails.
    ///
    /// # References
    /// `cuWaitExternalSemaphoresAsync`, `cuStreamCreate` with `CU_STREAM_NON_BLOCKING`,
    /// `cuEventRecord`.
    pub fn fence(&self, value: u64) -> Result<Fence> {
        let Shared { endpoint, kind, uses, .. } = &*self.shared;
        if *kind != SemaphoreKind::Timeline {
            let refused = Invalid::new("semaphore", "is binary and has no value");
            return Err(Error::Invalid(refused.help("wait for it in a stream (Endpoint::wait)")));
        }
        let current = endpoint.enter()?;
        let (event, own) = (Event::new(&current)?, Event::new(&current)?);
        let stream = OwnStream::new(&current)?;
        endpoint.enqueue(&current, Operation::Wait, stream.raw, &[(self, Some(value))], 1)?;
        uses.add(&current, &stream, own);
        event.record(&current, stream.raw)?;
        Ok(Fence::new(event))
    }

    /// Prepares for [`note_use`](Self::note_use), so that less can fail after the submission.
    pub(crate) fn prepare_use(&self, current: &Current<'_>, stream: &UsedStream<'_>) -> Result<()> {
        self.shared.uses.prepare(current, stream)
    }

    /// Records a use that was submitted to `stream`.
    pub(crate) fn note_use(&self, current: &Current<'_>, stream: &UsedStream<'_>) {
        self.shared.uses.note(current, stream);
    }

    /// Waits on the host until all waits and signals that were submitted here, in any stream, and
    /// the work before them, are done.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn wait_for_uses(&self, timeout: Duration) -> Result<()> {
        self.shared.uses.wait(timeout, "the last use of a semaphore in CUDA")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let (endpoint, external) = (self.endpoint.clone(), External(self.external.0));
        let uses = mem::take(&mut self.uses);
        free(self.endpoint.context(), move |context| {
            if !uses.wait_before_drop(&endpoint, "waiting for the last use of a semaphore") {
                return;
            }
            // SAFETY: imported once, destroyed once, here; all waits and signals are done, and no
            // graph has it, since a graph holds a clone.
            let result = unsafe { sys::cuDestroyExternalSemaphore(external.into_raw()) };
            record(context, "cuDestroyExternalSemaphore", result);
        });
    }
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
