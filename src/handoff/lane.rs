//! One way from one endpoint to another: how it is synchronised, and its two ends.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::layouts::Layouts;
use super::peer::Peer;
use super::ticket::{AcquireError, HostPoint, Ticket, WaitMode};
use crate::capabilities::{SyncMethod, SyncPlan, plan_handoff};
use crate::error::{ImportError, Invalid, Mismatch, Result};
use crate::payload::SemaphoreKind;
use crate::resource::BufferDesc;
use crate::vulkan;

/// How a handoff is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffOptions {
    /// The method of synchronisation; `None` for the best that both sides have.
    pub method: Option<SyncMethod>,
    /// How many releases may be under way before the oldest of them is acquired; at least 1.
    ///
    /// A binary semaphore carries one, so that many are made and used in turn. Signalling one again
    /// takes that its wait has *executed* (VUID-vkQueueSubmit-pSignalSemaphores-00067): release number
    /// n + `in_flight` is to come after the acquire of number n on the GPU, as it does where the
    /// payload comes back by another handoff.
    pub in_flight: u32,
    /// How the host waits, where it does.
    pub wait: WaitMode,
    /// How long the host waits, where it does.
    pub timeout: Duration,
}

impl Default for HandoffOptions {
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { method: None, in_flight: 1, wait: WaitMode::default(), timeout }
    }
}

/// A handoff from `A` to `B`, opened: its two ends, and how they are synchronised.
#[derive(Debug)]
pub struct Handoff<A: Peer, B: Peer> {
    /// The end that releases.
    pub release: Releaser<A>,
    /// The end that acquires.
    pub acquire: Acquirer<B>,
    /// The method that was chosen, and why not a better one.
    pub plan: SyncPlan,
}

/// Opens a handoff from `from` to `to`, with semaphores of `owner`'s device.
///
/// `owner` may be one of the two, or a third where neither is Vulkan.
///
/// # Errors
/// [`Mismatch`] where the endpoints are not on one GPU, [`Missing`](crate::error::Missing) where
/// `options.method` can't be had, [`Invalid`] for 0 in flight.
pub fn open<A: Peer, B: Peer>(
    owner: &vulkan::Endpoint,
    from: &A,
    to: &B,
    options: HandoffOptions,
) -> Result<Handoff<A, B>> {
    if options.in_flight == 0 {
        return Err(Invalid::new("options.in_flight", "is 0").help("give at least 1").into());
    }
    // Any resource will do: only what is told of semaphores is looked at.
    let desc = BufferDesc::storage(16).into();
    let (owns, sends, takes) =
        (owner.capabilities(&desc)?, from.peer_capabilities(&desc)?, to.peer_capabilities(&desc)?);
    for side in [&sends, &takes] {
        owner.identities()[0].require_same(&side.identities)?;
    }
    let plan = plan_handoff(&owns, &sends, &takes, options.method)?;
    tracing::debug!(from = %sends.api, to = %takes.api, method = ?plan.method, "handoff");
    let (count, kind) = match plan.method {
        SyncMethod::Timeline => (1, SemaphoreKind::Timeline),
        SyncMethod::Binary => (options.in_flight, SemaphoreKind::Binary),
        SyncMethod::HostWait => (0, SemaphoreKind::Binary),
    };
    let (mut signals, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let semaphore = owner.create_semaphore(kind)?;
        signals.push(from.adopt_semaphore(&semaphore)?);
        waits.push(to.adopt_semaphore(&semaphore)?);
    }
    let lane = Arc::new(Lane::new(plan.method, options));
    let fences = from.fences()?;
    let release =
        Releaser { endpoint: from.clone(), semaphores: signals, fences, lane: lane.clone() };
    let acquire = Acquirer { endpoint: to.clone(), semaphores: waits, lane };
    Ok(Handoff { release, acquire, plan })
}

/// What both ends know.
#[derive(Debug)]
pub(crate) struct Lane {
    id: u64,
    pub(super) method: SyncMethod,
    options: HandoffOptions,
    course: Mutex<Course>,
}

/// Which releases there were.
#[derive(Debug, Default)]
struct Course {
    /// The number of the last one.
    released: u64,
    /// Those that are not acquired. A count would not do: tickets may be acquired in any order, or
    /// never, and a binary semaphore can't be signalled again before it was waited for.
    under_way: BTreeSet<u64>,
}

impl Lane {
    fn new(method: SyncMethod, options: HandoffOptions) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, method, options, course: Mutex::default() }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        // Nothing panics while it is locked.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a release back that never happened.
    pub(crate) fn withdraw(&self, sequence: u64) {
        let mut course = self.course();
        course.under_way.remove(&sequence);
        if course.released == sequence {
            course.released -= 1;
        }
    }

    /// Waits on the host as the options say.
    pub(super) fn host_wait(
        &self,
        block: impl FnOnce(Duration) -> Result<()>,
        is_done: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        self.options.wait.wait(self.options.timeout, block, is_done)
    }
}

/// The releasing end of a handoff.
pub struct Releaser<P: Peer> {
    pub(super) endpoint: P,
    semaphores: Vec<P::Semaphore>,
    pub(super) fences: P::Fences,
    pub(super) lane: Arc<Lane>,
}

/// The acquiring end of a handoff.
pub struct Acquirer<P: Peer> {
    pub(super) endpoint: P,
    semaphores: Vec<P::Semaphore>,
    pub(super) lane: Arc<Lane>,
}

impl<P: Peer> fmt::Debug for Releaser<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Releaser").field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl<P: Peer> fmt::Debug for Acquirer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquirer").field("lane", &self.lane).finish_non_exhaustive()
    }
}

/// What a release signals and an acquire waits for on the GPU.
pub(super) struct GpuPoint<'a, S> {
    pub(super) semaphore: &'a S,
    /// `None` for a binary semaphore.
    pub(super) value: Option<u64>,
}

/// The semaphore of release number `sequence`; `None` where the host waits.
fn gpu_point<S>(semaphores: &[S], method: SyncMethod, sequence: u64) -> Option<GpuPoint<'_, S>> {
    let count = semaphores.len() as u64;
    let slot = (sequence - 1).checked_rem(count)?;
    let value = (method == SyncMethod::Timeline).then_some(sequence);
    // The slot is below the count, which came from a length.
    semaphores.get(slot as usize).map(|semaphore| GpuPoint { semaphore, value })
}

impl<P: Peer> Releaser<P> {
    /// The endpoint that releases.
    pub fn endpoint(&self) -> &P {
        &self.endpoint
    }

    /// Leaves alive for ever what work that may never end still uses.
    pub(super) fn abandon(&self) {
        std::mem::forget(self.semaphores.clone());
        P::abandon(&self.fences);
    }

    /// Refuses a ticket of another handoff, which comes back.
    pub(super) fn require_own(&self, ticket: Ticket) -> Result<Ticket, AcquireError> {
        if ticket.lane == self.lane.id {
            return Ok(ticket);
        }
        let error = Mismatch::new("the ticket's handoff", self.lane.id, ticket.lane);
        Err(ImportError::new(ticket, error))
    }

    /// The number of the next release, if another may be under way.
    pub(super) fn next_sequence(&self) -> Result<u64> {
        let course = self.lane.course();
        let next = course.released + 1;
        let limit = u64::from(self.lane.options.in_flight);
        if let Some(oldest) = course.under_way.first().filter(|oldest| next - **oldest >= limit) {
            let what = format!("number {next} while number {oldest} is not yet acquired");
            return Err(Invalid::new("release", what)
                .help(format!(
                    "acquire it first: {limit} may be in flight; or open the handoff with more \
                     in_flight"
                ))
                .into());
        }
        Ok(next)
    }

    pub(super) fn gpu_point(&self, sequence: u64) -> Option<GpuPoint<'_, P::Semaphore>> {
        gpu_point(&self.semaphores, self.lane.method, sequence)
    }

    /// Counts the release and makes its ticket.
    pub(super) fn ticket(&self, sequence: u64, host: Option<HostPoint>) -> Ticket {
        let mut course = self.lane.course();
        course.released = sequence;
        course.under_way.insert(sequence);
        Ticket { lane: self.lane.id, sequence, host, layouts: Layouts::default() }
    }
}

impl<P: Peer> Acquirer<P> {
    /// The endpoint that acquires.
    pub fn endpoint(&self) -> &P {
        &self.endpoint
    }

    /// Leaves alive for ever what work that may never end still uses.
    pub(super) fn abandon(&self) {
        std::mem::forget(self.semaphores.clone());
    }

    /// Takes a ticket: where the host waits, waits; else tells `enqueue` what the GPU waits for.
    pub(super) fn take<T>(
        &self,
        ticket: Ticket,
        enqueue: impl FnOnce(&P, Option<GpuPoint<'_, P::Semaphore>>) -> Result<T>,
    ) -> Result<T, AcquireError> {
        self.take_images(ticket, &Layouts::Unknown, enqueue)
    }

    /// As [`take`](Self::take), for images that this side takes over with the layouts `acquired`.
    pub(super) fn take_images<T>(
        &self,
        ticket: Ticket,
        acquired: &Layouts,
        enqueue: impl FnOnce(&P, Option<GpuPoint<'_, P::Semaphore>>) -> Result<T>,
    ) -> Result<T, AcquireError> {
        if ticket.lane != self.lane.id {
            let error = Mismatch::new("the ticket's handoff", self.lane.id, ticket.lane)
                .help("acquire at the other end of the handoff that released");
            return Err(ImportError::new(ticket, error));
        }
        if let Err(error) = ticket.layouts.check(acquired) {
            return Err(ImportError::new(ticket, error));
        }
        let waited = ticket.host.as_ref().map_or(Ok(()), |host| {
            self.lane.host_wait(|timeout| host.block(timeout), || host.is_signaled())
        });
        let point = gpu_point(&self.semaphores, self.lane.method, ticket.sequence);
        match waited.and_then(|()| enqueue(&self.endpoint, point)) {
            Ok(taken) => {
                self.lane.course().under_way.remove(&ticket.sequence);
                Ok(taken)
            }
            Err(error) => Err(ImportError::new(ticket, error)),
        }
    }
}
