//! One GPU, opened in every API.

use std::rc::Rc;

use anyhow::Result;
use gpu_interop::Error;
use gpu_interop::headless::{GpuSelector, Headless, Vulkan, VulkanOptions};

use crate::cuda::CudaContext;
use crate::gl::GlContext;
use crate::vulkan::VulkanContext;

/// One GPU in every API that is installed, with the kernels loaded.
#[derive(Debug)]
pub struct GpuContexts {
    /// CUDA, or why it is missing.
    pub cuda: Result<Rc<CudaContext>, Error>,
    /// OpenGL, or why it is missing.
    pub gl: Result<Rc<GlContext>, Error>,
    /// Another logical device of the same instance.
    pub second_device: Rc<VulkanContext>,
    /// A device of another instance.
    pub second_instance: Rc<VulkanContext>,
    /// Vulkan.
    pub vulkan: Rc<VulkanContext>,
}

impl GpuContexts {
    /// Opens the GPU that `selector` selects.
    ///
    /// # Errors
    /// If Vulkan is missing, or any driver fails.
    pub fn open(selector: &GpuSelector, options: &VulkanOptions) -> Result<Self> {
        let Headless { vulkan, gl, cuda, .. } = Headless::open(selector, options)?;
        let same = GpuSelector::Uuid(vulkan.identity().device);
        let second_instance = Rc::new(VulkanContext::new(Vulkan::open(&same, options)?)?);
        let second_device = Rc::new(VulkanContext::new(vulkan.second_device()?)?);
        let gl = gl.map(GlContext::new).transpose_ok()?;
        let cuda = cuda.map(CudaContext::new).transpose_ok()?;
        let vulkan = Rc::new(VulkanContext::new(vulkan)?);
        Ok(Self { cuda, gl, second_device, second_instance, vulkan })
    }

    /// OpenGL.
    ///
    /// # Errors
    /// Why it is missing.
    pub fn gl(&self) -> Result<Rc<GlContext>> {
        Ok(self.gl.as_ref().map_err(Clone::clone)?.clone())
    }

    /// CUDA.
    ///
    /// # Errors
    /// Why it is missing.
    pub fn cuda(&self) -> Result<Rc<CudaContext>> {
        Ok(self.cuda.as_ref().map_err(Clone::clone)?.clone())
    }
}

/// Swaps the two levels of a `Result`: what is missing stays inside, a failure is returned.
trait TransposeOk<T> {
    fn transpose_ok(self) -> Result<Result<Rc<T>, Error>>;
}

impl<T> TransposeOk<T> for Result<Result<T>, Error> {
    fn transpose_ok(self) -> Result<Result<Rc<T>, Error>> {
        match self {
            Ok(Ok(gpu)) => Ok(Ok(Rc::new(gpu))),
            Ok(Err(failure)) => Err(failure),
            Err(reason) => Ok(Err(reason)),
        }
    }
}
