//! The routes of a handoff: how a case names each, its row of the matrix, and what it needs.

use gpu_interop::handoff::{HandoffOptions, WaitMode};
use gpu_interop::tune::Route;
use gpu_interop::{Api, SemaphoreKind};

use crate::harness::Need;

/// Every route that needs a handoff.
pub(crate) const ROUTES: [Route; 4] = [TIMELINE, BINARY, HOST_WAIT, HOST_WAIT_SPIN];
pub(crate) const TIMELINE: Route = Route::Semaphore(SemaphoreKind::Timeline);
pub(crate) const BINARY: Route = Route::Semaphore(SemaphoreKind::Binary);
pub(crate) const HOST_WAIT: Route = Route::HostWait(WaitMode::Block);
pub(crate) const HOST_WAIT_SPIN: Route = Route::HostWait(WaitMode::Spin);

/// What a case must know of its route.
pub(crate) trait CaseRoute {
    /// Its part of a case's name.
    fn name(self) -> &'static str;
    /// Its row of the matrix.
    fn row(self) -> u32;
    fn options(self) -> HandoffOptions;
    /// What a handoff between Vulkan and `api` requires.
    fn needs(self, api: Api) -> Vec<Need>;
}

impl CaseRoute for Route {
    fn name(self) -> &'static str {
        match self {
            TIMELINE => "timeline",
            BINARY => "binary",
            HOST_WAIT_SPIN => "host_wait_spin",
            _ => "host_wait_block",
        }
    }

    fn row(self) -> u32 {
        match self {
            TIMELINE => 47,
            BINARY => 46,
            _ => 48,
        }
    }

    fn options(self) -> HandoffOptions {
        self.handoff().unwrap_or_default()
    }

    fn needs(self, api: Api) -> Vec<Need> {
        let present = match api {
            Api::OpenGl => Some(Need::Gl),
            Api::Cuda => Some(Need::Cuda),
            _ => None,
        };
        let semaphore = match self {
            Route::Semaphore(kind) => Some(Need::Semaphore(api, kind)),
            _ => None,
        };
        present.into_iter().chain(semaphore).collect()
    }
}
