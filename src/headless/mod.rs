//! Opens Vulkan, OpenGL and CUDA on one GPU, without a display.
//!
//! The rest of the library borrows an application's contexts. This module creates them, by UUID and
//! never by index, so that all three are on the same GPU. [`Headless::open`] opens every API that
//! is present; [`Vulkan::open`], [`Gl::open`] and [`Cuda::open`] open one each, any number of
//! times. Their `endpoint()` methods are safe, since the endpoint keeps the context alive.
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
mod egl;
mod error;
mod gl;
mod gpu;
mod instance;
mod messages;
mod options;
mod physical;
mod vulkan;

pub use commands::Commands;
pub use gl::Gl;
pub use gpu::{Cuda, Gpu, Headless, enumerate_gpus};
pub use messages::{Message, MessageHandler, MessageKind, Severity};
pub use options::{DeviceType, GpuSelector, QueuePreference, Validation, VulkanOptions};
pub use vulkan::Vulkan;
