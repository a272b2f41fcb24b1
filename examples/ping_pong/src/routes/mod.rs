//! The ways to hand payloads over between Vulkan and a second API, each as a [`Benchmark`]: one payload through a
//! pair of handoffs, a ring of payloads, or both kernels in one queue; and each API alone, for comparison.
//!
//! A *pair* is one kernel of the first API and one of the second on the same payload.

mod benchmark;
mod candidates;
mod channel;
mod grids;
mod one_queue;
mod ring;
mod same_queue;
mod second_api;
mod setup;
mod single_cuda;
mod single_vulkan;
mod verify;
mod vulkan_runner;

pub use benchmark::{Benchmark, FIRST_STEP, PairTime, SECOND_STEP, thread_cpu, time};
pub use candidates::Candidates;
pub(crate) use candidates::half;
pub use channel::Channel;
pub use grids::Grids;
pub use one_queue::OneQueue;
pub use ring::Ring;
pub use same_queue::same_queue;
pub use second_api::{BufferOf, Ends, KERNEL, SecondApi, SecondCuda, SecondGl, SecondVulkan};
pub use setup::Setup;
pub use single_cuda::SingleCuda;
pub use single_vulkan::single_vulkan;
pub use verify::check;
pub use vulkan_runner::{Recorded, TIMEOUT, VulkanRunner};
