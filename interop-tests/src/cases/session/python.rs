//! Sessions with a client in another language, which was written from the page of the wire format:
//! `python/session.py`. It maps the memory of Mesa's software drivers itself.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::BufferDesc;
use gpu_interop::session::{Consumer, Event, JoinOptions, LeaveKind, ProducerOptions};
use gpu_interop::vulkan::BufferOptions;
use serde_json::Value;
use share::{ConsumerApi, ConsumerOptions, Interrupt, consume};

use crate::cases::session::peers::{TIMEOUT, TestProducer, directory};
use crate::harness::{Case, Need, TestGpu};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/session.py");

const FRAMES: u64 = 50;

pub(in crate::cases) fn cases() -> Vec<Case> {
    let needs = [Need::Lavapipe, Need::Python];
    vec![
        Case::new("vulkan→python/opaque_fd/session/every_frame_is_right/60", consumes)
            .needs(&needs),
        Case::new("ipc/share/python→vulkan/every_frame_is_right/60", produces).needs(&needs),
    ]
}

/// The client, which is killed when this is dropped.
struct Python(Child);

impl Python {
    fn start(mode: &str, path: &Path, arguments: &[String]) -> Result<Self> {
        let mut command = Command::new("python3");
        command.arg(SCRIPT).arg(mode).arg(path).arg(FRAMES.to_string()).args(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Self(child.context("starting python3")?))
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Waits for its end, and returns what it printed.
    fn end(mut self) -> Result<Value> {
        let started = Instant::now();
        while !self.has_ended()? {
            ensure!(started.elapsed() < TIMEOUT, "python3 does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        let (mut printed, mut errors) = (String::new(), String::new());
        let (output, error) = (self.0.stdout.take(), self.0.stderr.take());
        std::io::Read::read_to_string(&mut output.context("no output")?, &mut printed)?;
        std::io::Read::read_to_string(&mut error.context("no output")?, &mut errors)?;
        ensure!(self.0.wait()?.success(), "python3: {errors}{printed}");
        Ok(printed.parse()?)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It joins a producer whose frames Vulkan fills, checks them in mapped memory, and leaves.
fn consumes(test_gpu: &TestGpu) -> Result<()> {
    let directory = directory()?;
    let path = directory.path().join("socket");
    let options = ProducerOptions { evict_after: TIMEOUT, ..ProducerOptions::default() };
    let mut test = TestProducer::open(test_gpu.vulkan(), Some(&path), options)?;
    let mut python = Python::start("consume", &path, &[])?;
    let started = Instant::now();
    while !python.has_ended()? {
        ensure!(started.elapsed() < TIMEOUT, "it does not end");
        if test.producer.consumers() > 0 {
            test.step(Duration::from_millis(20))?;
        }
        match test.producer.poll(Duration::from_millis(1))? {
            Some(Event::Left { kind: LeaveKind::Leave, .. } | Event::Joined { .. }) | None => {}
            Some(event) => bail!("{event:?}"),
        }
    }
    let report = python.end()?;
    ensure!(report["verified"] == FRAMES && report["frames"] == FRAMES, "{report}");
    test.finish()
}

/// It produces the frames of the example `share_consumer`, whose code checks them with Vulkan.
fn produces(test_gpu: &TestGpu) -> Result<()> {
    let directory = directory()?;
    let path = directory.path().join("socket");
    let gpu = test_gpu.vulkan();
    let desc = BufferDesc::storage(4096);
    let buffer = gpu.endpoint.create_buffer(&desc, BufferOptions::default())?;
    let export = buffer.export()?;
    let payload = export.memory().info().clone();
    // What the driver writes before the allocation: how it recognises its own memory.
    let mut header = [0; 64];
    let file = File::from(export.as_fd().try_clone_to_owned()?);
    file.read_exact_at(&mut header, 0)?;
    let driver = payload.identity.driver.context("a driver without a UUID")?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let memory_type = payload.memory_type_index.context("memory without a type")?;
    let [device, driver] = [payload.identity.device, driver].map(|uuid| hex(uuid.as_bytes()));
    let arguments = [device, driver, memory_type.to_string(), hex(&header)];
    let python = Python::start("produce", &path, &arguments)?;
    let (api, wait) = (ConsumerApi::Vulkan, TIMEOUT);
    let options = ConsumerOptions { api, frames: None, bytes: None, wait };
    let joined = Consumer::join(&path, JoinOptions { timeout: TIMEOUT, ..JoinOptions::default() })?;
    let consumed = consume(joined, &options, &Interrupt::never(), |_, _| {})?;
    ensure!(consumed.wrong.is_none(), "{:?}", consumed.wrong);
    ensure!(consumed.report.verified == FRAMES && consumed.report.lost == 0, "{consumed:?}");
    let report = python.end()?;
    ensure!(report["frames"] == FRAMES, "{report}");
    Ok(())
}
