//! Measures which route and ring configuration is fastest on this machine, and chooses one.
//!
//! The best [`Route`] and the best number of payloads in flight depend on the GPU, its driver, the
//! pair of APIs and the size of the payload. [`Calibration::measure`] measures candidates in turn
//! with a [`Benchmark`], which is the caller's own work. For a candidate that is not supported, it
//! records what is missing.
//!
//! A calibration is data. It prints as a table. With the cargo feature `serde` it can be stored,
//! for example as JSON, and [`Calibration::check`] refuses it for another GPU, driver or pair of
//! APIs.
//!
//! ```
//! use gpu_interop::ring::RingOptions;
//! use gpu_interop::tune::{Calibration, CalibrationKey};
//!
//! /// Returns the options of a ring for payloads of `bytes` bytes, from a stored calibration.
//! fn ring_options(
//!     stored: &Calibration,
//!     here: &CalibrationKey,
//!     bytes: u64,
//! ) -> gpu_interop::Result<RingOptions> {
//!     stored.check(here)?;
//!     println!("{stored}");
//!     RingOptions::calibrated(stored, bytes)
//! }
//! ```

mod calibration;
mod measure;
mod route;
mod timing;

pub use calibration::{Calibration, CalibrationKey, Choice, Outcome, Row, SizeResult};
pub use measure::{Benchmark, CalibrationOptions};
pub use route::{Route, RouteConfig, RouteEndpoints};
pub use timing::Timing;
