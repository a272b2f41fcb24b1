//! Producers that are killed, are stopped, or close their socket in the middle of a message. The consumer
//! detects it and continues with the next producer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gpu_interop::Error;
use gpu_interop::session::{Consumer, JoinOptions, SessionEnd};
use rustix::process::Signal;

use crate::cases::session::kill_report::{
    EndedBy, KillReport, SplitMix64, WARM_UP, kills, measured, processor_shortage,
};
use crate::cases::session::peers::{
    BreakOff, Child, PRODUCES, TIMEOUT, TestConsumer, directory, is_closed, is_timeout, monotonic,
    signal_to,
};
use crate::harness::{Case, ProcessResources, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    let name = "vulkan→vulkan/opaque_fd/session/producers_are_killed/60a";
    vec![measured(Case::new(name, producers_are_killed))]
}

/// A producer that publishes no frame for so long counts as stopped.
const SLOW: Duration = Duration::from_millis(400);

fn producers_are_killed(test_gpu: &TestGpu) -> Result<()> {
    let (directory, mut random) = (directory()?, SplitMix64::new()?);
    let mut report = KillReport::new("producers", kills()?, &random);
    let mut consumers = Consumers {
        test_gpu,
        path: directory.path().join("socket"),
        other: directory.path().join("other"),
        verified: 0,
    };
    let mut before = ProcessResources::now()?;
    for round in 0..report.kills + WARM_UP {
        if round == WARM_UP {
            consumers.new_producer()?;
            before = ProcessResources::now()?;
            consumers.verified = 0;
        }
        let (ended_by, early) = (EndedBy::choose(&mut random), random.below(2) == 0);
        let shortage = processor_shortage();
        let took = consumers.round(ended_by, early, &mut random);
        let took = took.with_context(|| format!("round {round}, {ended_by:?}, early: {early}"))?;
        if round >= WARM_UP {
            let shortage = processor_shortage().saturating_sub(shortage);
            report.count(ended_by, early, took, shortage)?;
        }
    }
    // The last producer is not killed.
    consumers.new_producer()?;
    let after = ProcessResources::now()?;
    before.require_same(&after)?;
    report.report(&before, &after, consumers.verified)
}

/// Sends a signal after `delay`; the thread returns when it was sent.
fn later(pid: u32, signal: Signal, delay: Duration) -> (JoinHandle<Result<Instant>>, Sent) {
    let sent = Sent::default();
    let flag = sent.clone();
    let thread = thread::spawn(move || {
        thread::sleep(delay);
        let since = Instant::now();
        signal_to(pid, signal)?;
        flag.0.store(true, Ordering::SeqCst);
        Ok(since)
    });
    (thread, sent)
}

/// Whether the signal was sent.
#[derive(Clone, Debug, Default)]
struct Sent(Arc<AtomicBool>);

impl Sent {
    fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The consumers of one producer after another.
struct Consumers<'a> {
    test_gpu: &'a TestGpu,
    /// Where one producer after another listens, even if the last one has left the file behind.
    path: PathBuf,
    other: PathBuf,
    verified: u64,
}

impl Consumers<'_> {
    /// Tries once to join, for at most `timeout`.
    fn join(&self, path: &Path, timeout: Duration) -> Result<Option<TestConsumer<'_>>> {
        let options = JoinOptions { timeout, wait_for_producer: false, ..JoinOptions::default() };
        match Consumer::join(path, options) {
            Ok(joined) => Ok(Some(TestConsumer::new(self.test_gpu.vulkan(), joined)?)),
            // No producer listens, yet or any more.
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn until_joined(&self, path: &Path) -> Result<TestConsumer<'_>> {
        let started = Instant::now();
        loop {
            if let Some(consumer) = self.join(path, TIMEOUT)? {
                return Ok(consumer);
            }
            ensure!(started.elapsed() < TIMEOUT, "the producer does not listen");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Receives some frames of a healthy producer, which ends when its consumer leaves.
    fn new_producer(&mut self) -> Result<()> {
        let child = Child::start(self.test_gpu, PRODUCES, &self.other, None)?;
        let other = self.other.clone();
        let mut consumer = self.until_joined(&other)?;
        for _ in 0..5 {
            consumer.step(TIMEOUT)?;
        }
        let verified = consumer.verified;
        drop(consumer);
        self.verified += verified;
        child.end()?;
        Ok(())
    }

    /// Starts a producer and ends it. Returns how long the consumer took to detect it.
    fn round(
        &mut self,
        ended_by: EndedBy,
        early: bool,
        random: &mut SplitMix64,
    ) -> Result<Option<Duration>> {
        let break_off = BreakOff { frames: random.below(4), bytes: 1 + random.below(71) as usize };
        let break_off = (ended_by == EndedBy::PartialMessage).then_some(break_off);
        let (within_start, within_frames) =
            (random.up_to(Duration::from_millis(400)), random.up_to(Duration::from_millis(30)));
        // A producer that binds its own listener does not replace the file that the last one left.
        if ended_by == EndedBy::PartialMessage && self.path.exists() {
            std::fs::remove_file(&self.path)?;
        }
        let child = Child::start(self.test_gpu, PRODUCES, &self.path, break_off)?;
        let within_start = early.then_some(within_start);
        match ended_by {
            EndedBy::PartialMessage => self.broken_off(child),
            EndedBy::Kill => self.killed(child, within_start, within_frames),
            EndedBy::Stop => self.stopped(child, within_start, within_frames),
        }
    }

    fn broken_off(&mut self, child: Child) -> Result<Option<Duration>> {
        let path = self.path.clone();
        let mut consumer = self.until_joined(&path)?;
        let error = loop {
            if let Err(error) = consumer.step(TIMEOUT) {
                break error;
            }
        };
        let detected = monotonic();
        ensure!(is_closed(&error), "{error:#}");
        ensure!(consumer.consumer.end() == Some(SessionEnd::Lost), "{:?}", consumer.consumer.end());
        let verified = consumer.verified;
        drop(consumer);
        self.verified += verified;
        let broke: u64 = child.end()?.parse()?;
        Ok(Some(detected.saturating_sub(Duration::from_nanos(broke))))
    }

    /// Joins and receives frames until an error. `sent` is whether the producer has been killed: from then
    /// on it need not listen any more. Returns whether the session was closed, and when that was detected.
    fn watch(&mut self, sent: &Sent, timeout: Duration) -> Result<(bool, Instant)> {
        let path = self.path.clone();
        loop {
            let was_sent = sent.is();
            match self.join(&path, timeout) {
                Ok(Some(mut consumer)) => {
                    let error = loop {
                        if let Err(error) = consumer.step(timeout) {
                            break error;
                        }
                    };
                    let detected = Instant::now();
                    let verified = consumer.verified;
                    drop(consumer);
                    self.verified += verified;
                    ensure!(is_closed(&error) || is_timeout(&error), "{error:#}");
                    return Ok((is_closed(&error), detected));
                }
                Ok(None) if was_sent => return Ok((true, Instant::now())),
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                // It ended or stopped in the middle of the ring message.
                Err(error) if is_closed(&error) => return Ok((true, Instant::now())),
                Err(error) if is_timeout(&error) => return Ok((false, Instant::now())),
                Err(error) => return Err(error),
            }
        }
    }

    fn killed(
        &mut self,
        mut child: Child,
        within_start: Option<Duration>,
        within_frames: Duration,
    ) -> Result<Option<Duration>> {
        let (since, detected) = match within_start {
            Some(delay) => {
                let (killer, sent) = later(child.pid(), Signal::KILL, delay);
                let (closed, detected) = self.watch(&sent, TIMEOUT)?;
                ensure!(closed, "a timeout instead of the end");
                (joined(killer)?, detected)
            }
            None => {
                let path = self.path.clone();
                let mut consumer = self.until_joined(&path)?;
                consumer.step(TIMEOUT)?;
                let (killer, _) = later(child.pid(), Signal::KILL, within_frames);
                let error = loop {
                    if let Err(error) = consumer.step(TIMEOUT) {
                        break error;
                    }
                };
                let detected = Instant::now();
                ensure!(is_closed(&error), "{error:#}");
                ensure!(
                    consumer.consumer.end() == Some(SessionEnd::Lost),
                    "{:?}",
                    consumer.consumer.end()
                );
                let verified = consumer.verified;
                drop(consumer);
                self.verified += verified;
                (joined(killer)?, detected)
            }
        };
        child.kill()?;
        Ok(Some(detected.saturating_duration_since(since)))
    }

    fn stopped(
        &mut self,
        mut child: Child,
        within_start: Option<Duration>,
        within_frames: Duration,
    ) -> Result<Option<Duration>> {
        let (since, detected, had_frames) = match within_start {
            Some(delay) => {
                let (stopper, sent) = later(child.pid(), Signal::STOP, delay);
                let (_, detected) = self.watch(&sent, SLOW)?;
                (joined(stopper)?, detected, false)
            }
            None => {
                let path = self.path.clone();
                let mut consumer = self.until_joined(&path)?;
                consumer.step(TIMEOUT)?;
                let (stopper, _) = later(child.pid(), Signal::STOP, within_frames);
                let error = loop {
                    if let Err(error) = consumer.step(SLOW) {
                        break error;
                    }
                };
                let detected = Instant::now();
                ensure!(is_timeout(&error), "{error:#}");
                let verified = consumer.verified;
                drop(consumer);
                self.verified += verified;
                (joined(stopper)?, detected, true)
            }
        };
        // While the stopped producer still exists.
        self.new_producer()?;
        child.signal(Signal::CONT)?;
        if had_frames {
            // It learns that its consumer has left, and ends.
            child.end()?;
        } else {
            child.kill()?;
        }
        Ok(Some(detected.saturating_duration_since(since)))
    }
}

fn joined(thread: JoinHandle<Result<Instant>>) -> Result<Instant> {
    thread.join().map_err(|_| anyhow!("the thread panicked"))?
}
