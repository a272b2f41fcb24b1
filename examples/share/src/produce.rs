//! The producer: draws and publishes frames at the pace of the slowest consumer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gpu_interop::Error;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::session::{Event, FrameInfo, LeaveKind, Producer, ProducerOptions, WritableSlot};
use serde::Serialize;

use super::frame::Shape;
use super::interrupt::Interrupt;
use super::renderer::FrameRenderer;

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

/// How long a consumer may keep a slot that the producer waits for: longer than any check takes, even on a
/// busy CPU.
const CONSUMERS_PATIENCE: Duration = Duration::from_secs(5);

/// How long a consumer may take to open its API and compile its kernels.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long all consumers together may take to release the last frames.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval at which a wait checks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(100);

/// The timeouts that both demos use.
pub fn session_options() -> ProducerOptions {
    ProducerOptions {
        evict_after: CONSUMERS_PATIENCE,
        join_timeout: JOIN_TIMEOUT,
        ..ProducerOptions::default()
    }
}

/// Draws and publishes frames. Calls `progress` with the number of frames published.
///
/// # Errors
/// If no consumer joins, if all leave and no new one joins, or if a driver fails. An interruption is not an
/// error.
pub fn produce(
    mut producer: Producer,
    drawer: &mut FrameRenderer,
    shape: Shape,
    slots: usize,
    production: &Production,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<ProducerReport> {
    let sync = match drawer.sync() {
        SyncMethod::Timeline => "timeline",
        _ => "host_wait",
    };
    let report =
        ProducerReport { api: "vulkan", bytes: shape.bytes(), slots, sync, ..Default::default() };
    let mut run = Run { producer: &mut producer, production, interrupt, report };
    let started = match run.wait_for_consumers(production.consumers)? {
        Go::On => Instant::now(),
        Go::Interrupted => return Ok(run.report),
    };
    run.frames(drawer, started, &mut progress)?;
    let mut report = run.report;
    let interrupted = interrupt.is_requested();
    let finished = finish(producer, &mut report);
    if !interrupted {
        finished.context("the last frames were not released")?;
    }
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    report.frames_per_s = report.frames as f64 / seconds;
    report.gb_per_s = report.frames_per_s * shape.bytes() as f64 / 1e9;
    Ok(report)
}

fn finish(mut producer: Producer, report: &mut ProducerReport) -> Result<()> {
    while let Some(event) = producer.poll(Duration::ZERO)? {
        report.note(&event);
    }
    Ok(producer.finish(FINISH_TIMEOUT)?)
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
}

impl Run<'_> {
    /// Draws one frame after the other. If the host waits for them, the next one is drawn meanwhile.
    fn frames(
        &mut self,
        drawer: &mut FrameRenderer,
        started: Instant,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut drawn: Option<(WritableSlot, u32)> = None;
        for frame in 0..self.production.frames {
            self.keep_pace(frame, started);
            let slot = match self.producer.free_slot(Duration::ZERO) {
                Ok(slot) => slot,
                Err(Error::Timeout { .. }) => {
                    // The consumers may be waiting for the frame that is drawn.
                    if let Some(drawn) = drawn.take() {
                        self.publish_drawn(drawer, drawn)?;
                    }
                    match self.free_slot()? {
                        Some(slot) => slot,
                        None => break,
                    }
                }
                Err(error) => return Err(error.into()),
            };
            let point = drawer.draw(slot.index(), frame)?;
            if point.is_some() {
                self.publish(slot, FrameInfo { point, tag: frame.into(), ..Default::default() })?;
            } else if let Some(before) = drawn.replace((slot, frame)) {
                self.publish_drawn(drawer, before)?;
            }
            progress(self.report.frames);
            if self.events()? == Go::Interrupted {
                break;
            }
        }
        match drawn {
            Some(drawn) => self.publish_drawn(drawer, drawn),
            None => Ok(()),
        }
    }

    /// Publishes a frame that the host has to wait for.
    fn publish_drawn(
        &mut self,
        drawer: &mut FrameRenderer,
        (slot, frame): (WritableSlot, u32),
    ) -> Result<()> {
        drawer.wait(slot.index())?;
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
            match self.producer.free_slot(LOOK) {
                Ok(slot) => return Ok(Some(slot)),
                Err(Error::Timeout { .. }) if self.interrupt.is_requested() => return Ok(None),
                // A consumer that holds a slot for too long is evicted long before this timeout.
                Err(Error::Timeout { .. }) if started.elapsed() < 4 * CONSUMERS_PATIENCE => {}
                Err(error) => return Err(error).context("no slot is released"),
            }
        }
    }

    /// Counts the events of the session; if no consumer is left, waits for a new one.
    fn events(&mut self) -> Result<Go> {
        while let Some(event) = self.producer.poll(Duration::ZERO)? {
            self.report.note(&event);
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
            if started.elapsed() >= self.production.wait {
                let (there, wait) = (self.producer.consumers(), self.production.wait);
                let published = self.report.frames;
                bail!(
                    "only {there} of {count} consumers after {wait:?}, with {published} frames published; start \
                     one with: share_consumer --socket PATH"
                );
            }
            if let Some(event) = self.producer.poll(LOOK)? {
                self.report.note(&event);
            }
        }
        Ok(Go::On)
    }
}

impl ProducerReport {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Joined { .. } => self.joined += 1,
            Event::Left { kind: LeaveKind::Died | LeaveKind::ProtocolError(_), .. } => {
                self.died += 1
            }
            Event::Left { kind: LeaveKind::Evicted { .. }, .. } => self.evicted += 1,
            _ => {}
        }
    }
}
