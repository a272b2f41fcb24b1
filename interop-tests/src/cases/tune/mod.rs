//! Routes, calibrations and the benchmark.

pub(crate) mod bench;
pub(crate) mod calibration;
mod ring_benchmark;
pub(crate) mod routes;
