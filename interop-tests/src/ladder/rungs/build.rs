//! Building a rung for a path and a payload size, or telling why it can't be.

use anyhow::Result;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::error::Missing;
use gpu_interop::handoff::calibration::Candidate;
use gpu_interop::handoff::{HandoffOptions, WaitMode};
use gpu_interop::{Error, SemaphoreKind};

use super::host_copy::HostCopy;
use super::in_queue::in_queue;
use super::lane::Lane;
use super::ring::Ring;
use super::{AloneCuda, alone_vulkan};
use crate::ladder::copies::Copies;
use crate::ladder::far::{Far, FarCuda, FarGl, FarVulkan};
use crate::ladder::grids::Grids;
use crate::ladder::kind::{Alone, RungKind};
use crate::ladder::raw::{Raw, RawCuda, RawGl, RawSecond};
use crate::ladder::rung::{FIRST_STEP, Rung, SECOND_STEP};
use crate::ladder::vulkan_side::{PATIENCE, VulkanSide};
use crate::ping_pong::{PathKind, Rigs};

/// What rungs are built from.
pub(crate) struct Builder<'a> {
    pub(crate) rigs: &'a Rigs,
    pub(crate) path: PathKind,
    pub(crate) bytes: u64,
    pub(crate) grids: Grids,
}

/// A rung, or why there is none.
pub(crate) type Built = Result<Box<dyn Rung>, String>;

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
            RungKind::Alone(Alone::Cuda) if !is_cuda => Some("CUDA has no part in this path"),
            RungKind::InQueue(_) if !is_cuda => {
                Some("only CUDA's kernels can run in a Vulkan queue")
            }
            _ => None,
        }
    }

    fn try_build(&self, kind: RungKind) -> Result<Box<dyn Rung>> {
        let rigs = self.rigs;
        match kind {
            RungKind::Alone(Alone::Cuda) => {
                let rig = rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                Ok(Box::new(AloneCuda::new(rig, self.bytes, self.grids.cuda)?))
            }
            RungKind::Alone(Alone::Vulkan) => {
                let rig = rigs.vulkan.clone();
                Ok(Box::new(alone_vulkan(rig, self.bytes, self.grids.vulkan)?))
            }
            RungKind::InQueue(pairs) => {
                let cuda = rigs.cuda.as_ref().map_err(Clone::clone)?;
                let (rig, grids) = (rigs.vulkan.clone(), (self.grids.vulkan, self.grids.cuda));
                Ok(Box::new(in_queue(rig, cuda, self.bytes, pairs, grids)?))
            }
            RungKind::RawHostWaitBlock => self.build_raw(Some(WaitMode::Block)),
            RungKind::RawHostWaitSpin => self.build_raw(Some(WaitMode::Spin)),
            RungKind::RawSemaphore => self.build_raw(None),
            _ => match self.path {
                PathKind::VulkanVulkan => {
                    let rig = rigs.second_instance.clone();
                    let side = || VulkanSide::new(rig.clone(), self.grids.vulkan, SECOND_STEP);
                    self.build_with(kind, || Ok(FarVulkan { side: side()? }))
                }
                PathKind::VulkanGl => {
                    let rig = rigs.gl.as_ref().map_err(Clone::clone)?.clone();
                    self.build_with(kind, || Ok(FarGl { rig: rig.clone(), grid: self.grids.gl }))
                }
                PathKind::VulkanCuda => {
                    let rig = rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                    self.build_with(kind, || {
                        Ok(FarCuda { rig: rig.clone(), grid: self.grids.cuda })
                    })
                }
                PathKind::VulkanGlCuda => anyhow::bail!("the ladder has paths of two APIs"),
            },
        }
    }

    /// Opens what a calibration knows by its own name.
    pub(crate) fn open(&self, candidate: Candidate) -> Result<Box<dyn Rung>> {
        let Candidate { route, depth, batch, .. } = candidate;
        let Some(handoff) = route.handoff() else {
            return self.try_build(RungKind::InQueue(batch));
        };
        let handoff = HandoffOptions { timeout: PATIENCE, ..handoff };
        match self.path {
            PathKind::VulkanVulkan => {
                let rig = self.rigs.second_instance.clone();
                let side = VulkanSide::new(rig, self.grids.vulkan, SECOND_STEP)?;
                self.open_with(FarVulkan { side }, handoff, (depth, batch))
            }
            PathKind::VulkanGl => {
                let rig = self.rigs.gl.as_ref().map_err(Clone::clone)?.clone();
                self.open_with(FarGl { rig, grid: self.grids.gl }, handoff, (depth, batch))
            }
            PathKind::VulkanCuda => {
                let rig = self.rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                self.open_with(FarCuda { rig, grid: self.grids.cuda }, handoff, (depth, batch))
            }
            PathKind::VulkanGlCuda => anyhow::bail!("the ladder has paths of two APIs"),
        }
    }

    fn open_with<F: Far + 'static>(
        &self,
        far: F,
        handoff: HandoffOptions,
        (depth, batch): (u32, u32),
    ) -> Result<Box<dyn Rung>> {
        let near = VulkanSide::new(self.rigs.vulkan.clone(), self.grids.vulkan, FIRST_STEP)?;
        if depth == 1 {
            return Ok(Box::new(Lane::new(near, far, self.bytes, handoff)?));
        }
        Ok(Box::new(Ring::new(near, far, self.bytes, (depth, batch), handoff)?))
    }

    /// The controls, with the APIs' own calls.
    fn build_raw(&self, by_host: Option<WaitMode>) -> Result<Box<dyn Rung>> {
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
                let rig = rigs.gl.as_ref().map_err(Clone::clone)?.clone();
                let import = |exported| RawGl::new(rig, grids.gl, exported);
                Ok(Box::new(Raw::new(near, self.bytes, grid, by_host, import)?))
            }
            PathKind::VulkanCuda => {
                let rig = rigs.cuda.as_ref().map_err(Clone::clone)?.clone();
                let import = |exported| RawCuda::new(rig, grids.cuda, exported);
                Ok(Box::new(Raw::new(near, self.bytes, grid, by_host, import)?))
            }
            PathKind::VulkanGlCuda => anyhow::bail!("the ladder has paths of two APIs"),
        }
    }

    fn build_with<F: Far + Copies + 'static>(
        &self,
        kind: RungKind,
        far: impl Fn() -> Result<F>,
    ) -> Result<Box<dyn Rung>> {
        let near = || VulkanSide::new(self.rigs.vulkan.clone(), self.grids.vulkan, FIRST_STEP);
        let bytes = self.bytes;
        let lane = |method, wait| -> Result<Box<dyn Rung>> {
            Ok(Box::new(Lane::new(near()?, far()?, bytes, handoff(method, wait))?))
        };
        match kind {
            RungKind::HostWaitBlock => lane(SyncMethod::HostWait, WaitMode::Block),
            RungKind::HostWaitSpin => lane(SyncMethod::HostWait, WaitMode::Spin),
            RungKind::Semaphore => by_semaphore(|method| lane(method, WaitMode::Block)),
            RungKind::HostCopy => Ok(Box::new(HostCopy::new(near()?, far()?, bytes)?)),
            RungKind::Ring { depth, batch } => by_anything(|method| {
                let handoff = handoff(method, WaitMode::Block);
                let ring = Ring::new(near()?, far()?, bytes, (depth, batch), handoff)?;
                Ok(Box::new(ring) as Box<dyn Rung>)
            }),
            _ => anyhow::bail!("{kind} can't be built on {}", self.path),
        }
    }
}

fn handoff(method: SyncMethod, wait: WaitMode) -> HandoffOptions {
    HandoffOptions { method: Some(method), wait, timeout: PATIENCE, ..HandoffOptions::default() }
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

fn skip_what_is_missing(built: Result<Box<dyn Rung>>) -> Result<Built> {
    match built {
        Ok(rung) => Ok(Ok(rung)),
        Err(error) if is_missing(&error) => Ok(Err(error.root_cause().to_string())),
        Err(error) => Err(error),
    }
}
