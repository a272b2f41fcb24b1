//! Runs one case and returns its verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Error, anyhow};

use super::case::CaseOn;
use super::fixture::Fixture;
use super::process::open_descriptors;
use super::report::{Entry, Verdict};
use super::validation;

/// Runs one case, if the fixture has what it needs, and returns its verdict.
pub(super) fn judge<F: Fixture>(case: &CaseOn<F>, fixture: &F) -> Entry {
    let start = Instant::now();
    let entry = |verdict, reason| Entry {
        name: case.name.clone(),
        verdict,
        reason,
        seconds: start.elapsed().as_millis() as f64 / 1000.0,
        descriptors: Some(open_descriptors().count()),
    };
    for need in &case.needs {
        match fixture.lacks(*need) {
            Ok(None) => {}
            Ok(Some(reason)) => return entry(Verdict::Skipped, Some(reason)),
            Err(error) => return entry(Verdict::Failed, Some(format!("{error:#}"))),
        }
    }
    let _ = validation::take();
    let result = match catch_unwind(AssertUnwindSafe(|| (case.run)(fixture))) {
        Ok(result) => result,
        Err(panic) => Err(anyhow!("panicked: {}", panic_text(&*panic))),
    };
    let messages = validation::take().join("\n");
    let result = match result {
        result if messages.is_empty() => result,
        Ok(()) => Err(anyhow!("the validation layer reports: {messages}")),
        Err(error) => Err(error.context(format!("the validation layer reports: {messages}"))),
    };
    let (verdict, reason) = verdict(case, fixture.driver(), result.err());
    entry(verdict, reason)
}

/// Compares an outcome with the failure that is expected on this driver, if any.
fn verdict<F>(case: &CaseOn<F>, driver: &str, failure: Option<Error>) -> (Verdict, Option<String>) {
    let expected = case.expected_failures.iter().find(|bug| driver.contains(bug.driver));
    let Some(bug) = expected else {
        return match failure {
            None => (Verdict::Passed, None),
            Some(error) => (Verdict::Failed, Some(format!("{error:#}"))),
        };
    };
    let (name, why) = (bug.driver, bug.why);
    let (verdict, reason) = match failure.map(|error| format!("{error:#}")) {
        None => (Verdict::Failed, format!("passes, but is expected to fail on {name}: {why}")),
        Some(text) if text.contains(bug.error) => {
            (Verdict::ExpectedFailure, format!("{name}: {why}: {text}"))
        }
        Some(text) => {
            (Verdict::Failed, format!("not the expected failure ('{}'): {text}", bug.error))
        }
    };
    (verdict, Some(reason))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
