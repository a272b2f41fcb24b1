//! How a path's payloads are handed over: as was asked for, or as a calibration finds best.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::error::Missing;
use gpu_interop::handoff::{HandoffOptions, WaitMode};
use gpu_interop::tune::Route;
use gpu_interop::tune::{Calibration, Outcome, RouteConfig};
use gpu_interop::{Api, Error, SemaphoreKind};

use super::path::{Path, PathKind, Rigs};
use crate::ladder::Candidates;
use interop_gpu::oracle::Wrong;
use interop_gpu::statistics::gb_per_s;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HandoffMode {
    /// The fastest of them, as a calibration finds it
    #[default]
    Auto,
    /// One payload; the host waits
    Host,
    /// One payload; semaphores on the GPU
    Semaphore,
    /// Several payloads in flight, half of them handed over at a time
    Ring,
    /// One payload; CUDA's kernels in Vulkan's queue
    SameQueue,
}

/// Slots of a ring, where nobody says how many.
const DEPTH: u32 = 16;

/// A way that was chosen, and why.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The route, the payloads in flight and those handed over at a time. `None` for a path of three
    /// APIs, whose handoffs agree on a method each.
    pub candidate: Option<RouteConfig>,
    /// Why this one, in words.
    pub why: String,
}

/// What payloads that went a chosen way have shown.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Bytes read and written by all kernels over the time it took, in GB/s.
    pub gb_per_s: f64,
    /// What is wrong, where something is.
    pub wrong: Option<Wrong>,
}

impl HandoffMode {
    /// A path with one payload, handed over by what was asked for, else by the best that both sides have.
    ///
    /// # Errors
    /// As [`Path::new`]: also where what was asked for is missing.
    pub fn path(self, rigs: &Rigs, kind: PathKind, bytes: u64, seed: u32) -> Result<Path> {
        let methods = match self {
            Self::Host => vec![Some(SyncMethod::HostWait)],
            Self::Semaphore => vec![Some(SyncMethod::Timeline), Some(SyncMethod::Binary)],
            Self::SameQueue if kind != PathKind::VulkanCuda => {
                return Err(Error::from(not_in_queue(kind)).into());
            }
            Self::SameQueue => {
                // What is missing is better known before anything is measured.
                rigs.vulkan.endpoint.supports_cuda_launch().map_err(Error::from)?;
                vec![None]
            }
            Self::Ring if kind == PathKind::VulkanGlCuda => {
                return Err(Error::from(no_ring_of_three()).into());
            }
            Self::Auto | Self::Ring => vec![None],
        };
        let mut refused = None;
        for method in methods {
            let options = HandoffOptions { method, ..HandoffOptions::default() };
            match Path::new(rigs, kind.players(), bytes, seed, options) {
                Err(error) if is_missing(&error) => {
                    refused.get_or_insert(error);
                }
                built => return built,
            }
        }
        Err(refused.unwrap_or_else(|| anyhow!("no method was tried")))
    }

    /// Chooses how payloads of `bytes` bytes are handed over. `depth` is that of a ring.
    ///
    /// # Errors
    /// Where what was asked for is missing, or a driver refuses.
    pub fn choose(
        self,
        rigs: &Rigs,
        kind: PathKind,
        path: &Path,
        bytes: u64,
        depth: Option<u32>,
    ) -> Result<Chosen> {
        let asked = |candidate| Chosen { candidate: Some(candidate), why: "as asked for".into() };
        let agreed = path.plans.first().context("a path has handoffs")?.method;
        Ok(match self {
            Self::Auto if kind == PathKind::VulkanGlCuda => Chosen {
                candidate: None,
                why: "the best that each two have; a calibration is for pairs".into(),
            },
            Self::Auto => {
                let calibration = Candidates::new(rigs, kind, bytes)?.calibrate(depth)?;
                let choice = calibration.choice(bytes).context("something was measured")?;
                Chosen { candidate: Some(choice.candidate), why: told(&calibration, bytes) }
            }
            Self::Host | Self::Semaphore => asked(RouteConfig::new(route(agreed), 1)?),
            Self::Ring => {
                let depth = depth.unwrap_or(DEPTH);
                asked(RouteConfig::new(route(agreed), depth)?.batched(half(depth))?)
            }
            Self::SameQueue => asked(RouteConfig::new(Route::SameQueue, 1)?.batched(16)?),
        })
    }
}

/// Sends payloads of `bytes` bytes there and back `iterations` times, or a few times more, where some are
/// handed over at a time, and checks every byte.
///
/// # Errors
/// Where a driver refuses. Wrong bytes are part of the result.
pub fn send(
    rigs: &Rigs,
    kind: PathKind,
    candidate: RouteConfig,
    bytes: u64,
    iterations: u32,
) -> Result<Sent> {
    let mut rung = Candidates::new(rigs, kind, bytes)?.open(candidate)?;
    let granule = rung.granule();
    rung.submit(granule)?;
    rung.finish()?;
    let pairs = iterations.next_multiple_of(granule);
    let start = Instant::now();
    rung.submit(pairs)?;
    rung.finish()?;
    let time = start.elapsed();
    let wrong = rung.verify()?.err();
    Ok(Sent { gb_per_s: gb_per_s(4 * bytes * u64::from(pairs), time), wrong })
}

/// Half of a ring's slots, where they can be halved; else one at a time.
pub(crate) fn half(depth: u32) -> u32 {
    if depth.is_multiple_of(2) { depth / 2 } else { 1 }
}

/// The route of one payload by this method.
fn route(method: SyncMethod) -> Route {
    match method {
        SyncMethod::Timeline => Route::Semaphore(SemaphoreKind::Timeline),
        SyncMethod::Binary => Route::Semaphore(SemaphoreKind::Binary),
        _ => Route::HostWait(WaitMode::Block),
    }
}

/// What a calibration has found: the choice, and the best of the others.
fn told(calibration: &Calibration, bytes: u64) -> String {
    let Some(choice) = calibration.choice(bytes) else { return "nothing was measured".into() };
    let us = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    let rows = calibration.sizes().iter().flat_map(|size| &size.rows);
    let measured: Vec<_> = rows
        .filter_map(|row| match row.outcome {
            Outcome::Measured(figures) => Some((figures.median, row.candidate)),
            _ => None,
        })
        .collect();
    let others = measured.iter().filter(|(_, candidate)| *candidate != choice.candidate);
    let best_other = others.min_by_key(|(time, _)| *time);
    let own = us(choice.figures.median);
    match best_other {
        None => format!("{own} a payload, the only one there is"),
        // What is as fast within the noise is passed over for what is simpler.
        Some((time, other)) if *time < choice.figures.median => {
            format!("{own} a payload, the simplest of the fastest; {other} takes {}", us(*time))
        }
        Some((time, other)) => format!(
            "{own} a payload, the fastest of {} that were measured; {other} takes {}",
            measured.len(),
            us(*time)
        ),
    }
}

fn not_in_queue(kind: PathKind) -> Missing {
    let (api, what) = (Api::Vulkan, format!("kernels of another API than CUDA ({kind})"));
    Missing::new(api, what, "the in-queue route").help("take the path vulkan-cuda")
}

fn no_ring_of_three() -> Missing {
    Missing::new(Api::Vulkan, "a pair", "the ring of this demo").help("take a path of two APIs")
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Missing(_)))
}
