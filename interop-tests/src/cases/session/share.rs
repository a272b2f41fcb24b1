//! The sessions that the examples `share_producer` and `share_consumer` run, with children.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum as _;
use gpu_interop::SemaphoreKind;
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::session::{Consumer, FrameInfo, JoinOptions, Producer};
use gpu_interop::vulkan::BufferAccess;
use serde_json::Value;

use crate::cases::support::importers::Importer;
use crate::harness::{Case, Need, Role, TestGpu, child_arguments};
use share::{
    Consumed, ConsumerApi, ConsumerOptions, FrameRenderer, Interrupt, ProducerReport, Production,
    Shape, Update, consume, produce, session_options,
};

const CHECKS: &str = "checks shared frames";
const SOCKET: &str = "INTEROP_SHARE_SOCKET";
const API: &str = "INTEROP_SHARE_API";

/// Small, with an incomplete last row.
const BYTES: u64 = (64 << 10) + 48;
const FRAMES: u32 = 300;
const SLOTS: usize = 3;

/// Far longer than a child takes.
const TIMEOUT: Duration = Duration::from_secs(60);

const PRODUCTION: Production =
    Production { frames: FRAMES, consumers: 1, wait: TIMEOUT, rate: None, others_can_join: true };

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        let timeline = [Need::Semaphore(importer.api(), SemaphoreKind::Timeline)];
        for (sync, name, needs) in [
            (SyncMethod::HostWait, "host_wait", &[][..]),
            (SyncMethod::Timeline, "timeline", &timeline[..]),
        ] {
            let name =
                format!("ipc/share/vulkan→{}/{name}/every_frame_is_right/60", importer.name());
            let run = move |test_gpu: &TestGpu| all_right(&share(test_gpu, sync, &[importer])?);
            cases.push(Case::new(name, run).needs(importer.needs()).needs(needs));
        }
    }
    cases.extend([
        Case::new("ipc/share/vulkan→all/host_wait/several_consumers_at_once/60", several),
        Case::new("ipc/share/vulkan→vulkan/one_process/every_frame_is_right/60", one_process),
        Case::new("ipc/share/vulkan→vulkan/one_process/a_failed_consumer_ends_it/60", failed),
        Case::new("ipc/share/vulkan→vulkan/host_wait/a_killed_consumer_is_reported/60", killed),
    ]);
    for importer in Importer::ALL {
        for (what, wrong) in [
            ("a_torn_frame_is_found", Wrong::Torn),
            ("a_frame_that_is_an_older_one_is_found", Wrong::Stale),
            ("a_lost_frame_is_found", Wrong::Lost),
            ("a_doubled_frame_is_found", Wrong::Doubled),
        ] {
            let name = format!("ipc/share/vulkan→{}/{what}/60", importer.name());
            let run = move |test_gpu: &TestGpu| found(test_gpu, importer, wrong);
            cases.push(Case::new(name, run).needs(importer.needs()));
        }
    }
    cases
}

/// The child of these cases.
pub(in crate::cases) fn roles() -> Vec<Role> {
    vec![(CHECKS, check)]
}

/// In the child: runs the example's code and prints its report as JSON.
fn check() -> Result<()> {
    let socket = PathBuf::from(std::env::var_os(SOCKET).context(SOCKET)?);
    let api = ConsumerApi::from_str(&std::env::var(API)?, true).map_err(anyhow::Error::msg)?;
    let options = ConsumerOptions { api, frames: None, bytes: Some(BYTES), wait: TIMEOUT };
    let joined = Consumer::join(socket, JoinOptions::default())?;
    let consumed = consume(joined, &options, &Interrupt::never(), |_, _| {})?;
    let share::Picture { width, height, rgb } = consumed.picture.context("no picture")?;
    ensure!(rgb.len() == 3 * (width * height) as usize, "{width}×{height}: {}", rgb.len());
    println!("{}", serde_json::to_string(&consumed.report)?);
    Ok(())
}

/// Children that check frames.
struct Checkers(Vec<Child>);

impl Checkers {
    fn start(socket: &Path, importers: &[Importer]) -> Result<Self> {
        let start = |importer: &Importer| {
            child_arguments(CHECKS)?
                .env(SOCKET, socket)
                .env(API, importer.name())
                .stdout(Stdio::piped())
                .spawn()
        };
        Ok(Self(importers.iter().map(start).collect::<Result<_, _>>().context("starting a child")?))
    }

    /// Their reports.
    fn reports(self) -> Result<Vec<Value>> {
        let report = |child: Child| -> Result<Value> {
            let output = child.wait_with_output()?;
            ensure!(output.status.success(), "the child: {}", output.status);
            Ok(Value::from_str(&String::from_utf8(output.stdout)?)?)
        };
        self.0.into_iter().map(report).collect()
    }
}

/// The counts of a report.
fn counts(report: &Value) -> Result<[u64; 5]> {
    let mut counts = [0; 5];
    for (count, name) in counts.iter_mut().zip(["frames", "verified", "lost", "doubled", "torn"]) {
        *count = report[name].as_u64().with_context(|| format!("{name} in {report}"))?;
    }
    Ok(counts)
}

fn all_right(reports: &[Value]) -> Result<()> {
    for report in reports {
        let all = u64::from(FRAMES);
        ensure!(counts(report)? == [all, all, 0, 0, 0], "{report}");
        let (p50, p99) = (&report["latency_us"]["p50"], &report["latency_us"]["p99"]);
        let (p50, p99) = (p50.as_f64().context("p50")?, p99.as_f64().context("p99")?);
        ensure!(0.0 < p50 && p50 <= p99, "{report}");
    }
    Ok(())
}

/// Produces for children with these APIs; returns their reports.
fn share(test_gpu: &TestGpu, sync: SyncMethod, importers: &[Importer]) -> Result<Vec<Value>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("frames");
    let shape = Shape::new(BYTES)?;
    let mut renderer = FrameRenderer::new(&test_gpu.vulkan().vulkan, shape, SLOTS, Some(sync))?;
    let producer = Producer::bind(&path, renderer.ring(FRAMES)?, session_options())?;
    let children = Checkers::start(&path, importers)?;
    let production = Production { consumers: importers.len(), ..PRODUCTION };
    let (never, quiet) = (Interrupt::never(), |_: Update<'_>| {});
    let produced = produce(producer, &mut renderer, shape, SLOTS, &production, &never, quiet);
    let reports = children.reports();
    let produced = produced?;
    ensure!(produced.frames == u64::from(FRAMES) && produced.died == 0, "{produced:?}");
    ensure!(!path.exists(), "the socket's file still exists");
    reports
}

fn several(test_gpu: &TestGpu) -> Result<()> {
    let available = Importer::ALL.into_iter().filter(|importer| importer.is_available(test_gpu));
    let mut importers: Vec<_> = available.collect();
    importers.push(importers[0]);
    all_right(&share(test_gpu, SyncMethod::HostWait, &importers)?)
}

/// The same session within this process, as `share_producer --in-process` runs it. The consumer requires
/// frames of `bytes` bytes.
fn within_process(
    test_gpu: &TestGpu,
    bytes: u64,
) -> Result<(Result<ProducerReport>, Result<Consumed>)> {
    let shape = Shape::new(BYTES)?;
    let mut renderer = FrameRenderer::new(&test_gpu.vulkan().vulkan, shape, SLOTS, None)?;
    let mut producer = Producer::unbound(renderer.ring(FRAMES)?, session_options())?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    producer.admit(ours)?;
    let consuming = std::thread::spawn(move || {
        let (api, bytes) = (ConsumerApi::Vulkan, Some(bytes));
        let options = ConsumerOptions { api, frames: None, bytes, wait: TIMEOUT };
        let joined = Consumer::join_socket(theirs, JoinOptions::default())?;
        consume(joined, &options, &Interrupt::never(), |_, _| {})
    });
    let production = Production { others_can_join: false, ..PRODUCTION };
    let never = Interrupt::never();
    let produced = produce(producer, &mut renderer, shape, SLOTS, &production, &never, |_| {});
    let consumed = consuming.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
    Ok((produced, consumed))
}

fn one_process(test_gpu: &TestGpu) -> Result<()> {
    let (produced, consumed) = within_process(test_gpu, BYTES)?;
    let consumed = consumed?;
    ensure!(produced?.frames == u64::from(FRAMES));
    ensure!(consumed.wrong.is_none(), "{:?}", consumed.wrong);
    all_right(&[serde_json::to_value(consumed.report)?])
}

/// The producer does not wait for a consumer that can't come any more.
fn failed(test_gpu: &TestGpu) -> Result<()> {
    let started = Instant::now();
    let (produced, consumed) = within_process(test_gpu, BYTES + 16)?;
    let (error, took) = (produced.err().context("frames were produced")?, started.elapsed());
    ensure!(error.to_string().contains("did not join"), "{error:#}");
    ensure!(took < TIMEOUT / 2, "it was reported after {took:?}");
    ensure!(consumed.is_err(), "the consumer accepts frames of another size");
    Ok(())
}

/// The producer reports it at once, not after the time that it waits for another one.
fn killed(test_gpu: &TestGpu) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("frames");
    let shape = Shape::new(BYTES)?;
    let (vulkan, sync) = (&test_gpu.vulkan().vulkan, Some(SyncMethod::HostWait));
    let mut renderer = FrameRenderer::new(vulkan, shape, SLOTS, sync)?;
    let endless = Production { frames: u32::MAX, ..PRODUCTION };
    let producer = Producer::bind(&path, renderer.ring(endless.frames)?, session_options())?;
    let mut child = Checkers::start(&path, &Importer::ALL[..1])?.0.remove(0);
    let (pid, interrupt) = (child.id(), Interrupt::never());
    let (mut failed, mut lost) = (None, Vec::new());
    let update = |update: Update<'_>| match update {
        Update::Published(50) => failed = child.kill().and_then(|()| child.wait()).err(),
        Update::Published(_) => {}
        Update::Lost(text) => {
            lost.push(text.to_owned());
            interrupt.request();
        }
    };
    let report = produce(producer, &mut renderer, shape, SLOTS, &endless, &interrupt, update)?;
    ensure!(failed.is_none(), "killing the consumer: {failed:?}");
    ensure!(report.died == 1 && lost.len() == 1, "{report:?} {lost:?}");
    ensure!(lost[0].contains(&format!("(process {pid}) died while it held")), "{lost:?}");
    Ok(())
}

/// What is wrong with one of the frames.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// Four words are those of the frame before.
    Torn,
    /// Everything is the frame before.
    Stale,
    /// It is not published.
    Lost,
    /// It is published twice.
    Doubled,
}

/// Proves that the check can fail: of ten frames, number 5 is wrong.
fn found(test_gpu: &TestGpu, importer: Importer, wrong: Wrong) -> Result<()> {
    const TEN: u32 = 10;
    const BAD: u32 = 5;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("frames");
    let vulkan = &test_gpu.vulkan().vulkan;
    let mut renderer =
        FrameRenderer::new(vulkan, Shape::new(BYTES)?, SLOTS, Some(SyncMethod::HostWait))?;
    let mut producer = Producer::bind(&path, renderer.ring(TEN)?, session_options())?;
    let children = Checkers::start(&path, &[importer])?;
    producer.wait_for_consumers(1, TIMEOUT)?;
    for frame in 0..TEN {
        let times = match wrong {
            Wrong::Lost if frame == BAD => continue,
            Wrong::Doubled if frame == BAD => 2,
            _ => 1,
        };
        for _ in 0..times {
            let slot = producer.free_slot(TIMEOUT)?;
            let is_stale = matches!(wrong, Wrong::Stale) && frame == BAD;
            renderer.draw(slot.index(), if is_stale { frame - 1 } else { frame })?;
            renderer.wait(slot.index())?;
            if matches!(wrong, Wrong::Torn) && frame == BAD {
                tear(test_gpu, &renderer, slot.index(), frame - 1)?;
            }
            producer.publish(slot, FrameInfo { tag: frame.into(), ..FrameInfo::default() })?;
        }
    }
    producer.finish(TIMEOUT)?;
    let reports = children.reports()?;
    let expected = match wrong {
        Wrong::Torn | Wrong::Stale => [10, 9, 0, 0, 1],
        Wrong::Lost => [9, 9, 1, 0, 0],
        Wrong::Doubled => [11, 10, 0, 1, 0],
    };
    for report in &reports {
        ensure!(counts(report)? == expected, "{wrong:?} is not {expected:?}: {report}");
    }
    ensure!(reports.len() == 1, "{reports:?}");
    Ok(())
}

/// Puts the last four words of frame number `other` into a slot.
fn tear(test_gpu: &TestGpu, renderer: &FrameRenderer, slot: usize, other: u32) -> Result<()> {
    let shape = Shape::new(BYTES)?;
    let first = shape.words() as u32 - 4;
    let words = [0, 1, 2, 3].map(|word| shape.word(first + word, other));
    let (gpu, buffer) = (test_gpu.vulkan(), renderer.buffer(slot).context("no such slot")?);
    let (family, used) = (gpu.vulkan.queue_family(), [BufferAccess::transfer(buffer)]);
    gpu.run(|command: vk::CommandBuffer| {
        // SAFETY: recorded outside a render pass, for a queue of this family; the frame was released and no
        // consumer has it; the buffer holds the four words.
        unsafe {
            gpu.endpoint.record_acquire(command, family, &used)?;
            let (at, bytes) = (4 * u64::from(first), bytemuck::bytes_of(&words));
            gpu.device().cmd_update_buffer(command, buffer.handle(), at, bytes);
            gpu.endpoint.record_release(command, family, &used)?;
        }
        Ok(())
    })
}
