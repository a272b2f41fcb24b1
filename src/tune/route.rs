//! The ways a payload can go from one endpoint to another and back, and what each needs.

use std::fmt;
use std::str::FromStr;

use crate::capabilities::{Capabilities, Support, SyncMethod, plan_handoff};
use crate::error::{Api, Error, Invalid, Missing, Result};
use crate::handoff::{HandoffOptions, WaitMode};
use crate::payload::SemaphoreKind;

/// A way for a payload to go between endpoints.
///
/// Prints and parses as `timeline`, `binary`, `host-wait`, `host-wait-spin` and `in-queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// The host waits for one side before the other goes on: everywhere possible, and the last resort.
    HostWait(WaitMode),
    /// One side signals a semaphore that the other waits for, on the GPU.
    Semaphore(SemaphoreKind),
    /// CUDA kernels are recorded in the Vulkan queue, between Vulkan's own commands
    /// (`VK_NVX_binary_import`). There is no handoff, a pipeline barrier orders all, and no switch
    /// between two GPU contexts, which is what a handoff costs.
    SameQueue,
}

/// What a [`Route`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RouteNeed {
    /// The owner, a Vulkan device, exports such a semaphore.
    Export(SemaphoreKind),
    /// Every endpoint imports it.
    Import(SemaphoreKind),
    /// A thread of the host that waits at every handoff.
    HostThread,
    /// A core of the host that is busy while it waits.
    HostCore,
    /// A Vulkan device that takes CUDA kernels into its command buffers, with the extension enabled.
    BinaryImport,
    /// Vulkan and CUDA as the only APIs: no other can be in a Vulkan queue.
    VulkanAndCudaOnly,
}

impl fmt::Display for RouteNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Export(kind) => write!(f, "a {} that Vulkan exports", semaphore(*kind)),
            Self::Import(kind) => write!(f, "endpoints that import a {}", semaphore(*kind)),
            Self::HostThread => f.write_str("a thread of the host that waits"),
            Self::HostCore => f.write_str("a core of the host that is busy while it waits"),
            Self::BinaryImport => f.write_str("VK_NVX_binary_import, enabled on the Vulkan device"),
            Self::VulkanAndCudaOnly => f.write_str("no other APIs than Vulkan and CUDA"),
        }
    }
}

fn semaphore(kind: SemaphoreKind) -> &'static str {
    match kind {
        SemaphoreKind::Timeline => "timeline semaphore",
        SemaphoreKind::Binary => "binary semaphore",
    }
}

/// The endpoints that a route is to connect, as data.
#[derive(Clone, Copy, Debug)]
pub struct RouteEndpoints<'a> {
    /// The Vulkan device that semaphores belong to.
    pub owner: &'a Capabilities,
    /// The endpoints, in the order in which a payload goes round.
    pub stations: &'a [&'a Capabilities],
    /// What the Vulkan endpoint says of CUDA kernels in its queue
    /// ([`vulkan::Endpoint::supports_cuda_launch`](crate::vulkan::Endpoint::supports_cuda_launch)).
    pub in_queue: &'a Support,
}

impl Route {
    /// All routes, in the order in which they are chosen where they are equally fast: what keeps the
    /// host free first, what rests on an experimental extension last.
    pub const ALL: [Route; 5] = [
        Self::Semaphore(SemaphoreKind::Timeline),
        Self::Semaphore(SemaphoreKind::Binary),
        Self::HostWait(WaitMode::Block),
        Self::HostWait(WaitMode::Spin),
        Self::SameQueue,
    ];

    /// What it needs, as data; each prints in words.
    pub fn needs(self) -> &'static [RouteNeed] {
        use RouteNeed::{BinaryImport, Export, HostCore, HostThread, Import, VulkanAndCudaOnly};
        use SemaphoreKind::{Binary, Timeline};
        match self {
            Self::Semaphore(Timeline) => &[Export(Timeline), Import(Timeline)],
            Self::Semaphore(Binary) => &[Export(Binary), Import(Binary)],
            Self::HostWait(WaitMode::Block) => &[HostThread],
            Self::HostWait(WaitMode::Spin) => &[HostThread, HostCore],
            Self::SameQueue => &[VulkanAndCudaOnly, BinaryImport],
        }
    }

    /// Whether it is possible between these endpoints, or what is missing and where.
    ///
    /// # Errors
    /// [`Missing`] that names the API and what it lacks.
    pub fn support(self, between: &RouteEndpoints<'_>) -> Support {
        let Some(method) = self.method() else { return in_queue(between) };
        let next = between.stations.iter().cycle().skip(1);
        for (from, to) in between.stations.iter().zip(next) {
            plan_handoff(between.owner, from, to, Some(method)).map_err(as_missing)?;
        }
        Ok(())
    }

    /// How its handoffs are synchronised; `None` in the queue, where there are none.
    pub fn method(self) -> Option<SyncMethod> {
        match self {
            Self::Semaphore(SemaphoreKind::Timeline) => Some(SyncMethod::Timeline),
            Self::Semaphore(SemaphoreKind::Binary) => Some(SyncMethod::Binary),
            Self::HostWait(_) => Some(SyncMethod::HostWait),
            Self::SameQueue => None,
        }
    }

    /// The options of its handoffs; `None` in the queue, where there are none.
    pub fn handoff(self) -> Option<HandoffOptions> {
        let method = Some(self.method()?);
        let wait = match self {
            Self::HostWait(wait) => wait,
            _ => WaitMode::default(),
        };
        Some(HandoffOptions { method, wait, ..HandoffOptions::default() })
    }
}

/// A handoff is refused for what is missing only: everything else is the same for all methods.
fn as_missing(error: Error) -> Missing {
    match error {
        Error::Missing(missing) => missing,
        other => Missing::new(Api::Vulkan, other.to_string(), "a handoff"),
    }
}

fn in_queue(between: &RouteEndpoints<'_>) -> Support {
    let apis = || between.stations.iter().map(|station| station.api);
    if let Some(other) = apis().find(|api| !matches!(api, Api::Vulkan | Api::Cuda)) {
        return Err(Missing::new(other, "a way into a Vulkan queue", "the route in-queue")
            .help("use it between Vulkan and CUDA"));
    }
    for api in [Api::Vulkan, Api::Cuda] {
        if !apis().any(|station| station == api) {
            return Err(Missing::new(api, "a part in this pair", "the route in-queue")
                .help("use it between Vulkan and CUDA"));
        }
    }
    between.in_queue.clone()
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Semaphore(SemaphoreKind::Timeline) => "timeline",
            Self::Semaphore(SemaphoreKind::Binary) => "binary",
            Self::HostWait(WaitMode::Block) => "host-wait",
            Self::HostWait(WaitMode::Spin) => "host-wait-spin",
            Self::SameQueue => "in-queue",
        })
    }
}

impl FromStr for Route {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|route| route.to_string() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            Invalid::new("route", format!("'{text}' is none"))
                .help(format!("give one of {}", names.join(", ")))
                .into()
        })
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
