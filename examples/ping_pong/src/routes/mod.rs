//! The ways to hand payloads over between Vulkan and a second API, each as a [`Benchmark`]: one payload
//! through a pair of handoffs, a ring of payloads, or both kernels in one queue; and each API alone, for
//! comparison.
//!
//! A *pair* is one kernel of the first API and one of the second on the same payload.

mod benchmark;
mod candidates;
mod channel;
mod grids;
mod one_queue;
mod ring;
mod setup;
mod single_cuda;

pub use benchmark::{Benchmark, FIRST_STEP, PairTime, SECOND_STEP, check, thread_cpu, time};
pub use candidates::Candidates;
pub(crate) use candidates::half;
pub use grids::Grids;
pub use one_queue::{OneQueue, same_queue, single_vulkan};
pub use setup::Setup;
pub use single_cuda::SingleCuda;
