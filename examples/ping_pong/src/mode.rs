//! How payloads are handed over on a path: as requested, or over the route that measures fastest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::error::Missing;
use gpu_interop::handoff::{HandoffOptions, WaitMode};
use gpu_interop::tune::{Calibration, Outcome, Route, RouteConfig};
use gpu_interop::{Api, Error, SemaphoreKind};
use interop_gpu::GpuContexts;
use interop_gpu::oracle::Wrong;
use interop_gpu::statistics::gb_per_s;

use super::path::{Path, PathKind, Payload};
use crate::routes::{Candidates, half};

/// What `--handoff` selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HandoffMode {
    /// Measure the available routes and use the fastest
    #[default]
    Auto,
    /// One payload; the host waits between the APIs
    Host,
    /// One payload; semaphores on the GPU
    Semaphore,
    /// Several payloads in flight, half of them handed over at a time
    Ring,
    /// One payload; CUDA's kernels run in Vulkan's queue
    #[value(name = "in-queue", alias = "same-queue")]
    SameQueue,
}

/// Payloads in flight in a ring by default.
const DEPTH: u32 = 16;

/// Pairs of kernels per submit if both run in Vulkan's queue.
const PAIRS_PER_SUBMIT: u32 = 16;

/// A route that was chosen, and why.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The route, the payloads in flight and those handed over at a time. `None` for a path of three APIs,
    /// each of whose handoffs has a method of its own.
    pub config: Option<RouteConfig>,
    /// Why it was chosen.
    pub reason: String,
}

/// The result of sending payloads over a route.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Bytes read and written by all kernels, divided by the time, in GB/s.
    pub gb_per_s: f64,
    /// The first wrong word, if any.
    pub wrong: Option<Wrong>,
}

impl HandoffMode {
    /// Builds a path with one payload, handed over as requested, or by the best method that both sides support.
    ///
    /// # Errors
    /// Same as [`Path::pair`]; also [`Missing`] if the requested method is not available.
    pub fn path(self, gpus: &GpuContexts, kind: PathKind, bytes: u64, seed: u32) -> Result<Path> {
        let methods = match self {
            Self::Host => vec![Some(SyncMethod::HostWait)],
            Self::Semaphore => vec![Some(SyncMethod::Timeline), Some(SyncMethod::Binary)],
            Self::SameQueue if kind != PathKind::VulkanCuda => {
                let api = format!("{kind}, which is not a pair of Vulkan and CUDA");
                return Err(unsupported(api, "the in-queue route", PathKind::VulkanCuda).into());
            }
            Self::SameQueue => {
                // Report what is missing before anything is measured.
                gpus.vulkan.endpoint.supports_cuda_launch().map_err(Error::from)?;
                vec![None]
            }
            Self::Ring if kind == PathKind::VulkanGlCuda => {
                let api = format!("{kind}, which has three APIs");
                return Err(unsupported(api, "a ring of two stages", PathKind::VulkanGl).into());
            }
            Self::Auto | Self::Ring => vec![None],
        };
        let mut refused = None;
        for method in methods {
            let options = HandoffOptions { method, ..HandoffOptions::default() };
            match kind.open(gpus, Payload { bytes, seed, handoff: options }) {
                Err(error) if is_missing(&error) => {
                    refused.get_or_insert(error);
                }
                built => return built,
            }
        }
        Err(refused.unwrap_or_else(|| anyhow!("no method was tried")))
    }

    /// Chooses the route for payloads of `bytes` bytes. `depth` is the number of payloads in a ring.
    ///
    /// # Errors
    /// [`Missing`] if the requested route is not available; otherwise if a driver fails.
    pub fn choose(
        self,
        gpus: &GpuContexts,
        kind: PathKind,
        path: &Path,
        bytes: u64,
        depth: Option<u32>,
    ) -> Result<Chosen> {
        let requested = |config| Chosen { config: Some(config), reason: "as requested".into() };
        let agreed = path.plans.first().context("a path has handoffs")?.method;
        Ok(match self {
            Self::Auto if kind == PathKind::VulkanGlCuda => Chosen {
                config: None,
                reason:
                    "the best method that both sides of each handoff support; routes are measured for pairs only"
                        .into(),
            },
            Self::Auto => {
                let calibration = Candidates::new(gpus, kind, bytes)?.calibrate(depth)?;
                let choice = calibration.choice(bytes).context("no route was measured")?;
                let reason = describe_choice(&calibration, bytes);
                Chosen { config: Some(choice.config), reason }
            }
            Self::Host | Self::Semaphore => requested(RouteConfig::new(route(agreed), 1)?),
            Self::Ring => {
                let depth = depth.unwrap_or(DEPTH);
                requested(RouteConfig::new(route(agreed), depth)?.batched(half(depth))?)
            }
            Self::SameQueue => {
                requested(RouteConfig::new(Route::SameQueue, 1)?.batched(PAIRS_PER_SUBMIT)?)
            }
        })
    }
}

/// Sends payloads of `bytes` bytes back and forth and checks every byte: `iterations` times, rounded up to
/// whole batches.
///
/// # Errors
/// If a driver fails. Wrong bytes are part of the result.
pub fn send(
    gpus: &GpuContexts,
    kind: PathKind,
    config: RouteConfig,
    bytes: u64,
    iterations: u32,
) -> Result<Sent> {
    let mut benchmark = Candidates::new(gpus, kind, bytes)?.open(config)?;
    let fewest_pairs = benchmark.fewest_pairs();
    benchmark.submit(fewest_pairs)?;
    benchmark.finish()?;
    let pairs = iterations.next_multiple_of(fewest_pairs);
    let start = Instant::now();
    benchmark.submit(pairs)?;
    benchmark.finish()?;
    let time = start.elapsed();
    let wrong = benchmark.verify()?.err();
    Ok(Sent { gb_per_s: gb_per_s(4 * bytes * u64::from(pairs), time), wrong })
}

/// The route of one payload by this method.
fn route(method: SyncMethod) -> Route {
    match method {
        SyncMethod::Timeline => Route::Semaphore(SemaphoreKind::Timeline),
        SyncMethod::Binary => Route::Semaphore(SemaphoreKind::Binary),
        _ => Route::HostWait(WaitMode::Block),
    }
}

/// The reason for a calibration's choice: a comparison with the best alternative.
fn describe_choice(calibration: &Calibration, bytes: u64) -> String {
    let Some(choice) = calibration.choice(bytes) else { return "no route was measured".into() };
    let us = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    let rows = calibration.sizes().iter().flat_map(|size| &size.rows);
    let measured: Vec<_> = rows
        .filter_map(|row| match row.outcome {
            Outcome::Measured(timing) => Some((timing.median, row.config)),
            _ => None,
        })
        .collect();
    let others = measured.iter().filter(|(_, config)| *config != choice.config);
    let best_other = others.min_by_key(|(time, _)| *time);
    let own = us(choice.timing.median);
    let count = measured.len();
    match best_other {
        None => format!("{own} per payload; the only route available"),
        Some(&(time, other)) if time < choice.timing.median => {
            let noise = 100.0 * calibration.noise();
            let why = if choice.config.depth < other.depth {
                "has fewer payloads in flight"
            } else {
                "is simpler"
            };
            format!(
                "{own} per payload, within {noise:.0}% of the fastest ({other}, {}); chosen because it {why}",
                us(time)
            )
        }
        Some(&(time, other)) => format!(
            "{own} per payload, the fastest of {count} measured; the next is {other}, {}",
            us(time)
        ),
    }
}

/// The error for a mode that a path does not support.
fn unsupported(what: String, purpose: &'static str, instead: PathKind) -> Error {
    let help = format!("use --path {instead}");
    Missing::new(Api::Vulkan, format!("support for {what}"), purpose).help(help).into()
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Missing(_)))
}
