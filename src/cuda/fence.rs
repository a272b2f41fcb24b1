//! The host waits for CUDA: the last resort of a handoff, and the only one without semaphores.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::CudaStream;

use super::endpoint::Endpoint;
use super::error::failed;
use super::event::Event;
use super::poll::poll;
use crate::error::{Error, Result};

/// A point in a stream that the host can wait for. `Send`, `Sync` and cheap to clone.
///
/// Dropping it waits for nothing and undoes nothing.
#[derive(Clone, Debug)]
#[must_use = "a fence that nobody waits for orders nothing"]
pub struct Fence {
    event: Arc<Event>,
}

impl Endpoint {
    /// A fence behind all that `stream` has been given so far.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a stream of another context; [`Error::Driver`], also for work that
    /// failed earlier.
    ///
    /// # References
    /// `cuEventCreate` with `CU_EVENT_DISABLE_TIMING`, `cuEventRecord`.
    #[doc(alias = "cuEventRecord")]
    pub fn fence(&self, stream: &CudaStream) -> Result<Fence> {
        self.check_stream(stream)?;
        let event = Event::new(self.context())?;
        event.record(stream)?;
        Ok(Fence { event: Arc::new(event) })
    }
}

impl Fence {
    /// Whether both are the same point.
    #[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
    pub(crate) fn is_same(&self, other: &Fence) -> bool {
        Arc::ptr_eq(&self.event, &other.event)
    }

    /// Whether the work is done. What it wrote may then be read by anybody on that GPU.
    ///
    /// # Errors
    /// [`Error::Driver`], also where the work itself failed.
    ///
    /// # References
    /// `cuEventQuery`.
    #[doc(alias = "cuEventQuery")]
    pub fn is_signaled(&self) -> Result<bool> {
        self.event.is_complete().map_err(|result| failed("cuEventQuery", result))
    }

    /// Waits until the work is done, for `timeout` at most. `Duration::MAX` has no end.
    ///
    /// `cuEventSynchronize` can't be told when to give up, so the event is asked again and again: at
    /// first without a pause, which suits a handoff, then letting other threads run, then sleeping
    /// up to a millisecond in between.
    ///
    /// # Errors
    /// [`Error::Timeout`]; the fence may be waited for again. [`Error::Driver`], also where the work
    /// itself failed.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        if poll(timeout, || self.is_signaled())? {
            return Ok(());
        }
        Err(Error::Timeout { what: "the work in a CUDA stream".into(), waited: timeout })
    }
}
