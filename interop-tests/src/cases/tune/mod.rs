//! Family J: every benchmark with a small payload, including what only benchmarks do: command buffers that are
//! submitted again while they are pending, rings in batches, and the APIs' own calls.

pub(crate) mod calibration;
mod ring_benchmark;
pub(crate) mod routes;

use std::time::Duration;

use anyhow::{Result, ensure};
use gpu_interop::Api;

use crate::harness::{Case, Need, TestGpu};
use interop_bench::{BenchmarkKind, Plan, Report};
use ping_pong::routes::Candidates;
use ping_pong::{PathKind, send};

const BYTES: u64 = 64 << 10;

const PATHS: [(PathKind, &str, &[Need]); 3] = [
    (PathKind::VulkanVulkan, "vulkan→vulkan", &[]),
    (PathKind::VulkanGl, "vulkan→gl", &[Need::Gl]),
    (PathKind::VulkanCuda, "vulkan→cuda", &[Need::Cuda]),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (path, apis, needs) in PATHS {
        let name = |what: &str| format!("{apis}/opaque_fd/buffer/ladder/{what}/46");
        cases.push(
            Case::new(name("every_benchmark"), move |test_gpu| every_benchmark(test_gpu, path))
                .needs(needs),
        );
        cases.push(
            Case::new(name("the_calibrated_route"), move |test_gpu| calibrated(test_gpu, path))
                .needs(needs),
        );
    }
    cases
}

/// Every benchmark that is supported here is verified, none fails, and the report is read back as it was
/// written.
fn every_benchmark(test_gpu: &TestGpu, path: PathKind) -> Result<()> {
    let plan = Plan {
        paths: vec![path],
        sizes: vec![BYTES],
        benchmarks: BenchmarkKind::ALL.to_vec(),
        rounds: 1,
        batch: Duration::from_millis(1),
        laps: 2,
    };
    let report = interop_bench::run(test_gpu.contexts(), &plan, &mut |_, _, _| ())?;
    report.require_verified()?;
    let count = report.rows.len() + report.skipped.len();
    ensure!(count == BenchmarkKind::ALL.len(), "{count} benchmarks are reported");
    let file = tempfile::NamedTempFile::new()?;
    report.write(file.path())?;
    ensure!(Report::read(file.path())? == report, "the report changed");
    Ok(())
}

/// A calibration chooses a supported configuration, with which payloads arrive unchanged.
fn calibrated(test_gpu: &TestGpu, path: PathKind) -> Result<()> {
    let contexts = test_gpu.contexts();
    let calibration = Candidates::new(contexts, path, BYTES)?.calibrate(Some(4))?;
    let choice = calibration.choice(BYTES);
    let Some(choice) = choice else { anyhow::bail!("nothing was chosen: {calibration}") };
    let apis = &calibration.key().apis;
    ensure!(apis.first() == Some(&Api::Vulkan) && apis.len() == 2, "{apis:?}");
    let sent = send(contexts, path, choice.config, BYTES, 20)?;
    ensure!(sent.wrong.is_none(), "{}: {:?}", choice.config, sent.wrong);
    Ok(())
}
