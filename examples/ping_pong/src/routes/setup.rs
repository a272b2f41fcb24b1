//! Opens a route between Vulkan and the second API of a path.

use anyhow::{Result, bail};
use gpu_interop::handoff::HandoffOptions;
use gpu_interop::tune::RouteConfig;
use interop_gpu::{GpuContexts, Kernel};

use super::benchmark::{Benchmark, FIRST_STEP, SECOND_STEP};
use super::channel::Channel;
use super::grids::Grids;
use super::one_queue::same_queue;
use super::ring::Ring;
use crate::cuda::CudaUser;
use crate::gl::GlUser;
use crate::path::PathKind;
use crate::user::{PayloadUser, TIMEOUT, Work};
use crate::vulkan::VulkanUser;

/// What routes are opened with.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// The GPU in every API.
    pub gpus: &'a GpuContexts,
    /// The two APIs.
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
    pub fn first(&self) -> Result<VulkanUser> {
        VulkanUser::new(self.gpus.vulkan.clone())
    }

    /// A device of another Vulkan instance as the second API.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn second_vulkan(&self) -> Result<VulkanUser> {
        VulkanUser::new(self.gpus.second_instance.clone())
    }

    /// OpenGL as the second API.
    ///
    /// # Errors
    /// If OpenGL is missing.
    pub fn second_gl(&self) -> Result<GlUser> {
        Ok(GlUser { gpu: self.gpus.gl()? })
    }

    /// CUDA as the second API.
    ///
    /// # Errors
    /// If CUDA is missing.
    pub fn second_cuda(&self) -> Result<CudaUser> {
        Ok(CudaUser { gpu: self.gpus.cuda()? })
    }

    /// The kernels of a pair.
    pub fn works(&self) -> [Work; 2] {
        let second = match self.path {
            PathKind::VulkanGl => self.grids.gl,
            PathKind::VulkanCuda => self.grids.cuda,
            PathKind::VulkanVulkan | PathKind::VulkanGlCuda => self.grids.vulkan,
        };
        let whole = |step, groups| Work::Whole(Kernel::PingPong { step }, groups);
        [whole(FIRST_STEP, self.grids.vulkan), whole(SECOND_STEP, second)]
    }

    /// Opens the route that `config` names, its payloads filled.
    ///
    /// # Errors
    /// [`Missing`](gpu_interop::error::Missing) if this machine lacks something; otherwise if a driver fails.
    pub fn open(&self, config: RouteConfig) -> Result<Box<dyn Benchmark>> {
        let RouteConfig { route, depth, batch, .. } = config;
        let Some(handoff) = route.handoff() else {
            let (vulkan, cuda) = (self.gpus.vulkan.clone(), self.gpus.cuda()?);
            let grids = (self.grids.vulkan, self.grids.cuda);
            return Ok(Box::new(same_queue(vulkan, &cuda, self.bytes, batch, grids)?));
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

    fn open_with<S: PayloadUser>(
        &self,
        second: S,
        handoff: HandoffOptions,
        (depth, batch): (u32, u32),
    ) -> Result<Box<dyn Benchmark>> {
        let (first, works) = (self.first()?, self.works());
        if depth == 1 {
            return Ok(Box::new(Channel::new(first, second, self.bytes, works, handoff)?));
        }
        Ok(Box::new(Ring::new(first, second, self.bytes, (depth, batch), works, handoff)?))
    }
}
