//! The producer: draws and publishes frames at the pace of the slowest consumer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gpu_interop::Error;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::error::counted;
use gpu_interop::session::{ConsumerId, Event, FrameInfo, LeaveKind, Producer, WritableSlot};
use serde::Serialize;

use super::frame::Shape;
use super::renderer::FrameRenderer;
use super::waiting::{CHECK_INTERVAL, EVICT_AFTER, Interrupt};

/// What to produce.
#[derive(Clone, Copy, Debug)]
pub struct Production {
    /// Number of frames.
    pub frames: u32,
    /// Number of consumers to wait for before the first frame.
    pub consumers: usize,
    /// How long to wait for them, and for a new one after all have left.
    pub wait: Duration,
    /// Maximum frames per second; `None` for as fast as the consumers release them.
    pub rate: Option<f64>,
    /// Whether other consumers can join. If not, there is no wait for a new one.
    pub others_can_join: bool,
}

/// What happens while frames are produced.
#[derive(Clone, Copy, Debug)]
pub enum Update<'a> {
    /// This many frames have been published.
    Published(u64),
    /// A consumer was lost. The text describes which one and how.
    Lost(&'a str),
}

/// The result of producing, as `--json` prints it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProducerReport {
    /// The API that drew.
    pub api: &'static str,
    /// Bytes of a frame.
    pub bytes: u64,
    /// Slots of the ring.
    pub slots: usize,
    /// How consumers wait for a frame to be drawn: `timeline` or `host_wait`.
    pub sync: &'static str,
    /// Frames published.
    pub frames: u64,
    /// Consumers that joined.
    pub joined: u64,
    /// Consumers that died, or violated the protocol.
    pub died: u64,
    /// Consumers that held a slot for too long.
    pub evicted: u64,
    /// Frames per second, until the consumers have released all frames.
    pub frames_per_s: f64,
    /// Bytes drawn in that time, in GB/s.
    pub gb_per_s: f64,
}

/// How long all consumers together may take to release the last frames.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Draws and publishes frames. Calls `update` at once with whatever happens.
///
/// # Errors
/// If no consumer joins, if all leave and no new one joins, or if a driver fails. An interruption
/// is not an error.
pub fn produce(
    mut producer: Producer,
    renderer: &mut FrameRenderer,
    shape: Shape,
    slots: usize,
    production: &Production,
    interrupt: &Interrupt,
    mut update: impl FnMut(Update<'_>),
) -> Result<ProducerReport> {
    let sync = match renderer.sync() {
        SyncMethod::Timeline => "timeline",
        _ => "host_wait",
    };
    let report =
        ProducerReport { api: "vulkan", bytes: shape.bytes(), slots, sync, ..Default::default() };
    let mut run = Run {
        producer: &mut producer,
        production,
        interrupt,
        report,
        update: &mut update,
        consumers: Vec::new(),
        lost: None,
    };
    let started = match run.wait_for_consumers(production.consumers)? {
        Go::On => Instant::now(),
        Go::Interrupted => return Ok(run.report),
    };
    run.frames(renderer, started)?;
    while let Some(event) = run.producer.poll(Duration::ZERO)? {
        run.note(event);
    }
    let mut report = run.report;
    let interrupted = interrupt.is_requested();
    let finished = producer.finish(FINISH_TIMEOUT);
    if !interrupted {
        finished.context("the last frames were not released")?;
    }
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    report.frames_per_s = report.frames as f64 / seconds;
    report.gb_per_s = report.frames_per_s * shape.bytes() as f64 / 1e9;
    Ok(report)
}

#[derive(PartialEq)]
enum Go {
    On,
    Interrupted,
}

struct Run<'a> {
    producer: &'a mut Producer,
    production: &'a Production,
    interrupt: &'a Interrupt,
    report: ProducerReport,
    update: &'a mut dyn FnMut(Update<'_>),
    /// The consumers that have joined, with their names and process IDs.
    consumers: Vec<(ConsumerId, String)>,
    /// How the last consumer was lost; `None` if it left, or another one has joined since.
    lost: Option<String>,
}

impl Run<'_> {
    /// Draws one frame after the other. If the host waits for them, the next one is drawn
    /// meanwhile.
    fn frames(&mut self, renderer: &mut FrameRenderer, started: Instant) -> Result<()> {
        let mut drawn: Option<(WritableSlot, u32)> = None;
        for frame in 0..self.production.frames {
            self.keep_pace(frame, started);
            let slot = match self.producer.free_slot(Duration::ZERO) {
                Ok(slot) => slot,
                Err(Error::Timeout { .. }) => {
                    // The consumers may be waiting for the frame that is drawn.
                    if let Some(drawn) = drawn.take() {
                        self.publish_drawn(renderer, drawn)?;
                    }
                    match self.free_slot()? {
                        Some(slot) => slot,
                        None => break,
                    }
                }
                Err(error) => return Err(error.into()),
            };
            let point = renderer.draw(slot.index(), frame)?;
            if point.is_some() {
                self.publish(slot, FrameInfo { point, tag: frame.into(), ..Default::default() })?;
            } else if let Some(before) = drawn.replace((slot, frame)) {
                self.publish_drawn(renderer, before)?;
            }
            (self.update)(Update::Published(self.report.frames));
            if self.events()? == Go::Interrupted {
                break;
            }
        }
        match drawn {
            Some(drawn) => self.publish_drawn(renderer, drawn),
            None => Ok(()),
        }
    }

    /// Publishes a frame that the host has to wait for.
    fn publish_drawn(
        &mut self,
        renderer: &mut FrameRenderer,
        (slot, frame): (WritableSlot, u32),
    ) -> Result<()> {
        renderer.wait(slot.index())?;
        self.publish(slot, FrameInfo { tag: frame.into(), ..Default::default() })
    }

    fn publish(&mut self, slot: WritableSlot, frame: FrameInfo) -> Result<()> {
        self.producer.publish(slot, frame)?;
        self.report.frames += 1;
        Ok(())
    }

    /// Sleeps until frame number `frame` is due.
    fn keep_pace(&self, frame: u32, started: Instant) {
        if let Some(rate) = self.production.rate {
            let due = Duration::from_secs_f64(f64::from(frame) / rate);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }

    /// Waits for a slot that all consumers have released; `None` if the user has requested the end.
    fn free_slot(&mut self) -> Result<Option<WritableSlot>> {
        let started = Instant::now();
        loop {
            match self.producer.free_slot(CHECK_INTERVAL) {
                Ok(slot) => return Ok(Some(slot)),
                Err(Error::Timeout { .. }) if self.interrupt.is_requested() => return Ok(None),
                // A consumer that holds a slot for too long is evicted long before this timeout.
                Err(Error::Timeout { .. }) if started.elapsed() < 4 * EVICT_AFTER => {}
                Err(error) => return Err(error).context("no slot is released"),
            }
        }
    }

    /// Counts the events of the session; if no consumer is left, waits for a new one.
    fn events(&mut self) -> Result<Go> {
        while let Some(event) = self.producer.poll(Duration::ZERO)? {
            self.note(event);
        }
        match self.producer.consumers() {
            0 => self.wait_for_consumers(1),
            _ if self.interrupt.is_requested() => Ok(Go::Interrupted),
            _ => Ok(Go::On),
        }
    }

    fn wait_for_consumers(&mut self, count: usize) -> Result<Go> {
        let started = Instant::now();
        while self.producer.consumers() < count {
            if self.interrupt.is_requested() {
                return Ok(Go::Interrupted);
            }
            let lost = self.lost.as_deref();
            if !self.production.others_can_join && (lost.is_some() || self.report.joined > 0) {
                bail!("{}", lost.unwrap_or("the consumer left"));
            }
            if started.elapsed() >= self.production.wait {
                let (there, wait) = (self.producer.consumers(), self.production.wait);
                let published = counted(self.report.frames, "frame");
                match lost {
                    Some(lost) => {
                        bail!("{lost}; no other joined within {wait:?} ({published} published)")
                    }
                    None => bail!(
                        "{there} of {} joined within {wait:?} ({published} published); start one with: \
                         share_consumer --socket PATH",
                        counted(count, "consumer")
                    ),
                }
            }
            if let Some(event) = self.producer.poll(CHECK_INTERVAL)? {
                self.note(event);
            }
        }
        Ok(Go::On)
    }

    /// Counts an event, and reports a consumer that was lost at once.
    fn note(&mut self, event: Event) {
        let report = &mut self.report;
        let lost = match event {
            Event::Joined { consumer, name, pid, .. } => {
                report.joined += 1;
                self.consumers.push((consumer, format!("{name} (process {pid})")));
                self.lost = None;
                return;
            }
            Event::Left { kind: LeaveKind::Leave, .. } => {
                self.lost = None;
                return;
            }
            Event::Left { consumer, kind, held } => {
                let how = match kind {
                    LeaveKind::Evicted { silent } => {
                        report.evicted += 1;
                        format!("was evicted, after it had released nothing for {silent:.1?}")
                    }
                    LeaveKind::ProtocolError(error) => {
                        report.died += 1;
                        format!("violated the protocol ({error})")
                    }
                    _ => {
                        report.died += 1;
                        "died".into()
                    }
                };
                let joined = self.consumers.iter().find(|(id, _)| *id == consumer);
                let name = joined.map_or(consumer.to_string(), |(_, name)| name.clone());
                format!("{name} {how} while it held {}", counted(held, "slot"))
            }
            Event::NotJoined { pid, error, .. } => format!("process {pid} did not join: {error}"),
            _ => return,
        };
        (self.update)(Update::Lost(&lost));
        self.lost = Some(lost);
    }
}
