//! Group G: producers that die, stop, or break off in the middle of a message. The consumer sees it,
//! and goes on with the next one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gpu_interop::Error;
use gpu_interop::session::{Consumer, End, JoinOptions};

use crate::cases::session::kill_report::{HandoffMode, KillReport};
use crate::cases::session::kills::WARM_UP;
use crate::cases::session::peers::{
    Half, PRODUCES, Peer, TIMEOUT, TestConsumer, directory, is_closed, is_timeout, monotonic,
    signal_to,
};
use crate::cases::session::seed::{ProcessResources, SplitMix64, kills, processors_wanted};
use crate::harness::{Case, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new(
        "vulkan→vulkan/opaque_fd/session/producers_are_killed/60a",
        producers_are_killed,
    )]
}

/// A frame that does not come for so long is taken as a producer that does not go on.
const SLOW: Duration = Duration::from_millis(400);

fn producers_are_killed(machine: &TestGpu) -> Result<()> {
    let (directory, mut chance) = (directory()?, SplitMix64::new()?);
    let mut toll = KillReport::new("producers", kills()?, &chance);
    let mut theatre = Theatre {
        machine,
        path: directory.path().join("socket"),
        other: directory.path().join("other"),
        verified: 0,
    };
    let mut before = ProcessResources::now()?;
    for round in 0..toll.kills + WARM_UP {
        if round == WARM_UP {
            theatre.new_peer()?;
            before = ProcessResources::now()?;
            theatre.verified = 0;
        }
        let (way, early) = (HandoffMode::of(&mut chance), chance.below(2) == 0);
        let before_it = processors_wanted();
        let took = theatre.round(way, early, &mut chance);
        let took = took.with_context(|| format!("round {round}, {way:?}, early: {early}"))?;
        if round >= WARM_UP {
            let wanted = processors_wanted().saturating_sub(before_it);
            toll.count(way, early, took, wanted)?;
        }
    }
    // And one that is not killed.
    theatre.new_peer()?;
    let after = ProcessResources::now()?;
    before.require_same(&after)?;
    toll.report(&before, &after, theatre.verified)
}

/// Sends a signal after a while, and tells when.
fn later(pid: u32, signal: libc::c_int, delay: Duration) -> (JoinHandle<Result<Instant>>, Sent) {
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

#[derive(Clone, Debug, Default)]
struct Sent(Arc<AtomicBool>);

impl Sent {
    fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Theatre<'a> {
    machine: &'a TestGpu,
    /// Where one producer after the other listens, though the ones before have left the file behind.
    path: PathBuf,
    other: PathBuf,
    verified: u64,
}

impl Theatre<'_> {
    /// One try to join, of no more than `timeout`.
    fn join(&self, path: &Path, timeout: Duration) -> Result<Option<TestConsumer<'_>>> {
        let options = JoinOptions { timeout, wait_for_producer: false, ..JoinOptions::default() };
        match Consumer::join(path, options) {
            Ok(joined) => Ok(Some(TestConsumer::new(self.machine.vulkan(), joined)?)),
            // Nobody listens, yet or any more.
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn until_joined(&self, path: &Path) -> Result<TestConsumer<'_>> {
        let started = Instant::now();
        loop {
            if let Some(viewer) = self.join(path, TIMEOUT)? {
                return Ok(viewer);
            }
            ensure!(started.elapsed() < TIMEOUT, "the producer does not listen");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A producer in good health: some frames of it, and it ends when its consumer leaves.
    fn new_peer(&mut self) -> Result<()> {
        let child = Peer::start(self.machine, PRODUCES, &self.other, None)?;
        let other = self.other.clone();
        let mut viewer = self.until_joined(&other)?;
        for _ in 0..5 {
            viewer.step(TIMEOUT)?;
        }
        let verified = viewer.verified;
        drop(viewer);
        self.verified += verified;
        child.end()?;
        Ok(())
    }

    /// One producer comes and goes. How long it took to be told.
    fn round(
        &mut self,
        way: HandoffMode,
        early: bool,
        chance: &mut SplitMix64,
    ) -> Result<Option<Duration>> {
        let half = Half { frames: chance.below(4), bytes: 1 + chance.below(71) as usize };
        let half = (way == HandoffMode::Half).then_some(half);
        let (within_start, within_frames) =
            (chance.up_to(Duration::from_millis(400)), chance.up_to(Duration::from_millis(30)));
        if way != HandoffMode::Stop {
            // What the one before has left: each way of dying leaves a file, but not of the library's.
            if way == HandoffMode::Half && self.path.exists() {
                std::fs::remove_file(&self.path)?;
            }
        }
        let child = Peer::start(self.machine, PRODUCES, &self.path, half)?;
        match way {
            HandoffMode::Half => self.broken_off(child),
            HandoffMode::Kill => {
                let delay = if early { Some(within_start) } else { None };
                self.killed(child, delay, within_frames)
            }
            HandoffMode::Stop => {
                let delay = if early { Some(within_start) } else { None };
                self.stopped(child, delay, within_frames)
            }
        }
    }

    fn broken_off(&mut self, child: Peer) -> Result<Option<Duration>> {
        let path = self.path.clone();
        let mut viewer = self.until_joined(&path)?;
        let error = loop {
            if let Err(error) = viewer.step(TIMEOUT) {
                break error;
            }
        };
        let told = monotonic()?;
        ensure!(is_closed(&error), "{error:#}");
        ensure!(viewer.consumer.end() == Some(End::Lost), "{:?}", viewer.consumer.end());
        let verified = viewer.verified;
        drop(viewer);
        self.verified += verified;
        let broke: u64 = child.end()?.parse()?;
        Ok(Some(told.saturating_sub(Duration::from_nanos(broke))))
    }

    /// Joins, and takes frames, until something goes wrong. `sent` is whether the producer has been
    /// killed: from then on nobody may listen.
    fn watch(&mut self, sent: &Sent, timeout: Duration) -> Result<(bool, Instant)> {
        let path = self.path.clone();
        loop {
            let was_sent = sent.is();
            match self.join(&path, timeout) {
                Ok(Some(mut viewer)) => {
                    let error = loop {
                        if let Err(error) = viewer.step(timeout) {
                            break error;
                        }
                    };
                    let told = Instant::now();
                    let verified = viewer.verified;
                    drop(viewer);
                    self.verified += verified;
                    ensure!(is_closed(&error) || is_timeout(&error), "{error:#}");
                    return Ok((is_closed(&error), told));
                }
                Ok(None) if was_sent => return Ok((true, Instant::now())),
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                // It ended, or stands still, in the middle of the ring.
                Err(error) if is_closed(&error) => return Ok((true, Instant::now())),
                Err(error) if is_timeout(&error) => return Ok((false, Instant::now())),
                Err(error) => return Err(error),
            }
        }
    }

    fn killed(
        &mut self,
        mut child: Peer,
        within_start: Option<Duration>,
        within_frames: Duration,
    ) -> Result<Option<Duration>> {
        let (since, told) = match within_start {
            Some(delay) => {
                let (killer, sent) = later(child.pid(), libc::SIGKILL, delay);
                let (closed, told) = self.watch(&sent, TIMEOUT)?;
                ensure!(closed, "a timeout, not the end");
                (joined(killer)?, told)
            }
            None => {
                let path = self.path.clone();
                let mut viewer = self.until_joined(&path)?;
                viewer.step(TIMEOUT)?;
                let (killer, _) = later(child.pid(), libc::SIGKILL, within_frames);
                let error = loop {
                    if let Err(error) = viewer.step(TIMEOUT) {
                        break error;
                    }
                };
                let told = Instant::now();
                ensure!(is_closed(&error), "{error:#}");
                ensure!(viewer.consumer.end() == Some(End::Lost), "{:?}", viewer.consumer.end());
                let verified = viewer.verified;
                drop(viewer);
                self.verified += verified;
                (joined(killer)?, told)
            }
        };
        child.kill()?;
        Ok(Some(told.saturating_duration_since(since)))
    }

    fn stopped(
        &mut self,
        mut child: Peer,
        within_start: Option<Duration>,
        within_frames: Duration,
    ) -> Result<Option<Duration>> {
        let (since, told, had_frames) = match within_start {
            Some(delay) => {
                let (stopper, sent) = later(child.pid(), libc::SIGSTOP, delay);
                let (_, told) = self.watch(&sent, SLOW)?;
                (joined(stopper)?, told, false)
            }
            None => {
                let path = self.path.clone();
                let mut viewer = self.until_joined(&path)?;
                viewer.step(TIMEOUT)?;
                let (stopper, _) = later(child.pid(), libc::SIGSTOP, within_frames);
                let error = loop {
                    if let Err(error) = viewer.step(SLOW) {
                        break error;
                    }
                };
                let told = Instant::now();
                ensure!(is_timeout(&error), "{error:#}");
                let verified = viewer.verified;
                drop(viewer);
                self.verified += verified;
                (joined(stopper)?, told, true)
            }
        };
        // With the other one still there, stopped.
        self.new_peer()?;
        child.signal(libc::SIGCONT)?;
        if had_frames {
            // It is told that its consumer has left, and ends.
            child.end()?;
        } else {
            child.kill()?;
        }
        Ok(Some(told.saturating_duration_since(since)))
    }
}

fn joined(thread: JoinHandle<Result<Instant>>) -> Result<Instant> {
    thread.join().map_err(|_| anyhow!("the thread panicked"))?
}
