//! Measuring: the candidates in turns, within a budget of time.

use std::time::{Duration, Instant};

use super::data::{Calibration, Outcome, Row, SizeResult};
use super::key::CalibrationKey;
use super::route_config::RouteConfig;
use super::table::Bytes;
use super::timing::Timing;
use crate::capabilities::Support;
use crate::error::{Error, Invalid, Result};

/// The work that candidates are measured with.
pub trait Trial {
    /// Whether a candidate is possible here. What is missing is recorded; the rest goes on.
    ///
    /// # Errors
    /// [`Missing`](crate::error::Missing) that names the API and what it lacks.
    fn support(&self, candidate: RouteConfig) -> Support;

    /// Sends `turns` payloads of `payload_bytes` all the way round: each is worked on by every
    /// endpoint and comes back, as many under way as the candidate says. Returns how long that took,
    /// until the last of the work was done; without what had to be opened for it.
    ///
    /// # Errors
    /// Whatever goes wrong. It is recorded, and the candidate is left out.
    fn run(&mut self, payload_bytes: u64, candidate: RouteConfig, turns: u32) -> Result<Duration>;
}

/// How to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationOptions {
    /// Rounds in which every candidate is measured once.
    pub rounds: u32,
    /// Runs of each candidate before that, which don't count; at least 1, from which the number of
    /// payloads of a round follows.
    pub warm_up: u32,
    /// How long one round of one candidate is to take, about.
    pub round_time: Duration,
    /// How long one size is to take, about: after that no further round begins. One round is always
    /// made of what was warmed up in time.
    pub budget: Duration,
    /// Bytes that all payloads in flight may take together; candidates that take more are left out.
    pub memory: u64,
    /// How much slower than the best a candidate may be and still count as equal, as a fraction: then
    /// the simpler one is chosen.
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
            ("options.noise", "is no fraction")
        } else {
            return Ok(());
        };
        Err(Invalid::new(problem.0, problem.1).help("begin with the defaults").into())
    }

    /// Payloads of a round, where a first run took `time` for `turns` of them.
    fn turns(&self, candidate: RouteConfig, time: Duration, turns: u32) -> u32 {
        let one = time.as_secs_f64() / f64::from(turns.max(1));
        let wanted = self.round_time.as_secs_f64() / one.max(1e-9);
        // Saturates: a turn of no time makes as many as are allowed.
        let turns = (wanted.round() as u32).clamp(first_turns(candidate), MOST_TURNS);
        turns.next_multiple_of(candidate.batch)
    }
}

/// Payloads of a round at most.
const MOST_TURNS: u32 = 100_000;

/// Payloads of the first run, and of any round at least: the ring is full, and goes round once. Whole
/// batches, as in every round.
fn first_turns(candidate: RouteConfig) -> u32 {
    (2 * candidate.depth.max(candidate.batch)).next_multiple_of(candidate.batch)
}

impl Calibration {
    /// Measures `candidates` with payloads of `sizes` bytes.
    ///
    /// `candidates` begin with the simplest: where two are equally fast, the earlier one is chosen
    /// ([`RouteConfig::usual`] is such a list). Every round measures each of them once, so that what
    /// changes over time hits all alike.
    ///
    /// # Errors
    /// [`Invalid`] for nothing to measure, a size of 0, or a candidate that is given twice; where
    /// nothing at all could be measured, the first error of the trial.
    pub fn measure(
        subject: CalibrationKey,
        sizes: &[u64],
        candidates: &[RouteConfig],
        options: &CalibrationOptions,
        trial: &mut dyn Trial,
    ) -> Result<Self> {
        options.check()?;
        check(sizes, candidates)?;
        let size = |bytes: &u64| measure_size(*bytes, candidates, options, trial);
        let sizes = sizes.iter().map(size).collect::<Result<_>>()?;
        Ok(Self { subject, noise: options.noise, sizes })
    }
}

fn check(sizes: &[u64], candidates: &[RouteConfig]) -> Result<()> {
    if sizes.is_empty() || sizes.contains(&0) {
        return Err(Invalid::new("sizes", format!("{sizes:?}"))
            .help("give sizes of payloads in bytes")
            .into());
    }
    let twice = |at: &usize| candidates[..*at].contains(&candidates[*at]);
    let problem = match (0..candidates.len()).find(twice) {
        Some(at) => format!("{} is given twice", candidates[at]),
        None if candidates.is_empty() => "are none".into(),
        None => return Ok(()),
    };
    Err(Invalid::new("candidates", problem).help("RouteConfig::usual() is a good list").into())
}

/// A candidate under way.
struct Run {
    candidate: RouteConfig,
    turns: u32,
    rounds: Vec<Duration>,
    /// Why it is measured no more.
    dropped: Option<Outcome>,
}

impl Run {
    fn drop_for(&mut self, error: &Error) {
        self.dropped = Some(match error {
            Error::Missing(missing) => Outcome::Missing(missing.clone()),
            other => Outcome::Failed(other.to_string()),
        });
    }

    fn row(self) -> Row {
        let measured = Timing::of(&self.rounds, self.turns).map(Outcome::Measured);
        let outcome = self.dropped.or(measured);
        // Whatever was not dropped went through at least one round.
        let outcome = outcome.unwrap_or_else(|| Outcome::Skipped("no round was made".into()));
        Row { candidate: self.candidate, outcome }
    }
}

fn measure_size(
    bytes: u64,
    candidates: &[RouteConfig],
    options: &CalibrationOptions,
    trial: &mut dyn Trial,
) -> Result<SizeResult> {
    let start = Instant::now();
    let mut first_error = None;
    let mut runs = Vec::with_capacity(candidates.len());
    for &candidate in candidates {
        let mut run = Run { candidate, turns: 0, rounds: Vec::new(), dropped: None };
        if let Some(why) = left_out(bytes, candidate, options, start) {
            run.dropped = Some(Outcome::Skipped(why));
        } else {
            match warm_up(bytes, candidate, options, trial) {
                Ok(turns) => run.turns = turns,
                Err(error) => {
                    run.drop_for(&error);
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
        for run in runs.iter_mut().filter(|run| run.dropped.is_none()) {
            match trial.run(bytes, run.candidate, run.turns) {
                Ok(time) => run.rounds.push(time),
                Err(error) => {
                    run.drop_for(&error);
                    first_error.get_or_insert(error);
                }
            }
        }
    }
    if let Some(error) = first_error.filter(|_| runs.iter().all(|run| run.dropped.is_some())) {
        return Err(error);
    }
    let rows: Vec<_> = runs.into_iter().map(Run::row).collect();
    tracing::debug!(payload_bytes = bytes, took = ?start.elapsed(), "calibrated");
    Ok(SizeResult { payload_bytes: bytes, rows })
}

/// Why a candidate is not even tried.
fn left_out(
    bytes: u64,
    candidate: RouteConfig,
    options: &CalibrationOptions,
    start: Instant,
) -> Option<String> {
    let all = bytes.saturating_mul(candidate.depth.into());
    if all > options.memory {
        let (all, limit) = (Bytes(all), Bytes(options.memory));
        return Some(format!("its payloads take {all}, more than the {limit} allowed"));
    }
    (start.elapsed() >= options.budget).then(|| "the time was over".into())
}

/// The runs that don't count, and how many payloads a round is to have by the last of them.
fn warm_up(
    bytes: u64,
    candidate: RouteConfig,
    options: &CalibrationOptions,
    trial: &mut dyn Trial,
) -> Result<u32> {
    trial.support(candidate)?;
    let turns = first_turns(candidate);
    let mut time = Duration::ZERO;
    for _ in 0..options.warm_up {
        time = trial.run(bytes, candidate, turns)?;
    }
    Ok(options.turns(candidate, time, turns))
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
