//! The harness of the conformance suite: cases, what they need, and the report.
//!
//! | variable | meaning |
//! |---|---|
//! | `INTEROP_REQUIRE=vulkan,gl,cuda` | an API that is absent is a failure, not a skip |
//! | `INTEROP_REPORT=FILE` | write name, verdict and reason of every case as JSON |
//! | `INTEROP_DEVICE=UUID` | which GPU |
//! | `INTEROP_CASE_LIMIT=SECONDS` | a case that takes longer hangs, and ends the run (300) |
//! | `INTEROP_VALIDATION=off` | run without the Khronos validation layer |
//! | `INTEROP_KILLS=COUNT` | how many consumers and how many producers of sessions are ended (25) |
//! | `INTEROP_SEED=NUMBER` | seed of the random choices: which of them, when and how |
//! | `INTEROP_KILLS_REPORT=FILE` | append the results of these cases, one line of JSON per case |
//!
//! The run fails if a filter matches no case.

mod case;
mod process;
mod report;
mod run;
mod test_gpu;
mod validation;

pub use case::{Case, ExpectedFailure};
pub use process::{
    Descriptors, NVIDIA_UNMAPS_IN_BATCHES, ProcessResources, Role, child_arguments,
    open_descriptors, run_as_child,
};
pub use run::run;
pub use test_gpu::{Need, TestGpu};
pub use validation::ValidationLog;
