//! The GPU, opened in every API, and what is to be done on it.

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

/// One GPU in Vulkan, CUDA, and OpenGL if it is there.
pub(crate) struct Gpu {
    // CUDA goes first, then OpenGL, then Vulkan.
    pub(crate) kernels: Rc<Kernels>,
    pub(crate) cuda: Rc<CudaContext>,
    gl: Result<Rc<GlContext>, Error>,
    pub(crate) vulkan: Rc<VulkanContext>,
}

/// What is to be done.
pub(crate) struct Job {
    pub(crate) size: (u32, u32),
    /// The picture to work on; the scene without one.
    pub(crate) picture: Option<Light>,
    pub(crate) noise: f32,
    pub(crate) settings: Settings,
    pub(crate) vignette: f32,
    /// OpenGL for the last stage; Vulkan without it.
    pub(crate) finish: Option<Rc<GlContext>>,
}

impl Gpu {
    /// Opens the GPU in every API. CUDA must be there.
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

    /// OpenGL if it is wanted, or there; `None` for Vulkan.
    pub(crate) fn finish(&self, wanted: Option<FinishApi>) -> Result<Option<Rc<GlContext>>> {
        match (wanted, &self.gl) {
            (Some(FinishApi::Vulkan), _) | (None, Err(_)) => Ok(None),
            (_, Ok(gl)) => Ok(Some(gl.clone())),
            (Some(FinishApi::Gl), Err(error)) => Err(error.clone()).context("--finish gl"),
        }
    }

    /// Refuses a picture that is larger than the GPU's images.
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
            bail!("{width}x{height}: pictures on {name} have at most {limit} pixels a side");
        }
        Ok(())
    }
}
