//! The consumer: receives, checks and releases each frame.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gpu_interop::Error;
use gpu_interop::error::counted;
use gpu_interop::session::{Consumer, Frame, Ring, SessionEnd};
use serde::Serialize;

use super::checker::{Checker, ConsumerApi, open};
use super::frame::{Announced, Picture, Shape};
use super::frame_stats::{FrameCheck, FrameStats};
use super::waiting::{CHECK_INTERVAL, Interrupt};
use interop_gpu::statistics::percentile;

/// How to consume.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerOptions {
    /// The API.
    pub api: ConsumerApi,
    /// Maximum number of frames; `None` for all.
    pub frames: Option<u32>,
    /// Required size of a frame in bytes; `None` for any.
    pub bytes: Option<u64>,
    /// How long to wait for the next frame.
    pub wait: Duration,
}

/// The result of consuming.
#[derive(Debug)]
pub struct Consumed {
    /// The counts.
    pub report: ConsumerReport,
    /// Describes the first wrong frame, or that the producer ended early. `None` if nothing is wrong.
    pub wrong: Option<String>,
    /// The last frame. `None` if it was not received.
    pub picture: Option<Picture>,
}

/// What `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct ConsumerReport {
    /// The API that read and checked.
    pub api: &'static str,
    /// Frames received.
    pub frames: u64,
    /// Frames received of which every word was checked and is right.
    pub verified: u64,
    /// Frames missing before one that was received.
    pub lost: u64,
    /// Frames received more than once.
    pub doubled: u64,
    /// Frames with a wrong word.
    pub torn: u64,
    /// Frames per second, from the first frame to the last.
    pub frames_per_s: f64,
    /// Time from publishing a frame to having verified it, in µs, including the checks of earlier frames that
    /// it waits for.
    pub latency_us: Latency,
    /// Time from publishing a frame to receiving its token, in µs.
    pub token_us: Latency,
}

/// Median and percentile of many times, in µs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Latency {
    fn of(samples: &[Duration]) -> Self {
        let us = |percent| (percentile(samples, percent).as_secs_f64() * 1e7).round() / 10.0;
        Self { p50: us(50.0), p99: us(99.0) }
    }
}

/// Receives and checks frames until the producer is done, or as many as `options` requests. Calls `progress`
/// with the number of frames done and their total.
///
/// # Errors
/// If the frames have another format or size, the API is missing, a driver fails, or the producer is gone.
/// Wrong frames are counted, not an error.
pub fn consume(
    (mut consumer, ring): (Consumer, Ring),
    options: &ConsumerOptions,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64, u64),
) -> Result<Consumed> {
    let announced: Announced = ring.format.parse()?;
    let (shape, all) = (announced.shape, announced.frames);
    if let Some(bytes) = options.bytes.filter(|&bytes| bytes != shape.bytes()) {
        bail!("the producer's frames have {} bytes, not {bytes}", shape.bytes());
    }
    let checker = open(options.api, ring, shape)
        .with_context(|| format!("importing the ring with {}", options.api))?;
    let wanted = options.frames.unwrap_or(all).min(all);
    let mut run = Run { checker, shape, wanted, all, seen: Seen::default() };
    consumer.ready()?;
    let ended = run.frames(&mut consumer, options, interrupt, &mut progress);
    let Run { checker, mut seen, .. } = run;
    if let Err(error) = ended {
        // Work that waits for a dead producer never ends, so destroying it would block.
        std::mem::forget(checker);
        let count = seen.stats.frames;
        return Err(error.context(format!("after {count} of {}", counted(wanted, "frame"))));
    }
    // All published frames are received before the end of the session, so the missing ones were never
    // published.
    let due = options.frames.is_none() && !interrupt.is_requested();
    if let Some(next) = seen.stats.next().filter(|&next| due && next < all.into()) {
        let early = format!("the producer ended after {next} of {}", counted(all, "frame"));
        seen.wrong.get_or_insert(early);
    }
    Ok(seen.consumed(options.api, shape))
}

struct Run {
    checker: Box<dyn Checker>,
    shape: Shape,
    wanted: u32,
    all: u32,
    seen: Seen,
}

/// The counts so far.
#[derive(Default)]
struct Seen {
    stats: FrameStats,
    tokens: Vec<Duration>,
    latencies: Vec<Duration>,
    first: Option<Instant>,
    took: Duration,
    last: Option<Vec<u8>>,
    wrong: Option<String>,
}

impl Run {
    fn frames(
        &mut self,
        consumer: &mut Consumer,
        options: &ConsumerOptions,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut waited = Instant::now();
        let limit = options.frames.map_or(u64::MAX, u64::from);
        while self.seen.stats.frames < limit && !interrupt.is_requested() {
            match consumer.next_frame(CHECK_INTERVAL.min(options.wait)) {
                Ok(frame) => self.frame(frame)?,
                Err(Error::Timeout { .. }) if waited.elapsed() < options.wait => continue,
                Err(Error::Timeout { .. }) => bail!("no frame for {:?}", options.wait),
                Err(error) => match consumer.end() {
                    Some(SessionEnd::Done) => return Ok(()),
                    Some(SessionEnd::Lost) => bail!("the connection to the producer was lost"),
                    Some(SessionEnd::Evicted) => {
                        bail!("this consumer took too long and was evicted")
                    }
                    _ => return Err(error.into()),
                },
            }
            waited = Instant::now();
            progress(self.seen.stats.frames, self.wanted.into());
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> Result<()> {
        let seen = &mut self.seen;
        seen.tokens.push(frame.age());
        let began = *seen.first.get_or_insert_with(Instant::now);
        let number = u32::try_from(frame.tag()).context("the frame's number")?;
        let verdict = self.checker.check(&frame, number)?;
        let mut is_whole = verdict.is_whole(self.shape.words());
        seen.latencies.push(frame.age());
        seen.took = began.elapsed();
        // The last frame is the picture. The CPU checks the GPU's result for the first and the last frame,
        // and examines the first wrong one.
        let is_last = number + 1 == self.all || seen.stats.frames + 1 == u64::from(self.wanted);
        if seen.stats.frames == 0 || is_last || (!is_whole && seen.wrong.is_none()) {
            let data = self.checker.read(frame.slot())?;
            let wrong = self.shape.check(&data, number).err();
            if wrong.is_none() != is_whole {
                is_whole = false;
                let found = wrong.map_or("nothing".into(), |wrong| wrong.to_string());
                seen.wrong.get_or_insert(format!(
                    "frame {number}: the GPU reports '{verdict}', but the CPU finds {found}"
                ));
            }
            if !is_whole && seen.wrong.is_none() {
                seen.wrong = Some(explain(self.shape, &data, number, &verdict));
            }
            if is_last {
                seen.last = Some(data);
            }
        }
        // A slot that was withdrawn meanwhile may have been overwritten while it was read.
        let released = frame.release();
        self.seen.stats.count(number.into(), is_whole && released.is_ok());
        match released {
            // Frames received before the end of the session still count.
            Err(Error::Closed { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Describes which frames the wrong words belong to.
fn explain(shape: Shape, data: &[u8], number: u32, verdict: &FrameCheck) -> String {
    let mut others = std::collections::BTreeMap::<u32, u64>::new();
    for (word, bytes) in (0u32..).zip(data.as_chunks::<4>().0) {
        let found = u32::from_le_bytes(*bytes);
        if found != shape.word(word, number) {
            *others.entry(shape.frame_of(word, found, number)).or_default() += 1;
        }
    }
    let mut others: Vec<_> = others.into_iter().collect();
    others.sort_by_key(|&(_, words)| std::cmp::Reverse(words));
    let of = others
        .iter()
        .take(3)
        .map(|&(frame, words)| format!("{} of frame {frame}", counted(words, "word")));
    let of = of.collect::<Vec<_>>().join(", ");
    format!("frame {number}: {verdict}; when it was read, it had {of}")
}

impl Seen {
    fn consumed(self, api: ConsumerApi, shape: Shape) -> Consumed {
        let FrameStats { frames, verified, lost, doubled, torn, .. } = self.stats;
        let report = ConsumerReport {
            api: api.name(),
            frames,
            verified,
            lost,
            doubled,
            torn,
            frames_per_s: frames as f64 / self.took.as_secs_f64().max(1e-9),
            latency_us: Latency::of(&self.latencies),
            token_us: Latency::of(&self.tokens),
        };
        let picture = self.last.map(|data| shape.picture(&data));
        Consumed { report, wrong: self.wrong, picture }
    }
}

impl ConsumerReport {
    /// Whether at least one frame was received, and all are right and none is lost.
    pub fn is_good(&self) -> bool {
        self.frames > 0 && self.verified == self.frames && self.lost == 0
    }
}
