//! Opens Vulkan, OpenGL and CUDA on one GPU, without a display.
//!
//! The rest of the library borrows an application's contexts. This module creates them, by UUID and
//! never by index, so that all three are on the same GPU. [`Headless::open`] opens every API that is
//! present; [`Vulkan::open`], [`Gl::open`] and [`Cuda::open`] open one each, any number of times.
//! Their `endpoint()` methods are safe, since the endpoint keeps the context alive.
//!
//! ```no_run
//! use gpu_interop::headless::{GpuSelector, Headless, VulkanOptions};
//!
//! # fn main() -> gpu_interop::Result<()> {
//! let headless = Headless::open(&GpuSelector::Any, &VulkanOptions::default())?;
//! println!("{}", headless.vulkan.identity().name);
//! let vulkan = headless.vulkan.endpoint()?;
//! match headless.cuda() {
//!     Ok(cuda) => println!("and CUDA: {:?}", cuda.endpoint()?.identities()),
//!     Err(error) => println!("no CUDA: {error}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # References
//! `EGL_EXT_platform_device`, `EGL_KHR_surfaceless_context`, `VkPhysicalDeviceIDProperties`,
//! `GL_DEVICE_UUID_EXT`, `cuDeviceGetUuid`.

mod commands;
mod cuda;
mod egl;
mod enumerate;
mod error;
mod gl;
mod init_lock;
mod instance;
mod messages;
mod options;
mod physical;
mod vulkan;

pub use commands::Commands;
pub use cuda::Cuda;
pub use enumerate::{Gpu, enumerate_gpus};
pub use gl::Gl;
pub use messages::{Message, MessageHandler, MessageKind, Severity};
pub use options::{GpuSelector, QueuePreference, Validation, VulkanOptions};
pub use physical::DeviceType;
pub use vulkan::Vulkan;

use crate::error::{Error, Result};

/// The APIs that could be opened on one GPU.
///
/// OpenGL and CUDA are opened by the UUID of Vulkan's GPU. If one of them can't be opened, the error is
/// kept. Dropping this closes CUDA, then OpenGL, then Vulkan, each when nothing created from it is
/// left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Headless {
    /// CUDA, or why it could not be opened.
    pub cuda: Result<Cuda, Error>,
    /// OpenGL, or why it could not be opened. Its context is current on the thread that opened it.
    pub gl: Result<Gl, Error>,
    /// Vulkan.
    pub vulkan: Vulkan,
}

impl Headless {
    /// Opens Vulkan on the selected GPU, and OpenGL and CUDA on the same one.
    ///
    /// # Errors
    /// Those of [`Vulkan::open`]. Errors of OpenGL and CUDA are kept in [`gl`](Self::gl) and
    /// [`cuda`](Self::cuda).
    pub fn open(gpu: &GpuSelector, options: &VulkanOptions) -> Result<Self> {
        let vulkan = Vulkan::open(gpu, options)?;
        let same = GpuSelector::Uuid(vulkan.identity().device);
        let gl = Gl::open(&same);
        let cuda = Cuda::open(&same);
        for (api, error) in [("OpenGL", gl.as_ref().err()), ("CUDA", cuda.as_ref().err())] {
            if let Some(error) = error {
                tracing::debug!(api, %error, "not opened");
            }
        }
        Ok(Self { cuda, gl, vulkan })
    }

    /// Returns OpenGL.
    ///
    /// # Errors
    /// The error with which it could not be opened.
    pub fn gl(&self) -> Result<&Gl> {
        self.gl.as_ref().map_err(Error::clone)
    }

    /// Returns CUDA.
    ///
    /// # Errors
    /// The error with which it could not be opened.
    pub fn cuda(&self) -> Result<&Cuda> {
        self.cuda.as_ref().map_err(Error::clone)
    }
}
