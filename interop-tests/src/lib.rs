//! The conformance suite of `gpu-interop`.

pub mod cases;
pub mod harness;
pub mod matrix;
pub mod pages;
