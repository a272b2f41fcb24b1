//! The ladder: what each way of handing payloads over costs, from copies by way of the host up to kernels
//! of two APIs in one queue, beside one API that does the same work alone.
//!
//! A *pair* is one kernel of the first API and one of the second on the same payload. All rungs of one
//! payload size are built first and then timed in turns, batch by batch, so that what changes in the machine
//! meanwhile changes for all. In the end every byte of every payload is compared with what the CPU computes
//! for as many pairs.

mod copies;
mod cpu;
mod far;
mod grids;
mod kind;
mod lines;
mod plan;
mod plot;
mod raw;
mod report;
mod run;
mod rung;
mod rungs;
mod staging;
mod trial;
mod verify;
mod vulkan_side;

pub use cpu::{CpuCost, cpu, cpu_rungs};
pub use kind::{RungKind, Selection, SingleApi};
pub use plan::Plan;
pub use plot::plot;
pub use report::{PairTimes, Report, Row, Skipped};
pub use run::{Progress, run};
pub use rung::{Benchmark, thread_cpu};
pub use trial::Candidates;
