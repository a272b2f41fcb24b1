//! The ping-pong: a payload goes round between compute kernels of several APIs.
//!
//! A [`Path`] is a ring of [`Stage`]s that share one buffer. In a turn, a stage acquires the buffer,
//! runs the kernel over it and releases it to the next. At the end every byte is compared with what
//! the CPU computes.

mod cuda;
mod gl;
mod lanes;
mod measure;
mod path;
mod stage;
mod vulkan;
mod way;

pub use measure::{HandoffTimes, Measured, PerApi, Plan, Progress, measure, prove};
pub(crate) use path::create_for;
pub use path::{Path, PathKind, PayloadUser, Rigs, handoff_name, why};
pub use stage::{Stage, Work};
pub(crate) use way::half;
pub use way::{Chosen, HandoffMode, Sent, send};
