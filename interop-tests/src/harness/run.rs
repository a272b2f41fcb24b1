//! Runs the cases that the command line selects: a process per batch, several at once.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, FormatSetting, Trial};

use super::batch;
use super::case::CaseOn;
use super::fixture::Fixture;
use super::options::Options;
use super::process::{Role, child_role, run_role};
use super::report::{DescriptorCounts, Entry, Report, Totals, Verdict};
use super::worker::{Outcome, Worker};

/// How many cases a process runs. With Mesa's software drivers, a process takes 0.4 s to open the GPU three
/// times: a twentieth of what 300 cases take.
const BATCH: usize = 300;

/// So many cases are worth a process of their own if there are fewer batches than jobs.
const WORTH_A_PROCESS: usize = 20;

/// Far longer than any case takes.
const CASE_LIMIT: Duration = Duration::from_secs(300);

/// The `main` of a suite: runs the cases that the command line selects, or what this process does if it is a
/// child.
pub fn run<F: Fixture>(cases: impl FnOnce() -> Vec<CaseOn<F>>, roles: &[Role]) -> ExitCode {
    let (process, result) = match child_role() {
        Some(role) if role == batch::ROLE => (role, batch::serve(cases())),
        Some(role) => (role.clone(), run_role(&role, roles)),
        None => ("the suite".into(), run_suite(cases)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{process}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_suite<F: Fixture>(cases: impl FnOnce() -> Vec<CaseOn<F>>) -> Result<()> {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let (options, others) = Options::take(arguments)?;
    if let Some(report) = options.given()? {
        return options.publish(&report);
    }
    let arguments = Arguments::from_iter([program].into_iter().chain(others));
    run_selected(&cases(), &arguments, &options)
}

fn run_selected<F: Fixture>(
    cases: &[CaseOn<F>],
    arguments: &Arguments,
    options: &Options,
) -> Result<()> {
    let trial = |case: &CaseOn<F>| Trial::test(case.name(), || Ok(()));
    if arguments.list {
        let _ = libtest_mimic::run(arguments, cases.iter().map(trial).collect());
        return Ok(());
    }
    ensure!(
        arguments.logfile.is_none() && arguments.format != Some(FormatSetting::Json),
        "--logfile and --format=json are not supported; --report FILE writes a report"
    );
    let is_selected = |case: &&CaseOn<F>| !arguments.is_filtered_out(&trial(case));
    let (alone, mut beside): (Vec<_>, Vec<_>) =
        cases.iter().filter(is_selected).partition(|case| case.alone);
    beside.sort_by_key(|case| !case.slow);
    let names = |cases: Vec<&CaseOn<F>>| cases.iter().map(|case| case.name.clone()).collect();
    let (alone, beside): (Vec<_>, Vec<_>) = (names(alone), names(beside));
    let total = alone.len() + beside.len();
    ensure!(total > 0, "no case matches the filter; --list prints their names");

    let limit = variable("INTEROP_CASE_LIMIT")?.map_or(CASE_LIMIT, Duration::from_secs);
    let (first, about) = Worker::start(limit, !arguments.nocapture)?;
    about.require()?;
    let jobs = match arguments.test_threads {
        Some(jobs) => Some(jobs),
        None => variable("INTEROP_JOBS")?.map(|jobs| jobs as usize),
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = jobs.unwrap_or(if about.hardware { 1 } else { cores.min(2) }).max(1);
    println!("GPU: {} ({})", about.device.name, about.device.driver);
    println!("cases: {total}, at once: {jobs}");

    let suite = Suite {
        arguments,
        limit,
        total,
        started: Instant::now(),
        first: Some(first).into(),
        progress: Mutex::default(),
    };
    suite.run(deal(&beside, jobs), jobs);
    suite.run(deal(&alone, 1), 1);
    let Suite { started, progress, .. } = suite;
    let Progress { mut entries, failures, mut problems, descriptors } =
        progress.into_inner().unwrap_or_else(PoisonError::into_inner);

    let order: HashMap<_, _> =
        cases.iter().enumerate().map(|(at, case)| (case.name(), at)).collect();
    entries.sort_by_key(|entry| order.get(&*entry.name));
    if !failures.is_empty() {
        println!("\nfailures:\n\n{}", failures.join("\n"));
    }
    let totals = Totals::of(&entries);
    let DescriptorCounts { before, after, processes } = descriptors;
    println!(
        "\n{totals}; file descriptors: {before} before, {after} after; processes: {processes}; {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let unfiltered = arguments.filter.is_none() && arguments.skip.is_empty();
    if unfiltered && totals.passed + totals.failures() + totals.expected_failures == 0 {
        problems.push("no case ran: each was skipped".into());
    }
    options.publish(&Report::new(about, descriptors, started.elapsed(), entries))?;
    if totals.failures() > 0 {
        problems.push(format!("failed cases: {}", totals.failures()));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// The value of an environment variable that is a number.
fn variable(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{name}={text}"))?))
}

/// Deals the cases out to batches of similar size. Neighbours, which take similar time, go to different batches.
/// The batches depend on nothing but the cases and the number of jobs, so that a run can be repeated.
fn deal(names: &[String], jobs: usize) -> Vec<VecDeque<String>> {
    let count = match names.len().div_ceil(BATCH) {
        few if few < jobs => jobs.min(names.len().div_ceil(WORTH_A_PROCESS)),
        many => many.next_multiple_of(jobs),
    };
    let batch = |first| names.iter().skip(first).step_by(count).cloned().collect();
    (0..count).map(batch).collect()
}

/// A run.
struct Suite<'a> {
    arguments: &'a Arguments,
    limit: Duration,
    total: usize,
    started: Instant,
    /// The process that described the GPU. The first batch continues with it.
    first: Mutex<Option<Worker>>,
    progress: Mutex<Progress>,
}

/// What has been found so far.
#[derive(Default)]
struct Progress {
    entries: Vec<Entry>,
    /// The failed cases' names, reasons and output.
    failures: Vec<String>,
    /// What fails the run beside the cases.
    problems: Vec<String>,
    descriptors: DescriptorCounts,
}

impl Suite<'_> {
    /// Runs batches, so many at once.
    fn run(&self, batches: Vec<VecDeque<String>>, jobs: usize) {
        let batches = Mutex::new(batches.into_iter());
        let next = || batches.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(batch) = next() {
                        self.run_batch(batch);
                    }
                });
            }
        });
    }

    /// Runs a batch in one process, or in several if cases crash or hang.
    fn run_batch(&self, mut left: VecDeque<String>) {
        while !left.is_empty() {
            if let Err(error) = self.run_in_one_process(&mut left) {
                self.progress().problems.push(format!("{error:#}"));
            }
        }
        if !self.is_terse() {
            let done = self.progress().entries.len();
            let seconds = self.started.elapsed().as_secs_f64();
            println!("progress: {done} of {}, {seconds:.0} s", self.total);
        }
    }

    /// Runs cases until none is left or the process ends.
    fn run_in_one_process(&self, left: &mut VecDeque<String>) -> Result<()> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let started = match first {
            Some(worker) => Ok(worker),
            None => Worker::start(self.limit, !self.arguments.nocapture).map(|(worker, _)| worker),
        };
        let mut worker = match started {
            Ok(worker) => worker,
            // The next process would hardly do better.
            Err(error) => {
                left.drain(..).for_each(|name| self.record(Outcome::failed(name, &error)));
                return Ok(());
            }
        };
        let mut ran = Vec::new();
        while let Some(name) = left.pop_front() {
            let outcome = worker.run(&name);
            let outcome = outcome.unwrap_or_else(|error| Outcome::failed(name.clone(), &error));
            ran.push(name);
            let alive = outcome.alive;
            self.record(outcome);
            if !alive {
                return Ok(());
            }
        }
        let cases = || format!("the process of these cases: {}", ran.join(", "));
        let closed = worker.close().with_context(cases)?;
        self.progress().descriptors.add(closed.descriptors);
        ensure!(closed.problems.is_empty(), "{}: {}", cases(), closed.problems.join("\n"));
        Ok(())
    }

    /// Prints how a case ended and keeps it for the report.
    fn record(&self, Outcome { entry, output, .. }: Outcome) {
        let mut progress = self.progress();
        let reason = entry.reason.as_deref().unwrap_or_default();
        let (letter, text) = match entry.verdict {
            Verdict::Passed => ('.', "ok".into()),
            Verdict::Skipped => ('i', format!("ignored, {reason}")),
            Verdict::ExpectedFailure => ('i', format!("ignored, expected failure: {reason}")),
            Verdict::Failed => ('F', "FAILED".into()),
            Verdict::Crashed => ('F', "FAILED, crashed".into()),
            Verdict::TimedOut => ('F', "FAILED, timed out".into()),
        };
        if self.is_terse() {
            print!("{letter}");
            let _ = std::io::stdout().flush();
        } else {
            println!("test {} ... {text}", entry.name);
        }
        if entry.verdict.is_failure() {
            let details = format!("---- {} ----\n{reason}\n{output}", entry.name);
            // Now as well as at the end: a later case may hang.
            eprintln!("\n{details}");
            progress.failures.push(details);
        }
        progress.entries.push(entry);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_terse(&self) -> bool {
        self.arguments.quiet || self.arguments.format == Some(FormatSetting::Terse)
    }
}
