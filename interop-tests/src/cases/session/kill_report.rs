//! How peers die, and the report of it.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::cases::session::kills::DETECTION_LIMIT;
use crate::cases::session::seed::{ProcessResources, SplitMix64};

/// How a peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandoffMode {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and later SIGCONT.
    Stop,
    /// It closes its socket in the middle of a message.
    Half,
}

impl HandoffMode {
    /// Half of them are killed.
    pub(crate) fn of(chance: &mut SplitMix64) -> Self {
        match chance.below(4) {
            0 => Self::Stop,
            1 => Self::Half,
            _ => Self::Kill,
        }
    }
}

/// What became of so many peers.
#[derive(Debug, Serialize)]
pub(crate) struct KillReport {
    who: &'static str,
    pub(crate) kills: u32,
    seed: u64,
    killed: u32,
    stopped: u32,
    broke_off: u32,
    /// How many of those were to end within the first moments of their process.
    while_starting: u32,
    /// How many were told of later than in time, by no more than processors were wanted meanwhile.
    late_for_want_of_a_processor: u32,
    /// From the end of a peer to the word of it.
    told_after_ms: Percentiles,
    seconds: f64,
    frames_verified: u64,
    descriptors: (usize, usize),
    shared_mappings: (usize, usize),
    shared_kib: (u64, u64),
    address_space_kib: (u64, u64),
    #[serde(skip)]
    started: Instant,
    #[serde(skip)]
    told: Vec<Duration>,
}

#[derive(Debug, Default, Serialize)]
struct Percentiles {
    median: f64,
    p99: f64,
    longest: f64,
}

impl KillReport {
    pub(crate) fn new(who: &'static str, kills: u32, chance: &SplitMix64) -> Self {
        let seed = chance.seed();
        println!("{who}: {kills} end, INTEROP_SEED={seed}");
        Self {
            who,
            kills,
            seed,
            killed: 0,
            stopped: 0,
            broke_off: 0,
            while_starting: 0,
            late_for_want_of_a_processor: 0,
            told_after_ms: Percentiles::default(),
            seconds: 0.0,
            frames_verified: 0,
            descriptors: (0, 0),
            shared_mappings: (0, 0),
            shared_kib: (0, 0),
            address_space_kib: (0, 0),
            started: Instant::now(),
            told: Vec::new(),
        }
    }

    /// One more; `took` where there was something to be told. `wanted` is for how long there were not
    /// enough processors, where others keep the machine busy: so much later is in time, too.
    pub(crate) fn count(
        &mut self,
        way: HandoffMode,
        early: bool,
        took: Option<Duration>,
        wanted: Duration,
    ) -> Result<()> {
        match way {
            HandoffMode::Kill => self.killed += 1,
            HandoffMode::Stop => self.stopped += 1,
            HandoffMode::Half => self.broke_off += 1,
        }
        self.while_starting += u32::from(early && way != HandoffMode::Half);
        if let Some(took) = took {
            let late = format!("told after {took:?} only ({way:?}, early: {early}, {wanted:?})");
            ensure!(took <= DETECTION_LIMIT + wanted, late);
            self.late_for_want_of_a_processor += u32::from(took > DETECTION_LIMIT);
            self.told.push(took);
        }
        let done = self.killed + self.stopped + self.broke_off;
        if done.is_multiple_of(100) {
            eprintln!("{}: {done} of {} ended, {:?}", self.who, self.kills, self.started.elapsed());
        }
        Ok(())
    }

    /// Writes the toll to `INTEROP_KILLS_REPORT`, a line a case, where that is set.
    pub(crate) fn report(
        mut self,
        before: &ProcessResources,
        after: &ProcessResources,
        verified: u64,
    ) -> Result<()> {
        self.seconds = self.started.elapsed().as_secs_f64();
        self.frames_verified = verified;
        self.descriptors = (before.descriptors.count(), after.descriptors.count());
        self.shared_mappings = (before.shared, after.shared);
        self.shared_kib = (before.shared_kib, after.shared_kib);
        self.address_space_kib = (before.address_space_kib, after.address_space_kib);
        self.told.sort();
        let at = |part: f64| {
            let index = (self.told.len() as f64 * part) as usize;
            let found = self.told.get(index.min(self.told.len().saturating_sub(1)));
            found.map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        self.told_after_ms = Percentiles { median: at(0.5), p99: at(0.99), longest: at(1.0) };
        let line = serde_json::to_string(&self)?;
        println!("{line}");
        if let Some(path) = std::env::var_os("INTEROP_KILLS_REPORT") {
            let file = File::options().create(true).append(true).open(&path);
            writeln!(file.context("INTEROP_KILLS_REPORT")?, "{line}")?;
        }
        Ok(())
    }
}
