//! Semaphores of another API, waited for and signalled in CUDA streams.

use std::ffi::c_uint;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::{CudaStream, sys};

use super::endpoint::Endpoint;
use super::error::{check, failed, record};
use super::event::Event;
use super::poll::poll;
use super::{capabilities, descriptors};
use crate::error::{Error, ImportError, ImportResult, Invalid, Result};
use crate::fd::transfer_duplicate;
use crate::payload::{SemaphoreKind, SemaphorePayload};

/// An imported semaphore. Cheap to clone: clones are the same semaphore.
///
/// # Dropping
/// CUDA forbids destroying a semaphore before its waits and signals are done. So dropping the last
/// clone waits for those that were queued here, up to ten seconds; then the semaphore is left alive
/// for ever and `CUDA_ERROR_NOT_READY` is recorded in the context. After synchronising it waits not
/// at all. Where CUDA could not be asked to tell of a use, the semaphore is left alive too.
#[derive(Clone, Debug)]
pub struct Semaphore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    external: External,
    kind: SemaphoreKind,
    /// For each stream it was used in, what is complete when its last use there is.
    uses: Mutex<Vec<(StreamId, Event)>>,
    /// A use was submitted that `uses` doesn't tell of.
    is_use_lost: AtomicBool,
}

#[derive(Debug)]
struct External(sys::CUexternalSemaphore);

// SAFETY: an external semaphore belongs to a context, not to a thread, and the driver API may be
// called from several threads at once.
unsafe impl Send for External {}
// SAFETY: as above.
unsafe impl Sync for External {}

/// A stream's number, to tell streams apart; never used as a stream.
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
    /// The payload comes back with [`Error::Mismatch`](crate::Error::Mismatch) for another GPU,
    /// [`Error::Invalid`](crate::Error::Invalid) for a descriptor that is no semaphore,
    /// [`Error::Missing`](crate::Error::Missing) for a sync fd, or a timeline semaphore that the
    /// GPU's driver doesn't take, and [`Error::Driver`](crate::Error::Driver).
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

    /// Imports a duplicate of the descriptor, so that the payload stays whole if this fails.
    fn try_import_semaphore(&self, payload: &SemaphorePayload) -> Result<Semaphore> {
        payload.check(self.identities())?;
        let kind = payload.info().kind;
        capabilities::import_of_semaphores(self, kind, payload.info().handle_type)?;
        self.workarounds().check_fd(payload)?;
        let _current = self.enter()?;
        let external = transfer_duplicate(payload, |raw| {
            let desc = descriptors::semaphore_handle(raw, kind);
            let mut external = ptr::null_mut();
            // SAFETY: the context is current; the description is complete, its descriptor is open
            // (`transfer_duplicate`) and is the driver's from the moment the call succeeds.
            let result = unsafe { sys::cuImportExternalSemaphore(&mut external, &desc) };
            check("cuImportExternalSemaphore", result).map(|()| External(external))
        })?;
        tracing::debug!(?kind, "imported a semaphore into CUDA");
        let (uses, is_use_lost) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let endpoint = self.clone();
        Ok(Semaphore { shared: Arc::new(Shared { endpoint, external, kind, uses, is_use_lost }) })
    }

    /// What `stream` is given from now on waits until `semaphore` is signalled, or a timeline
    /// semaphore has reached `value`.
    ///
    /// A binary semaphore is unsignalled by the wait: one wait a signal.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a timeline semaphore without a value or a
    /// binary one with a value; [`Error::Mismatch`](crate::Error::Mismatch) for a stream or a
    /// semaphore of another context; [`Error::Driver`](crate::Error::Driver).
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

    /// [`wait`](Self::wait) for all of `waits` in one call, binary and timeline mixed.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); then none of them is waited for.
    pub fn wait_many(
        &self,
        stream: &CudaStream,
        waits: &[(&Semaphore, Option<u64>)],
    ) -> Result<()> {
        self.submit(Operation::Wait, stream, waits)
    }

    /// Signals `semaphore`, a timeline semaphore with `value`, when all that `stream` has been given
    /// so far is done.
    ///
    /// A timeline's values only grow, whoever signals; a binary semaphore is signalled again only
    /// after it was waited for. Neither can be checked here.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`Error::Invalid`](crate::Error::Invalid) for value 0, which no
    /// timeline can grow to.
    ///
    /// # References
    /// `cuSignalExternalSemaphoresAsync`; VUID-VkSemaphoreSignalInfo-value-03258 has the rule for
    /// values.
    #[doc(alias = "cuSignalExternalSemaphoresAsync")]
    pub fn signal(
        &self,
        stream: &CudaStream,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<()> {
        self.signal_many(stream, &[(semaphore, value)])
    }

    /// [`signal`](Self::signal) for all of `signals` in one call, binary and timeline mixed.
    ///
    /// # Errors
    /// As [`signal`](Self::signal); then none of them is signalled.
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
        if let [(semaphore, value)] = list {
            // A handoff's own case, and made for every one: nothing is allocated.
            let value = self.check_use(operation, semaphore, *value)?;
            semaphore.shared.prepare_use(stream)?;
            let handles = [semaphore.shared.external.0];
            match operation {
                Operation::Wait => {
                    self.enqueue_waits(stream, &handles, &[descriptors::wait_params(value)])?;
                }
                Operation::Signal => {
                    self.enqueue_signals(stream, &handles, &[descriptors::signal_params(value)])?;
                }
            }
            semaphore.shared.note_use(stream);
            return Ok(());
        }
        let mut handles = Vec::with_capacity(list.len());
        let mut values = Vec::with_capacity(list.len());
        for (semaphore, value) in list {
            values.push(self.check_use(operation, semaphore, *value)?);
            handles.push(semaphore.shared.external.0);
        }
        // All that can fail comes first: what was submitted can't be taken back.
        for (semaphore, _) in list {
            semaphore.shared.prepare_use(stream)?;
        }
        match operation {
            Operation::Wait => {
                let params: Vec<_> = values.into_iter().map(descriptors::wait_params).collect();
                self.enqueue_waits(stream, &handles, &params)?;
            }
            Operation::Signal => {
                let params: Vec<_> = values.into_iter().map(descriptors::signal_params).collect();
                self.enqueue_signals(stream, &handles, &params)?;
            }
        }
        for (semaphore, _) in list {
            semaphore.shared.note_use(stream);
        }
        Ok(())
    }

    /// The value to submit for `semaphore`, which is of this context.
    fn check_use(
        &self,
        operation: Operation,
        semaphore: &Semaphore,
        value: Option<u64>,
    ) -> Result<u64> {
        let shared = &semaphore.shared;
        self.check_context("the semaphore's CUDA context", shared.endpoint.context())?;
        checked_value(operation, shared.kind, value)
    }

    /// Waits for semaphores of this context that `check_use` has found good.
    fn enqueue_waits(
        &self,
        stream: &CudaStream,
        handles: &[sys::CUexternalSemaphore],
        params: &[sys::CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS],
    ) -> Result<()> {
        let count = count(handles.len().min(params.len()))?;
        let _current = self.enter()?;
        // SAFETY: the context is current; both arrays have `count` elements, which the driver copies;
        // the stream and the semaphores are of this context, alive, and the semaphores stay alive
        // until the wait is done (`Shared::drop`).
        check("cuWaitExternalSemaphoresAsync", unsafe {
            sys::cuWaitExternalSemaphoresAsync(
                handles.as_ptr(),
                params.as_ptr(),
                count,
                stream.cu_stream(),
            )
        })
    }

    /// As `enqueue_waits`, for signals.
    fn enqueue_signals(
        &self,
        stream: &CudaStream,
        handles: &[sys::CUexternalSemaphore],
        params: &[sys::CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS],
    ) -> Result<()> {
        let count = count(handles.len().min(params.len()))?;
        let _current = self.enter()?;
        // SAFETY: as in `enqueue_waits`.
        check("cuSignalExternalSemaphoresAsync", unsafe {
            sys::cuSignalExternalSemaphoresAsync(
                handles.as_ptr(),
                params.as_ptr(),
                count,
                stream.cu_stream(),
            )
        })
    }
}

fn count(len: usize) -> Result<c_uint> {
    let too_many = |_| Invalid::new("semaphores", format!("{len} are too many"));
    Ok(c_uint::try_from(len).map_err(too_many)?)
}

impl Semaphore {
    /// Whether it is a flag or a counter.
    pub fn kind(&self) -> SemaphoreKind {
        self.shared.kind
    }

    /// Waits on the host until all waits and signals that were queued here, in any stream, are done,
    /// and with them the work before them.
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
    /// Makes the event that `note_use` records, so that hardly anything can fail after the
    /// submission.
    fn prepare_use(&self, stream: &CudaStream) -> Result<()> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        self.event_of(&mut uses, stream)?;
        Ok(())
    }

    /// Notes what was submitted to `stream`.
    ///
    /// A failure here is none of the submission, which stands: who was told of one would submit
    /// again. So it is logged, and the semaphore stays alive for ever, since nothing tells any more
    /// when it is unused.
    fn note_use(&self, stream: &CudaStream) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = self.event_of(&mut uses, stream).and_then(|event| event.record(stream));
        if let Err(error) = noted {
            self.is_use_lost.store(true, Ordering::Relaxed);
            tracing::error!(%error, "a semaphore's use can't be followed: it is never destroyed");
        }
    }

    /// The event for `stream`, made where there is none: also for one that another thread has
    /// cleared away since `prepare_use`.
    fn event_of<'a>(
        &self,
        uses: &'a mut Vec<(StreamId, Event)>,
        stream: &CudaStream,
    ) -> Result<&'a Event> {
        let id = stream_id(stream);
        let at = match uses.iter().position(|(used, _)| *used == id) {
            Some(at) => at,
            None => {
                // Streams come and go: forget those in which all is done.
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
        let is_settled = self.endpoint.settle("waiting for the last use of a semaphore", || {
            uses.iter().try_fold(true, |done, (_, event)| Ok(done & event.is_complete()?))
        });
        if !is_settled {
            return;
        }
        let current = self.endpoint.enter();
        // SAFETY: imported once, destroyed once, here; no wait or signal is outstanding.
        let result = unsafe { sys::cuDestroyExternalSemaphore(self.external.0) };
        record(context, "cuDestroyExternalSemaphore", result);
        drop(current);
    }
}

fn stream_id(stream: &CudaStream) -> StreamId {
    stream.cu_stream() as StreamId
}

/// The value to submit: that of a timeline semaphore, and 0, which is ignored, for a binary one.
fn checked_value(operation: Operation, kind: SemaphoreKind, value: Option<u64>) -> Result<u64> {
    kind.check_value(value)?;
    match value {
        Some(0) if operation == Operation::Signal => {
            Err(Invalid::new("value", "is 0, which a timeline semaphore starts at")
                .vuid("VUID-VkSemaphoreSignalInfo-value-03258")
                .help("signal with a value above the present one")
                .into())
        }
        value => Ok(value.unwrap_or(0)),
    }
}

#[cfg(test)]
#[path = "semaphore_tests.rs"]
mod tests;
