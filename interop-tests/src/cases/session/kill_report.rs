//! How peers are ended, chosen by a seed, and the report of how soon the other side detected it.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::harness::{Case, ProcessResources};

/// How soon the other side must detect it.
pub(super) const DETECTION_LIMIT: Duration = Duration::from_secs(1);

/// Rounds until drivers and the allocator have opened everything that they keep.
pub(super) const WARM_UP: u32 = 4;

/// Pseudo-random numbers, the same for the same seed.
#[derive(Debug)]
pub(super) struct SplitMix64 {
    seed: u64,
    state: u64,
}

/// The variable that names the report's file.
const REPORT: &str = "INTEROP_KILLS_REPORT";

/// The default of `INTEROP_SEED`.
const SEED: u64 = 0x5e55_1011;

impl SplitMix64 {
    /// Starts with `INTEROP_SEED`, or with the same seed every time.
    pub(super) fn new() -> Result<Self> {
        let seed = match std::env::var("INTEROP_SEED") {
            Ok(text) => text.parse().context("INTEROP_SEED")?,
            Err(_) => SEED,
        };
        Ok(Self { seed, state: seed })
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number less than `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Returns a duration of at most `longest`.
    pub(super) fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }
}

/// With no case beside it if its times are reported. Otherwise they only have to be below a limit.
pub(super) fn measured(case: Case) -> Case {
    if std::env::var_os(REPORT).is_some() { case.alone() } else { case.slow() }
}

/// How many peers are ended: `INTEROP_KILLS`, 25 by default.
pub(super) fn kills() -> Result<u32> {
    match std::env::var("INTEROP_KILLS") {
        Ok(text) => text.parse().context("INTEROP_KILLS"),
        Err(_) => Ok(25),
    }
}

/// For how long, since boot, some process was ready to run but had no processor; 0 if the kernel does not
/// report it.
///
/// A process that is killed needs a processor to end, and so does the one that detects it.
pub(super) fn processor_shortage() -> Duration {
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = pressure.lines().find(|line| line.starts_with("some "));
    let total = some.and_then(|line| line.rsplit_once("total=")?.1.trim().parse().ok());
    Duration::from_micros(total.unwrap_or(0))
}

/// How a peer is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, later followed by SIGCONT.
    Stop,
    /// It closes its socket in the middle of a message.
    PartialMessage,
}

impl EndedBy {
    /// Chooses at random; half of the peers are killed.
    pub(super) fn choose(random: &mut SplitMix64) -> Self {
        match random.below(4) {
            0 => Self::Stop,
            1 => Self::PartialMessage,
            _ => Self::Kill,
        }
    }
}

/// The results of one case.
#[derive(Debug, Serialize)]
pub(super) struct KillReport {
    peers: &'static str,
    pub(super) kills: u32,
    seed: u64,
    killed: u32,
    stopped: u32,
    partial_messages: u32,
    /// How many of these were ended while their process started.
    while_starting: u32,
    /// How many were detected late, by no more than the time for which there were too few processors.
    late_for_lack_of_processors: u32,
    /// From the end of a peer to its detection.
    detected_after_ms: Percentiles,
    seconds: f64,
    frames_verified: u64,
    descriptors: (usize, usize),
    shared_mappings: (usize, usize),
    shared_kib: (u64, u64),
    address_space_kib: (u64, u64),
    #[serde(skip)]
    started: Instant,
    #[serde(skip)]
    detected_after: Vec<Duration>,
}

#[derive(Debug, Default, Serialize)]
struct Percentiles {
    median: f64,
    p99: f64,
    longest: f64,
}

impl KillReport {
    pub(super) fn new(peers: &'static str, kills: u32, random: &SplitMix64) -> Self {
        let seed = random.seed();
        println!("{peers}: {kills} are ended, INTEROP_SEED={seed}");
        Self {
            peers,
            kills,
            seed,
            killed: 0,
            stopped: 0,
            partial_messages: 0,
            while_starting: 0,
            late_for_lack_of_processors: 0,
            detected_after_ms: Percentiles::default(),
            seconds: 0.0,
            frames_verified: 0,
            descriptors: (0, 0),
            shared_mappings: (0, 0),
            shared_kib: (0, 0),
            address_space_kib: (0, 0),
            started: Instant::now(),
            detected_after: Vec::new(),
        }
    }

    /// Counts one peer, which was detected after `took` if it had joined. `shortage` is for how long there
    /// were too few processors: detection may be late by that.
    pub(super) fn count(
        &mut self,
        ended_by: EndedBy,
        early: bool,
        took: Option<Duration>,
        shortage: Duration,
    ) -> Result<()> {
        match ended_by {
            EndedBy::Kill => self.killed += 1,
            EndedBy::Stop => self.stopped += 1,
            EndedBy::PartialMessage => self.partial_messages += 1,
        }
        self.while_starting += u32::from(early && ended_by != EndedBy::PartialMessage);
        if let Some(took) = took {
            let late =
                format!("detected after {took:?} ({ended_by:?}, early: {early}, {shortage:?})");
            ensure!(took <= DETECTION_LIMIT + shortage, late);
            self.late_for_lack_of_processors += u32::from(took > DETECTION_LIMIT);
            self.detected_after.push(took);
        }
        let done = self.killed + self.stopped + self.partial_messages;
        if done.is_multiple_of(100) {
            eprintln!(
                "{}: {done} of {} ended, {:?}",
                self.peers,
                self.kills,
                self.started.elapsed()
            );
        }
        Ok(())
    }

    /// Appends the report to `INTEROP_KILLS_REPORT` if that is set, one line per case.
    pub(super) fn report(
        mut self,
        before: &ProcessResources,
        after: &ProcessResources,
        verified: u64,
    ) -> Result<()> {
        self.seconds = self.started.elapsed().as_secs_f64();
        self.frames_verified = verified;
        self.descriptors = (before.descriptors.count(), after.descriptors.count());
        self.shared_mappings = (before.shared_mappings, after.shared_mappings);
        self.shared_kib = (before.shared_kib, after.shared_kib);
        self.address_space_kib = (before.address_space_kib, after.address_space_kib);
        self.detected_after.sort();
        let at = |part: f64| {
            let index = (self.detected_after.len() as f64 * part) as usize;
            let found =
                self.detected_after.get(index.min(self.detected_after.len().saturating_sub(1)));
            found.map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        self.detected_after_ms = Percentiles { median: at(0.5), p99: at(0.99), longest: at(1.0) };
        let line = serde_json::to_string(&self)?;
        println!("{line}");
        if let Some(path) = std::env::var_os(REPORT) {
            let file = File::options().create(true).append(true).open(&path);
            writeln!(file.context(REPORT)?, "{line}")?;
        }
        Ok(())
    }
}
