//! One way from one endpoint to another: how it is synchronised, and its two ends.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::in_flight::InFlight;
use super::layouts::Layouts;
use super::peer::HandoffPeer;
use super::semaphore_ops::{SemaphoreOp, points};
use super::ticket::{AcquireError, HostFence, Ticket, WaitMode};
use crate::capabilities::{SyncMethod, SyncPlan, plan_handoff};
use crate::desc::BufferDesc;
use crate::error::{Error, ImportError, Invalid, Mismatch, Result};
use crate::payload::SemaphoreKind;
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
pub struct Handoff<A: HandoffPeer, B: HandoffPeer> {
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
pub fn open<A: HandoffPeer, B: HandoffPeer>(
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
        (owner.capabilities(&desc)?, from.capabilities(&desc)?, to.capabilities(&desc)?);
    for side in [&sends, &takes] {
        owner.identities()[0].check_same(&side.identities)?;
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
    let lane = Arc::new(Channel::new(plan.method, options));
    let fences = from.fences()?;
    let release =
        Releaser { endpoint: from.clone(), semaphores: signals, fences, lane: lane.clone() };
    let acquire = Acquirer { endpoint: to.clone(), semaphores: waits, lane };
    Ok(Handoff { release, acquire, plan })
}

/// What both ends know.
#[derive(Debug)]
pub(crate) struct Channel {
    id: u64,
    pub(crate) method: SyncMethod,
    options: HandoffOptions,
    course: Mutex<InFlight>,
}

impl Channel {
    fn new(method: SyncMethod, options: HandoffOptions) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, method, options, course: Mutex::default() }
    }

    fn course(&self) -> MutexGuard<'_, InFlight> {
        // Nothing panics while it is locked.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a release back that never happened.
    pub(crate) fn withdraw(&self, sequence: u64) {
        self.course().withdraw(sequence);
    }

    /// Waits on the host as the options say.
    #[cfg(feature = "gl")]
    pub(crate) fn host_wait(
        &self,
        block: impl FnOnce(Duration) -> Result<()>,
        is_done: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        self.options.wait.wait(self.options.timeout, block, is_done)
    }

    /// Waits on the host for all that `tickets` name, for the time of one wait in all. Those that
    /// were released together name the same, which is waited for once.
    fn host_wait_all<'t>(&self, tickets: impl Iterator<Item = &'t Ticket>) -> Result<()> {
        if self.method != SyncMethod::HostWait {
            return Ok(());
        }
        let (start, timeout) = (Instant::now(), self.options.timeout);
        let mut before: Option<&HostFence> = None;
        for host in tickets.filter_map(|ticket| ticket.host.as_ref()) {
            if before.replace(host).is_some_and(|before| before.is_same(host)) {
                continue;
            }
            let left = timeout.saturating_sub(start.elapsed());
            let waited =
                self.options.wait.wait(left, |left| host.block(left), || host.is_signaled());
            waited.map_err(|error| match error {
                Error::Timeout { what, .. } => Error::Timeout { what, waited: timeout },
                other => other,
            })?;
        }
        Ok(())
    }
}

/// The releasing end of a handoff.
pub struct Releaser<P: HandoffPeer> {
    pub(crate) endpoint: P,
    pub(crate) semaphores: Vec<P::Semaphore>,
    pub(crate) fences: P::Fences,
    pub(crate) lane: Arc<Channel>,
}

/// The acquiring end of a handoff.
pub struct Acquirer<P: HandoffPeer> {
    pub(crate) endpoint: P,
    semaphores: Vec<P::Semaphore>,
    pub(crate) lane: Arc<Channel>,
}

impl<P: HandoffPeer> fmt::Debug for Releaser<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Releaser").field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl<P: HandoffPeer> fmt::Debug for Acquirer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquirer").field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl<P: HandoffPeer> Releaser<P> {
    /// The endpoint that releases.
    pub fn endpoint(&self) -> &P {
        &self.endpoint
    }

    /// Leaves alive for ever what work that may never end still uses.
    pub(crate) fn abandon(&self) {
        std::mem::forget(self.semaphores.clone());
        P::abandon(&self.fences);
    }

    /// Refuses a ticket of another handoff, which comes back.
    pub(crate) fn check_own(&self, ticket: Ticket) -> Result<Ticket, AcquireError> {
        if ticket.lane == self.lane.id {
            return Ok(ticket);
        }
        let error = Mismatch::new("the ticket's handoff", self.lane.id, ticket.lane);
        Err(ImportError::new(ticket, error))
    }

    /// The numbers of the next `count` releases, if so many more may be under way.
    pub(crate) fn next_sequences(&self, count: usize) -> Result<Range<u64>> {
        let limit = u64::from(self.lane.options.in_flight);
        self.lane.course().next(count as u64, limit)
    }

    /// What the GPU signals for the releases `sequences`.
    pub(crate) fn points(
        &self,
        sequences: Range<u64>,
    ) -> impl Iterator<Item = SemaphoreOp<'_, P::Semaphore>> {
        points(&self.semaphores, self.lane.method, sequences)
    }

    /// Counts the releases and makes their tickets; the host waits for `host`, once for all of them.
    pub(crate) fn tickets(
        &self,
        sequences: Range<u64>,
        host: Option<HostFence>,
    ) -> impl ExactSizeIterator<Item = Ticket> + use<P> {
        self.lane.course().release(sequences.clone());
        let lane = self.lane.id;
        let numbers = 0..usize::try_from(sequences.end - sequences.start).unwrap_or(usize::MAX);
        numbers.map(move |number| {
            let sequence = sequences.start + number as u64;
            Ticket { lane, sequence, host: host.clone(), layouts: Layouts::default() }
        })
    }

    /// Counts the one release `sequences` and makes its ticket.
    pub(crate) fn ticket(&self, sequences: Range<u64>, host: Option<HostFence>) -> Ticket {
        let (lane, sequence) = (self.lane.id, sequences.start);
        self.lane.course().release(sequences);
        Ticket { lane, sequence, host, layouts: Layouts::default() }
    }
}

/// What an acquire on the GPU waits for, one after the other.
pub(crate) type Points<'a, 'b, S> = &'a mut dyn Iterator<Item = SemaphoreOp<'b, S>>;

impl<P: HandoffPeer> Acquirer<P> {
    /// The endpoint that acquires.
    pub fn endpoint(&self) -> &P {
        &self.endpoint
    }

    /// Leaves alive for ever what work that may never end still uses.
    pub(crate) fn abandon(&self) {
        std::mem::forget(self.semaphores.clone());
    }

    /// Takes a ticket: where the host waits, waits; else tells `enqueue` what the GPU waits for.
    pub(crate) fn take<T>(
        &self,
        ticket: Ticket,
        enqueue: impl FnOnce(&P, Points<'_, '_, P::Semaphore>) -> Result<T>,
    ) -> Result<T, AcquireError> {
        self.take_images(ticket, &Layouts::Unknown, enqueue)
    }

    /// As [`take`](Self::take), for images that this side takes over with the layouts `acquired`.
    pub(crate) fn take_images<T>(
        &self,
        ticket: Ticket,
        acquired: &Layouts,
        enqueue: impl FnOnce(&P, Points<'_, '_, P::Semaphore>) -> Result<T>,
    ) -> Result<T, AcquireError> {
        if let Err(error) = ticket.layouts.check(acquired) {
            return Err(ImportError::new(ticket, error));
        }
        self.take_all(std::iter::once(&ticket), enqueue)
            .map_err(|error| ImportError::new(ticket, error))
    }

    /// Takes all of `tickets` or none: where the host waits, waits; else tells `enqueue` what the GPU
    /// waits for. Whoever gets `Ok` drops the tickets, and may try again with an error.
    pub(crate) fn take_all<'t, T>(
        &self,
        tickets: impl Iterator<Item = &'t Ticket> + Clone,
        enqueue: impl FnOnce(&P, Points<'_, '_, P::Semaphore>) -> Result<T>,
    ) -> Result<T> {
        if let Some(foreign) = tickets.clone().find(|ticket| ticket.lane != self.lane.id) {
            return Err(Mismatch::new("the ticket's handoff", self.lane.id, foreign.lane)
                .help("acquire at the other end of the handoff that released")
                .into());
        }
        self.lane.host_wait_all(tickets.clone())?;
        let sequences = tickets.map(|ticket| ticket.sequence);
        let mut waits = points(&self.semaphores, self.lane.method, sequences.clone());
        let taken = enqueue(&self.endpoint, &mut waits)?;
        let mut course = self.lane.course();
        sequences.for_each(|sequence| course.arrive(sequence));
        Ok(taken)
    }
}
