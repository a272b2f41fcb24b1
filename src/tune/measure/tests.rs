//! Calibrations with a simulated benchmark: the runs, the results and the choice.

use super::super::calibration::tests::{calibration, key};
use super::*;
use crate::error::{Api, DriverError, Missing};

/// Returns a time that depends on the candidate, and records its calls.
#[derive(Default)]
struct Simulated {
    runs: Vec<(u64, RouteConfig, u32)>,
    /// These are not supported.
    lacking: Vec<RouteConfig>,
    /// These fail in the run with this number, counted from 1.
    failing: Vec<(RouteConfig, usize)>,
}

fn candidate(text: &str) -> RouteConfig {
    text.parse().unwrap()
}

fn missing() -> Missing {
    Missing::new(Api::Vulkan, "VK_NVX_binary_import", "CUDA kernels in its queue")
}

fn lost() -> Error {
    let name = "VK_ERROR_DEVICE_LOST";
    DriverError::new(Api::Vulkan, "vkQueueSubmit", -4, name).into()
}

impl Benchmark for Simulated {
    fn support(&self, candidate: RouteConfig) -> Support {
        if self.lacking.contains(&candidate) { Err(missing()) } else { Ok(()) }
    }

    fn run(&mut self, bytes: u64, candidate: RouteConfig, iterations: u32) -> Result<Duration> {
        self.runs.push((bytes, candidate, iterations));
        let number = self.runs.iter().filter(|run| run.1 == candidate).count();
        if self.failing.contains(&(candidate, number)) {
            return Err(lost());
        }
        let one = bytes / u64::from(candidate.depth);
        Ok(Duration::from_nanos(one) * iterations)
    }
}

fn candidates(texts: &[&str]) -> Vec<RouteConfig> {
    texts.iter().map(|text| candidate(text)).collect()
}

#[test]
fn rounds_are_interleaved_and_the_first_run_sets_their_length() {
    let all = candidates(&["timeline:1", "timeline:4"]);
    let options = CalibrationOptions { rounds: 2, ..CalibrationOptions::default() };
    let mut benchmark = Simulated::default();
    let data = Calibration::measure(key(), &[40_000], &all, &options, &mut benchmark).unwrap();
    // 20 ms of 40 µs, and of 10 µs.
    let expected = [(all[0], 2), (all[1], 8)].into_iter().chain([
        (all[0], 500),
        (all[1], 2000),
        (all[0], 500),
        (all[1], 2000),
    ]);
    let expected: Vec<_> = expected.map(|(c, iterations)| (40_000, c, iterations)).collect();
    assert_eq!(benchmark.runs, expected);
    let chosen = data.choice(40_000).unwrap();
    assert_eq!(chosen.config, all[1]);
    assert_eq!(chosen.timing.median, Duration::from_micros(10));
    assert_eq!((chosen.timing.rounds, chosen.timing.iterations), (2, 2000));
}

#[test]
fn missing_and_failing_candidates_are_recorded_and_the_others_measured() {
    let all = candidates(&["in-queue:1", "timeline:1", "binary:1", "host-wait:1", "binary:2"]);
    let mut benchmark = Simulated {
        lacking: vec![all[0]],
        failing: vec![(all[1], 1), (all[2], 3)],
        ..Simulated::default()
    };
    let options = CalibrationOptions { rounds: 4, ..CalibrationOptions::default() };
    let data = Calibration::measure(key(), &[4096], &all, &options, &mut benchmark).unwrap();
    let outcomes: Vec<_> = data.sizes()[0].rows.iter().map(|row| row.outcome.clone()).collect();
    assert_eq!(outcomes[0], Outcome::Missing(missing()));
    assert_eq!(outcomes[1], Outcome::Failed(lost().to_string()));
    assert_eq!(outcomes[2], Outcome::Failed(lost().to_string()));
    assert!(matches!(outcomes[3], Outcome::Measured(_)));
    assert_eq!(data.choice(4096).unwrap().config, all[4]);
    let runs = |candidate| benchmark.runs.iter().filter(|run| run.1 == candidate).count();
    let counted: Vec<_> = all.iter().map(|candidate| runs(*candidate)).collect();
    assert_eq!(counted, [0, 1, 3, 5, 5]);
}

#[test]
fn candidates_over_the_memory_limit_or_the_budget_are_skipped() {
    let all = candidates(&["host-wait:2", "host-wait:4"]);
    let mut benchmark = Simulated::default();
    let options = CalibrationOptions { memory: 3 << 20, ..CalibrationOptions::default() };
    let data = Calibration::measure(key(), &[1 << 20], &all, &options, &mut benchmark).unwrap();
    let Outcome::Skipped(reason) = &data.sizes()[0].rows[1].outcome else { panic!("{data}") };
    assert!(reason.contains("4 MiB") && reason.contains("3 MiB"), "{reason}");
    assert_eq!(data.choice(1).unwrap().config, all[0]);

    let options = CalibrationOptions { budget: Duration::ZERO, ..CalibrationOptions::default() };
    let data = Calibration::measure(key(), &[64], &all, &options, &mut benchmark).unwrap();
    assert!(data.choice(1).is_none());
}

#[test]
fn if_nothing_can_be_measured_the_first_error_is_returned() {
    let all = candidates(&["in-queue:1", "timeline:1"]);
    let failing = vec![(all[1], 1)];
    let mut benchmark = Simulated { lacking: vec![all[0]], failing, ..Simulated::default() };
    let options = CalibrationOptions::default();
    let refused = Calibration::measure(key(), &[64], &all, &options, &mut benchmark);
    assert_eq!(refused, Err(missing().into()));
}

#[test]
fn empty_or_invalid_input_is_refused() {
    let all = candidates(&["timeline:1"]);
    let twice = [all[0], all[0]];
    let mut benchmark = Simulated::default();
    let options = CalibrationOptions::default();
    let none = CalibrationOptions { rounds: 0, ..options };
    let noisy = CalibrationOptions { noise: f64::NAN, ..options };
    for (sizes, candidates, options) in [
        (&[][..], &all[..], &options),
        (&[0], &all, &options),
        (&[64], &[], &options),
        (&[64], &twice, &options),
        (&[64], &all, &none),
        (&[64], &all, &noisy),
    ] {
        let refused = Calibration::measure(key(), sizes, candidates, options, &mut benchmark);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert!(benchmark.runs.is_empty());
}

#[test]
fn a_table_has_a_title_and_marks_the_choice() {
    let text = calibration().to_string();
    assert!(text.starts_with("Vulkan → CUDA on a GPU"), "{text}");
    let marked: Vec<_> = text.lines().filter(|line| line.starts_with('*')).collect();
    assert_eq!(marked.len(), 2, "{text}");
    assert!(marked[0].contains("in-queue") && marked[0].contains("10.0 µs"), "{text}");
    assert!(marked[1].contains("host-wait") && marked[1].contains("33.6"), "{text}");
    assert!(text.contains("64 KiB") && text.contains("16 MiB"), "{text}");
    assert!(text.contains("not supported: Vulkan lacks VK_NVX_binary_import"), "{text}");
}

#[test]
fn bytes_are_printed_exactly() {
    let shown = |bytes| Bytes(bytes).to_string();
    assert_eq!(shown(3 << 30), "3 GiB");
    assert_eq!(shown((1 << 20) + 1024), "1025 KiB");
    assert_eq!((shown(17), shown(0)), ("17 B".into(), "0 B".into()));
}
