//! The report of the benchmark.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// A run of the benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The GPU's name.
    pub device: String,
    /// Its driver, with the version.
    pub driver: String,
    /// The GPU's UUID.
    pub uuid: String,
    /// The measurements, ordered by path, size and benchmark.
    pub rows: Vec<Row>,
    /// Benchmarks that this machine can't run, and why.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Benchmarks that failed, and why.
    #[serde(default)]
    pub failed: Vec<Skipped>,
}

/// One benchmark with payloads of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub benchmark: String,
    /// The APIs, in the order of a pair.
    pub path: String,
    /// Size of a payload in bytes.
    pub payload_bytes: u64,
    /// The number of payloads in flight.
    pub depth: u32,
    /// Bytes that both kernels of a pair read and write, divided by the median time of a pair, in GB/s.
    pub gb_per_s: f64,
    /// The single API's median time of a pair divided by this benchmark's, in the same run.
    pub ratio_to_single_api: f64,
    /// The time of a pair.
    pub pair_us: PairTimes,
    /// Whether every byte was what the CPU computes.
    pub verified: bool,
    /// The benchmark of the single API.
    pub single_api: String,
    /// How the two APIs are synchronised.
    pub handoff: String,
    /// Median CPU time of the submitting thread, in µs per pair.
    pub cpu_us: f64,
    /// Batches that were timed.
    pub batches: u32,
    /// Pairs in a batch. The host waits once at its end.
    pub pairs_per_batch: u32,
    /// The first wrong word, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

/// The time of a batch divided by its pairs, in µs, over all batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairTimes {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// A benchmark that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub benchmark: String,
    /// The APIs.
    pub path: String,
    /// Size of a payload in bytes.
    pub payload_bytes: u64,
    /// The reason.
    pub reason: String,
}

impl Report {
    /// Reads a report that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// If the file is missing or is not such a report.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a report of this benchmark", path.display()))
    }

    /// Writes the report, one row per line.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.to_json()?).with_context(|| path.display().to_string())
    }

    /// The report as JSON, one row per line.
    ///
    /// # Errors
    /// If serialisation fails, which no report causes.
    pub fn to_json(&self) -> Result<String> {
        let lines = |rows: Vec<String>| match rows.is_empty() {
            true => "[]".to_owned(),
            false => format!("[\n    {}\n  ]", rows.join(",\n    ")),
        };
        let rows = self.rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let skipped = self.skipped.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let failed = self.failed.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let text = |text: &str| serde_json::to_string(text);
        Ok(format!(
            "{{\n  \"device\": {},\n  \"driver\": {},\n  \"uuid\": {},\n  \"rows\": {},\n  \"skipped\": {},\n  \"failed\": {}\n}}\n",
            text(&self.device)?,
            text(&self.driver)?,
            text(&self.uuid)?,
            lines(rows),
            lines(skipped),
            lines(failed),
        ))
    }

    /// Checks that the report has rows, that all are verified, and that nothing failed.
    ///
    /// # Errors
    /// With the first row that is wrong, or the first failure.
    pub fn require_verified(&self) -> Result<()> {
        ensure!(!self.rows.is_empty(), "nothing was measured");
        if let Some(row) = self.rows.iter().find(|row| !row.verified) {
            let wrong = row.wrong.as_deref().unwrap_or("it is not verified");
            anyhow::bail!(
                "{} {} with {} bytes: {wrong}",
                row.path,
                row.benchmark,
                row.payload_bytes
            );
        }
        if let Some(Skipped { benchmark, path, payload_bytes, reason }) = self.failed.first() {
            anyhow::bail!("{path} {benchmark} with {payload_bytes} bytes: {reason}");
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with invented figures.
    pub(crate) fn made_up() -> Report {
        let row = |benchmark: &str, depth: u32, payload_bytes: u64, gb_per_s: f64| Row {
            benchmark: benchmark.into(),
            path: "vulkan-cuda".into(),
            payload_bytes,
            depth,
            gb_per_s,
            ratio_to_single_api: 0.5,
            pair_us: PairTimes { p50: 1.0, p99: 2.0 },
            verified: true,
            single_api: "cuda-alone".into(),
            handoff: "timeline semaphore".into(),
            cpu_us: 3.5,
            batches: 7,
            pairs_per_batch: 64,
            wrong: None,
        };
        let sizes = [1u64 << 16, 1 << 20, 1 << 24, 1 << 28, 1 << 30];
        let benchmarks = [("cuda-alone", 1, 1.0), ("ring-8", 8, 0.5), ("semaphore", 1, 0.1)];
        let rows = sizes.iter().flat_map(|&size| {
            // Rounded like real figures, so that JSON preserves them exactly.
            let most = ((size as f64).log2() * 100.0).round();
            benchmarks.map(|(benchmark, depth, part)| row(benchmark, depth, size, most * part))
        });
        let skipped = Skipped {
            benchmark: "in-queue-1".into(),
            path: "vulkan-cuda".into(),
            payload_bytes: 1 << 16,
            reason: "\"quoted\"".into(),
        };
        Report {
            device: "A GPU".into(),
            driver: "1.2".into(),
            uuid: "00".into(),
            rows: rows.collect(),
            skipped: vec![skipped.clone()],
            failed: vec![skipped],
        }
    }

    #[test]
    fn what_is_written_is_read_and_has_the_fields_that_were_promised() {
        let report = made_up();
        let file = tempfile::NamedTempFile::new().unwrap();
        report.write(file.path()).unwrap();
        assert_eq!(Report::read(file.path()).unwrap(), report);
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert!(json["device"].is_string() && json["driver"].is_string());
        let row = &json["rows"][1];
        assert!(row["benchmark"].is_string() && row["path"].is_string());
        for number in ["payload_bytes", "depth", "gb_per_s", "ratio_to_single_api"] {
            assert!(row[number].is_number(), "{number}");
        }
        assert!(row["pair_us"]["p50"].is_number() && row["pair_us"]["p99"].is_number());
        assert_eq!(row["verified"], true);
    }

    #[test]
    fn one_row_that_is_wrong_is_told() {
        let mut report = made_up();
        assert!(report.require_verified().unwrap_err().to_string().contains("quoted"));
        report.failed.clear();
        report.require_verified().unwrap();
        report.rows[3].verified = false;
        report.rows[3].wrong = Some("1 word".into());
        assert!(report.require_verified().unwrap_err().to_string().contains("1 word"));
        report.rows.clear();
        assert!(report.require_verified().is_err());
    }
}
