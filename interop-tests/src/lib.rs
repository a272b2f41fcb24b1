//! The conformance suite and the benchmarks of `gpu-interop`, and what they and the examples run on.

pub mod cases;
pub mod harness;
pub mod ladder;
pub mod ping_pong;
pub mod post_process;
pub mod progress;
pub mod scene;
pub mod share;
