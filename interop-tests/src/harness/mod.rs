//! The harness of the conformance suite: cases, what they need, and the report.
//!
//! | variable | meaning |
//! |---|---|
//! | `INTEROP_REQUIRE=vulkan,gl,cuda` | an API that is absent is a failure, not a skip |
//! | `INTEROP_REPORT=FILE` | write name, verdict and reason of every case as JSON, as `--report` |
//! | `INTEROP_DEVICE=UUID` | which GPU |
//! | `INTEROP_JOBS=COUNT` | how many cases run at once, as `--test-threads` (2 with a driver on the CPU, 1 on a GPU) |
//! | `INTEROP_CASE_LIMIT=SECONDS` | a case that takes longer has failed, and its process is killed (300) |
//! | `INTEROP_VALIDATION=off` | run without the Khronos validation layer |
//! | `INTEROP_KILLS=COUNT` | how many consumers and how many producers of sessions are ended (25) |
//! | `INTEROP_SEED=NUMBER` | seed of the random choices: which of them, when and how |
//! | `INTEROP_KILLS_REPORT=FILE` | append the results of these cases, one line of JSON per case |
//!
//! `--report`, `--html`, `--compare` and `--from` write, show and compare reports; `--help` describes them.
//!
//! The run fails if a filter matches no case.
//!
//! The cases run in child processes of 300 cases each, several at once, so that a case that crashes or hangs fails by its
//! name and the others still run. Each process counts its descriptors with the GPU closed, before its first
//! case and after its last. If the counts differ, or the validation layer reports something while the GPU is
//! closed, the run fails and names the cases of that process. Cases that measure something are marked
//! [`alone`](CaseOn::alone) and run after the others, one at a time.

mod batch;
mod case;
mod fixture;
mod judge;
mod options;
mod process;
pub(crate) mod report;
mod run;
mod test_gpu;
mod validation;
mod worker;

pub use case::{Case, CaseOn, ExpectedFailure};
pub use fixture::{About, ApiState, Device, Fixture, Need};
pub use process::{
    Descriptors, NVIDIA_UNMAPS_IN_BATCHES, ProcessResources, Role, child_arguments,
    open_descriptors,
};
pub use run::run;
pub use test_gpu::TestGpu;
pub use validation::ValidationLog;
