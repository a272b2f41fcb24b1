//! Opening a handoff: its method, and the semaphores.

use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::ends::{Acquirer, Releaser};
use super::peer::HandoffPeer;
use super::wait::{HostWait, WaitMode};
use crate::capabilities::{Rejected, SyncMethod, SyncPlan, plan_handoff_without};
use crate::desc::BufferDesc;
use crate::error::{Invalid, Result};
use crate::payload::SemaphoreKind;
use crate::peer::Peer;
use crate::vulkan;

/// How a handoff is synchronised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffOptions {
    /// The method of synchronisation; default `None`, the best one that both sides support.
    pub method: Option<SyncMethod>,
    /// The maximum number of releases in flight, that is, not yet acquired; at least 1, default 1.
    ///
    /// One binary semaphore is created for each, and they are used in rotation. A binary semaphore
    /// may be signalled again only after its wait has executed
    /// (VUID-vkQueueSubmit-pSignalSemaphores-00067): on the GPU, release n + `in_flight` must come
    /// after the acquire of release n. It does if the payload comes back through another handoff.
    pub in_flight: u32,
    /// How the host waits if the method is a host wait; default [`WaitMode::Block`].
    pub wait: WaitMode,
    /// The timeout of a host wait; default 10 s.
    pub timeout: Duration,
}

impl Default for HandoffOptions {
    fn default() -> Self {
        let timeout = Duration::from_secs(10);
        Self { method: None, in_flight: 1, wait: WaitMode::default(), timeout }
    }
}

/// A handoff from `A` to `B`: its two ends, and how they are synchronised.
#[derive(Debug)]
pub struct Handoff<A: HandoffPeer, B: HandoffPeer> {
    /// The end that releases.
    pub release: Releaser<A>,
    /// The end that acquires.
    pub acquire: Acquirer<B>,
    /// The chosen method, and why better ones were rejected.
    pub plan: SyncPlan,
}

/// Opens a handoff from `from` to `to`, with semaphores that `owner` creates.
///
/// `owner` may be one of the two, or a third endpoint if neither is Vulkan. For payloads that go
/// back and forth between `owner` and another endpoint, [`round_trip`] opens both directions.
///
/// If the driver can't create or import a semaphore that it claims to support, the next method is
/// used; [`Handoff::plan`] has the reason.
///
/// # Errors
/// [`Mismatch`](crate::error::Mismatch) if the endpoints are not on the same GPU,
/// [`Missing`](crate::error::Missing) if `options.method` is not available,
/// [`Driver`](crate::Error::Driver) if its semaphores can't be created, [`Invalid`] if
/// `options.in_flight` is 0.
pub fn open<A: HandoffPeer, B: HandoffPeer>(
    owner: &vulkan::Endpoint,
    from: &A,
    to: &B,
    options: HandoffOptions,
) -> Result<Handoff<A, B>> {
    if options.in_flight == 0 {
        return Err(Invalid::new("options.in_flight", "is 0").help("give at least 1").into());
    }
    // Any resource will do: only the semaphores matter.
    let desc = BufferDesc::storage(16).into();
    let (exporter, releasing, acquiring) =
        (owner.capabilities(&desc)?, from.capabilities(&desc)?, to.capabilities(&desc)?);
    for side in [&releasing, &acquiring] {
        owner.identities()[0].check_same(&side.identities)?;
    }
    let mut rejected = Vec::new();
    let (plan, (signals, waits)) = loop {
        let plan =
            plan_handoff_without(&exporter, &releasing, &acquiring, options.method, rejected)?;
        match semaphores(owner, from, to, (plan.method, options.in_flight)) {
            Ok(semaphores) => break (plan, semaphores),
            // Some drivers report capabilities that they don't have.
            Err(error) if options.method.is_none() && plan.method != SyncMethod::HostWait => {
                rejected = plan.rejected;
                rejected.push((plan.method, Rejected::Failed(error)));
            }
            Err(error) => return Err(error),
        }
    };
    tracing::debug!(from = %releasing.api, to = %acquiring.api, %plan, "handoff");
    let host = HostWait { mode: options.wait, timeout: options.timeout };
    let channel = Arc::new(Channel::new(plan.method, host, options.in_flight, B::check_layout));
    let fences = from.fences()?;
    let release =
        Releaser { endpoint: from.clone(), semaphores: signals, fences, channel: channel.clone() };
    let acquire = Acquirer { endpoint: to.clone(), semaphores: waits, channel };
    Ok(Handoff { release, acquire, plan })
}

/// The semaphores of the releasing and of the acquiring side.
type Semaphores<A, B> = (Vec<<A as Peer>::Semaphore>, Vec<<B as Peer>::Semaphore>);

/// Creates the semaphores of a method, and imports them on both sides.
fn semaphores<A: HandoffPeer, B: HandoffPeer>(
    owner: &vulkan::Endpoint,
    from: &A,
    to: &B,
    (method, in_flight): (SyncMethod, u32),
) -> Result<Semaphores<A, B>> {
    let (count, kind) = match method {
        SyncMethod::Timeline => (1, SemaphoreKind::Timeline),
        SyncMethod::Binary => (in_flight, SemaphoreKind::Binary),
        SyncMethod::HostWait => (0, SemaphoreKind::Binary),
    };
    let (mut signals, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let semaphore = owner.create_semaphore(kind)?;
        signals.push(from.adopt_semaphore(&semaphore)?);
        waits.push(to.adopt_semaphore(&semaphore)?);
    }
    Ok((signals, waits))
}

/// Two handoffs between two endpoints, one in each direction.
#[derive(Debug)]
pub struct RoundTrip<A: HandoffPeer, B: HandoffPeer> {
    /// From the first to the second.
    pub there: Handoff<A, B>,
    /// From the second to the first.
    pub back: Handoff<B, A>,
}

/// Opens a handoff in each direction between `owner`, which creates the semaphores, and `other`.
///
/// # Errors
/// Same as [`open`].
pub fn round_trip<B: HandoffPeer>(
    owner: &vulkan::Endpoint,
    other: &B,
    options: HandoffOptions,
) -> Result<RoundTrip<vulkan::Endpoint, B>> {
    let there = open(owner, owner, other, options)?;
    Ok(RoundTrip { there, back: open(owner, other, owner, options)? })
}
