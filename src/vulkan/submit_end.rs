//! The ends of handoffs that a submit completes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::accesses::Accesses;
use super::endpoint::Endpoint;
use super::kept::{Object, Objects};
use super::ownership::{self, Ownership, Part};
use crate::error::{Error, Mismatch, Result};

/// The part of a handoff that the submits of its Vulkan ends call.
pub(crate) trait SubmitHandoff: fmt::Debug + Send + Sync {
    /// Rejects a submit that is out of order.
    fn check(&self, half: &Half) -> Result<()>;
    /// Called after the submit.
    fn submitted(&self, half: &Half);
    /// Called if there will be no submit.
    fn abandoned(&self, half: &Half);
}

/// The half of a handoff that a submit completes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// The sequence numbers of the releases.
    Release(Range<u64>),
    /// The lowest of the sequence numbers that are acquired.
    Acquire(u64),
}

/// One end of a handoff in a submit. If it is dropped before the submit, its half of the handoff is
/// cancelled.
#[derive(Debug)]
pub(crate) struct SubmitEnd {
    endpoint: Endpoint,
    pub(super) id: u64,
    half: Half,
    /// `None` after the submit.
    handoff: Option<Arc<dyn SubmitHandoff>>,
    objects: SmallVec<[Object; 2]>,
}

impl SubmitEnd {
    /// The end `id` of a handoff, at which `endpoint` releases or acquires `used`.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) for a resource that is released already.
    pub(crate) fn new(
        endpoint: &Endpoint,
        handoff: Arc<dyn SubmitHandoff>,
        id: u64,
        half: Half,
        used: &Accesses<'_>,
    ) -> Result<Self> {
        let (endpoint, handoff) = (endpoint.for_object(), Some(handoff));
        let mut end = Self { endpoint, id, half, handoff, objects: SmallVec::new() };
        for used in used.buffers() {
            end.add(Object::Buffer(used.buffer.clone()), &Part::WHOLE, "buffers")?;
        }
        for used in used.images() {
            end.add(Object::Image(used.image.clone()), &used.part(), "images")?;
        }
        Ok(end)
    }

    fn add(&mut self, object: Object, part: &Part, parameter: &'static str) -> Result<()> {
        let half = self.ownership_half();
        if let Some(ownership) = object.ownership() {
            match self.half {
                Half::Release(_) => ownership.release(half, part, parameter)?,
                Half::Acquire(_) => ownership.acquire(half, part),
            }
        }
        // From here on it is cancelled if a later one fails.
        self.objects.push(object);
        Ok(())
    }

    /// Returns this half of the handoff as the resources identify it.
    fn ownership_half(&self) -> ownership::Half {
        let number = match &self.half {
            Half::Release(numbers) => numbers.start,
            Half::Acquire(first) => *first,
        };
        ownership::Half { end: self.id, number }
    }

    pub(super) fn check(&self, endpoint: &Endpoint) -> Result<()> {
        check_device("the handoff's VkDevice", endpoint, &self.endpoint)?;
        self.handoff.as_ref().map_or(Ok(()), |handoff| handoff.check(&self.half))
    }

    /// Called after the submit: moves what the submit uses to `kept`.
    pub(super) fn submitted(&mut self, kept: &mut Objects) {
        let Some(handoff) = self.handoff.take() else { return };
        let half = self.ownership_half();
        for object in self.objects.drain(..) {
            if let (Half::Acquire(_), Some(ownership)) = (&self.half, object.ownership()) {
                ownership.acquired(half);
            }
            kept.push(object);
        }
        handoff.submitted(&self.half);
    }
}

impl Drop for SubmitEnd {
    fn drop(&mut self) {
        let Some(handoff) = self.handoff.take() else { return };
        let half = self.ownership_half();
        let owned = self.objects.iter().filter_map(Object::ownership);
        owned.for_each(|ownership| ownership.abandon(half));
        handoff.abandoned(&self.half);
    }
}

impl Object {
    fn ownership(&self) -> Option<&Ownership> {
        match self {
            Self::Buffer(buffer) => Some(buffer.0.ownership()),
            Self::Image(image) => Some(image.0.ownership()),
            Self::Semaphore(_) | Self::Commands(_) => None,
        }
    }
}

/// Rejects an object of a device other than `endpoint`'s.
pub(super) fn check_device(
    field: &'static str,
    endpoint: &Endpoint,
    other: &Endpoint,
) -> Result<()> {
    if endpoint.is_same_device(other) { Ok(()) } else { Err(of_another(field, endpoint, other)) }
}

#[cold]
fn of_another(field: &'static str, endpoint: &Endpoint, other: &Endpoint) -> Error {
    let (expected, found) = (endpoint.device().handle(), other.device().handle());
    Mismatch::new(field, format!("{expected:?}"), format!("{found:?}"))
        .help("submit with the endpoint, and to a queue, of that device")
        .into()
}
