//! The harness of the conformance suite: cases, what they need, and the report.
//!
//! | variable | meaning |
//! |---|---|
//! | `INTEROP_REQUIRE=vulkan,gl,cuda` | an API that is absent is a failure, not a skip |
//! | `INTEROP_REPORT=FILE` | write name, verdict and reason of every case as JSON |
//! | `INTEROP_DEVICE=UUID` | which GPU |
//! | `INTEROP_CASE_LIMIT=SECONDS` | a case that takes longer hangs, and ends the run (300) |
//! | `INTEROP_VALIDATION=off` | leave the Khronos validation layer out |
//! | `INTEROP_KILLS=COUNT` | how many producers and consumers of sessions end badly (25 each) |
//! | `INTEROP_SEED=NUMBER` | which, when and how, by chance that can be had again |
//! | `INTEROP_KILLS_REPORT=FILE` | append what became of them, a line of JSON a case |

mod case;
mod child;
mod descriptors;
mod machine;
mod messages;
mod report;
mod run;

pub use case::{Case, ExpectedFailure, Need};
pub use child::{Role, child_arguments, run_as_child};
pub use descriptors::{Descriptors, open_descriptors};
pub use machine::TestGpu;
pub use run::run;
