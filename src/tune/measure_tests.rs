//! The calibration over trials that only pretend: what is run, recorded and chosen.

use super::super::key::tests::subject;
use super::*;
use crate::error::{Api, DriverError, Missing};

/// Takes so many nanoseconds a turn, by the candidate; says what it was asked.
#[derive(Default)]
struct Pretended {
    asked: Vec<(u64, RouteConfig, u32)>,
    /// These lack something, or fail at their so manieth run.
    lacking: Vec<RouteConfig>,
    failing: Vec<(RouteConfig, usize)>,
}

fn candidate(text: &str) -> RouteConfig {
    text.parse().unwrap()
}

fn missing() -> Missing {
    Missing::new(Api::Vulkan, "VK_NVX_binary_import", "CUDA kernels in its queue")
}

fn lost() -> Error {
    let name = "VK_ERROR_DEVICE_LOST".into();
    DriverError { api: Api::Vulkan, call: "vkQueueSubmit", code: -4, name }.into()
}

impl Trial for Pretended {
    fn support(&self, candidate: RouteConfig) -> Support {
        if self.lacking.contains(&candidate) { Err(missing()) } else { Ok(()) }
    }

    fn run(&mut self, bytes: u64, candidate: RouteConfig, turns: u32) -> Result<Duration> {
        self.asked.push((bytes, candidate, turns));
        let before = self.asked.iter().filter(|asked| asked.1 == candidate).count();
        if self.failing.contains(&(candidate, before)) {
            return Err(lost());
        }
        let one = bytes / u64::from(candidate.depth);
        Ok(Duration::from_nanos(one) * turns)
    }
}

fn candidates(texts: &[&str]) -> Vec<RouteConfig> {
    texts.iter().map(|text| candidate(text)).collect()
}

#[test]
fn rounds_are_interleaved_and_the_first_run_sets_how_long_they_are() {
    let all = candidates(&["timeline:1", "timeline:4"]);
    let options = CalibrationOptions { rounds: 2, ..CalibrationOptions::default() };
    let mut trial = Pretended::default();
    let data = Calibration::measure(subject(), &[40_000], &all, &options, &mut trial).unwrap();
    // 20 ms of 40 µs, and of 10 µs.
    let expected = [(all[0], 2), (all[1], 8)].into_iter().chain([
        (all[0], 500),
        (all[1], 2000),
        (all[0], 500),
        (all[1], 2000),
    ]);
    let expected: Vec<_> = expected.map(|(c, turns)| (40_000, c, turns)).collect();
    assert_eq!(trial.asked, expected);
    let chosen = data.choice(40_000).unwrap();
    assert_eq!(chosen.candidate, all[1]);
    assert_eq!(chosen.figures.median, Duration::from_micros(10));
    assert_eq!((chosen.figures.rounds, chosen.figures.turns), (2, 2000));
}

#[test]
fn what_is_missing_or_fails_is_recorded_and_the_rest_goes_on() {
    let all = candidates(&["in-queue:1", "timeline:1", "binary:1", "host-wait:1", "binary:2"]);
    let mut trial = Pretended {
        lacking: vec![all[0]],
        failing: vec![(all[1], 1), (all[2], 3)],
        ..Pretended::default()
    };
    let options = CalibrationOptions { rounds: 4, ..CalibrationOptions::default() };
    let data = Calibration::measure(subject(), &[4096], &all, &options, &mut trial).unwrap();
    let outcomes: Vec<_> = data.sizes()[0].rows.iter().map(|row| row.outcome.clone()).collect();
    assert_eq!(outcomes[0], Outcome::Missing(missing()));
    assert_eq!(outcomes[1], Outcome::Failed(lost().to_string()));
    assert_eq!(outcomes[2], Outcome::Failed(lost().to_string()));
    assert!(matches!(outcomes[3], Outcome::Measured(_)));
    assert_eq!(data.choice(4096).unwrap().candidate, all[4]);
    let runs = |candidate| trial.asked.iter().filter(|asked| asked.1 == candidate).count();
    let counted: Vec<_> = all.iter().map(|candidate| runs(*candidate)).collect();
    assert_eq!(counted, [0, 1, 3, 5, 5]);
}

#[test]
fn too_much_memory_is_left_out_and_so_is_what_the_time_does_not_reach() {
    let all = candidates(&["host-wait:2", "host-wait:4"]);
    let mut trial = Pretended::default();
    let options = CalibrationOptions { memory: 3 << 20, ..CalibrationOptions::default() };
    let data = Calibration::measure(subject(), &[1 << 20], &all, &options, &mut trial).unwrap();
    let Outcome::Skipped(why) = &data.sizes()[0].rows[1].outcome else { panic!("{data}") };
    assert!(why.contains("4 MiB") && why.contains("3 MiB"), "{why}");
    assert_eq!(data.choice(1).unwrap().candidate, all[0]);

    let options = CalibrationOptions { budget: Duration::ZERO, ..CalibrationOptions::default() };
    let data = Calibration::measure(subject(), &[64], &all, &options, &mut trial).unwrap();
    assert!(data.choice(1).is_none());
}

#[test]
fn where_nothing_works_the_first_error_comes_back() {
    let all = candidates(&["in-queue:1", "timeline:1"]);
    let failing = vec![(all[1], 1)];
    let mut trial = Pretended { lacking: vec![all[0]], failing, ..Pretended::default() };
    let options = CalibrationOptions::default();
    let refused = Calibration::measure(subject(), &[64], &all, &options, &mut trial);
    assert_eq!(refused, Err(missing().into()));
}

#[test]
fn nothing_to_measure_is_refused() {
    let all = candidates(&["timeline:1"]);
    let twice = [all[0], all[0]];
    let mut trial = Pretended::default();
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
        let refused = Calibration::measure(subject(), sizes, candidates, options, &mut trial);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert!(trial.asked.is_empty());
}
