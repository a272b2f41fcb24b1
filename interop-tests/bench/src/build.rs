//! Builds a benchmark for a path and a payload size, or returns what the machine lacks for it.

use anyhow::Result;
use gpu_interop::error::Missing;
use gpu_interop::handoff::WaitMode;
use gpu_interop::tune::{Route, RouteConfig};
use gpu_interop::{Error, SemaphoreKind};
use ping_pong::PathKind;
use ping_pong::routes::{Benchmark, Setup, SingleCuda, single_vulkan};

use crate::host_copy::HostCopy;
use crate::kind::{BenchmarkKind, SingleApi};
use crate::raw::{Raw, RawCuda, RawGl, RawSecondVulkan};

/// A benchmark, or why this machine lacks it.
pub(crate) type Built = Result<Box<dyn Benchmark>, String>;

/// Builds a benchmark. What this machine lacks is the inner error; anything else is a failure.
pub(crate) fn build(setup: &Setup<'_>, kind: BenchmarkKind) -> Result<Built> {
    if let Some(reason) = pointless(setup.path, kind) {
        return Ok(Err(reason.into()));
    }
    match try_build(setup, kind) {
        Ok(benchmark) => Ok(Ok(benchmark)),
        Err(error) if is_missing(&error) => Ok(Err(error.root_cause().to_string())),
        Err(error) => Err(error),
    }
}

/// Why a path has no such benchmark.
fn pointless(path: PathKind, kind: BenchmarkKind) -> Option<&'static str> {
    let is_cuda = path == PathKind::VulkanCuda;
    match kind {
        BenchmarkKind::SingleApi(SingleApi::Cuda) if !is_cuda => {
            Some("CUDA is not part of this path")
        }
        BenchmarkKind::SameQueue(_) if !is_cuda => {
            Some("only CUDA's kernels can run in a Vulkan queue")
        }
        _ => None,
    }
}

fn try_build(setup: &Setup<'_>, kind: BenchmarkKind) -> Result<Box<dyn Benchmark>> {
    let Setup { gpus, bytes, grids, .. } = *setup;
    match kind {
        BenchmarkKind::SingleApi(SingleApi::Cuda) => {
            let gpu = gpus.cuda()?;
            Ok(Box::new(SingleCuda::new(gpu, bytes, grids.cuda)?))
        }
        BenchmarkKind::SingleApi(SingleApi::Vulkan) => {
            Ok(Box::new(single_vulkan(gpus.vulkan.clone(), bytes, grids.vulkan)?))
        }
        BenchmarkKind::HostCopy => host_copy(setup),
        BenchmarkKind::HostWaitBlock => open(setup, &[Route::HostWait(WaitMode::Block)], 1, 1),
        BenchmarkKind::HostWaitSpin => open(setup, &[Route::HostWait(WaitMode::Spin)], 1, 1),
        BenchmarkKind::Semaphore => open(setup, &SEMAPHORES, 1, 1),
        BenchmarkKind::Ring { depth, batch } => {
            let [timeline, binary] = SEMAPHORES;
            let routes = [timeline, binary, Route::HostWait(WaitMode::Block)];
            open(setup, &routes, depth, batch)
        }
        BenchmarkKind::SameQueue(pairs) => open(setup, &[Route::SameQueue], 1, pairs),
        BenchmarkKind::RawHostWaitBlock => raw(setup, Some(WaitMode::Block)),
        BenchmarkKind::RawHostWaitSpin => raw(setup, Some(WaitMode::Spin)),
        BenchmarkKind::RawSemaphore => raw(setup, None),
    }
}

const SEMAPHORES: [Route; 2] =
    [Route::Semaphore(SemaphoreKind::Timeline), Route::Semaphore(SemaphoreKind::Binary)];

/// Opens the first of `routes` that this machine has.
fn open(setup: &Setup<'_>, routes: &[Route], depth: u32, batch: u32) -> Result<Box<dyn Benchmark>> {
    let mut opened = Err(anyhow::anyhow!("no route was tried"));
    for &route in routes {
        opened = setup.open(RouteConfig::new(route, depth)?.batched(batch)?);
        if !opened.as_ref().is_err_and(is_missing) {
            break;
        }
    }
    opened
}

fn host_copy(setup: &Setup<'_>) -> Result<Box<dyn Benchmark>> {
    let first = setup.first()?;
    Ok(match setup.path {
        PathKind::VulkanVulkan => Box::new(HostCopy::new(first, setup.second_vulkan()?, setup)?),
        PathKind::VulkanGl => Box::new(HostCopy::new(first, setup.second_gl()?, setup)?),
        PathKind::VulkanCuda => Box::new(HostCopy::new(first, setup.second_cuda()?, setup)?),
        PathKind::VulkanGlCuda => anyhow::bail!("the benchmark has paths of two APIs"),
    })
}

/// The controls: plain API calls without the library. `None` synchronises with semaphores.
fn raw(setup: &Setup<'_>, wait: Option<WaitMode>) -> Result<Box<dyn Benchmark>> {
    let Setup { gpus, path, bytes, grids } = *setup;
    let (first, grid) = (&gpus.vulkan, grids.vulkan);
    if wait.is_none() {
        // The library's error names what is missing if a semaphore can't be exported.
        first.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
    }
    Ok(match path {
        PathKind::VulkanVulkan => {
            let import = |exported| RawSecondVulkan::new(&gpus.second_instance, grid, exported);
            Box::new(Raw::new(first, bytes, grid, wait, import)?)
        }
        PathKind::VulkanGl => {
            let gpu = gpus.gl()?;
            let import = |exported| RawGl::new(gpu, grids.gl, exported);
            Box::new(Raw::new(first, bytes, grid, wait, import)?)
        }
        PathKind::VulkanCuda => {
            let gpu = gpus.cuda()?;
            let import = |exported| RawCuda::new(gpu, grids.cuda, exported);
            Box::new(Raw::new(first, bytes, grid, wait, import)?)
        }
        PathKind::VulkanGlCuda => anyhow::bail!("the benchmark has paths of two APIs"),
    })
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Missing(_))) || error.is::<Missing>()
}
