//! Opens a route between Vulkan and the second API of a path.

use anyhow::{Result, bail};
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::tune::RouteConfig;
use interop_gpu::GpuContexts;

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP};
use super::channel::Channel;
use super::grids::Grids;
use super::ring::Ring;
use super::same_queue::same_queue;
use super::second_api::{SecondApi, SecondCuda, SecondGl, SecondVulkan};
use super::vulkan_runner::{TIMEOUT, VulkanRunner};
use crate::path::PathKind;

/// What routes are opened with.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The GPU in every API.
    pub gpus: &'a GpuContexts,
    /// Which two APIs.
    pub path: PathKind,
    /// Size of a payload in bytes.
    pub bytes: u64,
    /// Work groups of each API's kernel.
    pub grids: Grids,
}

impl Setup<'_> {
    /// The first API: Vulkan.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn first(&self) -> Result<VulkanRunner> {
        VulkanRunner::new(self.gpus.vulkan.clone(), self.grids.vulkan, FIRST_STEP)
    }

    /// A device of another Vulkan instance as the second API.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn second_vulkan(&self) -> Result<SecondVulkan> {
        let gpu = self.gpus.second_instance.clone();
        Ok(SecondVulkan { runner: VulkanRunner::new(gpu, self.grids.vulkan, SECOND_STEP)? })
    }

    /// OpenGL as the second API.
    ///
    /// # Errors
    /// If OpenGL is missing.
    pub fn second_gl(&self) -> Result<SecondGl> {
        let gpu = self.gpus.gl.as_ref().map_err(Clone::clone)?.clone();
        Ok(SecondGl { gpu, grid: self.grids.gl })
    }

    /// CUDA as the second API.
    ///
    /// # Errors
    /// If CUDA is missing.
    pub fn second_cuda(&self) -> Result<SecondCuda> {
        let gpu = self.gpus.cuda.as_ref().map_err(Clone::clone)?.clone();
        Ok(SecondCuda { gpu, grid: self.grids.cuda })
    }

    /// Opens the route that `config` names, its payloads filled.
    ///
    /// # Errors
    /// [`Missing`](gpu_interop::error::Missing) if this machine lacks something; otherwise if a driver fails.
    pub fn open(&self, config: RouteConfig) -> Result<Box<dyn Benchmark>> {
        let RouteConfig { route, depth, batch, .. } = config;
        let Some(handoff) = route.handoff() else {
            let cuda = self.gpus.cuda.as_ref().map_err(Clone::clone)?;
            let grids = (self.grids.vulkan, self.grids.cuda);
            let vulkan = self.gpus.vulkan.clone();
            return Ok(Box::new(same_queue(vulkan, cuda, self.bytes, batch, grids)?));
        };
        let handoff = HandoffOptions { timeout: TIMEOUT, ..handoff };
        match self.path {
            PathKind::VulkanVulkan => {
                self.open_with(self.second_vulkan()?, handoff, (depth, batch))
            }
            PathKind::VulkanGl => self.open_with(self.second_gl()?, handoff, (depth, batch)),
            PathKind::VulkanCuda => self.open_with(self.second_cuda()?, handoff, (depth, batch)),
            PathKind::VulkanGlCuda => bail!("a route connects two APIs, not three"),
        }
    }

    fn open_with<S: SecondApi + 'static>(
        &self,
        second: S,
        handoff: HandoffOptions,
        (depth, batch): (u32, u32),
    ) -> Result<Box<dyn Benchmark>> {
        let first = self.first()?;
        if depth == 1 {
            return Ok(Box::new(Channel::new(first, second, self.bytes, handoff)?));
        }
        Ok(Box::new(Ring::new(first, second, self.bytes, (depth, batch), handoff)?))
    }
}
