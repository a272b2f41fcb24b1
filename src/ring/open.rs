//! Opening a ring: its buffers, the handoffs between its stages, its slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::peer::RingPeer;
use super::queue::{Arrival, Queue};
use super::stage::RingStage;
use crate::capabilities::{Capabilities, SyncPlan, plan_all};
use crate::desc::BufferDesc;
use crate::error::{Invalid, Result};
use crate::handoff::{Acquirer, Handoff, HandoffOptions, Releaser, open};
use crate::vulkan;

/// The most slots a ring can have.
pub(crate) const MAX_DEPTH: u32 = 64;

/// How deep a ring is, and how it is synchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// How many slots, 1 to 64; default 4. Each has a buffer of its own.
    pub depth: u32,
    /// How the handoffs between the stages are synchronised; `in_flight` is ignored: it follows the depth.
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

/// Opens a ring of two stages. `first` has all slots at the beginning; `owner` creates the buffers, as
/// `desc` describes them, and the semaphores.
///
/// Returns the stages, and how the handoffs there and back are synchronised.
///
/// # Errors
/// [`Invalid`] for a depth out of range or an invalid description; what
/// [`plan_all`](crate::capabilities::plan_all), [`handoff::open`](crate::handoff::open) and the
/// peers' imports return.
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

/// Opens a ring of three stages, as [`pair`].
///
/// # Errors
/// As [`pair`].
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

/// The buffers as their owner created them. They are dropped when the ring is open: each stage has
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
            buffers: self.buffers.iter().map(import).collect::<Result<_>>()?,
            acquirer,
            releaser,
            work: P::Work::default(),
            ring: self.ring,
            arrivals: queues[place].clone(),
            next: queues[(place + 1) % queues.len()].clone(),
            all: queues.to_vec(),
        })
    }
}
