//! Calibration: measures what is possible on this machine, and chooses.
//!
//! Which [`Route`](super::Route) is best, and how many payloads are to be in flight, depends on the
//! GPU, its driver, the pair of APIs and the size of the payload. [`Calibration::measure`] tries the
//! candidates in turns, by a [`Trial`]: the caller's own work, or [`RingTrial`], which fills payloads
//! by the APIs' own commands. What is not possible is recorded with what is missing, and the rest goes
//! on.
//!
//! A calibration is data. It prints as a table; [`Calibration::to_stored`] is text that parses back,
//! on any machine; and [`Calibration::require`] refuses it for another GPU, driver or pair.
//!
//! ```
//! use gpu_interop::tune::{Calibration, CalibrationKey};
//! use gpu_interop::ring::RingOptions;
//!
//! /// The ring to open for payloads of so many bytes: by a calibration that was stored.
//! fn ring_options(stored: &str, here: &CalibrationKey, bytes: u64) -> gpu_interop::Result<RingOptions> {
//!     let calibration: Calibration = stored.parse()?;
//!     calibration.require(here)?;
//!     println!("{calibration}");
//!     RingOptions::calibrated(&calibration, bytes)
//! }
//! ```

mod data;
mod key;
mod measure;
mod ring_trial;
mod route;
mod route_config;
mod stored;
mod table;
mod timing;

pub use data::{Calibration, Choice, Outcome, Row, SizeResult};
pub use key::CalibrationKey;
pub use measure::{CalibrationOptions, Trial};
#[cfg(feature = "cuda")]
pub use ring_trial::CudaWorker;
#[cfg(feature = "gl")]
pub use ring_trial::GlWorker;
pub use ring_trial::{RingTrial, VulkanWorker, Worker};
pub use route::{Route, RouteEndpoints, RouteNeed};
pub use route_config::RouteConfig;
pub use timing::Timing;
