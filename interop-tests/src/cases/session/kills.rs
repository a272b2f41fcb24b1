//! Group G: consumers that die, stop, or break off in the middle of a message. The producer goes on
//! with the others.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::session::{ConsumerId, Event, Left, ProducerOptions};

use crate::cases::session::kill_report::{HandoffMode, KillReport};
use crate::cases::session::peers::{
    CONSUMES, Half, Peer, TIMEOUT, TestProducer, directory, monotonic,
};
use crate::cases::session::seed::{ProcessResources, SplitMix64, kills, processors_wanted};
use crate::harness::{Case, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("vulkan→vulkan/opaque_fd/session/consumers_are_killed/60", consumers_are_killed)]
}

/// How soon the producer has to know.
pub(crate) const DETECTION_LIMIT: Duration = Duration::from_secs(1);

/// Rounds until all that drivers and the allocator open once and keep is there.
pub(crate) const WARM_UP: u32 = 4;

/// A consumer that is there all the time gets every frame, whatever becomes of the others.
fn consumers_are_killed(machine: &TestGpu) -> Result<()> {
    let (directory, mut chance) = (directory()?, SplitMix64::new()?);
    let path = directory.path().join("socket");
    let mut toll = KillReport::new("consumers", kills()?, &chance);
    let options =
        ProducerOptions { patience: Duration::from_millis(500), ..ProducerOptions::default() };
    let mut stage = Stage {
        show: TestProducer::open(machine.vulkan(), Some(&path), options)?,
        machine,
        path: &path,
        joined: Vec::new(),
        left: Vec::new(),
    };
    let resident = Peer::start(machine, CONSUMES, &path, None)?;
    stage.until_joined(resident.pid())?;
    let (first, mut before) = (stage.show.published + 1, ProcessResources::now()?);
    for round in 0..toll.kills + WARM_UP {
        if round == WARM_UP {
            before = ProcessResources::now()?;
        }
        let (way, early) = (HandoffMode::of(&mut chance), chance.below(2) == 0);
        let published = stage.show.published;
        let before_it = processors_wanted();
        let took = stage.round(way, early, &mut chance);
        let took = took.with_context(|| format!("round {round}, {way:?}, early: {early}"))?;
        if round >= WARM_UP {
            let wanted = processors_wanted().saturating_sub(before_it);
            toll.count(way, early, took, wanted)?;
        }
        ensure!(stage.show.published > published, "round {round}: not one frame more");
        ensure!(stage.show.producer.consumers() == 1, "round {round}: the resident is gone");
    }
    // Nothing of those that were killed is left.
    let after = ProcessResources::now()?;
    before.require_same(&after)?;
    let last = stage.show.published;
    stage.show.producer.poll(Duration::ZERO)?;
    let Stage { show, .. } = stage;
    show.finish()?;
    let said = resident.end()?;
    let mut words = said.split(' ');
    ensure!(words.next() == Some("Done"), "the resident: {said}");
    let verified: u64 = words.next().context("no count")?.parse()?;
    // It joined some frames before the first that is counted.
    ensure!(verified > last - first, "the resident verified {verified} of {first} to {last}");
    ensure!(words.next() == Some("0"), "the resident missed frames: {said}");
    toll.report(&before, &after, verified)
}

/// A producer with its consumers.
struct Stage<'a> {
    show: TestProducer<'a>,
    machine: &'a TestGpu,
    path: &'a Path,
    joined: Vec<(u32, ConsumerId)>,
    left: Vec<(ConsumerId, Left, Instant)>,
}

impl Stage<'_> {
    /// A frame, if there is a slot, and what is to be told.
    fn step(&mut self) -> Result<()> {
        self.show.step(Duration::from_millis(20))?;
        while let Some(event) = self.show.producer.poll(Duration::ZERO)? {
            match event {
                Event::Joined { consumer, pid, .. } => self.joined.push((pid, consumer)),
                Event::Left { consumer, how, .. } => {
                    self.left.push((consumer, how, Instant::now()))
                }
                // Killed before it had joined.
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
            // The children need the processor, too.
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
            ensure!(started.elapsed() < TIMEOUT, "it does not join");
        }
    }

    /// Steps until it is told how a consumer left; how, and when.
    fn until_left(&mut self, id: ConsumerId, since: Instant) -> Result<(Left, Instant)> {
        loop {
            if let Some((_, how, when)) = self.left.iter().find(|(other, ..)| *other == id) {
                return Ok((how.clone(), *when));
            }
            ensure!(since.elapsed() < TIMEOUT, "nobody tells that the consumer is gone");
            self.step()?;
        }
    }

    /// One consumer comes and goes. How long it took to be told, where it had joined.
    fn round(
        &mut self,
        way: HandoffMode,
        early: bool,
        chance: &mut SplitMix64,
    ) -> Result<Option<Duration>> {
        self.joined.clear();
        self.left.clear();
        let half = Half { frames: chance.below(20), bytes: 1 + chance.below(31) as usize };
        let half = (way == HandoffMode::Half).then_some(half);
        let mut child = Peer::start(self.machine, CONSUMES, self.path, half)?;
        let pid = child.pid();
        match (way, early) {
            (HandoffMode::Half, _) => {
                let id = self.until_joined(pid)?;
                let (how, _) = self.until_left_or(id, TIMEOUT)?;
                let told = monotonic()?;
                ensure!(how == Left::Died, "{how:?}");
                let broke: u64 = child.end()?.parse()?;
                let took = told.saturating_sub(Duration::from_nanos(broke));
                return Ok(Some(took));
            }
            // Somewhere between the start of its process and its first frames.
            (_, true) => self.step_for(chance.up_to(Duration::from_millis(400)))?,
            (_, false) => {
                self.until_joined(pid)?;
                self.step_for(chance.up_to(Duration::from_millis(30)))?;
            }
        }
        let since = Instant::now();
        if way == HandoffMode::Kill {
            child.kill()?;
            // All that it had sent is in the socket.
            self.step()?;
            self.step()?;
            let Some(id) = self.id(pid) else { return Ok(None) };
            let (how, when) = self.until_left(id, since)?;
            ensure!(how == Left::Died, "{how:?}");
            return Ok(Some(when - since));
        }
        child.signal(libc::SIGSTOP)?;
        self.step()?;
        self.step()?;
        let Some(id) = self.id(pid) else {
            // Stopped before it had joined: nobody waits for it.
            let published = self.show.published;
            self.step_for(Duration::from_millis(5))?;
            ensure!(self.show.published > published, "held up by one that has not joined");
            child.signal(libc::SIGCONT)?;
            let id = self.until_joined(pid)?;
            child.kill()?;
            let (how, _) = self.until_left(id, Instant::now())?;
            ensure!(how == Left::Died, "{how:?}");
            return Ok(None);
        };
        let (how, when) = self.until_left(id, since)?;
        ensure!(matches!(how, Left::Evicted { .. }), "{how:?}");
        // The others go on, and the slots that it had are written to.
        let published = self.show.published;
        while self.show.published < published + 8 {
            self.step()?;
        }
        child.signal(libc::SIGCONT)?;
        let said = child.end()?;
        ensure!(said.starts_with("Evicted "), "the one that was stopped: {said}");
        Ok(Some(when - since))
    }

    fn until_left_or(&mut self, id: ConsumerId, limit: Duration) -> Result<(Left, Instant)> {
        let started = Instant::now();
        while !self.left.iter().any(|(other, ..)| *other == id) {
            ensure!(started.elapsed() < limit, "it does not leave");
            self.step()?;
        }
        self.until_left(id, started)
    }
}
