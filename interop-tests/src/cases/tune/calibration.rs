//! Calibrations on real drivers: measured, chosen, printed, stored, and refused for another GPU.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ring::{self, RingOptions};
use gpu_interop::tune::{
    Benchmark as _, Calibration, CalibrationKey, CalibrationOptions, Outcome, Route, RouteConfig,
};
use gpu_interop::{Api, BufferDesc, Error, Uuid};

use super::ring_benchmark::{RingBenchmark, VulkanWorker, Worker};
use crate::harness::{Case, Need, TestGpu};

const SIZES: [u64; 2] = [64 << 10, 1 << 20];

/// Configurations of every route; some of them are not supported on any machine.
const CANDIDATES: [&str; 9] = [
    "timeline:1",
    "binary:1",
    "host-wait:1",
    "in-queue:1",
    "timeline:4x2",
    "binary:4",
    "host-wait:4x2",
    "host-wait-spin:4",
    "timeline:64",
];

pub(crate) fn cases() -> Vec<Case> {
    let name = |pair: &str, what: &str| format!("{pair}/opaque_fd/calibration/{what}/48");
    let what = "measured_chosen_and_stored";
    vec![
        Case::new(name("vulkan→vulkan", what), |test_gpu| {
            let two = test_gpu.second_device()?;
            measured(test_gpu, worker(test_gpu)?, VulkanWorker::new(two)?, [Api::Vulkan; 2])
        }),
        Case::new(name("vulkan→gl", what), |test_gpu| {
            measured(test_gpu, worker(test_gpu)?, test_gpu.gl()?, [Api::Vulkan, Api::OpenGl])
        })
        .needs(&[Need::Gl]),
        Case::new(name("vulkan→cuda", what), |test_gpu| {
            measured(test_gpu, worker(test_gpu)?, test_gpu.cuda()?, [Api::Vulkan, Api::Cuda])
        })
        .needs(&[Need::Cuda]),
        Case::new(name("gl→cuda", what), |test_gpu| {
            measured(test_gpu, test_gpu.gl()?, test_gpu.cuda()?, [Api::OpenGl, Api::Cuda])
        })
        .needs(&[Need::Gl, Need::Cuda]),
        Case::new(
            name("vulkan→vulkan", "another_gpu_driver_or_pair_is_refused"),
            refused_elsewhere,
        ),
        Case::new(name("vulkan→vulkan", "a_failure_does_not_end_it"), a_failure_is_recorded),
    ]
}

fn worker(test_gpu: &TestGpu) -> Result<VulkanWorker<'_>> {
    VulkanWorker::new(test_gpu.vulkan())
}

fn two_devices(test_gpu: &TestGpu) -> Result<RingBenchmark<VulkanWorker<'_>, VulkanWorker<'_>>> {
    let second = VulkanWorker::new(test_gpu.second_device()?)?;
    RingBenchmark::new(&test_gpu.vulkan().endpoint, worker(test_gpu)?, second)
}

fn candidates() -> Result<Vec<RouteConfig>> {
    CANDIDATES.iter().map(|text| Ok(text.parse()?)).collect()
}

/// A short measurement: the timings are not judged.
fn options() -> CalibrationOptions {
    CalibrationOptions {
        rounds: 3,
        round_time: Duration::from_millis(2),
        ..CalibrationOptions::default()
    }
}

fn measured<A: Worker, B: Worker>(
    test_gpu: &TestGpu,
    first: A,
    second: B,
    apis: [Api; 2],
) -> Result<()> {
    let owner = &test_gpu.vulkan().endpoint;
    let (a, b): (A::Peer, B::Peer) = (first.endpoint().clone(), second.endpoint().clone());
    let mut benchmark = RingBenchmark::new(owner, first, second)?;
    let (key, candidates) = (benchmark.key()?, candidates()?);
    ensure!(key.apis == apis, "{key:?}");
    let measured =
        Calibration::measure(key.clone(), &SIZES, &candidates, &options(), &mut benchmark)?;
    for size in measured.sizes() {
        ensure!(size.rows.len() == candidates.len(), "{measured}");
        for (row, candidate) in size.rows.iter().zip(&candidates) {
            ensure!(row.config == *candidate, "{row:?}");
            check_row(&benchmark.support(*candidate), &row.outcome)
                .with_context(|| format!("{candidate}\n{measured}"))?;
        }
    }
    let (mut table, stored) = (measured.to_string(), serde_json::to_string(&measured)?);
    ensure!(table.lines().filter(|line| line.starts_with('*')).count() == SIZES.len(), "{table}");
    table.retain(|letter| letter != '*');
    ensure!(CANDIDATES.iter().all(|text| {
        let route = text.split(':').next().unwrap_or_default();
        table.lines().any(|line| line.trim_start().starts_with(route))
    }));
    let again: Calibration = serde_json::from_str(&stored)?;
    ensure!(again == measured && serde_json::to_string(&again)? == stored, "{stored}");
    let changed = stored.replace("timeline:1\"", "timeline:0\"");
    let refused = serde_json::from_str::<Calibration>(&changed).err();
    let refused = refused.context("a ring of depth 0 was read")?.to_string();
    ensure!(refused.contains("1 to 64"), "{refused}");
    again.check(&key)?;
    for bytes in SIZES {
        let choice = again.ring_choice(bytes).context("host wait at least")?;
        let options = RingOptions::calibrated(&again, bytes)?;
        let (stage, _, plans) = ring::pair(owner, &a, &b, &BufferDesc::storage(bytes), options)?;
        ensure!(stage.depth() == choice.config.depth as usize, "{choice:?}");
        let method = choice.config.route.method();
        ensure!(plans.iter().all(|plan| Some(plan.method) == method), "{choice:?}, {plans:?}");
    }
    Ok(())
}

/// A supported configuration was measured, and another names what is missing.
fn check_row(support: &gpu_interop::capabilities::Support, outcome: &Outcome) -> Result<()> {
    match (support, outcome) {
        (Ok(()), Outcome::Measured(timing)) => {
            ensure!(!timing.median.is_zero() && timing.median <= timing.p99, "{timing:?}");
            ensure!(timing.rounds == 3 && timing.iterations > 0, "{timing:?}");
        }
        (Err(missing), Outcome::Missing(recorded)) if missing == recorded => {}
        other => bail!("{other:?}"),
    }
    Ok(())
}

fn refused_elsewhere(test_gpu: &TestGpu) -> Result<()> {
    let mut benchmark = two_devices(test_gpu)?;
    let (here, host_wait) = (benchmark.key()?, ["host-wait:2".parse()?]);
    let measured =
        Calibration::measure(here.clone(), &SIZES[..1], &host_wait, &options(), &mut benchmark)?;
    measured.check(&here)?;
    let other = Uuid::from_bytes([0xAB; 16]);
    let (mut gpu, mut driver, mut pair) = (here.clone(), here.clone(), here.clone());
    gpu.device = other;
    driver.driver = Some(other);
    pair.apis = vec![Api::Vulkan, Api::Cuda];
    let check = |key: &CalibrationKey, text: &str| -> Result<()> {
        let refused = measured.check(key).err().context("it was accepted for another key")?;
        ensure!(matches!(refused, Error::Mismatch(_)), "{refused:?}");
        ensure!(refused.to_string().contains(text), "{refused}");
        Ok(())
    };
    check(&gpu, "abababab")?;
    check(&gpu, &here.device.to_string())?;
    check(&driver, "driver UUID")?;
    check(&pair, "CUDA")
}

/// A payload that exceeds any driver's memory is a typed error; a candidate over the memory limit is
/// recorded as skipped, and the others are measured.
fn a_failure_is_recorded(test_gpu: &TestGpu) -> Result<()> {
    let mut benchmark = two_devices(test_gpu)?;
    let (key, candidates) = (benchmark.key()?, ["host-wait:1".parse()?, "host-wait:4".parse()?]);
    let endless = CalibrationOptions { memory: u64::MAX, ..options() };
    let refused =
        Calibration::measure(key.clone(), &[1 << 50], &candidates, &endless, &mut benchmark);
    ensure!(
        matches!(refused, Err(Error::Missing(_) | Error::Invalid(_) | Error::Driver(_))),
        "{refused:?}"
    );
    let little = CalibrationOptions { memory: 2 << 20, ..options() };
    let measured = Calibration::measure(key, &[1 << 20], &candidates, &little, &mut benchmark)?;
    let outcomes: Vec<_> = measured.sizes()[0].rows.iter().map(|row| &row.outcome).collect();
    ensure!(matches!(outcomes[..], [Outcome::Measured(_), Outcome::Skipped(_)]), "{measured}");
    let choice = measured.choice(1).context("one was measured")?;
    ensure!(choice.config.route != Route::SameQueue && choice.config == candidates[0]);
    Ok(())
}
