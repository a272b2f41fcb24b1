//! GPU contexts with the kernels of the tests, the benchmark and the demos in each API, and the expected
//! results of the kernels, computed on the CPU.

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
