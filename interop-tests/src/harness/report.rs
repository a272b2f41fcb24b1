//! The report: name, verdict and reason of every case.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// The whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) device: Device,
    pub(super) apis: Vec<ApiState>,
    pub(super) validated: bool,
    pub(super) descriptors: DescriptorCounts,
    pub(super) totals: Totals,
    pub(super) cases: Vec<Entry>,
}

#[derive(Debug, Serialize)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) driver: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ApiState {
    pub(super) api: &'static str,
    /// Why it is absent; null if it is available.
    pub(super) absent: Option<String>,
}

/// File descriptors open before the first case and after the last, with the GPU closed.
#[derive(Debug, Serialize)]
pub(super) struct DescriptorCounts {
    pub(super) before: usize,
    pub(super) after: usize,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    pub(super) expected_failures: usize,
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// Why it was skipped, failed, or was expected to fail.
    pub(super) reason: Option<String>,
    /// How long it took.
    pub(super) seconds: f64,
    /// File descriptors open after it.
    pub(super) descriptors: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Passed,
    Failed,
    Skipped,
    ExpectedFailure,
}

impl Totals {
    pub(super) fn of(cases: &[Entry]) -> Self {
        let count = |verdict| cases.iter().filter(|case| case.verdict == verdict).count();
        Self {
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            skipped: count(Verdict::Skipped),
            expected_failures: count(Verdict::ExpectedFailure),
        }
    }
}

impl Report {
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }
}
