//! The GPU in every API, and the settings of a run.

use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use gpu_interop::ash;
use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
use gpu_interop::{Error, Uuid, cuda};
use interop_gpu::cuda::CudaContext;
use interop_gpu::gl::GlContext;
use interop_gpu::post_process::{Kernels, Light, Settings};
use interop_gpu::vulkan::VulkanContext;

use crate::options::FinishApi;

/// One GPU in Vulkan, CUDA and, if it is installed, OpenGL.
pub(crate) struct Gpu {
    // Dropped in this order: CUDA, OpenGL, Vulkan.
    pub(crate) kernels: Rc<Kernels>,
    pub(crate) cuda: Rc<CudaContext>,
    gl: Result<Rc<GlContext>, Error>,
    pub(crate) vulkan: Rc<VulkanContext>,
}

/// The settings of a run.
pub(crate) struct Job {
    pub(crate) size: (u32, u32),
    /// The input picture; `None` for the scene.
    pub(crate) picture: Option<Light>,
    pub(crate) noise: f32,
    pub(crate) settings: Settings,
    pub(crate) vignette: f32,
    /// OpenGL for the last stage; `None` for Vulkan.
    pub(crate) finish: Option<Rc<GlContext>>,
}

impl Gpu {
    /// Opens the GPU in every API. CUDA is required.
    pub(crate) fn open(device: Option<Uuid>) -> Result<Self> {
        let selector = device.map_or(GpuSelector::Any, GpuSelector::Uuid);
        // First: the demo can't do anything without CUDA.
        cuda::require()?;
        // For the copies that sharing is compared with.
        let options = VulkanOptions::default().extension(ash::ext::external_memory_host::NAME);
        let Headless { vulkan, gl, cuda, .. } = Headless::open(&selector, &options)?;
        let cuda = cuda?;
        let gl = match gl {
            Ok(gl) => Ok(Rc::new(GlContext::new(gl)?)),
            Err(error @ Error::Missing(_)) => Err(error),
            Err(error) => return Err(error.into()),
        };
        let cuda = Rc::new(CudaContext::new(cuda)?);
        let kernels = Rc::new(Kernels::new(cuda.cuda.context())?);
        Ok(Self { kernels, cuda, gl, vulkan: Rc::new(VulkanContext::new(vulkan)?) })
    }

    /// The API of the last stage: OpenGL if it is requested, or by default if it is installed; `None` for
    /// Vulkan.
    pub(crate) fn finish(&self, wanted: Option<FinishApi>) -> Result<Option<Rc<GlContext>>> {
        match (wanted, &self.gl) {
            (Some(FinishApi::Vulkan), _) | (None, Err(_)) => Ok(None),
            (_, Ok(gl)) => Ok(Some(gl.clone())),
            (Some(FinishApi::Gl), Err(error)) => Err(error.clone()).context("--finish gl"),
        }
    }

    /// Checks that the GPU supports images of this size.
    pub(crate) fn check_size(&self, (width, height): (u32, u32)) -> Result<()> {
        let vulkan = &self.vulkan.vulkan;
        // SAFETY: a valid instance and physical device.
        let properties =
            unsafe { vulkan.instance().get_physical_device_properties(vulkan.physical_device()) };
        let limits = properties.limits;
        let limit = limits
            .max_image_dimension2_d
            .min(limits.max_framebuffer_width)
            .min(limits.max_framebuffer_height);
        if width.max(height) > limit {
            let name = &vulkan.identity().name;
            bail!("{width}x{height}: {name} supports at most {limit} pixels per side");
        }
        Ok(())
    }
}
