//! Routes between endpoints, what each requires, and the configurations that can be measured.

use std::fmt;
use std::str::FromStr;

use crate::capabilities::{Capabilities, Support, SyncMethod, plan_handoff};
use crate::error::{Api, Error, Invalid, Missing, Result};
use crate::handoff::{HandoffOptions, WaitMode};
use crate::payload::SemaphoreKind;
use crate::ring::MAX_DEPTH;

/// A way for a payload to get from one endpoint to another and back.
///
/// Prints and parses as `timeline`, `binary`, `host-wait`, `host-wait-spin` and `in-queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// The host waits for one endpoint before the other continues. Supported everywhere.
    HostWait(WaitMode),
    /// One endpoint signals a semaphore that the other waits for, on the GPU.
    Semaphore(SemaphoreKind),
    /// CUDA kernels are recorded into the Vulkan queue, between Vulkan's own commands
    /// (`VK_NVX_binary_import`). Pipeline barriers order them, without a handoff and its switch
    /// between two GPU contexts.
    SameQueue,
}

/// The capabilities of the endpoints that a route connects.
#[derive(Clone, Copy, Debug)]
pub struct RouteEndpoints<'a> {
    /// The Vulkan device that exports the semaphores.
    pub owner: &'a Capabilities,
    /// The endpoints, in the order in which a payload visits them.
    pub endpoints: &'a [&'a Capabilities],
    /// The result of
    /// [`vulkan::Endpoint::supports_cuda_launch`](crate::vulkan::Endpoint::supports_cuda_launch).
    pub cuda_launch: &'a Support,
}

impl Route {
    /// All routes, simplest first: those that keep the host free first, the one with an
    /// experimental extension last.
    pub const ALL: [Route; 5] = [
        Self::Semaphore(SemaphoreKind::Timeline),
        Self::Semaphore(SemaphoreKind::Binary),
        Self::HostWait(WaitMode::Block),
        Self::HostWait(WaitMode::Spin),
        Self::SameQueue,
    ];

    /// Returns whether these endpoints support the route.
    ///
    /// # Errors
    /// [`Missing`] with the API and what it lacks.
    pub fn support(self, endpoints: &RouteEndpoints<'_>) -> Support {
        let Some(method) = self.method() else { return same_queue(endpoints) };
        let next = endpoints.endpoints.iter().cycle().skip(1);
        for (from, to) in endpoints.endpoints.iter().zip(next) {
            plan_handoff(endpoints.owner, from, to, Some(method)).map_err(as_missing)?;
        }
        Ok(())
    }

    /// Returns the method that synchronises its handoffs; `None` for
    /// [`SameQueue`](Self::SameQueue), which has no handoffs.
    pub fn method(self) -> Option<SyncMethod> {
        match self {
            Self::Semaphore(SemaphoreKind::Timeline) => Some(SyncMethod::Timeline),
            Self::Semaphore(SemaphoreKind::Binary) => Some(SyncMethod::Binary),
            Self::HostWait(_) => Some(SyncMethod::HostWait),
            Self::SameQueue => None,
        }
    }

    /// Returns the options of its handoffs; `None` for [`SameQueue`](Self::SameQueue), which has no
    /// handoffs.
    pub fn handoff(self) -> Option<HandoffOptions> {
        let method = Some(self.method()?);
        let wait = match self {
            Self::HostWait(wait) => wait,
            _ => WaitMode::default(),
        };
        Some(HandoffOptions { method, wait, ..HandoffOptions::default() })
    }
}

/// A planned handoff fails only for something missing; other errors don't depend on the method.
fn as_missing(error: Error) -> Missing {
    match error {
        Error::Missing(missing) => missing,
        other => Missing::new(Api::Vulkan, other.to_string(), "a handoff"),
    }
}

fn same_queue(endpoints: &RouteEndpoints<'_>) -> Support {
    let apis = || endpoints.endpoints.iter().map(|endpoint| endpoint.api);
    let help = "use this route between Vulkan and CUDA";
    if let Some(other) = apis().find(|api| !matches!(api, Api::Vulkan | Api::Cuda)) {
        let what = "kernels in a Vulkan queue";
        return Err(Missing::new(other, what, "the route in-queue").help(help));
    }
    for api in [Api::Vulkan, Api::Cuda] {
        if !apis().any(|other| other == api) {
            let what = "an endpoint in this pair";
            return Err(Missing::new(api, what, "the route in-queue").help(help));
        }
    }
    endpoints.cuda_launch.clone()
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
            Invalid::new("route", format!("'{text}' is not a route"))
                .help(format!("use one of {}", names.join(", ")))
                .into()
        })
    }
}

/// A route with the numbers of payloads in flight and per batch, which a calibration can measure.
///
/// Prints and parses as `timeline:32` and `timeline:32x8`: 32 payloads in flight, in batches of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
#[non_exhaustive]
pub struct RouteConfig {
    /// The route.
    pub route: Route,
    /// Payloads in flight: the slots of a ring, 1 to 64.
    pub depth: u32,
    /// Payloads per [`Batch`](crate::ring::Batch), at most `depth`. For [`Route::SameQueue`], the
    /// pairs of kernels per submission, 1 to 64.
    pub batch: u32,
}

/// Depths and batches of the usual candidates, those that use the least memory first.
const USUAL: [(u32, u32); 9] =
    [(1, 1), (2, 1), (4, 1), (8, 1), (8, 4), (16, 1), (16, 8), (32, 1), (32, 16)];

impl RouteConfig {
    /// Creates a configuration of `route` with `depth` payloads in flight, one per batch.
    ///
    /// # Errors
    /// [`Invalid`] if `depth` is not 1 to 64.
    pub fn new(route: Route, depth: u32) -> Result<Self> {
        if (1..=MAX_DEPTH).contains(&depth) {
            return Ok(Self { route, depth, batch: 1 });
        }
        let what = format!("{depth} payloads in flight");
        Err(Invalid::new("depth", what).help(format!("use 1 to {MAX_DEPTH}")).into())
    }

    /// Returns the same configuration with `batch` payloads per batch.
    ///
    /// # Errors
    /// [`Invalid`] if `batch` is 0 or larger than the maximum.
    pub fn batched(self, batch: u32) -> Result<Self> {
        let most = if self.route == Route::SameQueue { MAX_DEPTH } else { self.depth };
        if (1..=most).contains(&batch) {
            return Ok(Self { batch, ..self });
        }
        let what = format!("{batch} payloads per batch");
        Err(Invalid::new("batch", what).help(format!("use 1 to {most}")).into())
    }

    /// Returns candidates that are worth measuring on any machine, simplest first: ordered by
    /// memory, then as in [`Route::ALL`].
    pub fn usual() -> Vec<Self> {
        let routes = [
            Route::Semaphore(SemaphoreKind::Timeline),
            Route::Semaphore(SemaphoreKind::Binary),
            Route::HostWait(WaitMode::Block),
            Route::HostWait(WaitMode::Spin),
        ];
        let in_queue = |batch| Self { route: Route::SameQueue, depth: 1, batch };
        let mut all = Vec::new();
        for (depth, batch) in USUAL {
            all.extend(routes.map(|route| Self { route, depth, batch }));
            if depth == 1 {
                all.extend([in_queue(1), in_queue(16)]);
            }
        }
        all
    }
}

impl fmt::Display for RouteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.route, self.depth)?;
        if self.batch > 1 { write!(f, "x{}", self.batch) } else { Ok(()) }
    }
}

impl FromStr for RouteConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Invalid::new("config", format!("'{text}' is not a route configuration")).help(
                "use a route, payloads in flight and, after an x, the batch size: timeline:32x8",
            )
        };
        let (route, numbers) = text.split_once(':').ok_or_else(refuse)?;
        let (depth, batch) = numbers.split_once('x').unwrap_or((numbers, "1"));
        let number = |text: &str| text.parse().map_err(|_| refuse());
        Self::new(route.parse()?, number(depth)?)?.batched(number(batch)?)
    }
}

#[cfg(feature = "serde")]
impl From<RouteConfig> for String {
    fn from(config: RouteConfig) -> Self {
        config.to_string()
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for RouteConfig {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::SemaphoreSupport;
    use crate::desc::BufferDesc;
    use crate::fd::SemaphoreHandleType;
    use proptest::prelude::*;

    fn peer(api: Api, kinds: &[SemaphoreKind]) -> Capabilities {
        let support = |kind| {
            let lacks = Missing::new(api, format!("{kind:?} semaphores"), "a handoff");
            let is_there: Support = if kinds.contains(&kind) { Ok(()) } else { Err(lacks) };
            SemaphoreSupport {
                kind,
                handle_type: SemaphoreHandleType::OpaqueFd,
                export: is_there.clone(),
                import: is_there,
            }
        };
        Capabilities {
            api,
            identities: Vec::new(),
            desc: BufferDesc::storage(16).into(),
            memory: Vec::new(),
            semaphores: vec![support(SemaphoreKind::Timeline), support(SemaphoreKind::Binary)],
        }
    }

    const BOTH: &[SemaphoreKind] = &[SemaphoreKind::Timeline, SemaphoreKind::Binary];

    fn possible(endpoints: &[&Capabilities], cuda_launch: &Support) -> Vec<String> {
        let owner = peer(Api::Vulkan, BOTH);
        let endpoints = RouteEndpoints { owner: &owner, endpoints, cuda_launch };
        let routes = Route::ALL.into_iter().filter(|route| route.support(&endpoints).is_ok());
        routes.map(|route| route.to_string()).collect()
    }

    #[test]
    fn a_route_is_supported_if_all_endpoints_support_it() {
        let (vulkan, cuda) = (peer(Api::Vulkan, BOTH), peer(Api::Cuda, BOTH));
        let gl = peer(Api::OpenGl, &[SemaphoreKind::Binary]);
        let all = ["timeline", "binary", "host-wait", "host-wait-spin", "in-queue"];
        assert_eq!(possible(&[&vulkan, &cuda], &Ok(())), all);
        assert_eq!(possible(&[&vulkan, &cuda, &gl], &Ok(())), all[1..4]);
        let bare = peer(Api::OpenGl, &[]);
        assert_eq!(possible(&[&bare, &cuda], &Ok(())), all[2..4]);
    }

    #[test]
    fn only_vulkan_and_cuda_share_a_queue_and_what_is_missing_is_named() {
        let (vulkan, cuda) = (peer(Api::Vulkan, BOTH), peer(Api::Cuda, BOTH));
        let gl = peer(Api::OpenGl, BOTH);
        let owner = peer(Api::Vulkan, BOTH);
        let refused = |endpoints: &[&Capabilities], cuda_launch: &Support| {
            let endpoints = RouteEndpoints { owner: &owner, endpoints, cuda_launch };
            Route::SameQueue.support(&endpoints).unwrap_err()
        };
        let lacks = Missing::new(Api::Vulkan, "VK_NVX_binary_import", "CUDA kernels in its queue");
        assert_eq!(refused(&[&vulkan, &cuda], &Err(lacks.clone())), lacks);
        assert_eq!(refused(&[&vulkan, &gl], &Ok(())).api, Api::OpenGl);
        assert_eq!(refused(&[&vulkan, &cuda, &gl], &Ok(())).api, Api::OpenGl);
        assert_eq!(refused(&[&vulkan, &vulkan], &Ok(())).api, Api::Cuda);
        assert_eq!(refused(&[&cuda], &Ok(())).api, Api::Vulkan);
    }

    #[test]
    fn a_missing_semaphore_is_named_with_its_api() {
        let (vulkan, bare) = (peer(Api::Vulkan, BOTH), peer(Api::OpenGl, &[]));
        let endpoints =
            RouteEndpoints { owner: &vulkan, endpoints: &[&vulkan, &bare], cuda_launch: &Ok(()) };
        let timeline = Route::Semaphore(SemaphoreKind::Timeline);
        let missing = timeline.support(&endpoints).unwrap_err();
        assert_eq!(missing.api, Api::OpenGl);
        assert!(missing.what.contains("Timeline"), "{missing}");
    }

    #[test]
    fn a_route_parses_as_it_prints() {
        for route in Route::ALL {
            assert_eq!(route.to_string().parse(), Ok(route));
            assert_eq!(route.handoff().map(|options| options.method), route.method().map(Some));
        }
        let error = "carrier-pigeon".parse::<Route>().unwrap_err().to_string();
        assert!(error.contains("carrier-pigeon") && error.contains("host-wait-spin"), "{error}");
        let spin = Route::HostWait(WaitMode::Spin).handoff().unwrap();
        assert_eq!((spin.method, spin.wait), (Some(SyncMethod::HostWait), WaitMode::Spin));
    }

    #[test]
    fn depth_and_batch_have_limits() {
        let timeline = Route::Semaphore(SemaphoreKind::Timeline);
        for depth in [0, 65] {
            assert!(matches!(RouteConfig::new(timeline, depth), Err(Error::Invalid(_))));
        }
        let four = RouteConfig::new(timeline, 4).unwrap();
        assert!(four.batched(4).is_ok() && four.batched(5).is_err() && four.batched(0).is_err());
        let in_queue = RouteConfig::new(Route::SameQueue, 1).unwrap();
        assert!(in_queue.batched(64).is_ok() && in_queue.batched(65).is_err());
        for wrong in ["timeline", "timeline:", "timeline:4x5", "timeline:0", "pigeon:4", ""] {
            assert!(matches!(wrong.parse::<RouteConfig>(), Err(Error::Invalid(_))), "{wrong}");
        }
    }

    #[test]
    fn usual_candidates_are_valid_different_and_ordered_by_memory() {
        let usual = RouteConfig::usual();
        for (at, candidate) in usual.iter().enumerate() {
            assert_eq!(candidate.to_string().parse(), Ok(*candidate));
            assert!(!usual[..at].contains(candidate), "{candidate} twice");
        }
        assert!(usual.is_sorted_by_key(|candidate| candidate.depth));
    }

    proptest! {
        #[test]
        fn a_configuration_parses_as_it_prints(route in 0usize..5, depth in 1u32..=64, batch in 1u32..=64) {
            let candidate = RouteConfig::new(Route::ALL[route], depth).unwrap();
            let candidate = candidate.batched(batch.min(depth)).unwrap();
            prop_assert_eq!(candidate.to_string().parse::<RouteConfig>(), Ok(candidate));
        }
    }
}
