//! The report: name, verdict and reason of every case.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::fixture::{About, ApiState, Device};

/// The whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    device: Device,
    apis: Vec<ApiState>,
    validated: bool,
    descriptors: DescriptorCounts,
    totals: Totals,
    cases: Vec<Entry>,
}

/// File descriptors open before the first case and after the last, with the GPU closed: added up over the
/// processes that closed it. The run fails if the two counts of any process differ.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct DescriptorCounts {
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) processes: usize,
}

impl DescriptorCounts {
    /// Adds those of another process.
    pub(super) fn add(&mut self, other: Self) {
        self.before += other.before;
        self.after += other.after;
        self.processes += other.processes;
    }
}

/// Number of cases per verdict.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) crashed: usize,
    pub(super) timed_out: usize,
    pub(super) skipped: usize,
    pub(super) expected_failures: usize,
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    /// Why it did not pass.
    pub(super) reason: Option<String>,
    /// How long it took.
    pub(super) seconds: f64,
    /// File descriptors open after it, in its process. `None` if the process ended.
    pub(super) descriptors: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// Its process ended.
    Crashed,
    /// It exceeded the limit, and its process was killed.
    TimedOut,
    Skipped,
    ExpectedFailure,
}

impl Verdict {
    /// Whether the run fails.
    pub(super) fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Crashed | Self::TimedOut)
    }
}

impl Totals {
    pub(super) fn of(cases: &[Entry]) -> Self {
        let count = |verdict| cases.iter().filter(|case| case.verdict == verdict).count();
        Self {
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            crashed: count(Verdict::Crashed),
            timed_out: count(Verdict::TimedOut),
            skipped: count(Verdict::Skipped),
            expected_failures: count(Verdict::ExpectedFailure),
        }
    }

    /// How many cases fail the run.
    pub(super) fn failures(&self) -> usize {
        self.failed + self.crashed + self.timed_out
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, crashed, timed_out, skipped, expected_failures } = self;
        write!(f, "{passed} passed, {failed} failed, {crashed} crashed, {timed_out} timed out, ")?;
        write!(f, "{skipped} skipped; {expected_failures} expected failures")
    }
}

impl Report {
    pub(super) fn new(about: About, descriptors: DescriptorCounts, cases: Vec<Entry>) -> Self {
        let About { device, apis, validated, hardware: _ } = about;
        let totals = Totals::of(&cases);
        Self { device, apis, validated, descriptors, totals, cases }
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }
}
