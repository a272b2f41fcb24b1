//! One endpoint's place in a ring, and how a ring is opened.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::peer::RingPeer;
use super::queue::{Arrival, Queue, Wait};
use super::slot::{Batch, PendingRelease, PendingTake, Slot};
use crate::capabilities::{Capabilities, SyncMethod, SyncPlan, plan_all};
use crate::desc::BufferDesc;
use crate::error::{Invalid, Mismatch, Result};
use crate::handoff::{Acquirer, Contents, Handoff, HandoffOptions, Releaser, Ticket, open};
use crate::vulkan;

/// One endpoint's place in a ring: takes slots from the stage before it and releases them to the
/// next.
///
/// An OpenGL stage is used on the thread on which its context is current.
pub struct RingStage<P: RingPeer> {
    // First: dropping them waits for Vulkan's work.
    pub(crate) acquirer: Acquirer<P>,
    pub(crate) releaser: Releaser<P>,
    pub(crate) buffers: Vec<P::Buffer>,
    pub(crate) work: P::Work,
    pub(crate) ring: u64,
    pub(crate) arrivals: Arc<Queue>,
    pub(crate) next: Arc<Queue>,
    /// The queues of all stages, to be closed when one is dropped.
    pub(crate) all: Vec<Arc<Queue>>,
}

impl<P: RingPeer> fmt::Debug for RingStage<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingStage")
            .field("ring", &self.ring)
            .field("depth", &self.buffers.len())
            .field("arrived", &self.arrived())
            .finish_non_exhaustive()
    }
}

impl<P: RingPeer> RingStage<P> {
    /// Returns the number of slots in the ring.
    pub fn depth(&self) -> usize {
        self.buffers.len()
    }

    /// Returns the number of slots that have arrived and can be taken.
    pub fn arrived(&self) -> usize {
        self.arrivals.len()
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &P {
        self.releaser.endpoint()
    }

    /// Returns the buffers of all slots, by slot index, so that they can be bound or recorded in
    /// advance. Access a buffer's content only while this stage holds its slot.
    pub fn buffers(&self) -> &[P::Buffer] {
        &self.buffers
    }

    /// Returns the buffer of a slot that this stage holds.
    ///
    /// # Errors
    /// [`Mismatch`] for a slot of another ring or stage.
    pub fn buffer(&self, slot: &Slot) -> Result<&P::Buffer> {
        self.check_own(slot)?;
        Ok(&self.buffers[slot.index])
    }

    /// Returns the buffer of a slot that this stage holds, for writing.
    ///
    /// # Errors
    /// Same as [`buffer`](Self::buffer).
    pub fn buffer_mut(&mut self, slot: &Slot) -> Result<&mut P::Buffer> {
        self.check_own(slot)?;
        Ok(&mut self.buffers[slot.index])
    }

    /// Takes the next slots and acquires them with one wait. Returns them and what to add to the
    /// submit (`()` for OpenGL and CUDA), or `None` if too few slots have arrived and `wait` is
    /// [`Wait::No`].
    ///
    /// `how_many` is the number of slots to take: `1..=1` takes one, `1..=8` all that have arrived
    /// but at most 8, and `4..=4` waits for four. Fewer are returned only after a stage of the ring
    /// was dropped.
    ///
    /// For Vulkan, `commands` is a [`SlotCommands`](super::SlotCommands). If the returned
    /// [`SubmitSync`](crate::vulkan::SubmitSync) is dropped without a submit, drop the slots too:
    /// they can be taken again. For OpenGL, `commands` is `()`, and later OpenGL commands see what
    /// the previous stage wrote. For CUDA, `commands` is a stream, and later work on it sees what
    /// the previous stage wrote.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) if too few slots arrived in time, or if the host waited
    /// too long for the previous stage: the slots stay queued, and the ring stays usable.
    /// [`Invalid`] if a stage of the ring was dropped, if `how_many` is empty, begins with 0 or
    /// exceeds the ring's depth, or if the OpenGL context is not current.
    pub fn take<'a>(
        &mut self,
        wait: Wait,
        how_many: RangeInclusive<usize>,
        commands: impl Into<P::SlotCommands<'a>>,
    ) -> Result<Option<(Batch, P::Sync)>> {
        self.check_how_many(&how_many)?;
        let Some(mut taken) = self.arrivals.take(wait, &how_many)? else { return Ok(None) };
        let tickets = taken.arrivals.iter().filter_map(|arrival| arrival.ticket.as_ref());
        let mut sync = P::Sync::default();
        let first = tickets.clone().map(Ticket::sequence).min();
        if first.is_some() {
            let released = taken.arrivals.iter().filter(|arrival| arrival.ticket.is_some());
            let buffers = released.map(|arrival| &self.buffers[arrival.index]);
            sync = P::with_commands(buffers, commands.into(), |commands| {
                self.acquirer.enqueue(tickets, &Contents::UNKNOWN, commands)
            })?;
        }
        let mut slots = Vec::with_capacity(taken.arrivals.len());
        let (ring, home) = (self.ring, &self.arrivals);
        let (channel, mut acquired) = (self.acquirer.channel().clone(), SmallVec::new());
        let tickets = taken.arrivals.drain(..).filter_map(|Arrival { index, ticket }| {
            slots.push(Slot { index, ring, is_new: ticket.is_none(), home: Some(home.clone()) });
            acquired.extend(ticket.as_ref().map(|ticket| (index, ticket.sequence())));
            ticket
        });
        self.acquirer.acquired(first.unwrap_or(0), tickets);
        if !acquired.is_empty() {
            P::taken(&mut sync, PendingTake { channel, home: home.clone(), slots: acquired });
        }
        Ok(Some((Batch { slots }, sync)))
    }

    /// Releases a batch, or a slot, to the next stage with one signal.
    ///
    /// For Vulkan, `commands` is a [`SlotCommands`](super::SlotCommands); the submit of the
    /// returned [`SubmitSync`](crate::vulkan::SubmitSync) passes the slots on. If it is dropped
    /// instead, they return to this stage. For OpenGL, `commands` is `()`, and the release follows
    /// the OpenGL commands issued so far. For CUDA, `commands` is the stream on which the slots
    /// were taken, or one that waits for it, and the release follows the work enqueued on it so
    /// far.
    ///
    /// # Errors
    /// [`Mismatch`] for a slot from another stage or a stream from another context; [`Invalid`] for
    /// an empty batch, for slots whose acquire was never submitted, for slots out of order with
    /// binary semaphores, and if the OpenGL context is not current. The slots return to this stage.
    pub fn release<'a>(
        &mut self,
        batch: impl Into<Batch>,
        commands: impl Into<P::SlotCommands<'a>>,
    ) -> Result<P::Sync> {
        let Batch { slots } = batch.into();
        self.check_releasable(&slots)?;
        let buffers = slots.iter().map(|slot| &self.buffers[slot.index]);
        let releaser = &mut self.releaser;
        let (tickets, mut sync) = P::with_commands(buffers, commands.into(), |commands| {
            releaser.release_many(slots.len(), commands)
        })?;
        self.arrivals.forget(slots.iter().map(Slot::index));
        let arrival =
            |(slot, ticket): (Slot, _)| Arrival { index: slot.into_index(), ticket: Some(ticket) };
        let slots = slots.into_iter().zip(tickets).map(arrival).collect();
        let (home, next) = (self.arrivals.clone(), self.next.clone());
        let pending = PendingRelease { slots, home, next };
        P::released(&self.releaser, &mut self.work, &mut sync, pending);
        Ok(sync)
    }

    fn check_own(&self, slot: &Slot) -> Result<()> {
        let held_here = slot.home.as_ref().is_some_and(|home| Arc::ptr_eq(home, &self.arrivals));
        if slot.ring == self.ring && held_here && slot.index < self.buffers.len() {
            return Ok(());
        }
        Err(Mismatch::new("the slot's stage", format!("one of ring {}", self.ring), slot.ring)
            .help("only the stage that took a slot can use or release it")
            .into())
    }

    /// Checks that slots may be released now.
    ///
    /// Binary semaphores are used in rotation, so slots must be released in the order in which they
    /// were taken: otherwise a semaphore might be signalled again before its wait has executed.
    fn check_releasable(&self, slots: &[Slot]) -> Result<()> {
        if slots.is_empty() {
            return Err(Invalid::new("batch", "has no slot").help("take one first").into());
        }
        slots.iter().try_for_each(|slot| self.check_own(slot))?;
        if self.arrivals.is_unacquired(slots.iter().map(Slot::index)) {
            return Err(Invalid::new("batch", "has a slot whose acquire was never submitted")
                .help("drop the slot and take it again")
                .into());
        }
        if self.releaser.method() != SyncMethod::Binary {
            return Ok(());
        }
        let indices = slots.iter().map(Slot::index);
        self.arrivals.are_oldest(indices.clone()).map_err(|oldest| {
            let indices: Vec<_> = indices.collect();
            let what = format!("slots {indices:?} while slot {oldest:?} was taken before them");
            Invalid::new("slot", what)
                .help("with binary semaphores, release slots in the order in which they were taken")
                .into()
        })
    }

    fn check_how_many(&self, how_many: &RangeInclusive<usize>) -> Result<()> {
        let depth = self.depth();
        if (1..=depth).contains(how_many.start()) && how_many.start() <= how_many.end() {
            return Ok(());
        }
        let what = format!("{how_many:?} slots of a ring of {depth}");
        Err(Invalid::new("how_many", what)
            .help("begin with 1 or more, and no more than the ring's depth")
            .into())
    }
}

impl<P: RingPeer> Drop for RingStage<P> {
    fn drop(&mut self) {
        self.all.iter().for_each(|queue| queue.close());
        if let Err(error) = P::finish(&self.releaser, &self.work) {
            // The GPU may still use all of this, and would fault if it were freed.
            tracing::warn!(%error, "a stage of a ring was dropped before its work was done");
            std::mem::forget(std::mem::take(&mut self.buffers));
            self.acquirer.leak();
            self.releaser.leak();
        }
    }
}

/// The maximum number of slots in a ring.
pub(crate) const MAX_DEPTH: u32 = 64;

/// The depth of a ring, and how it is synchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// The number of slots, 1 to 64; default 4. Each has a buffer of its own.
    pub depth: u32,
    /// How the handoffs between the stages are synchronised. `in_flight` is ignored: the depth is
    /// used.
    pub handoff: HandoffOptions,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { depth: 4, handoff: HandoffOptions::default() }
    }
}

impl RingOptions {
    fn handoff(&self) -> Result<HandoffOptions> {
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            let problem = format!("{} slots", self.depth);
            return Err(Invalid::new("options.depth", problem)
                .help(format!("give 1 to {MAX_DEPTH}"))
                .into());
        }
        Ok(HandoffOptions { in_flight: self.depth, ..self.handoff })
    }
}

/// Opens a ring of two stages. `first` initially has all slots; `owner` creates the semaphores and
/// the buffers, which `desc` describes.
///
/// Returns the stages, and how the handoffs in each direction are synchronised.
///
/// # Errors
/// [`Invalid`] for a depth out of range or an invalid description; the errors of
/// [`plan_all`], [`handoff::open`](crate::handoff::open) and the
/// peers' imports.
pub fn pair<A: RingPeer, B: RingPeer>(
    owner: &vulkan::Endpoint,
    first: &A,
    second: &B,
    desc: &BufferDesc,
    options: RingOptions,
) -> Result<(RingStage<A>, RingStage<B>, [SyncPlan; 2])> {
    let handoff = options.handoff()?;
    let there = open(owner, first, second, handoff)?;
    let back = open(owner, second, first, handoff)?;
    let slots = Slots::new(owner, desc, options.depth, &[caps(first, desc)?, caps(second, desc)?])?;
    let queues = slots.queues(2);
    let plans = [there.plan.clone(), back.plan.clone()];
    let (leave_first, reach_second) = ends(there);
    let (leave_second, reach_first) = ends(back);
    let first = slots.stage(first, 0, &queues, reach_first, leave_first)?;
    let second = slots.stage(second, 1, &queues, reach_second, leave_second)?;
    Ok((first, second, plans))
}

/// The stages of a ring of three, and how their handoffs are synchronised.
pub type Triple<A, B, C> = (RingStage<A>, RingStage<B>, RingStage<C>, [SyncPlan; 3]);

/// Opens a ring of three stages; see [`pair`].
///
/// # Errors
/// Same as [`pair`].
pub fn triple<A: RingPeer, B: RingPeer, C: RingPeer>(
    owner: &vulkan::Endpoint,
    (first, second, third): (&A, &B, &C),
    desc: &BufferDesc,
    options: RingOptions,
) -> Result<Triple<A, B, C>> {
    let handoff = options.handoff()?;
    let one = open(owner, first, second, handoff)?;
    let two = open(owner, second, third, handoff)?;
    let back = open(owner, third, first, handoff)?;
    let importers = [caps(first, desc)?, caps(second, desc)?, caps(third, desc)?];
    let slots = Slots::new(owner, desc, options.depth, &importers)?;
    let queues = slots.queues(3);
    let plans = [one.plan.clone(), two.plan.clone(), back.plan.clone()];
    let (leave_first, reach_second) = ends(one);
    let (leave_second, reach_third) = ends(two);
    let (leave_third, reach_first) = ends(back);
    let first = slots.stage(first, 0, &queues, reach_first, leave_first)?;
    let second = slots.stage(second, 1, &queues, reach_second, leave_second)?;
    let third = slots.stage(third, 2, &queues, reach_third, leave_third)?;
    Ok((first, second, third, plans))
}

fn caps<P: RingPeer>(peer: &P, desc: &BufferDesc) -> Result<Capabilities> {
    peer.capabilities(&(*desc).into())
}

fn ends<A: RingPeer, B: RingPeer>(handoff: Handoff<A, B>) -> (Releaser<A>, Acquirer<B>) {
    (handoff.release, handoff.acquire)
}

/// The buffers as their owner created them. They are dropped once the ring is open: each stage has
/// imported them, and imports keep the memory alive.
struct Slots {
    ring: u64,
    buffers: Vec<vulkan::Buffer>,
}

impl Slots {
    fn new(
        owner: &vulkan::Endpoint,
        desc: &BufferDesc,
        depth: u32,
        importers: &[Capabilities],
    ) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let resource = (*desc).into();
        let exporter = owner.capabilities(&resource)?;
        let options = plan_all(&exporter, importers, &resource)?.into();
        let make = |_| owner.create_buffer(desc, options);
        let buffers = (0..depth).map(make).collect::<Result<_>>()?;
        Ok(Self { ring: NEXT.fetch_add(1, Ordering::Relaxed), buffers })
    }

    /// Returns a queue for each stage; all slots are in that of the first.
    fn queues(&self, stages: usize) -> Vec<Arc<Queue>> {
        let all = (0..self.buffers.len()).map(|index| Arrival { index, ticket: None });
        let mut queues = vec![Queue::new(all)];
        queues.resize_with(stages, Arc::default);
        queues
    }

    fn stage<P: RingPeer>(
        &self,
        peer: &P,
        place: usize,
        queues: &[Arc<Queue>],
        acquirer: Acquirer<P>,
        releaser: Releaser<P>,
    ) -> Result<RingStage<P>> {
        let import = |buffer: &vulkan::Buffer| Ok(peer.import_buffer(buffer.export()?)?);
        Ok(RingStage {
            acquirer,
            releaser,
            buffers: self.buffers.iter().map(import).collect::<Result<_>>()?,
            work: P::Work::default(),
            ring: self.ring,
            arrivals: queues[place].clone(),
            next: queues[(place + 1) % queues.len()].clone(),
            all: queues.to_vec(),
        })
    }
}
