//! Two processes share frames: the library of `share_producer` and `share_consumer`.
//!
//! A [`FrameRenderer`] draws numbered frames with Vulkan into the buffers of a ring, and [`produce`] publishes
//! them. In another process [`consume`] receives them, checks every word of each on the GPU, in the API
//! that the user selects, and counts those that are lost, doubled or torn. The CPU checks the first and
//! the last frame again, and so also checks the GPU's check.

mod check_cuda;
mod check_gl;
mod check_vulkan;
mod checker;
mod consume;
mod frame;
mod frame_stats;
mod produce;
mod renderer;
mod waiting;

pub use checker::ConsumerApi;
pub use consume::{Consumed, ConsumerOptions, ConsumerReport, Latency, consume};
pub use frame::{Announced, Picture, Shape};
pub use frame_stats::{FrameCheck, FrameStats};
pub use produce::{ProducerReport, Production, Update, produce};
pub use renderer::FrameRenderer;
pub use waiting::{Interrupt, default_socket, session_options};
