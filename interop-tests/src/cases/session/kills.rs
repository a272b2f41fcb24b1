//! Consumers that are killed, are stopped, or close their socket in the middle of a message. The producer
//! continues with the others.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::session::{ConsumerId, Event, LeaveKind, ProducerOptions};
use rustix::process::Signal;

use crate::cases::session::kill_report::{
    EndedBy, KillReport, SplitMix64, WARM_UP, kills, measured, processor_shortage,
};
use crate::cases::session::peers::{
    BreakOff, CONSUMES, Child, TIMEOUT, TestProducer, directory, monotonic,
};
use crate::harness::{Case, ProcessResources, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    let name = "vulkan→vulkan/opaque_fd/session/consumers_are_killed/60";
    vec![measured(Case::new(name, consumers_are_killed))]
}

/// One consumer stays and gets every frame, however the others end.
fn consumers_are_killed(test_gpu: &TestGpu) -> Result<()> {
    let (directory, mut random) = (directory()?, SplitMix64::new()?);
    let path = directory.path().join("socket");
    let mut report = KillReport::new("consumers", kills()?, &random);
    let options =
        ProducerOptions { evict_after: Duration::from_millis(500), ..ProducerOptions::default() };
    let mut session = TestSession {
        producer: TestProducer::open(test_gpu.vulkan(), Some(&path), options)?,
        test_gpu,
        path: &path,
        joined: Vec::new(),
        left: Vec::new(),
    };
    let resident = Child::start(test_gpu, CONSUMES, &path, None)?;
    session.until_joined(resident.pid())?;
    let (first, mut before) = (session.producer.published + 1, ProcessResources::now()?);
    for round in 0..report.kills + WARM_UP {
        if round == WARM_UP {
            before = ProcessResources::now()?;
        }
        let (ended_by, early) = (EndedBy::choose(&mut random), random.below(2) == 0);
        let published = session.producer.published;
        let shortage = processor_shortage();
        let took = session.round(ended_by, early, &mut random);
        let took = took.with_context(|| format!("round {round}, {ended_by:?}, early: {early}"))?;
        if round >= WARM_UP {
            let shortage = processor_shortage().saturating_sub(shortage);
            report.count(ended_by, early, took, shortage)?;
        }
        ensure!(session.producer.published > published, "round {round}: no new frame");
        ensure!(
            session.producer.producer.consumers() == 1,
            "round {round}: the consumer that stays is gone"
        );
    }
    // Nothing of the ended consumers is left.
    let after = ProcessResources::now()?;
    before.require_same(&after)?;
    let last = session.producer.published;
    session.producer.producer.poll(Duration::ZERO)?;
    session.producer.finish()?;
    let output = resident.end()?;
    let mut words = output.split(' ');
    ensure!(words.next() == Some("Done"), "the consumer that stays: {output}");
    let verified: u64 = words.next().context("no count")?.parse()?;
    // It joined some frames before the first that is counted.
    ensure!(verified > last - first, "{verified} frames verified, published {first} to {last}");
    ensure!(words.next() == Some("0"), "frames were missed: {output}");
    report.report(&before, &after, verified)
}

/// A producer and its consumers.
struct TestSession<'a> {
    producer: TestProducer<'a>,
    test_gpu: &'a TestGpu,
    path: &'a Path,
    joined: Vec<(u32, ConsumerId)>,
    left: Vec<(ConsumerId, LeaveKind, Instant)>,
}

impl TestSession<'_> {
    /// Publishes a frame if a slot is free, and handles the producer's events.
    fn step(&mut self) -> Result<()> {
        self.producer.step(Duration::from_millis(20))?;
        while let Some(event) = self.producer.producer.poll(Duration::ZERO)? {
            match event {
                Event::Joined { consumer, pid, .. } => self.joined.push((pid, consumer)),
                Event::Left { consumer, kind: how, .. } => {
                    self.left.push((consumer, how, Instant::now()))
                }
                // It ended before it had joined.
                Event::NotJoined { .. } => {}
                other => bail!("{other:?}"),
            }
        }
        Ok(())
    }

    fn step_for(&mut self, time: Duration) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < time {
            self.step()?;
            // The children need the processor as well.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn id(&self, pid: u32) -> Option<ConsumerId> {
        self.joined.iter().find(|(other, _)| *other == pid).map(|(_, id)| *id)
    }

    fn until_joined(&mut self, pid: u32) -> Result<ConsumerId> {
        let started = Instant::now();
        loop {
            self.step_for(Duration::from_millis(1))?;
            if let Some(id) = self.id(pid) {
                return Ok(id);
            }
            ensure!(started.elapsed() < TIMEOUT, "the consumer does not join");
        }
    }

    /// Steps until the producer reports that a consumer left; returns how and when.
    fn until_left(&mut self, id: ConsumerId, since: Instant) -> Result<(LeaveKind, Instant)> {
        loop {
            if let Some((_, how, when)) = self.left.iter().find(|(other, ..)| *other == id) {
                return Ok((how.clone(), *when));
            }
            ensure!(
                since.elapsed() < TIMEOUT,
                "the producer does not report that the consumer left"
            );
            self.step()?;
        }
    }

    /// Starts a consumer and ends it. Returns how long the producer took to detect it, if it had joined.
    fn round(
        &mut self,
        ended_by: EndedBy,
        early: bool,
        random: &mut SplitMix64,
    ) -> Result<Option<Duration>> {
        self.joined.clear();
        self.left.clear();
        let break_off = BreakOff { frames: random.below(20), bytes: 1 + random.below(31) as usize };
        let break_off = (ended_by == EndedBy::PartialMessage).then_some(break_off);
        let mut child = Child::start(self.test_gpu, CONSUMES, self.path, break_off)?;
        let pid = child.pid();
        match (ended_by, early) {
            (EndedBy::PartialMessage, _) => {
                let id = self.until_joined(pid)?;
                let (how, _) = self.until_left(id, Instant::now())?;
                let detected = monotonic();
                ensure!(how == LeaveKind::Died, "{how:?}");
                let broke: u64 = child.end()?.parse()?;
                let took = detected.saturating_sub(Duration::from_nanos(broke));
                return Ok(Some(took));
            }
            // At any time between the start of its process and its first frames.
            (_, true) => self.step_for(random.up_to(Duration::from_millis(400)))?,
            (_, false) => {
                self.until_joined(pid)?;
                self.step_for(random.up_to(Duration::from_millis(30)))?;
            }
        }
        let since = Instant::now();
        if ended_by == EndedBy::Kill {
            child.kill()?;
            // Everything it had sent is in the socket.
            self.step()?;
            self.step()?;
            let Some(id) = self.id(pid) else { return Ok(None) };
            let (how, when) = self.until_left(id, since)?;
            ensure!(how == LeaveKind::Died, "{how:?}");
            return Ok(Some(when - since));
        }
        child.signal(Signal::STOP)?;
        self.step()?;
        self.step()?;
        let Some(id) = self.id(pid) else {
            // Stopped before it had joined: the producer does not wait for it.
            let published = self.producer.published;
            self.step_for(Duration::from_millis(5))?;
            ensure!(
                self.producer.published > published,
                "the producer waits for a consumer that has not joined"
            );
            child.signal(Signal::CONT)?;
            let id = self.until_joined(pid)?;
            child.kill()?;
            let (how, _) = self.until_left(id, Instant::now())?;
            ensure!(how == LeaveKind::Died, "{how:?}");
            return Ok(None);
        };
        let (how, when) = self.until_left(id, since)?;
        ensure!(matches!(how, LeaveKind::Evicted { .. }), "{how:?}");
        // The others continue, and its slots are reused.
        let published = self.producer.published;
        while self.producer.published < published + 8 {
            self.step()?;
        }
        child.signal(Signal::CONT)?;
        let output = child.end()?;
        ensure!(output.starts_with("Evicted "), "the consumer that was stopped: {output}");
        Ok(Some(when - since))
    }
}
