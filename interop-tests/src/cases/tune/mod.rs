//! Routes, their measurement and the benchmark.

pub(crate) mod bench;
pub(crate) mod calibration;
pub(crate) mod routes;
