//! Runs the cases: one after the other, since many count file descriptors.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::case::Case;
use super::descriptors::open_descriptors;
use super::machine::TestGpu;
use super::messages;
use super::report::{ApiState, DescriptorCounts, Device, Entry, Report, Totals, Verdict};

thread_local! {
    /// libtest-mimic wants trials that are `Send`; with one test thread they run on this one.
    static MACHINE: RefCell<Option<Rc<TestGpu>>> = const { RefCell::new(None) };
}

/// Runs `cases` as the command line says.
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
    // Drivers keep descriptors of their own from the first opening on, and NVIDIA's (580.159) now and
    // then leaves one to the next opening: that is not what is counted. So both counts follow the
    // same steps.
    open_and_close()?;
    let before = open_descriptors();
    let machine = TestGpu::open()?;
    require(&machine)?;
    println!("GPU: {} ({})", machine.vulkan().vulkan.identity().name, machine.driver());
    let about = about(&machine);
    MACHINE.with_borrow_mut(|slot| *slot = Some(machine));
    let conclusion = libtest_mimic::run(arguments, trials);
    let _ = messages::take();
    MACHINE.with_borrow_mut(|slot| *slot = None);
    open_and_close()?;
    let said = messages::take();
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
    before.require_same(&after).context("the suite leaves descriptors behind")?;
    if !said.is_empty() {
        bail!("the validation layer says, when all was closed: {}", said.join("\n"));
    }
    if nothing_ran {
        bail!("not one case ran");
    }
    Ok(conclusion.exit_code())
}

/// Far longer than any case takes. A driver that waits for ever can't be stopped otherwise.
const CASE_LIMIT: Duration = Duration::from_secs(300);

/// Ends the process, by name, where `run` hangs.
fn watched<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    let name = name.to_owned();
    let limit = std::env::var("INTEROP_CASE_LIMIT").ok().and_then(|text| text.parse().ok());
    let limit = limit.map_or(CASE_LIMIT, Duration::from_secs);
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            eprintln!("\n{name}: hangs, after {limit:?}; the run ends here");
            std::process::exit(1);
        }
    });
    let result = run();
    drop(done);
    let _ = watch.join();
    result
}

fn open_and_close() -> Result<()> {
    let machine = TestGpu::open()?;
    machine.second_device()?;
    machine.second_instance()?;
    Ok(())
}

fn about(machine: &TestGpu) -> (Device, Vec<ApiState>, bool) {
    let identity = machine.vulkan().vulkan.identity();
    let device = Device {
        name: identity.name.clone(),
        uuid: identity.device.to_string(),
        driver: machine.driver().to_owned(),
    };
    let state = |(api, state): (_, Result<(), gpu_interop::Error>)| ApiState {
        api,
        absent: state.err().map(|error| error.to_string()),
    };
    let apis = machine.apis().into_iter().map(state).collect();
    (device, apis, machine.vulkan().vulkan.is_validated())
}

/// Fails where an API that `INTEROP_REQUIRE` names is absent.
fn require(machine: &TestGpu) -> Result<()> {
    let Ok(required) = std::env::var("INTEROP_REQUIRE") else { return Ok(()) };
    let apis = machine.apis();
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match apis.iter().find(|(api, _)| *api == name) {
            Some((_, Ok(()))) => {}
            Some((_, Err(error))) => bail!("INTEROP_REQUIRE wants {name}: {error}"),
            None => bail!("INTEROP_REQUIRE knows vulkan, gl and cuda, not '{name}'"),
        }
    }
    Ok(())
}

fn trial(case: Case, entries: Arc<Mutex<Vec<Entry>>>) -> Trial {
    Trial::ignorable_test(case.name.clone(), move || {
        let machine = MACHINE.with_borrow(Clone::clone).ok_or("the machine is not open")?;
        let entry = watched(&case.name, || judge(&case, &machine));
        if let (Verdict::Failed, Some(reason)) = (entry.verdict, &entry.reason) {
            // Now, and not only at the end: a later case may hang.
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

/// Runs one case and decides what became of it.
fn judge(case: &Case, machine: &TestGpu) -> Entry {
    let entry = |verdict, reason| Entry {
        name: case.name.clone(),
        verdict,
        reason,
        descriptors: open_descriptors().count(),
    };
    for need in &case.needs {
        match machine.lacks(*need) {
            Ok(None) => {}
            Ok(Some(reason)) => return entry(Verdict::Skipped, Some(reason)),
            Err(error) => return entry(Verdict::Failed, Some(format!("{error:#}"))),
        }
    }
    let _ = messages::take();
    let result = match catch_unwind(AssertUnwindSafe(|| (case.run)(machine))) {
        Ok(result) => result,
        Err(panic) => Err(anyhow::anyhow!("panicked: {}", panic_text(&*panic))),
    };
    let said = messages::take();
    let result = match result {
        Ok(()) if said.is_empty() => Ok(()),
        Ok(()) => Err(anyhow::anyhow!("the validation layer says: {}", said.join("\n"))),
        Err(error) if said.is_empty() => Err(error),
        Err(error) => Err(error.context(format!("the validation layer says: {}", said.join("\n")))),
    };
    let expected = case.expected_failures.iter().find(|bug| machine.driver().contains(bug.driver));
    match (result, expected) {
        (Ok(()), None) => entry(Verdict::Passed, None),
        (Err(error), None) => entry(Verdict::Failed, Some(format!("{error:#}"))),
        (Err(error), Some(bug)) => {
            entry(Verdict::ExpectedFailure, Some(format!("{}: {}: {error:#}", bug.driver, bug.why)))
        }
        (Ok(()), Some(bug)) => {
            let reason = format!("passes, though {} was thought to fail: {}", bug.driver, bug.why);
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
