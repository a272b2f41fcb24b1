//! The harness itself, with suites of made-up cases: some crash, hang or leak. They need no GPU.
//!
//! Each test runs this program again as such a suite, and reads its output and its report.

use std::fs::{self, File};
use std::process::{Command, ExitCode, exit};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use interop_tests::harness::{self, About, CaseOn, Device, Fixture, Need};
use libtest_mimic::{Arguments, Trial};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;

/// Set to a folder for the cases' files, in a process that runs as a suite.
const VARIABLE: &str = "HARNESS_TEST_FOLDER";

fn main() -> ExitCode {
    if std::env::var_os(VARIABLE).is_some() {
        return harness::run(cases, &[]);
    }
    let test = |name, run: fn() -> Result<()>| {
        Trial::test(name, move || run().map_err(|error| format!("{error:?}").into()))
    };
    let tests = vec![
        test("a_run_without_failures_succeeds", a_run_without_failures_succeeds),
        test("the_command_line_selects_cases", the_command_line_selects_cases),
        test("a_crash_fails_its_case_only", a_crash_fails_its_case_only),
        test("an_exit_fails_its_case_only", an_exit_fails_its_case_only),
        test("a_hang_fails_its_case_only", a_hang_fails_its_case_only),
        test("a_leak_fails_the_run", a_leak_fails_the_run),
        test("a_process_that_ends_badly_fails_the_run", a_process_that_ends_badly_fails_the_run),
        test("failures_show_their_reason_and_output", failures_show_their_reason_and_output),
        test("reports_are_written_shown_and_compared", reports_are_written_shown_and_compared),
        test("two_jobs_run_two_cases_at_once", two_jobs_run_two_cases_at_once),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// The fixture of cases that need none.
struct NoGpu;

impl Fixture for NoGpu {
    fn open() -> Result<Self> {
        Ok(Self)
    }

    fn about(&self) -> About {
        let device =
            Device { name: "no GPU".into(), uuid: String::new(), driver: "no driver".into() };
        About { device, apis: Vec::new(), validated: false, hardware: false }
    }

    fn driver(&self) -> &str {
        "no driver"
    }

    fn lacks(&self, need: Need) -> Result<Option<String>> {
        Ok(Some(format!("nothing has {need:?}")))
    }

    fn free_finished(&self) {}
}

fn cases() -> Vec<CaseOn<NoGpu>> {
    let mut cases = vec![
        CaseOn::new("good/passes", |_| Ok(())),
        CaseOn::new("good/is_skipped", |_| bail!("its need is not met")).needs(&[Need::Gl]),
        CaseOn::new("good/fails_as_expected", |_| bail!("the driver's bug")).expected_failure(
            "no driver",
            "made up",
            "bug",
        ),
        CaseOn::new("good/leaves_a_child", |_| {
            Command::new("sleep").arg("300").spawn().map(drop).map_err(Into::into)
        }),
        CaseOn::new("crash/before", |_| Ok(())),
        CaseOn::new("crash/aborts", |_| {
            eprintln!("written before the abort");
            std::process::abort()
        }),
        CaseOn::new("crash/after", |_| Ok(())),
        CaseOn::new("exit/exits", |_| exit(3)),
        CaseOn::new("exit/after", |_| Ok(())),
        CaseOn::new("hang/hangs", |_| {
            let child = Command::new("sleep").arg("300").spawn()?;
            fs::write(folder().join("child"), child.id().to_string())?;
            std::thread::sleep(Duration::from_secs(300));
            Ok(())
        }),
        CaseOn::new("hang/after", |_| Ok(())),
        CaseOn::new("leak/leaks", |_| {
            std::mem::forget(File::open("/dev/null")?);
            Ok(())
        }),
        CaseOn::new("end/fails_in_an_exit_handler", |_| {
            extern "C" fn abort() {
                std::process::abort();
            }
            // SAFETY: the function neither unwinds nor uses anything that an exit handler must not use.
            ensure!(unsafe { libc::atexit(abort) } == 0, "atexit");
            Ok(())
        }),
        CaseOn::new("fail/returns_an_error", |_| {
            println!("written before the error");
            bail!("an error with a reason")
        }),
        CaseOn::new("fail/panics", |_| panic!("a panic with a reason")),
        CaseOn::new("fail/passes_unexpectedly", |_| Ok(())).expected_failure(
            "no driver",
            "made up",
            "bug",
        ),
        CaseOn::new("fail/fails_otherwise", |_| bail!("an error")).expected_failure(
            "no driver",
            "made up",
            "bug",
        ),
        CaseOn::new("jobs/alone", |_| {
            let lock = File::create(folder().join("lock"))?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)
                .context("a case runs beside this one")
        })
        .alone(),
    ];
    // The first two each wait for the other one. More of them make a second process worth it.
    for number in 0..30 {
        cases.push(CaseOn::new(format!("jobs/beside/{number}"), move |_| {
            let lock = File::create(folder().join("lock"))?;
            flock(&lock, FlockOperation::NonBlockingLockShared)
                .context("it runs beside a case that is alone")?;
            if number > 1 {
                return Ok(());
            }
            File::create(folder().join(number.to_string()))?;
            let (other, start) = (folder().join((1 - number).to_string()), Instant::now());
            while !other.exists() {
                ensure!(start.elapsed() < Duration::from_secs(10), "the other case does not run");
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }));
    }
    cases
}

fn folder() -> std::path::PathBuf {
    std::env::var_os(VARIABLE).unwrap_or_default().into()
}

/// What a run of the suite left.
struct Run {
    succeeded: bool,
    output: String,
    report: Value,
    folder: tempfile::TempDir,
}

/// Runs the suite with these arguments.
fn suite(arguments: &[&str]) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report");
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .env(VARIABLE, folder.path())
        .env("INTEROP_REPORT", &report)
        .env("INTEROP_CASE_LIMIT", if arguments.contains(&"hang/") { "2" } else { "60" })
        .env_remove("INTEROP_REQUIRE")
        .env_remove("INTEROP_JOBS")
        .output()?;
    let succeeded = output.status.success();
    let output = [output.stdout, output.stderr].concat();
    let output = String::from_utf8_lossy(&output).into_owned();
    let report = fs::read(&report).map_or(Ok(Value::Null), |text| serde_json::from_slice(&text))?;
    Ok(Run { succeeded, output, report, folder })
}

impl Run {
    /// Requires verdicts, in the order of the cases.
    fn require(&self, succeeded: bool, verdicts: &[(&str, &str)]) -> Result<()> {
        let cases = self.report["cases"].as_array().with_context(|| self.output.clone())?;
        let found: Vec<_> = cases
            .iter()
            .filter_map(|case| Some((case["name"].as_str()?, case["verdict"].as_str()?)))
            .collect();
        ensure!(found == verdicts, "{found:?}\n{}", self.output);
        ensure!(self.succeeded == succeeded, "{}", self.output);
        Ok(())
    }

    /// Requires that the output contains a text.
    fn prints(&self, text: &str) -> Result<()> {
        ensure!(self.output.contains(text), "'{text}' is not in:\n{}", self.output);
        Ok(())
    }

    /// The reason of the case at this place of the report.
    fn reason(&self, case: usize) -> Result<&str> {
        self.report["cases"][case]["reason"].as_str().with_context(|| self.output.clone())
    }
}

fn a_run_without_failures_succeeds() -> Result<()> {
    let start = Instant::now();
    let run = suite(&["good/"])?;
    let verdicts = [
        ("good/passes", "passed"),
        ("good/is_skipped", "skipped"),
        ("good/fails_as_expected", "expected_failure"),
        ("good/leaves_a_child", "passed"),
    ];
    run.require(true, &verdicts)?;
    run.prints("test good/passes ... ok\n")?;
    run.prints("test good/is_skipped ... ignored, nothing has Gl\n")?;
    run.prints("2 passed, 0 failed, 0 crashed, 0 timed out, 1 skipped; 1 expected failures")?;
    let descriptors = &run.report["descriptors"];
    ensure!(
        descriptors["before"] == descriptors["after"] && descriptors["processes"] == 1,
        "{descriptors}"
    );
    ensure!(start.elapsed() < Duration::from_secs(60), "it waits for the child");
    let skipped = suite(&["good/is_skipped"])?;
    ensure!(skipped.succeeded, "a filter may select nothing but skipped cases: {}", skipped.output);
    Ok(())
}

fn the_command_line_selects_cases() -> Result<()> {
    let list = suite(&["--list", "crash/"])?;
    ensure!(list.succeeded && list.report.is_null(), "{}", list.output);
    let names: Vec<_> = list.output.lines().collect();
    ensure!(
        names == ["crash/before: test", "crash/aborts: test", "crash/after: test"],
        "{names:?}"
    );
    suite(&["crash/", "--skip", "aborts"])?
        .require(true, &[("crash/before", "passed"), ("crash/after", "passed")])?;
    suite(&["--exact", "crash/after"])?.require(true, &[("crash/after", "passed")])?;
    let nothing = suite(&["--exact", "crash"])?;
    ensure!(!nothing.succeeded, "{}", nothing.output);
    nothing.prints("no case matches the filter")
}

fn a_crash_fails_its_case_only() -> Result<()> {
    let run = suite(&["crash/"])?;
    let verdicts =
        [("crash/before", "passed"), ("crash/aborts", "crashed"), ("crash/after", "passed")];
    run.require(false, &verdicts)?;
    ensure!(run.reason(1)?.contains("SIGABRT"), "{}", run.reason(1)?);
    run.prints("written before the abort")?;
    run.prints("2 passed, 0 failed, 1 crashed, 0 timed out")
}

fn an_exit_fails_its_case_only() -> Result<()> {
    let run = suite(&["exit/"])?;
    run.require(false, &[("exit/exits", "crashed"), ("exit/after", "passed")])?;
    ensure!(run.reason(0)?.contains("exit status: 3"), "{}", run.reason(0)?);
    Ok(())
}

fn a_hang_fails_its_case_only() -> Result<()> {
    let run = suite(&["hang/"])?;
    run.require(false, &[("hang/hangs", "timed_out"), ("hang/after", "passed")])?;
    ensure!(run.reason(0)?.contains("2s"), "{}", run.reason(0)?);
    // The case's child is killed too. Only init can remove it then, which takes a moment.
    let child = fs::read_to_string(run.folder.path().join("child"))?.parse()?;
    let child = Pid::from_raw(child).context("the child's process id")?;
    let (start, state) = (Instant::now(), format!("/proc/{}/stat", child.as_raw_nonzero()));
    while test_kill_process(child).is_ok() && !fs::read_to_string(&state)?.contains(") Z ") {
        ensure!(start.elapsed() < Duration::from_secs(10), "the case's child still runs");
    }
    Ok(())
}

fn a_leak_fails_the_run() -> Result<()> {
    let run = suite(&["leak/"])?;
    run.require(false, &[("leak/leaks", "passed")])?;
    run.prints("the process of these cases: leak/leaks: descriptors are left open")?;
    run.prints("/dev/null")?;
    let count = |when: &str| run.report["descriptors"][when].as_u64().context("a count");
    ensure!(count("after")? == count("before")? + 1, "{}", run.report["descriptors"]);
    Ok(())
}

fn a_process_that_ends_badly_fails_the_run() -> Result<()> {
    let run = suite(&["end/"])?;
    run.require(false, &[("end/fails_in_an_exit_handler", "passed")])?;
    run.prints("the process of these cases: end/fails_in_an_exit_handler")?;
    run.prints("SIGABRT")
}

fn failures_show_their_reason_and_output() -> Result<()> {
    let run = suite(&["fail/"])?;
    let verdicts = [
        ("fail/returns_an_error", "failed"),
        ("fail/panics", "failed"),
        ("fail/passes_unexpectedly", "failed"),
        ("fail/fails_otherwise", "failed"),
    ];
    run.require(false, &verdicts)?;
    run.prints("written before the error")?;
    run.prints("an error with a reason")?;
    ensure!(run.reason(1)?.contains("a panic with a reason"), "{}", run.reason(1)?);
    ensure!(run.reason(2)?.contains("passes, but is expected to fail"), "{}", run.reason(2)?);
    ensure!(run.reason(3)?.contains("not the expected failure"), "{}", run.reason(3)?);
    ensure!(run.report["descriptors"]["processes"] == 1, "a failure does not end the process");
    Ok(())
}

fn reports_are_written_shown_and_compared() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (older, newer, page) = (file("older.json"), file("newer.json"), file("page.html"));
    suite(&["crash/before", "--report", &older])?;
    let newer_option = format!("--report={newer}");
    let run = suite(&["crash/", &newer_option, "--html", &page, "--compare", &older])?;
    ensure!(!run.succeeded && run.report.is_null(), "--report is used instead of INTEROP_REPORT");
    let compared = "1 regressions, 0 fixes, 0 no longer run, 0 now run, 1 only in the newer report";
    run.prints(compared)?;
    run.prints("    crash/aborts: absent → crashed: its process ended")?;
    let html = fs::read_to_string(&page)?;
    for part in ["no driver", "<h2>Failures</h2>", "crash/aborts", "SIGABRT", "1 regressions"] {
        ensure!(html.contains(part), "'{part}' is not in {html}");
    }
    // Without a run.
    fs::remove_file(&page)?;
    let shown = suite(&["--from", &newer, "--compare", &older, "--html", &page])?;
    ensure!(shown.succeeded && !shown.output.contains("test crash/"), "{}", shown.output);
    shown.prints(compared)?;
    ensure!(fs::read_to_string(&page)? == html, "the page is the same");
    ensure!(!suite(&["--from", &newer])?.succeeded, "--from alone has no use");
    ensure!(!suite(&["--from", &page, "--html", &page])?.succeeded, "a page is no report");
    suite(&["--help"])?.prints("--compare FILE")
}

fn two_jobs_run_two_cases_at_once() -> Result<()> {
    let run = suite(&["jobs/", "--test-threads", "2"])?;
    ensure!(run.succeeded, "{}", run.output);
    run.prints("31 passed, 0 failed")?;
    ensure!(run.report["descriptors"]["processes"] == 3, "two at once, and the one that is alone");
    let alone =
        run.output.find("test jobs/alone ... ok").ok_or_else(|| anyhow!("it did not run"))?;
    let last = run.output.rfind("test jobs/beside/").context("none ran beside another")?;
    ensure!(last < alone, "the case that is alone runs last");
    Ok(())
}
