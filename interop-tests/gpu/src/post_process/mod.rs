//! The passes of the demo `cuda_postprocess`, as CUDA kernels and on the CPU.

mod canvas;
mod half;
mod kernels;
mod light;
pub mod reference;
mod settings;
pub mod transfer;

pub use canvas::{Canvas, LIGHT, PICTURE, Shared, light_usage};
pub use kernels::Kernels;
pub use light::{Difference, Light, Picture};
pub use settings::{Pass, Settings, bloom_levels, bloom_size, level_size};
