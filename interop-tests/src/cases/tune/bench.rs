//! Every benchmark, with a small payload: also what only a benchmark does, command buffers that are
//! submitted again while they are pending, rings that are handed over by batches, the APIs' own calls.

use std::time::Duration;

use anyhow::{Result, ensure};
use gpu_interop::Api;

use crate::harness::{Case, Need, TestGpu};
use interop_bench::{BenchmarkKind, Plan, Report};
use interop_gpu::GpuContexts;
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
            Case::new(name("every_rung"), move |machine| every_rung(machine, path)).needs(needs),
        );
        cases.push(
            Case::new(name("the_calibrated_way"), move |machine| calibrated(machine, path))
                .needs(needs),
        );
    }
    cases
}

fn rigs(machine: &TestGpu) -> Result<GpuContexts> {
    GpuContexts::open(machine.selector(), &TestGpu::options())
}

/// All benchmarks that this machine has are verified, none fails, and the report is read back as it was written.
fn every_rung(machine: &TestGpu, path: PathKind) -> Result<()> {
    let plan = Plan {
        paths: vec![path],
        sizes: vec![BYTES],
        benchmarks: BenchmarkKind::ALL.to_vec(),
        rounds: 1,
        batch: Duration::from_millis(1),
        laps: 2,
    };
    let report = interop_bench::run(&rigs(machine)?, &plan, &mut |_, _, _| ())?;
    report.require_verified()?;
    let told = report.rows.len() + report.skipped.len();
    ensure!(told == BenchmarkKind::ALL.len(), "{told} benchmarks are reported");
    let file = tempfile::NamedTempFile::new()?;
    report.write(file.path())?;
    ensure!(Report::read(file.path())? == report, "the report is read as another one");
    Ok(())
}

/// A calibration chooses among what there is, and payloads that go its way are right.
fn calibrated(machine: &TestGpu, path: PathKind) -> Result<()> {
    let rigs = rigs(machine)?;
    let calibration = Candidates::new(&rigs, path, BYTES)?.calibrate(Some(4))?;
    let choice = calibration.choice(BYTES);
    let Some(choice) = choice else { anyhow::bail!("nothing was chosen: {calibration}") };
    let stations = &calibration.key().apis;
    ensure!(stations.first() == Some(&Api::Vulkan) && stations.len() == 2, "{stations:?}");
    let sent = send(&rigs, path, choice.config, BYTES, 20)?;
    ensure!(sent.wrong.is_none(), "{}: {:?}", choice.config, sent.wrong);
    Ok(())
}
