//! The benchmark: the cost of each way to hand payloads over, from copies through the host to kernels of two
//! APIs in one queue, compared with one API that does the same work alone.
//!
//! A *pair* is one kernel of the first API and one of the second on the same payload. All benchmarks of one
//! payload size are built first and then timed batch by batch in alternation, so that changes in the machine
//! affect them all. At the end every byte of every payload is compared with what the CPU computes for as many
//! pairs.

mod build;
mod copies;
mod costs;
mod host_copy;
mod kind;
mod lines;
mod plot;
mod raw;
mod report;
mod run;
mod staging;

pub use costs::{Comparison, Costs, HandoffCost, PayloadCost, costs};
pub use kind::{BenchmarkKind, Selection, SingleApi};
pub use plot::plot;
pub use report::{PairTimes, Report, Row, Skipped};
pub use run::{Plan, Progress, run};
