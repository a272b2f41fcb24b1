//! The report: name, verdict and reason of every case.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::fixture::{About, ApiState, Device};

/// The whole run. Older reports lack some fields.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of the library; empty in older reports.
    #[serde(default)]
    pub(crate) library: String,
    pub(crate) device: Device,
    pub(crate) apis: Vec<ApiState>,
    pub(crate) validated: bool,
    pub(crate) descriptors: DescriptorCounts,
    /// How long the run took; 0 in older reports.
    #[serde(default)]
    pub(crate) seconds: f64,
    #[serde(skip_deserializing)]
    pub(crate) totals: Totals,
    pub(crate) cases: Vec<Entry>,
}

/// File descriptors open before the first case and after the last, with the GPU closed: added up over the
/// processes that closed it. The run fails if the two counts of any process differ.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DescriptorCounts {
    pub(crate) before: usize,
    pub(crate) after: usize,
    #[serde(default)]
    pub(crate) processes: usize,
}

impl DescriptorCounts {
    /// Adds those of another process.
    pub(crate) fn add(&mut self, other: Self) {
        self.before += other.before;
        self.after += other.after;
        self.processes += other.processes;
    }
}

/// Number of cases per verdict.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Totals {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) crashed: usize,
    pub(crate) timed_out: usize,
    pub(crate) skipped: usize,
    pub(crate) expected_failures: usize,
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// Why it did not pass.
    pub(crate) reason: Option<String>,
    /// How long it took.
    #[serde(default)]
    pub(crate) seconds: f64,
    /// File descriptors open after it, in its process. `None` if the process ended.
    pub(crate) descriptors: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// Its process ended.
    Crashed,
    /// It exceeded the limit, and its process was killed.
    TimedOut,
    Skipped,
    ExpectedFailure,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed out",
            Self::Skipped => "skipped",
            Self::ExpectedFailure => "expected failure",
        })
    }
}

impl Verdict {
    /// Whether the run fails.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Crashed | Self::TimedOut)
    }
}

impl Totals {
    pub(crate) fn of<'a>(cases: impl IntoIterator<Item = &'a Entry, IntoIter: Clone>) -> Self {
        let cases = cases.into_iter();
        let count = |verdict| cases.clone().filter(|case| case.verdict == verdict).count();
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
    pub(crate) fn failures(&self) -> usize {
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
    pub(crate) fn new(
        about: About,
        descriptors: DescriptorCounts,
        took: Duration,
        cases: Vec<Entry>,
    ) -> Self {
        let About { device, apis, validated, hardware: _ } = about;
        let (library, totals) = (env!("CARGO_PKG_VERSION").into(), Totals::of(&cases));
        let seconds = took.as_millis() as f64 / 1000.0;
        Self { library, device, apis, validated, descriptors, seconds, totals, cases }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
        let report =
            read().with_context(|| format!("{} is no report of the suite", path.display()))?;
        Ok(Self { totals: Totals::of(&report.cases), ..report })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        write(path, &text)
    }
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}
