//! Stored calibrations: what is written is read back, and anything else is a typed error.

use proptest::prelude::*;

use super::super::data::tests::calibration;
use super::*;

#[test]
fn what_is_stored_is_read_back() {
    let data = calibration();
    let text = data.to_stored();
    assert_eq!(text.parse::<Calibration>(), Ok(data), "{text}");
    assert!(text.starts_with("gpu-interop calibration 1\n"));
}

#[test]
fn another_version_is_a_mismatch_and_other_text_is_invalid() {
    let text = calibration().to_stored();
    let newer = text.replacen("calibration 1", "calibration 2", 1).parse::<Calibration>();
    assert!(matches!(newer, Err(Error::Mismatch(_))), "{newer:?}");
    for other in ["", "hello", "gpu-interop"] {
        let refused = other.parse::<Calibration>();
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
}

#[test]
fn a_text_that_was_cut_or_changed_is_refused() {
    let text = calibration().to_stored();
    let lines: Vec<_> = text.lines().collect();
    for without in 0..lines.len() {
        let cut = lines[..without].join("\n").parse::<Calibration>();
        assert!(cut.is_err(), "without line {without} and what follows");
    }
    for (from, to) in [
        ("median_ns 300000", "median_ns -1"),
        ("measured timeline:8 ", "measured timeline:1 "),
        ("noise 0.03", "noise NaN"),
        ("stations vulkan cuda", "stations vulkan glide"),
        ("failed", "fainted"),
        ("payload 65536\n", ""),
        ("turns 70", "turns 70 more"),
        ("the time was over\"", "the time was over"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let refused = changed.parse::<Calibration>();
        assert!(matches!(refused, Err(Error::Invalid(_))), "{from} as {to}: {refused:?}");
    }
    let error = text.replacen("failed", "fainted", 1).parse::<Calibration>().unwrap_err();
    assert!(error.to_string().contains("line 8"), "{error}");
}

proptest! {
    #[test]
    fn any_name_and_reason_survives(name: String, why: String, help: Option<String>, median: u64) {
        let mut data = calibration();
        data.subject.name = name;
        let missing = Missing { help: help.map(Text::from), ..Missing::new(Api::Egl, why.clone(), "") };
        let rows = &mut data.sizes[0].rows;
        rows[1].outcome = Outcome::Failed(why.clone());
        rows[5].outcome = Outcome::Missing(missing);
        rows[6].outcome = Outcome::Skipped(why);
        if let Outcome::Measured(figures) = &mut rows[0].outcome {
            figures.median = Duration::from_nanos(median);
        }
        prop_assert_eq!(data.to_stored().parse::<Calibration>(), Ok(data));
    }

    #[test]
    fn any_text_is_a_calibration_or_a_typed_error(lines in prop::collection::vec(".*", 0..8)) {
        let text = format!("gpu-interop calibration 1\n{}", lines.join("\n"));
        if let Err(error) = text.parse::<Calibration>() {
            prop_assert!(matches!(error, Error::Invalid(_) | Error::Mismatch(_)));
        }
    }
}
