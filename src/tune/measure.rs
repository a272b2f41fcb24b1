//! Measuring candidates in rounds, within a time budget, and printing the results as a table.

use std::fmt;
use std::time::{Duration, Instant};

use super::calibration::{Calibration, CalibrationKey, Outcome, Row, SizeResult};
use super::route::RouteConfig;
use super::timing::Timing;
use crate::capabilities::Support;
use crate::error::{Error, Invalid, Result};

/// The work with which candidates are measured; implemented by the caller.
pub trait Benchmark {
    /// Returns whether this machine supports a candidate; otherwise, what is missing, which is
    /// recorded.
    ///
    /// # Errors
    /// [`Missing`](crate::error::Missing) with the API and what it lacks.
    fn support(&self, config: RouteConfig) -> Support;

    /// Sends `iterations` payloads of `payload_bytes` through all endpoints and back, with as many
    /// in flight as `config` has. Returns the time until the last work is done, without the time to
    /// open endpoints, handoffs or rings.
    ///
    /// # Errors
    /// Any failure; it is recorded, and the candidate is not measured again.
    fn run(&mut self, payload_bytes: u64, config: RouteConfig, iterations: u32)
    -> Result<Duration>;
}

/// Options of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationOptions {
    /// Number of rounds, each of which measures every candidate once; at least 1. Default: 15.
    pub rounds: u32,
    /// Number of runs of each candidate before the first round; at least 1. They are not part of
    /// the result, but determine the number of payloads per round. Default: 1.
    pub warm_up: u32,
    /// Approximate time of one round of one candidate. Default: 20 ms.
    pub round_time: Duration,
    /// Approximate time per payload size, after which no further round begins. The first round
    /// always runs, with the candidates that were warmed up in time. Default: 10 s.
    pub budget: Duration,
    /// Maximum size of all payloads in flight together, in bytes; candidates that exceed it are
    /// skipped. Default: 16 GiB.
    pub memory: u64,
    /// The largest relative difference between two timings that counts as a tie; of a tie, the
    /// simpler candidate is chosen. Default: 0.03, which is 3%.
    pub noise: f64,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        Self {
            rounds: 15,
            warm_up: 1,
            round_time: Duration::from_millis(20),
            budget: Duration::from_secs(10),
            memory: 16 << 30,
            noise: 0.03,
        }
    }
}

impl CalibrationOptions {
    fn check(&self) -> Result<()> {
        let problem = if self.rounds == 0 {
            ("options.rounds", "is 0")
        } else if self.warm_up == 0 {
            ("options.warm_up", "is 0")
        } else if !(self.noise.is_finite() && self.noise >= 0.0) {
            ("options.noise", "is not a finite number of at least 0")
        } else {
            return Ok(());
        };
        Err(Invalid::new(problem.0, problem.1).help("see CalibrationOptions::default").into())
    }

    /// The number of payloads per round, if a first run took `time` for `iterations` payloads.
    fn iterations(&self, config: RouteConfig, time: Duration, iterations: u32) -> u32 {
        let one = time.as_secs_f64() / f64::from(iterations.max(1));
        // The conversion to u32 saturates.
        let many = (self.round_time.as_secs_f64() / one.max(1e-9)).round() as u32;
        let many = many.clamp(first_iterations(config), MAX_ITERATIONS);
        many.next_multiple_of(config.batch)
    }
}

/// The maximum number of payloads per round.
const MAX_ITERATIONS: u32 = 100_000;

/// The number of payloads of the first run, and the minimum of any round: each slot of a full ring
/// is used twice. A multiple of the batch size.
fn first_iterations(config: RouteConfig) -> u32 {
    (2 * config.depth.max(config.batch)).next_multiple_of(config.batch)
}

impl Calibration {
    /// Measures `candidates` with payloads of `sizes` bytes.
    ///
    /// Order the candidates simplest first, as in [`RouteConfig::usual`]: of those within
    /// `options.noise` of the fastest, the first is chosen. Each round measures every candidate
    /// once, so that changes over time affect all of them.
    ///
    /// # Errors
    /// [`Invalid`] if `sizes` or `candidates` are empty, a size is 0, or a candidate is repeated.
    /// If nothing could be measured, the benchmark's first error.
    pub fn measure(
        key: CalibrationKey,
        sizes: &[u64],
        candidates: &[RouteConfig],
        options: &CalibrationOptions,
        benchmark: &mut dyn Benchmark,
    ) -> Result<Self> {
        options.check()?;
        check(sizes, candidates)?;
        let size = |bytes: &u64| measure_size(*bytes, candidates, options, benchmark);
        let sizes = sizes.iter().map(size).collect::<Result<_>>()?;
        Ok(Self { key, noise: options.noise, sizes })
    }
}

fn check(sizes: &[u64], candidates: &[RouteConfig]) -> Result<()> {
    if sizes.is_empty() || sizes.contains(&0) {
        return Err(Invalid::new("sizes", format!("{sizes:?}"))
            .help("pass payload sizes in bytes, at least 1")
            .into());
    }
    let twice = |at: &usize| candidates[..*at].contains(&candidates[*at]);
    let problem = match (0..candidates.len()).find(twice) {
        Some(at) => format!("{} is repeated", candidates[at]),
        None if candidates.is_empty() => "are empty".into(),
        None => return Ok(()),
    };
    Err(Invalid::new("candidates", problem).help("use RouteConfig::usual()").into())
}

/// The measurements of one candidate so far.
struct Run {
    config: RouteConfig,
    iterations: u32,
    rounds: Vec<Duration>,
    /// The reason why it is no longer measured.
    rejected: Option<Outcome>,
}

impl Run {
    fn reject(&mut self, error: &Error) {
        self.rejected = Some(match error {
            Error::Missing(missing) => Outcome::Missing(missing.clone()),
            other => Outcome::Failed(other.to_string()),
        });
    }

    fn row(self) -> Row {
        let measured = Timing::of(&self.rounds, self.iterations).map(Outcome::Measured);
        let outcome = self.rejected.or(measured);
        // A candidate that was not rejected has at least one round.
        let outcome = outcome.unwrap_or_else(|| Outcome::Skipped("no round was measured".into()));
        Row { config: self.config, outcome }
    }
}

fn measure_size(
    bytes: u64,
    candidates: &[RouteConfig],
    options: &CalibrationOptions,
    benchmark: &mut dyn Benchmark,
) -> Result<SizeResult> {
    let start = Instant::now();
    let mut first_error = None;
    let mut runs = Vec::with_capacity(candidates.len());
    for &config in candidates {
        let mut run = Run { config, iterations: 0, rounds: Vec::new(), rejected: None };
        if let Some(reason) = reason_to_skip(bytes, config, options, start) {
            run.rejected = Some(Outcome::Skipped(reason));
        } else {
            match warm_up(bytes, config, options, benchmark) {
                Ok(iterations) => run.iterations = iterations,
                Err(error) => {
                    run.reject(&error);
                    first_error.get_or_insert(error);
                }
            }
        }
        runs.push(run);
    }
    for round in 0..options.rounds {
        if round > 0 && start.elapsed() >= options.budget {
            break;
        }
        for run in runs.iter_mut().filter(|run| run.rejected.is_none()) {
            match benchmark.run(bytes, run.config, run.iterations) {
                Ok(time) => run.rounds.push(time),
                Err(error) => {
                    run.reject(&error);
                    first_error.get_or_insert(error);
                }
            }
        }
    }
    if let Some(error) = first_error.filter(|_| runs.iter().all(|run| run.rejected.is_some())) {
        return Err(error);
    }
    let rows: Vec<_> = runs.into_iter().map(Run::row).collect();
    tracing::debug!(payload_bytes = bytes, took = ?start.elapsed(), "calibrated");
    Ok(SizeResult { payload_bytes: bytes, rows })
}

/// The reason why a candidate is not measured at all.
fn reason_to_skip(
    bytes: u64,
    config: RouteConfig,
    options: &CalibrationOptions,
    start: Instant,
) -> Option<String> {
    let all = bytes.saturating_mul(config.depth.into());
    if all > options.memory {
        let (all, limit) = (Bytes(all), Bytes(options.memory));
        return Some(format!("its payloads need {all}; the limit is {limit}"));
    }
    (start.elapsed() >= options.budget).then(|| "the time budget was used up".into())
}

/// Warms up a candidate and returns the number of payloads per round.
fn warm_up(
    bytes: u64,
    config: RouteConfig,
    options: &CalibrationOptions,
    benchmark: &mut dyn Benchmark,
) -> Result<u32> {
    benchmark.support(config)?;
    let iterations = first_iterations(config);
    let mut time = Duration::ZERO;
    for _ in 0..options.warm_up {
        time = benchmark.run(bytes, config, iterations)?;
    }
    Ok(options.iterations(config, time, iterations))
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.key)?;
        for size in &self.sizes {
            writeln!(f)?;
            write_size(f, size, self.noise)?;
        }
        Ok(())
    }
}

fn write_size(f: &mut fmt::Formatter<'_>, size: &SizeResult, noise: f64) -> fmt::Result {
    let chosen = size.choose(noise, |_| true).map(|choice| choice.config);
    writeln!(
        f,
        "  {:<16} {:>5} {:>5} {:>12} {:>12} {:>12} {:>9}",
        Bytes(size.payload_bytes).to_string(),
        "depth",
        "batch",
        "median",
        "99th",
        "payloads/s",
        "GB/s"
    )?;
    for row in &size.rows {
        let config = row.config;
        let mark = if chosen == Some(config) { '*' } else { ' ' };
        write!(f, "{mark} {:<16} {:>5} {:>5}", config.route, config.depth, config.batch)?;
        match &row.outcome {
            Outcome::Measured(timing) => {
                let rate = timing.payloads_per_second();
                let gb_per_s = rate * size.payload_bytes as f64 / 1e9;
                let (median, p99) = (Micros(timing.median), Micros(timing.p99));
                writeln!(
                    f,
                    " {:>12} {:>12} {rate:>12.0} {gb_per_s:>9.1}",
                    median.to_string(),
                    p99.to_string()
                )?;
            }
            Outcome::Missing(missing) => writeln!(f, "  not supported: {missing}")?,
            Outcome::Failed(error) => writeln!(f, "  failed: {error}")?,
            Outcome::Skipped(reason) => writeln!(f, "  skipped: {reason}")?,
        }
    }
    Ok(())
}

struct Micros(Duration);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} µs", self.0.as_secs_f64() * 1e6)
    }
}

/// A number of bytes, printed in the largest exact unit.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests;
