//! Vulkan, OpenGL and CUDA on one GPU, opened for you, with no display and no X server.
//!
//! The rest of the library borrows contexts that an app already has. Here they are made: by UUID,
//! never by index, so that all three are on the same GPU. [`Headless::open`] opens what there is;
//! [`Vulkan::open`], [`Gl::open`] and [`Cuda::open`] open one each, any number of times. Their
//! `endpoint()` is safe, since it keeps what was opened alive.
//!
//! ```no_run
//! use gpu_interop::headless::{Headless, VulkanOptions, Wish};
//!
//! # fn main() -> gpu_interop::Result<()> {
//! let headless = Headless::open(&Wish::Any, &VulkanOptions::default())?;
//! println!("{}", headless.vulkan.identity().name);
//! let vulkan = headless.vulkan.endpoint()?;
//! match headless.cuda() {
//!     Ok(cuda) => println!("CUDA is there too: {:?}", cuda.endpoint()?.identities()),
//!     Err(why) => println!("no CUDA: {why}"),
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
mod device;
mod egl;
mod enumerate;
mod error;
mod gl;
mod init_lock;
mod instance;
#[cfg(test)]
mod live_tests;
mod messages;
mod options;
mod physical;
mod selector;
mod vulkan;

pub use commands::Commands;
pub use cuda::Cuda;
pub use enumerate::{Gpu, enumerate_gpus};
pub use gl::Gl;
pub use messages::{Message, MessageHandler, MessageKind, Severity};
pub use options::{QueuePreference, Validation, VulkanOptions};
pub use physical::DeviceType;
pub use selector::GpuSelector;
pub use vulkan::Vulkan;

use crate::error::{Error, Result};

/// All that could be opened on one GPU.
///
/// Vulkan decides which GPU; OpenGL and CUDA are opened by its UUID. Where one of them isn't there,
/// the reason is kept. Dropping it closes CUDA, then OpenGL, then Vulkan, each as far as nothing made
/// from it is left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Headless {
    /// CUDA, or why it isn't there.
    pub cuda: Result<Cuda, Error>,
    /// OpenGL, or why it isn't there. Its context is current on the thread that opened it.
    pub gl: Result<Gl, Error>,
    /// Vulkan.
    pub vulkan: Vulkan,
}

impl Headless {
    /// Opens Vulkan on the GPU that is wished for, and OpenGL and CUDA on the same one.
    ///
    /// # Errors
    /// Those of [`Vulkan::open`]. What keeps OpenGL and CUDA from being opened is kept in
    /// [`gl`](Self::gl) and [`cuda`](Self::cuda).
    pub fn open(wish: &GpuSelector, options: &VulkanOptions) -> Result<Self> {
        let vulkan = Vulkan::open(wish, options)?;
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

    /// OpenGL.
    ///
    /// # Errors
    /// Why it isn't there.
    pub fn gl(&self) -> Result<&Gl> {
        self.gl.as_ref().map_err(Error::clone)
    }

    /// CUDA.
    ///
    /// # Errors
    /// Why it isn't there.
    pub fn cuda(&self) -> Result<&Cuda> {
        self.cuda.as_ref().map_err(Error::clone)
    }
}
