//! A calibration as data: what was measured, and what to choose by it.

use super::key::CalibrationKey;
use super::route_config::RouteConfig;
use super::timing::{Timing, select};
use crate::error::{Invalid, Missing, Result};
use crate::ring::RingOptions;
use crate::tune::Route;

/// What was measured on one GPU between one pair of APIs, for one or more sizes of payload.
///
/// Prints as a table. See the [module](super).
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    pub(crate) subject: CalibrationKey,
    /// How much slower than the best one still counts as equal, as a fraction.
    pub(crate) noise: f64,
    pub(crate) sizes: Vec<SizeResult>,
}

/// What was measured for one size of payload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeResult {
    /// The size in bytes.
    pub payload_bytes: u64,
    /// Each candidate once, in the order in which they were given: the simplest first.
    pub rows: Vec<Row>,
}

/// What became of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Which.
    pub candidate: RouteConfig,
    /// What was measured, or why nothing was.
    pub outcome: Outcome,
}

/// What was measured of a candidate, or why nothing was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was measured.
    Measured(Timing),
    /// It is not possible: an API lacks something.
    Missing(Missing),
    /// It failed; the error in words.
    Failed(String),
    /// It was left out, and why.
    Skipped(String),
}

/// What a calibration chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// The route, the payloads in flight and those passed on together.
    pub candidate: RouteConfig,
    /// The measured size that is nearest to the one that was asked for, in bytes.
    pub payload_bytes: u64,
    /// What was measured of it.
    pub figures: Timing,
}

impl SizeResult {
    /// The simplest of those `allowed` that is not slower than the best of them by more than `noise`.
    pub(crate) fn choose(
        &self,
        noise: f64,
        allowed: impl Fn(RouteConfig) -> bool,
    ) -> Option<Choice> {
        let measured: Vec<_> = self
            .rows
            .iter()
            .filter(|row| allowed(row.candidate))
            .filter_map(|row| match row.outcome {
                Outcome::Measured(figures) => Some((row.candidate, figures)),
                _ => None,
            })
            .collect();
        let chosen = select(measured.iter().map(|(_, figures)| figures.median), noise)?;
        let (candidate, figures) = measured[chosen];
        Some(Choice { candidate, payload_bytes: self.payload_bytes, figures })
    }
}

impl Calibration {
    /// What it holds for.
    pub fn subject(&self) -> &CalibrationKey {
        &self.subject
    }

    /// How much slower than the best a candidate may be and still count as equal, as a fraction.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// All that was measured, size by size.
    pub fn sizes(&self) -> &[SizeResult] {
        &self.sizes
    }

    /// Checks that it holds for `subject`.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for another GPU, driver, or pair of APIs, with both
    /// values.
    pub fn require(&self, subject: &CalibrationKey) -> Result<()> {
        self.subject.require(subject)
    }

    /// The best candidate for payloads of `payload_bytes`, by the nearest size that was measured: the
    /// simplest of those that are equally fast. `None` where none was measured.
    pub fn choice(&self, payload_bytes: u64) -> Option<Choice> {
        self.nearest(payload_bytes)?.choose(self.noise, |_| true)
    }

    /// As [`choice`](Self::choice), among what a [`ring`](crate::ring) can do: not in the
    /// queue.
    pub fn ring_choice(&self, payload_bytes: u64) -> Option<Choice> {
        let is_ring = |candidate: RouteConfig| candidate.route != Route::SameQueue;
        self.nearest(payload_bytes)?.choose(self.noise, is_ring)
    }

    /// The size whose ratio to `payload_bytes` is nearest to 1.
    fn nearest(&self, payload_bytes: u64) -> Option<&SizeResult> {
        let distance = |size: &&SizeResult| {
            let (a, b) = (size.payload_bytes.max(1), payload_bytes.max(1));
            // Larger over smaller, compared in a way that is exact for what a size can be.
            (a.max(b) as f64) / (a.min(b) as f64)
        };
        self.sizes.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }
}

impl RingOptions {
    /// The options that are best for payloads of `payload_bytes` by `calibration`. How many slots to
    /// take at a time is in [`Calibration::ring_choice`], as `candidate.batch`.
    ///
    /// # Errors
    /// [`Invalid`] where the calibration has measured nothing that a ring can do.
    pub fn calibrated(calibration: &Calibration, payload_bytes: u64) -> Result<Self> {
        let choice = calibration.ring_choice(payload_bytes);
        let options = choice.and_then(|choice| Self::of(choice.candidate));
        options.ok_or_else(|| {
            Invalid::new("calibration", "has measured nothing that a ring can do")
                .help("measure candidates by semaphores or host wait")
                .into()
        })
    }

    /// The options of a candidate; `None` in the queue, where there is no ring.
    pub fn of(candidate: RouteConfig) -> Option<Self> {
        Some(Self { depth: candidate.depth, handoff: candidate.route.handoff()? })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::super::key::tests::subject;
    use super::*;
    use crate::capabilities::SyncMethod;
    use crate::error::Api;

    pub(in super::super) fn measured(candidate: &str, nanoseconds: u64) -> Row {
        let turn = Duration::from_nanos(nanoseconds);
        let figures = Timing { median: turn, p99: turn * 2, rounds: 5, turns: 70 };
        row(candidate, Outcome::Measured(figures))
    }

    pub(in super::super) fn row(candidate: &str, outcome: Outcome) -> Row {
        Row { candidate: candidate.parse().unwrap(), outcome }
    }

    pub(in super::super) fn calibration() -> Calibration {
        let missing = Missing::new(Api::Vulkan, "VK_NVX_binary_import", "a \"launch\"")
            .help("enable it\nwhere it is");
        let rows = vec![
            measured("timeline:1", 300_000),
            row("binary:1", Outcome::Failed("a driver's \\ words".into())),
            measured("timeline:8", 41_000),
            measured("timeline:8x4", 40_000),
            measured("in-queue:1x16", 10_000),
            row("in-queue:1", Outcome::Missing(missing)),
            row("timeline:64", Outcome::Skipped("the time was over".into())),
        ];
        let small = SizeResult { payload_bytes: 65_536, rows };
        let rows = vec![measured("host-wait:2", 500_000), measured("in-queue:1", 600_000)];
        let large = SizeResult { payload_bytes: 16 << 20, rows };
        Calibration { subject: subject(), noise: 0.03, sizes: vec![small, large] }
    }

    fn shown(choice: Option<Choice>) -> (String, u64) {
        let choice = choice.unwrap();
        (choice.candidate.to_string(), choice.payload_bytes)
    }

    #[test]
    fn the_nearest_size_decides_and_a_ring_is_never_in_the_queue() {
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
    fn a_ring_is_opened_as_was_chosen() {
        let options = RingOptions::calibrated(&calibration(), 65_536).unwrap();
        assert_eq!((options.depth, options.handoff.method), (8, Some(SyncMethod::Timeline)));
        let none = Calibration { sizes: Vec::new(), ..calibration() };
        assert!(none.choice(1).is_none());
        RingOptions::calibrated(&none, 1).unwrap_err();
    }
}
