//! The conformance suite and the benchmarks of `gpu-interop`, and what they and the examples run on.

pub mod cases;
pub mod rig;
pub mod suite;
