//! Calibrations: what was measured, for which machine, and the choice that follows.

use std::fmt;

use super::route::{Route, RouteConfig};
use super::timing::{Timing, select};
use crate::capabilities::Capabilities;
use crate::error::{Api, Invalid, Mismatch, Missing, Result};
use crate::identity::Uuid;
use crate::ring::RingOptions;

/// The GPU, driver and APIs with which a calibration was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CalibrationKey {
    /// The GPU.
    pub device: Uuid,
    /// The driver, if its UUID is known. Each driver version has its own.
    pub driver: Option<Uuid>,
    /// The GPU's name; not compared.
    pub name: String,
    /// The APIs, in the order in which a payload visits them.
    pub apis: Vec<Api>,
}

impl CalibrationKey {
    /// Creates a key with the GPU and driver of `owner`, the capabilities of a Vulkan endpoint, for
    /// payloads that visit `apis` in this order.
    ///
    /// # Errors
    /// [`Missing`] if `owner` has no device UUID.
    pub fn new(owner: &Capabilities, apis: &[Api]) -> Result<Self> {
        let identity = owner.identities.first().ok_or_else(|| {
            Missing::new(owner.api, "a device UUID", "identifying a calibration's GPU")
        })?;
        let (device, driver, name) = (identity.device, identity.driver, identity.name.clone());
        Ok(Self { device, driver, name, apis: apis.to_vec() })
    }

    fn check(&self, expected: &CalibrationKey) -> Result<()> {
        let same = |field, found: String, expected: String| {
            if found == expected {
                return Ok(());
            }
            Err(Mismatch::new(field, expected, found)
                .help("calibrate again: timings differ between GPUs, drivers and APIs"))
        };
        let device = |key: &CalibrationKey| key.device.to_string();
        let driver =
            |key: &CalibrationKey| key.driver.map_or("none".into(), |uuid| uuid.to_string());
        same("the calibrated device UUID", device(self), device(expected))?;
        same("the calibrated driver UUID", driver(self), driver(expected))?;
        same("the calibrated APIs", self.path(), expected.path())?;
        Ok(())
    }

    fn path(&self) -> String {
        let names: Vec<_> = self.apis.iter().map(ToString::to_string).collect();
        names.join(" → ")
    }
}

impl fmt::Display for CalibrationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} ({})", self.path(), self.name, self.device)
    }
}

/// The measurements of one pair of APIs on one GPU, for one or more payload sizes.
///
/// Prints as a table. See the [module](super).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Calibration {
    pub(super) key: CalibrationKey,
    pub(super) noise: f64,
    pub(super) sizes: Vec<SizeResult>,
}

/// The measurements for one payload size.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SizeResult {
    /// The payload size in bytes.
    pub payload_bytes: u64,
    /// One row per candidate, in the given order: simplest first.
    pub rows: Vec<Row>,
}

/// The result of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Row {
    /// The candidate.
    pub config: RouteConfig,
    /// Its timing, or the reason why it was not measured.
    pub outcome: Outcome,
}

/// The timing of a candidate, or the reason why it was not measured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Outcome {
    /// It was measured.
    Measured(Timing),
    /// An API lacks something that it needs.
    Missing(Missing),
    /// The benchmark failed with this error.
    Failed(String),
    /// It was skipped for this reason.
    Skipped(String),
}

/// The candidate that a calibration chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// The route, the payloads in flight and the batch size.
    pub config: RouteConfig,
    /// The measured payload size nearest to the requested one, in bytes.
    pub payload_bytes: u64,
    /// The timing at that size.
    pub timing: Timing,
}

impl SizeResult {
    /// The first of the `allowed` candidates that is at most `noise` slower than the fastest of
    /// them.
    pub(super) fn choose(
        &self,
        noise: f64,
        allowed: impl Fn(RouteConfig) -> bool,
    ) -> Option<Choice> {
        let measured: Vec<_> = self
            .rows
            .iter()
            .filter(|row| allowed(row.config))
            .filter_map(|row| match row.outcome {
                Outcome::Measured(timing) => Some((row.config, timing)),
                _ => None,
            })
            .collect();
        let chosen = select(measured.iter().map(|(_, timing)| timing.median), noise)?;
        let (config, timing) = measured[chosen];
        Some(Choice { config, payload_bytes: self.payload_bytes, timing })
    }
}

impl Calibration {
    /// Returns the GPU, driver and APIs with which the calibration was measured.
    pub fn key(&self) -> &CalibrationKey {
        &self.key
    }

    /// Returns the largest relative difference between two timings that counts as a tie: 0.03 is
    /// 3%.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// Returns the measurements per payload size.
    pub fn sizes(&self) -> &[SizeResult] {
        &self.sizes
    }

    /// Checks that the calibration was measured with the GPU, driver and APIs of `key`.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) with both values.
    pub fn check(&self, key: &CalibrationKey) -> Result<()> {
        self.key.check(key)
    }

    /// Returns the best candidate for payloads of `payload_bytes`, from the nearest measured size.
    ///
    /// Candidates are ordered simplest first; of those within [`noise`](Self::noise) of the
    /// fastest, the first is chosen. `None` if nothing was measured.
    pub fn choice(&self, payload_bytes: u64) -> Option<Choice> {
        self.nearest(payload_bytes)?.choose(self.noise, |_| true)
    }

    /// Same as [`choice`](Self::choice), among the candidates that a [`ring`](crate::ring)
    /// supports: all but [`Route::SameQueue`].
    pub fn ring_choice(&self, payload_bytes: u64) -> Option<Choice> {
        let is_ring = |config: RouteConfig| config.route != Route::SameQueue;
        self.nearest(payload_bytes)?.choose(self.noise, is_ring)
    }

    /// The size whose ratio to `payload_bytes` is nearest to 1.
    fn nearest(&self, payload_bytes: u64) -> Option<&SizeResult> {
        let ratio = |size: &&SizeResult| {
            let (a, b) = (size.payload_bytes.max(1), payload_bytes.max(1));
            (a.max(b) as f64) / (a.min(b) as f64)
        };
        self.sizes.iter().min_by(|a, b| ratio(a).total_cmp(&ratio(b)))
    }
}

impl RingOptions {
    /// Returns the options that `calibration` chooses for payloads of `payload_bytes`.
    /// [`Calibration::ring_choice`] also has the number of slots per batch.
    ///
    /// # Errors
    /// [`Invalid`] if the calibration has no measured candidate that a ring supports.
    pub fn calibrated(calibration: &Calibration, payload_bytes: u64) -> Result<Self> {
        let choice = calibration.ring_choice(payload_bytes);
        let options = choice.and_then(|choice| Self::of(choice.config));
        options.ok_or_else(|| {
            Invalid::new("calibration", "has no measured candidate that a ring supports")
                .help("measure candidates with semaphores or host wait")
                .into()
        })
    }

    /// Returns the options of a configuration; `None` for [`Route::SameQueue`], which has no ring.
    pub fn of(config: RouteConfig) -> Option<Self> {
        Some(Self { depth: config.depth, handoff: config.route.handoff()? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capabilities::SyncMethod;
    use crate::error::Error;

    pub(in super::super) fn key() -> CalibrationKey {
        CalibrationKey {
            device: Uuid::from_bytes([7; 16]),
            driver: Some(Uuid::from_bytes([9; 16])),
            name: "a GPU".into(),
            apis: vec![Api::Vulkan, Api::Cuda],
        }
    }

    fn measured(config: &str, nanoseconds: u64) -> Row {
        let time = Duration::from_nanos(nanoseconds);
        let timing = Timing { median: time, p99: time * 2, rounds: 5, iterations: 70 };
        row(config, Outcome::Measured(timing))
    }

    fn row(config: &str, outcome: Outcome) -> Row {
        Row { config: config.parse().unwrap(), outcome }
    }

    pub(in super::super) fn calibration() -> Calibration {
        let missing = Missing::new(Api::Vulkan, "VK_NVX_binary_import", "a launch");
        let rows = vec![
            measured("timeline:1", 300_000),
            row("binary:1", Outcome::Failed("a driver's message".into())),
            measured("timeline:8", 41_000),
            measured("timeline:8x4", 40_000),
            measured("in-queue:1x16", 10_000),
            row("in-queue:1", Outcome::Missing(missing)),
            row("timeline:64", Outcome::Skipped("out of time".into())),
        ];
        let small = SizeResult { payload_bytes: 65_536, rows };
        let rows = vec![measured("host-wait:2", 500_000), measured("in-queue:1", 600_000)];
        let large = SizeResult { payload_bytes: 16 << 20, rows };
        Calibration { key: key(), noise: 0.03, sizes: vec![small, large] }
    }

    fn shown(choice: Option<Choice>) -> (String, u64) {
        let choice = choice.unwrap();
        (choice.config.to_string(), choice.payload_bytes)
    }

    #[test]
    fn the_nearest_size_decides_and_a_ring_never_uses_the_same_queue() {
        let data = calibration();
        assert_eq!(shown(data.choice(65_536)), ("in-queue:1x16".into(), 65_536));
        assert_eq!(shown(data.choice(0)), ("in-queue:1x16".into(), 65_536));
        assert_eq!(shown(data.choice(1 << 20)), ("in-queue:1x16".into(), 65_536));
        assert_eq!(shown(data.choice((1 << 20) + 1)), ("host-wait:2".into(), 16 << 20));
        assert_eq!(shown(data.choice(u64::MAX)), ("host-wait:2".into(), 16 << 20));
        // 41 µs is within 3% of 40 µs, and simpler.
        assert_eq!(shown(data.ring_choice(65_536)), ("timeline:8".into(), 65_536));
        let strict = Calibration { noise: 0.0, ..data };
        assert_eq!(shown(strict.ring_choice(65_536)), ("timeline:8x4".into(), 65_536));
    }

    #[test]
    fn ring_options_are_those_of_the_choice() {
        let options = RingOptions::calibrated(&calibration(), 65_536).unwrap();
        assert_eq!((options.depth, options.handoff.method), (8, Some(SyncMethod::Timeline)));
        let none = Calibration { sizes: Vec::new(), ..calibration() };
        assert!(none.choice(1).is_none());
        RingOptions::calibrated(&none, 1).unwrap_err();
    }

    #[test]
    fn another_gpu_driver_or_pair_is_refused_with_both_values() {
        let calibration = calibration();
        let own = key();
        calibration.check(&CalibrationKey { name: "another name".into(), ..key() }).unwrap();
        for other in [
            CalibrationKey { device: Uuid::from_bytes([8; 16]), ..own.clone() },
            CalibrationKey { driver: Some(Uuid::from_bytes([8; 16])), ..own.clone() },
            CalibrationKey { driver: None, ..own.clone() },
            CalibrationKey { apis: vec![Api::Cuda, Api::Vulkan], ..own.clone() },
            CalibrationKey { apis: vec![Api::Vulkan, Api::OpenGl], ..own.clone() },
        ] {
            let refused = calibration.check(&other).unwrap_err();
            let Error::Mismatch(mismatch) = &refused else { panic!("{refused:?}") };
            assert_ne!(mismatch.expected, mismatch.found);
        }
    }
}
