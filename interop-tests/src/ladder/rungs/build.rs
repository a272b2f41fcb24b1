//! Building a rung for a path and a payload size, or telling why it can't be.

use anyhow::Result;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::error::Missing;
use gpu_interop::handoff::{HandoffOptions, WaitMode};
use gpu_interop::tune::RouteConfig;
use gpu_interop::{Error, SemaphoreKind};

use super::host_copy::HostCopy;
use super::in_queue::in_queue;
use super::lane::Channel;
use super::ring::Ring;
use super::{AloneCuda, alone_vulkan};
use crate::ladder::copies::Copies;
use crate::ladder::far::{FarCuda, FarGl, FarVulkan, SecondApi};
use crate::ladder::grids::Grids;
use crate::ladder::kind::{RungKind, SingleApi};
use crate::ladder::raw::{Raw, RawCuda, RawGl, RawSecond};
use crate::ladder::rung::{Benchmark, FIRST_STEP, SECOND_STEP};
use crate::ladder::vulkan_side::{TIMEOUT, VulkanRunner};
use crate::ping_pong::{PathKind, Rigs};

/// What rungs are built from.
pub(crate) struct Builder<'a> {
    pub(crate) rigs: &'a Rigs,
    pub(crate) path: PathKind,
    pub(crate) bytes: u64,
    pub(crate) grids: Grids,
}

/// A rung, or why there is none.
pub(crate) type Built = Result<Box<dyn Benchmark>, String>;

impl Builder<'_> {
    /// Builds a rung. What this machine lacks is the inner error; anything else is a failure.
    pub(crate) fn build(&self, kind: RungKind) -> Result<Built> {
        if let Some(reason) = self.pointless(kind) {
            return Ok(Err(reason.into()));
        }
        skip_what_is_missing(self.try_build(kind))
    }

    /// Why there is no such rung on this path.
    fn pointless(&self, kind: RungKind) -> Option<&'static str> {
        let is_cuda = self.path == PathKind::VulkanCuda;
        match kind {
            RungKind::SingleApi(SingleApi::Cuda) if !is_cuda => {
                Some("CUDA has no part in this path")
            }
            RungKind::SameQueue(_) if !is_cuda => {
                Some("only CUDA's kernels can run in a Vulkan queue")
            }
            _ => None,
        }
    }

    fn try_build(&self, kind: RungKind) -> Result<Box<dyn Benchmark>> {
        let rigs = self.rigs;
        match kind {
            RungKind::SingleApi(SingleApi::Cuda) => {
                let gpu = rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                Ok(Box::new(AloneCuda::new(gpu, self.bytes, self.grids.cuda)?))
            }
            RungKind::SingleApi(SingleApi::Vulkan) => {
                let gpu = rigs.vulkan.clone();
                Ok(Box::new(alone_vulkan(gpu, self.bytes, self.grids.vulkan)?))
            }
            RungKind::SameQueue(pairs) => {
                let cuda = rigs.cuda.as_ref().map_err(Clone::clone)?;
                let (gpu, grids) = (rigs.vulkan.clone(), (self.grids.vulkan, self.grids.cuda));
                Ok(Box::new(in_queue(gpu, cuda, self.bytes, pairs, grids)?))
            }
            RungKind::RawHostWaitBlock => self.build_raw(Some(WaitMode::Block)),
            RungKind::RawHostWaitSpin => self.build_raw(Some(WaitMode::Spin)),
            RungKind::RawSemaphore => self.build_raw(None),
            _ => match self.path {
                PathKind::VulkanVulkan => {
                    let gpu = rigs.second_instance.clone();
                    let side = || VulkanRunner::new(gpu.clone(), self.grids.vulkan, SECOND_STEP);
                    self.build_with(kind, || Ok(FarVulkan { side: side()? }))
                }
                PathKind::VulkanGl => {
                    let gpu = rigs.gl.as_ref().map_err(Clone::clone)?.clone();
                    self.build_with(kind, || Ok(FarGl { gpu: gpu.clone(), grid: self.grids.gl }))
                }
                PathKind::VulkanCuda => {
                    let gpu = rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                    self.build_with(kind, || {
                        Ok(FarCuda { gpu: gpu.clone(), grid: self.grids.cuda })
                    })
                }
                PathKind::VulkanGlCuda => anyhow::bail!("the ladder has paths of two APIs"),
            },
        }
    }

    /// Opens what a calibration knows by its own name.
    pub(crate) fn open(&self, candidate: RouteConfig) -> Result<Box<dyn Benchmark>> {
        let RouteConfig { route, depth, batch, .. } = candidate;
        let Some(handoff) = route.handoff() else {
            return self.try_build(RungKind::SameQueue(batch));
        };
        let handoff = HandoffOptions { timeout: TIMEOUT, ..handoff };
        match self.path {
            PathKind::VulkanVulkan => {
                let gpu = self.rigs.second_instance.clone();
                let side = VulkanRunner::new(gpu, self.grids.vulkan, SECOND_STEP)?;
                self.open_with(FarVulkan { side }, handoff, (depth, batch))
            }
            PathKind::VulkanGl => {
                let gpu = self.rigs.gl.as_ref().map_err(Clone::clone)?.clone();
                self.open_with(FarGl { gpu, grid: self.grids.gl }, handoff, (depth, batch))
            }
            PathKind::VulkanCuda => {
                let gpu = self.rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                self.open_with(FarCuda { gpu, grid: self.grids.cuda }, handoff, (depth, batch))
            }
            PathKind::VulkanGlCuda => anyhow::bail!("the ladder has paths of two APIs"),
        }
    }

    fn open_with<F: SecondApi + 'static>(
        &self,
        far: F,
        handoff: HandoffOptions,
        (depth, batch): (u32, u32),
    ) -> Result<Box<dyn Benchmark>> {
        let near = VulkanRunner::new(self.rigs.vulkan.clone(), self.grids.vulkan, FIRST_STEP)?;
        if depth == 1 {
            return Ok(Box::new(Channel::new(near, far, self.bytes, handoff)?));
        }
        Ok(Box::new(Ring::new(near, far, self.bytes, (depth, batch), handoff)?))
    }

    /// The controls, with the APIs' own calls.
    fn build_raw(&self, by_host: Option<WaitMode>) -> Result<Box<dyn Benchmark>> {
        let (rigs, grids, near) = (self.rigs, self.grids, &self.rigs.vulkan);
        if by_host.is_none() {
            // Where a semaphore can't leave Vulkan, the library says so, and its words are as good here.
            near.endpoint.create_semaphore(SemaphoreKind::Timeline)?;
        }
        let grid = grids.vulkan;
        match self.path {
            PathKind::VulkanVulkan => {
                let import = |exported| RawSecond::new(&rigs.second_instance, grid, exported);
                Ok(Box::new(Raw::new(near, self.bytes, grid, by_host, import)?))
            }
            PathKind::VulkanGl => {
                let gpu = rigs.gl.as_ref().map_err(Clone::clone)?.clone();
                let import = |exported| RawGl::new(gpu, grids.gl, exported);
                Ok(Box::new(Raw::new(near, self.bytes, grid, by_host, import)?))
            }
            PathKind::VulkanCuda => {
                let gpu = rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                let import = |exported| RawCuda::new(gpu, grids.cuda, exported);
                Ok(Box::new(Raw::new(near, self.bytes, grid, by_host, import)?))
            }
            PathKind::VulkanGlCuda => anyhow::bail!("the ladder has paths of two APIs"),
        }
    }

    fn build_with<F: SecondApi + Copies + 'static>(
        &self,
        kind: RungKind,
        far: impl Fn() -> Result<F>,
    ) -> Result<Box<dyn Benchmark>> {
        let near = || VulkanRunner::new(self.rigs.vulkan.clone(), self.grids.vulkan, FIRST_STEP);
        let bytes = self.bytes;
        let lane = |method, wait| -> Result<Box<dyn Benchmark>> {
            Ok(Box::new(Channel::new(near()?, far()?, bytes, handoff(method, wait))?))
        };
        match kind {
            RungKind::HostWaitBlock => lane(SyncMethod::HostWait, WaitMode::Block),
            RungKind::HostWaitSpin => lane(SyncMethod::HostWait, WaitMode::Spin),
            RungKind::Semaphore => by_semaphore(|method| lane(method, WaitMode::Block)),
            RungKind::HostCopy => Ok(Box::new(HostCopy::new(near()?, far()?, bytes)?)),
            RungKind::Ring { depth, batch } => by_anything(|method| {
                let handoff = handoff(method, WaitMode::Block);
                let ring = Ring::new(near()?, far()?, bytes, (depth, batch), handoff)?;
                Ok(Box::new(ring) as Box<dyn Benchmark>)
            }),
            _ => anyhow::bail!("{kind} can't be built on {}", self.path),
        }
    }
}

fn handoff(method: SyncMethod, wait: WaitMode) -> HandoffOptions {
    HandoffOptions { method: Some(method), wait, timeout: TIMEOUT, ..HandoffOptions::default() }
}

/// With a timeline semaphore, else with a binary one.
fn by_semaphore<T>(build: impl Fn(SyncMethod) -> Result<T>) -> Result<T> {
    match build(SyncMethod::Timeline) {
        Err(error) if is_missing(&error) => build(SyncMethod::Binary),
        built => built,
    }
}

/// With a semaphore, else by host wait.
fn by_anything<T>(build: impl Fn(SyncMethod) -> Result<T>) -> Result<T> {
    match by_semaphore(&build) {
        Err(error) if is_missing(&error) => build(SyncMethod::HostWait),
        built => built,
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Missing(_))) || error.is::<Missing>()
}

fn skip_what_is_missing(built: Result<Box<dyn Benchmark>>) -> Result<Built> {
    match built {
        Ok(rung) => Ok(Ok(rung)),
        Err(error) if is_missing(&error) => Ok(Err(error.root_cause().to_string())),
        Err(error) => Err(error),
    }
}
