//! The routes that a calibration measures for a path.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::capabilities::{Capabilities, Support};
use gpu_interop::error::Missing;
use gpu_interop::handoff::WaitMode;
use gpu_interop::headless::DeviceType;
use gpu_interop::tune::{
    self, Benchmark as _, Calibration, CalibrationKey, CalibrationOptions, Route, RouteConfig,
    RouteEndpoints,
};
use gpu_interop::{Api, BufferDesc, Error, SemaphoreKind};

use super::benchmark::{Benchmark, time};
use super::grids::Grids;
use super::setup::Setup;
use crate::path::PathKind;
use interop_gpu::GpuContexts;

/// Limit of the bytes of all payloads that one candidate has in flight.
const MEMORY: u64 = 8 << 30;

/// The routes of a path of two APIs.
pub struct Candidates<'a> {
    setup: Setup<'a>,
    owner: Capabilities,
    users: [Capabilities; 2],
    in_queue: Support,
    open: BTreeMap<String, Box<dyn Benchmark>>,
}

impl std::fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidates").field("open", &self.open.keys()).finish_non_exhaustive()
    }
}

impl<'a> Candidates<'a> {
    /// Prepares for payloads of `bytes` bytes on a path of two APIs.
    ///
    /// # Errors
    /// If an API of the path is missing, or if a driver fails.
    pub fn new(gpus: &'a GpuContexts, path: PathKind, bytes: u64) -> Result<Self> {
        let desc = BufferDesc::storage(bytes).into();
        let owner = gpus.vulkan.endpoint.capabilities(&desc)?;
        let second = match path {
            PathKind::VulkanVulkan => gpus.second_instance.endpoint.capabilities(&desc)?,
            PathKind::VulkanGl => {
                gpus.gl.as_ref().map_err(Error::clone)?.endpoint.capabilities(&desc)?
            }
            PathKind::VulkanCuda => {
                gpus.cuda.as_ref().map_err(Error::clone)?.endpoint.capabilities(&desc)?
            }
            PathKind::VulkanGlCuda => anyhow::bail!("a route connects two APIs, not three"),
        };
        let in_queue = match path {
            PathKind::VulkanCuda => gpus.vulkan.endpoint.supports_cuda_launch(),
            _ => Err(Missing::new(second.api, "kernels that Vulkan can run", "the in-queue route")),
        };
        let grids = Grids::choose(gpus, bytes)?;
        let setup = Setup { gpus, path, bytes, grids };
        let users = [owner.clone(), second];
        Ok(Self { setup, owner, users, in_queue, open: BTreeMap::new() })
    }

    /// Measures the routes that are worth trying on this machine. `depth` is the depth of rings; `None` tries
    /// several.
    ///
    /// # Errors
    /// If no route works.
    pub fn calibrate(&mut self, depth: Option<u32>) -> Result<Calibration> {
        let is_gpu = self.setup.gpus.vulkan.vulkan.device_type() != DeviceType::Cpu;
        let apis: Vec<Api> = self.users.iter().map(|user| user.api).collect();
        let key = CalibrationKey::new(&self.owner, &apis)?;
        let options = CalibrationOptions {
            rounds: if is_gpu { 7 } else { 3 },
            budget: Duration::from_secs(if is_gpu { 3 } else { 2 }),
            memory: MEMORY,
            ..CalibrationOptions::default()
        };
        let candidates = worth_trying(is_gpu, self.setup.bytes, depth)?;
        let bytes = [self.setup.bytes];
        let measured = Calibration::measure(key, &bytes, &candidates, &options, self);
        self.open.clear();
        Ok(measured?)
    }

    /// Opens the route of a candidate.
    ///
    /// # Errors
    /// [`Missing`] if this machine lacks something; otherwise if a driver fails.
    pub fn open(&self, candidate: RouteConfig) -> Result<Box<dyn Benchmark>> {
        self.support(candidate).map_err(Error::from)?;
        self.setup.open(candidate)
    }

    fn iterations(&mut self, candidate: RouteConfig, iterations: u32) -> Result<Duration> {
        let key = candidate.to_string();
        if !self.open.contains_key(&key) {
            let benchmark = self.open(candidate)?;
            self.open.insert(key.clone(), benchmark);
        }
        let benchmark = self.open.get_mut(&key).context("inserted above")?;
        let pairs = iterations.next_multiple_of(benchmark.fewest_pairs());
        // Scaled to the requested number, which may not be such a multiple.
        Ok(time(&mut **benchmark, pairs)?.wall * iterations)
    }
}

/// Half of a ring's slots if the number is even, otherwise 1.
pub(crate) fn half(depth: u32) -> u32 {
    if depth.is_multiple_of(2) { depth / 2 } else { 1 }
}

/// Simplest first: of two equally fast candidates, the earlier is chosen.
fn worth_trying(is_gpu: bool, bytes: u64, depth: Option<u32>) -> Result<Vec<RouteConfig>> {
    let (timeline, binary) = (SemaphoreKind::Timeline, SemaphoreKind::Binary);
    let mut all = Vec::new();
    for kind in [timeline, binary] {
        all.push(RouteConfig::new(Route::Semaphore(kind), 1)?);
    }
    for wait in [WaitMode::Block, WaitMode::Spin] {
        all.push(RouteConfig::new(Route::HostWait(wait), 1)?);
    }
    for batch in [1, 16] {
        all.push(RouteConfig::new(Route::SameQueue, 1)?.batched(batch)?);
    }
    // A CPU has little memory and no switches between GPU contexts that a deep ring could amortise.
    let rings = match (depth, is_gpu) {
        (Some(depth), _) => vec![(depth, half(depth))],
        (None, true) => vec![(4, 2), (8, 4), (16, 8), (32, 16)],
        (None, false) => vec![(4, 1), (4, 2)],
    };
    let fits = |&(depth, _): &(u32, u32)| u64::from(depth) * bytes <= MEMORY;
    for (depth, batch) in rings.into_iter().filter(fits) {
        all.push(RouteConfig::new(Route::Semaphore(timeline), depth)?.batched(batch)?);
        if !is_gpu {
            let route = Route::HostWait(WaitMode::Block);
            all.push(RouteConfig::new(route, depth)?.batched(batch)?);
        }
    }
    Ok(all)
}

impl tune::Benchmark for Candidates<'_> {
    fn support(&self, candidate: RouteConfig) -> Support {
        let [first, second] = &self.users;
        let (owner, cuda_launch) = (&self.owner, &self.in_queue);
        let endpoints = &[first, second];
        candidate.route.support(&RouteEndpoints { owner, endpoints, cuda_launch })
    }

    fn run(
        &mut self,
        _payload_bytes: u64,
        candidate: RouteConfig,
        iterations: u32,
    ) -> gpu_interop::Result<Duration> {
        self.iterations(candidate, iterations).map_err(|error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => {
                gpu_interop::error::Invalid::new("benchmark", format!("failed: {error:#}")).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_candidate_takes_more_memory_than_there_is_and_none_comes_twice() {
        for (is_gpu, bytes) in [(true, 1 << 16), (true, 1 << 30), (false, 1 << 26)] {
            let all = worth_trying(is_gpu, bytes, None).unwrap();
            assert!(all.iter().all(|one| u64::from(one.depth) * bytes <= MEMORY));
            for (at, one) in all.iter().enumerate() {
                assert!(!all[..at].contains(one), "{one}");
            }
        }
    }
}
