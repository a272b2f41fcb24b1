//! The ping-pong's kernels in each API, over the user's side of the library, and the CPU's oracle.

mod contexts;
pub mod cuda;
pub mod gl;
pub mod image;
pub mod kernel;
pub mod oracle;
pub mod post_process;
pub mod rounding;
pub mod size;
pub mod statistics;
pub mod texel;
pub mod vulkan;

pub use contexts::GpuContexts;
pub use kernel::{Kernel, Window, windows};
