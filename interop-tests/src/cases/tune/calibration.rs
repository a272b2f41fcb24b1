//! Calibrations on real drivers: what is measured, chosen, printed, stored, and refused elsewhere.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::ring::{RingOptions, ring_of_two};
use gpu_interop::tune::Route;
use gpu_interop::tune::{
    Calibration, CalibrationKey, CalibrationOptions, CudaWorker, GlWorker, Outcome, RingTrial,
    RouteConfig, Trial, VulkanWorker, Worker,
};
use gpu_interop::{Api, BufferDesc, Error, Uuid};

use crate::harness::{Case, Need, TestGpu};
use interop_gpu::vulkan::VulkanContext;

const SIZES: [u64; 2] = [64 << 10, 1 << 20];

/// Some of every route, some of which are missing anywhere.
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
        Case::new(name("vulkan→vulkan", what), |machine| {
            let two = machine.second_device()?;
            measured(machine, worker(machine.vulkan())?, worker(two)?, [Api::Vulkan; 2])
        }),
        Case::new(name("vulkan→gl", what), |machine| {
            let gl = GlWorker::new(&machine.gl()?.endpoint);
            measured(machine, worker(machine.vulkan())?, gl, [Api::Vulkan, Api::OpenGl])
        })
        .needs(&[Need::Gl]),
        Case::new(name("vulkan→cuda", what), |machine| {
            let cuda = machine.cuda()?;
            let cuda = CudaWorker::new(&cuda.endpoint, &cuda.stream);
            measured(machine, worker(machine.vulkan())?, cuda, [Api::Vulkan, Api::Cuda])
        })
        .needs(&[Need::Cuda]),
        Case::new(name("gl→cuda", what), |machine| {
            let (gl, cuda) = (machine.gl()?, machine.cuda()?);
            let cuda = CudaWorker::new(&cuda.endpoint, &cuda.stream);
            let gl = GlWorker::new(&gl.endpoint);
            measured(machine, gl, cuda, [Api::OpenGl, Api::Cuda])
        })
        .needs(&[Need::Gl, Need::Cuda]),
        Case::new(
            name("vulkan→vulkan", "another_gpu_driver_or_pair_is_refused"),
            refused_elsewhere,
        ),
        Case::new(name("vulkan→vulkan", "what_fails_does_not_end_it"), a_failure_is_recorded),
    ]
}

fn worker(context: &VulkanContext) -> Result<VulkanWorker<'_>> {
    let submit = |part: &gpu_interop::vulkan::SubmitSync, command| {
        context.vulkan.with_queue(|queue| {
            // SAFETY: the queue is guarded and of this device; the worker waits before it goes.
            unsafe { part.submit(&context.endpoint, queue, &[command]) }
        })
    };
    // SAFETY: `submit` does as it is to.
    Ok(unsafe { VulkanWorker::new(&context.endpoint, context.vulkan.queue_family(), submit) }?)
}

fn candidates() -> Result<Vec<RouteConfig>> {
    CANDIDATES.iter().map(|text| Ok(text.parse()?)).collect()
}

/// Short, so that the suite goes on: it is not the figures that are judged.
fn options() -> CalibrationOptions {
    CalibrationOptions {
        rounds: 3,
        round_time: Duration::from_millis(2),
        ..CalibrationOptions::default()
    }
}

fn measured<A: Worker, B: Worker>(
    machine: &TestGpu,
    first: A,
    second: B,
    apis: [Api; 2],
) -> Result<()> {
    let owner = &machine.vulkan().endpoint;
    let (a, b): (A::Peer, B::Peer) = (first.endpoint().clone(), second.endpoint().clone());
    let mut trial = RingTrial::new(owner, first, second)?;
    let (subject, candidates) = (trial.subject()?, candidates()?);
    ensure!(subject.stations == apis, "{subject:?}");
    let measured =
        Calibration::measure(subject.clone(), &SIZES, &candidates, &options(), &mut trial)?;
    for size in measured.sizes() {
        ensure!(size.rows.len() == candidates.len(), "{measured}");
        for (row, candidate) in size.rows.iter().zip(&candidates) {
            ensure!(row.candidate == *candidate, "{row:?}");
            check_row(&trial.support(*candidate), &row.outcome)
                .with_context(|| format!("{candidate}\n{measured}"))?;
        }
    }
    let (mut table, stored) = (measured.to_string(), measured.to_stored());
    ensure!(table.lines().filter(|line| line.starts_with('*')).count() == SIZES.len(), "{table}");
    table.retain(|letter| letter != '*');
    ensure!(CANDIDATES.iter().all(|text| {
        let route = text.split(':').next().unwrap_or_default();
        table.lines().any(|line| line.trim_start().starts_with(route))
    }));
    // What was stored is as good as what was measured, here.
    let again: Calibration = stored.parse()?;
    ensure!(again == measured && again.to_stored() == stored, "{stored}\n{}", again.to_stored());
    again.require(&subject)?;
    for bytes in SIZES {
        let choice = again.ring_choice(bytes).context("host wait at least")?;
        let options = RingOptions::calibrated(&again, bytes)?;
        let (station, _, plans) = ring_of_two(owner, &a, &b, &BufferDesc::storage(bytes), options)?;
        ensure!(station.depth() == choice.candidate.depth as usize, "{choice:?}");
        let method = choice.candidate.route.method();
        ensure!(plans.iter().all(|plan| Some(plan.method) == method), "{choice:?}, {plans:?}");
    }
    Ok(())
}

/// What is possible was measured, and what is not says what is missing.
fn check_row(support: &gpu_interop::capabilities::Support, outcome: &Outcome) -> Result<()> {
    match (support, outcome) {
        (Ok(()), Outcome::Measured(figures)) => {
            ensure!(!figures.median.is_zero() && figures.median <= figures.p99, "{figures:?}");
            ensure!(figures.rounds == 3 && figures.turns > 0, "{figures:?}");
        }
        (Err(missing), Outcome::Missing(recorded)) if missing == recorded => {}
        other => bail!("{other:?}"),
    }
    Ok(())
}

fn refused_elsewhere(machine: &TestGpu) -> Result<()> {
    let mut trial = RingTrial::new(
        &machine.vulkan().endpoint,
        worker(machine.vulkan())?,
        worker(machine.second_device()?)?,
    )?;
    let (here, host_wait) = (trial.subject()?, ["host-wait:2".parse()?]);
    let measured =
        Calibration::measure(here.clone(), &SIZES[..1], &host_wait, &options(), &mut trial)?;
    measured.require(&here)?;
    let other = Uuid::from_bytes([0xAB; 16]);
    let (mut gpu, mut driver, mut pair) = (here.clone(), here.clone(), here.clone());
    gpu.device = other;
    driver.driver = Some(other);
    pair.stations = vec![Api::Vulkan, Api::Cuda];
    let says = |subject: &CalibrationKey, word: &str| -> Result<()> {
        let refused = measured.require(subject).err().context("it holds here only")?;
        ensure!(matches!(refused, Error::Mismatch(_)), "{refused:?}");
        ensure!(refused.to_string().contains(word), "{refused}");
        Ok(())
    };
    says(&gpu, "abababab")?;
    says(&gpu, &here.device.to_string())?;
    says(&driver, "driver UUID")?;
    says(&pair, "CUDA")
}

/// A payload that no driver has memory for is a typed error; one candidate that asks for too much is
/// recorded, and the others are measured. The machine is as good as before.
fn a_failure_is_recorded(machine: &TestGpu) -> Result<()> {
    let owner = &machine.vulkan().endpoint;
    let mut trial =
        RingTrial::new(owner, worker(machine.vulkan())?, worker(machine.second_device()?)?)?;
    let (subject, candidates) =
        (trial.subject()?, ["host-wait:1".parse()?, "host-wait:4".parse()?]);
    let endless = CalibrationOptions { memory: u64::MAX, ..options() };
    let refused =
        Calibration::measure(subject.clone(), &[1 << 50], &candidates, &endless, &mut trial);
    ensure!(
        matches!(refused, Err(Error::Missing(_) | Error::Invalid(_) | Error::Driver(_))),
        "{refused:?}"
    );
    let little = CalibrationOptions { memory: 2 << 20, ..options() };
    let measured = Calibration::measure(subject, &[1 << 20], &candidates, &little, &mut trial)?;
    let outcomes: Vec<_> = measured.sizes()[0].rows.iter().map(|row| &row.outcome).collect();
    ensure!(matches!(outcomes[..], [Outcome::Measured(_), Outcome::Skipped(_)]), "{measured}");
    let choice = measured.choice(1).context("one was measured")?;
    ensure!(choice.candidate.route != Route::SameQueue && choice.candidate == candidates[0]);
    Ok(())
}
