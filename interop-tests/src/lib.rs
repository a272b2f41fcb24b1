//! The conformance suite and the benchmarks of `gpu-interop`, and what they and the examples run on.

pub mod cases;
pub mod ladder;
pub mod ping_pong;
pub mod post_process;
pub mod progress;
pub mod rig;
pub mod scene;
pub mod share;
pub mod size;
pub mod statistics;
pub mod suite;
