//! The ping-pong: a payload circulates between compute kernels of several APIs.
//!
//! A [`Path`] is a ring of [`Stage`]s that share one buffer. In each round a stage acquires the buffer, runs
//! the kernel over it and releases it to the next stage. At the end every byte is compared with what the CPU
//! computes. [`routes`] holds the faster ways to hand payloads over between two APIs: several payloads in
//! flight, or both APIs' kernels in one queue.

mod cuda;
mod gl;
mod measure;
mod mode;
mod path;
pub mod routes;
mod stage;
mod user;
mod vulkan;

pub use cuda::CudaUser;
pub use gl::GlUser;
pub use measure::{HandoffTimes, Measured, PerApi, Plan, Progress, measure, prove};
pub use mode::{Chosen, HandoffMode, Sent, send};
pub use path::{Path, PathKind, Payload, create_for};
pub use stage::{Pass, Stage};
pub use user::{BufferOf, Ends, PayloadUser, TIMEOUT, TOUCHED_BYTES, Work};
pub use vulkan::{Recorded, VulkanUser};
