//! Runs the cases one after the other, since many count file descriptors.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::case::Case;
use super::process::open_descriptors;
use super::report::{ApiState, DescriptorCounts, Device, Entry, Report, Totals, Verdict};
use super::test_gpu::TestGpu;
use super::validation;

thread_local! {
    /// libtest-mimic requires trials that are `Send`; with one test thread they run on this one.
    static TEST_GPU: RefCell<Option<Rc<TestGpu>>> = const { RefCell::new(None) };
}

/// Runs the cases that the command line selects.
pub fn run(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    match run_with(cases, &arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the suite can't run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_with(cases: Vec<Case>, arguments: &Arguments) -> Result<ExitCode> {
    let entries = Arc::new(Mutex::new(Vec::new()));
    let trials: Vec<_> = cases.into_iter().map(|case| trial(case, entries.clone())).collect();
    if arguments.list {
        return Ok(libtest_mimic::run(arguments, trials).exit_code());
    }
    if trials.iter().all(|trial| arguments.is_filtered_out(trial)) {
        bail!("no case matches the filter; --list prints their names");
    }
    // Drivers keep descriptors of their own from the first opening on, and NVIDIA's (580.159) sometimes
    // keeps one until the next opening. These are not counted: both counts follow the same steps.
    open_and_close()?;
    let before = open_descriptors();
    let test_gpu = TestGpu::open()?;
    require(&test_gpu)?;
    println!("GPU: {} ({})", test_gpu.vulkan().vulkan.identity().name, test_gpu.driver());
    let about = about(&test_gpu);
    TEST_GPU.with_borrow_mut(|slot| *slot = Some(test_gpu));
    let conclusion = libtest_mimic::run(arguments, trials);
    let _ = validation::take();
    let test_gpu = TEST_GPU.take();
    if let Some(test_gpu) = &test_gpu {
        test_gpu.free_finished();
    }
    drop(test_gpu);
    open_and_close()?;
    let messages = validation::take();
    let after = open_descriptors();

    let cases = entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let totals = Totals::of(&cases);
    println!(
        "{} passed, {} failed, {} skipped; {} expected failures; file descriptors: {} before, {} after",
        totals.passed,
        totals.failed,
        totals.skipped,
        totals.expected_failures,
        before.count(),
        after.count()
    );
    let unfiltered = arguments.filter.is_none() && arguments.skip.is_empty();
    let nothing_ran = unfiltered && totals.passed + totals.failed + totals.expected_failures == 0;
    let (device, apis, validated) = about;
    let descriptors = DescriptorCounts { before: before.count(), after: after.count() };
    if let Some(path) = std::env::var_os("INTEROP_REPORT") {
        let report = Report { device, apis, validated, descriptors, totals, cases };
        report.write(path.as_ref()).context("INTEROP_REPORT")?;
    }
    before.require_same(&after).context("the suite leaves descriptors open")?;
    if !messages.is_empty() {
        bail!("the validation layer reports, after everything was closed: {}", messages.join("\n"));
    }
    if nothing_ran {
        bail!("no case ran: each was skipped");
    }
    Ok(conclusion.exit_code())
}

/// Far longer than any case takes. A driver that never returns can't be stopped otherwise.
const CASE_LIMIT: Duration = Duration::from_secs(300);

/// Ends the process with the case's name if `run` hangs.
fn watched<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    let name = name.to_owned();
    let limit = std::env::var("INTEROP_CASE_LIMIT").ok().and_then(|text| text.parse().ok());
    let limit = limit.map_or(CASE_LIMIT, Duration::from_secs);
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            eprintln!("\n{name}: still running after {limit:?}; the run ends here");
            std::process::exit(1);
        }
    });
    let result = run();
    drop(done);
    let _ = watch.join();
    result
}

fn open_and_close() -> Result<()> {
    let test_gpu = TestGpu::open()?;
    test_gpu.second_device()?;
    test_gpu.second_instance()?;
    Ok(())
}

fn about(test_gpu: &TestGpu) -> (Device, Vec<ApiState>, bool) {
    let identity = test_gpu.vulkan().vulkan.identity();
    let device = Device {
        name: identity.name.clone(),
        uuid: identity.device.to_string(),
        driver: test_gpu.driver().to_owned(),
    };
    let state = |(api, state): (_, Result<(), gpu_interop::Error>)| ApiState {
        api,
        absent: state.err().map(|error| error.to_string()),
    };
    let apis = test_gpu.apis().into_iter().map(state).collect();
    (device, apis, test_gpu.vulkan().vulkan.is_validated())
}

/// Fails if an API that `INTEROP_REQUIRE` names is absent.
fn require(test_gpu: &TestGpu) -> Result<()> {
    let Ok(required) = std::env::var("INTEROP_REQUIRE") else { return Ok(()) };
    let apis = test_gpu.apis();
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match apis.iter().find(|(api, _)| *api == name) {
            Some((_, Ok(()))) => {}
            Some((_, Err(error))) => {
                bail!("INTEROP_REQUIRE names {name}, which is absent: {error}")
            }
            None => bail!("INTEROP_REQUIRE takes vulkan, gl and cuda, not '{name}'"),
        }
    }
    Ok(())
}

fn trial(case: Case, entries: Arc<Mutex<Vec<Entry>>>) -> Trial {
    Trial::ignorable_test(case.name.clone(), move || {
        let test_gpu = TEST_GPU.with_borrow(Clone::clone).ok_or("the GPU is not open")?;
        let entry = watched(&case.name, || judge(&case, &test_gpu));
        if let (Verdict::Failed, Some(reason)) = (entry.verdict, &entry.reason) {
            // Printed now as well as at the end: a later case may hang.
            eprintln!("\n{}: {reason}", entry.name);
        }
        entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        let reason = entry.reason.unwrap_or_default();
        match entry.verdict {
            Verdict::Passed => Ok(Completion::Completed),
            Verdict::Failed => Err(Failed::from(reason)),
            Verdict::Skipped => Ok(Completion::ignored_with(reason)),
            Verdict::ExpectedFailure => {
                Ok(Completion::ignored_with(format!("expected failure: {reason}")))
            }
        }
    })
}

/// Runs one case and returns its verdict.
fn judge(case: &Case, test_gpu: &TestGpu) -> Entry {
    let start = Instant::now();
    let entry = |verdict, reason| Entry {
        name: case.name.clone(),
        verdict,
        reason,
        seconds: start.elapsed().as_millis() as f64 / 1000.0,
        descriptors: open_descriptors().count(),
    };
    for need in &case.needs {
        match test_gpu.lacks(*need) {
            Ok(None) => {}
            Ok(Some(reason)) => return entry(Verdict::Skipped, Some(reason)),
            Err(error) => return entry(Verdict::Failed, Some(format!("{error:#}"))),
        }
    }
    let _ = validation::take();
    let result = match catch_unwind(AssertUnwindSafe(|| (case.run)(test_gpu))) {
        Ok(result) => result,
        Err(panic) => Err(anyhow::anyhow!("panicked: {}", panic_text(&*panic))),
    };
    let messages = validation::take().join("\n");
    let result = match result {
        result if messages.is_empty() => result,
        Ok(()) => Err(anyhow::anyhow!("the validation layer reports: {messages}")),
        Err(error) => Err(error.context(format!("the validation layer reports: {messages}"))),
    };
    let expected = case.expected_failures.iter().find(|bug| test_gpu.driver().contains(bug.driver));
    match (result, expected) {
        (Ok(()), None) => entry(Verdict::Passed, None),
        (Err(error), None) => entry(Verdict::Failed, Some(format!("{error:#}"))),
        (Err(error), Some(bug)) => {
            let text = format!("{error:#}");
            if text.contains(bug.error) {
                let reason = format!("{}: {}: {text}", bug.driver, bug.why);
                return entry(Verdict::ExpectedFailure, Some(reason));
            }
            let reason = format!("not the expected failure ('{}'): {text}", bug.error);
            entry(Verdict::Failed, Some(reason))
        }
        (Ok(()), Some(bug)) => {
            let reason = format!("passes, but is expected to fail on {}: {}", bug.driver, bug.why);
            entry(Verdict::Failed, Some(reason))
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
