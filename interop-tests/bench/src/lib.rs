//! The benchmark: what each way of handing payloads over costs, from copies by way of the host up to kernels
//! of two APIs in one queue, beside one API that does the same work alone.
//!
//! A *pair* is one kernel of the first API and one of the second on the same payload. All benchmarks of one
//! payload size are built first and then timed in turns, batch by batch, so that what changes in the machine
//! meanwhile changes for all. In the end every byte of every payload is compared with what the CPU computes
//! for as many pairs.

mod build;
mod copies;
mod cpu;
mod host_copy;
mod kind;
mod lines;
mod plan;
mod plot;
mod raw;
mod report;
mod run;
mod staging;

pub use cpu::{CpuCost, cpu, cpu_benchmarks};
pub use kind::{BenchmarkKind, Selection, SingleApi};
pub use plan::Plan;
pub use plot::plot;
pub use report::{PairTimes, Report, Row, Skipped};
pub use run::{Progress, run};
