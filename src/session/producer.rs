//! The producer: announces a ring, hands frames out, takes slots back.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::clock;
use super::consumer_connection::Over;
use super::consumers::Consumers;
use super::event::{ConsumerId, Event, Left};
use super::options::{Pace, ProducerOptions};
use super::ring::Ring;
use super::slot_table::{Slot, SlotTable};
use crate::error::{Error, Invalid, Result};
use crate::ipc::wire::{FrameToken, Layouts, LeaveReason, TimelinePoint};

/// What is said of a frame. The default: it is complete, and a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// What the consumers have to wait for; `None` where the producer's host has seen its work done.
    pub point: Option<TimelinePoint>,
    /// The layouts of the release to `VK_QUEUE_FAMILY_EXTERNAL`, where the slot is an image.
    pub layouts: Option<Layouts>,
    /// The app's own.
    pub tag: u64,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The how manieth frame of the session it is, from 1.
    pub sequence: u64,
    /// How many consumers have it.
    pub sent: usize,
    /// How many were left out, which only happens with [`Pace::DropFrames`].
    pub left_out: usize,
}

/// The end of a session that has the ring.
///
/// Everything happens in the calls of one thread. A producer that is not called answers nobody: call
/// [`poll`](Self::poll) where nothing else is called for long. Its descriptor ([`AsFd`]) is readable
/// when there is something to do.
///
/// Dropping it tells the consumers that the session is done, and removes the socket's file.
#[derive(Debug)]
pub struct Producer {
    consumers: Consumers,
    options: ProducerOptions,
    ledger: SlotTable,
    /// The last frame's number.
    sequence: u64,
    /// The last value of each semaphore.
    values: Vec<u64>,
}

impl Producer {
    /// Announces `ring` at `path`, where consumers of the own user can connect.
    ///
    /// The file is made with mode 0600. One that is there already is taken over where it is a socket at
    /// which nobody listens any more; any other is left alone. It is removed when the producer is
    /// dropped. Producers in one directory bind one after the other, by a lock (`flock`) on it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a ring that is none, wrong options, a path that is no socket's, is too
    /// long (107 bytes), or is another producer's; [`Error::Driver`] where the kernel refuses.
    pub fn bind(path: impl AsRef<Path>, ring: Ring, options: ProducerOptions) -> Result<Self> {
        Self::new(Some(path.as_ref()), ring, options)
    }

    /// Announces `ring` to those whose sockets are [admitted](Self::admit), and to nobody else.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), less those of the path.
    pub fn unbound(ring: Ring, options: ProducerOptions) -> Result<Self> {
        Self::new(None, ring, options)
    }

    fn new(path: Option<&Path>, ring: Ring, options: ProducerOptions) -> Result<Self> {
        options.check()?;
        let ledger = SlotTable::new(ring.slots.len());
        let values = vec![0; ring.semaphores.len()];
        let info = ring.info(options.pace != Pace::EveryFrame)?;
        let consumers = Consumers::new(path, ring, info)?;
        Ok(Self { consumers, options, ledger, sequence: 0, values })
    }

    /// Takes a connected socket as a consumer's. Its process is asked for as one that connects is.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a process of a user that may not join, [`Error::Invalid`] where there
    /// are as many consumers as may be, [`Error::Driver`] where the kernel refuses.
    pub fn admit(&mut self, socket: UnixStream) -> Result<()> {
        self.consumers.admit(socket, &self.options)
    }

    /// Where it listens, as an absolute path; `None` for one that is not bound.
    pub fn path(&self) -> Option<&Path> {
        self.consumers.path()
    }

    /// How many consumers are ready.
    pub fn consumers(&self) -> usize {
        self.consumers.ready()
    }

    /// Does what there is to do, and returns the next event; `None` where none comes in time.
    ///
    /// # Errors
    /// [`Error::Driver`] where the kernel refuses what has nothing to do with one consumer.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let started = Instant::now();
        loop {
            self.turn()?;
            if let Some(event) = self.consumers.events.pop() {
                return Ok(Some(event));
            }
            let Some(left) = left(timeout, started) else { return Ok(None) };
            self.consumers.wait(left, &self.options)?;
        }
    }

    /// Waits until `count` consumers are ready.
    ///
    /// # Errors
    /// [`Error::Timeout`] where they are not in time, [`Error::Driver`] as [`poll`](Self::poll).
    pub fn wait_for_consumers(&mut self, count: usize, timeout: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            self.turn()?;
            let ready = self.consumers();
            if ready >= count {
                return Ok(());
            }
            let Some(left) = left(timeout, started) else {
                let what = format!("the joining of {count} consumers ({ready} have)");
                return Err(Error::Timeout { what: what.into(), waited: timeout });
            };
            self.consumers.wait(left, &self.options)?;
        }
    }

    /// A slot that nobody has: the one that has been free for longest.
    ///
    /// Where there is none it waits for one (backpressure); with a timeout of 0 it says so at once.
    /// Consumers that have slots and have given none back for [`patience`](ProducerOptions::patience)
    /// are evicted, and [`poll`](Self::poll) tells of it.
    ///
    /// # Errors
    /// [`Error::Timeout`]: all slots are with consumers, or with the caller. [`Error::Driver`] as
    /// [`poll`](Self::poll).
    pub fn free_slot(&mut self, timeout: Duration) -> Result<Slot> {
        let started = Instant::now();
        loop {
            self.turn()?;
            if let Some(slot) = self.ledger.take() {
                return Ok(slot);
            }
            if self.consumers.evict_silent(self.options.patience, &mut self.ledger) {
                continue;
            }
            let Some(left) = left(timeout, started) else {
                let what = "the return of a slot of the ring".into();
                return Err(Error::Timeout { what, waited: started.elapsed() });
            };
            let patience = self.consumers.until_silent(self.options.patience);
            self.consumers
                .wait(patience.map_or(left, |patience| left.min(patience)), &self.options)?;
        }
    }

    /// Gives a slot to every consumer that is ready, as the next frame. Never waits.
    ///
    /// Without a [`point`](FrameInfo::point) all work on the slot is done, as this process's host has
    /// seen it. Where no consumer takes it the slot is free again.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a slot of another session, [`Error::Invalid`] for a semaphore that the
    /// ring does not have and a value less than its last; the slot is free again, its frame is not
    /// published. [`Error::Driver`] as [`poll`](Self::poll).
    pub fn publish(&mut self, slot: Slot, frame: FrameInfo) -> Result<Published> {
        self.ledger.check_own(&slot)?;
        self.turn()?;
        self.check_point(frame.point)?;
        self.sequence += 1;
        let token = FrameToken {
            slot: slot.index() as u32,
            sequence: self.sequence,
            point: frame.point,
            layouts: frame.layouts,
            published: clock::nanoseconds(),
            tag: frame.tag,
        };
        let most = match self.options.pace {
            Pace::EveryFrame => usize::MAX,
            Pace::DropFrames { held } => held,
        };
        let (sent, left_out, lost) = self.consumers.send(&token, most);
        self.ledger.sent(&slot, sent);
        // Only now: those that are lost may have other slots.
        for (id, over) in lost {
            self.consumers.end(id, over, &mut self.ledger);
        }
        // Those that were gone when it was sent.
        self.turn()?;
        Ok(Published { sequence: self.sequence, sent, left_out })
    }

    fn check_point(&mut self, point: Option<TimelinePoint>) -> Result<()> {
        let Some(TimelinePoint { semaphore, value }) = point else { return Ok(()) };
        let count = self.values.len();
        let Some(last) = self.values.get_mut(semaphore as usize) else {
            let problem = format!("is {semaphore}, but the ring has {count} semaphores");
            return Err(Invalid::new("frame.point.semaphore", problem).into());
        };
        if value < *last {
            let problem = format!("is {value}, but an earlier frame's was {last}");
            return Err(Invalid::new("frame.point.value", problem)
                .help("the values of a timeline semaphore grow")
                .into());
        }
        *last = value;
        Ok(())
    }

    /// Ends a consumer's part in the session; whether it had one. What it has is free at once.
    pub fn evict(&mut self, consumer: ConsumerId) -> bool {
        self.consumers.evict(consumer, &mut self.ledger)
    }

    /// Takes no more consumers, waits until the others have given back all they have, and tells them
    /// that the session is done.
    ///
    /// # Errors
    /// [`Error::Timeout`] where some had not given back in time: they are told all the same, and what
    /// they have stays good. [`Error::Driver`] as [`poll`](Self::poll).
    pub fn finish(mut self, timeout: Duration) -> Result<()> {
        self.consumers.stop_listening();
        let started = Instant::now();
        loop {
            self.turn()?;
            if !self.ledger.is_any_sent() {
                return Ok(());
            }
            let Some(left) = left(timeout, started) else {
                let what = "the return of all slots of the ring".into();
                return Err(Error::Timeout { what, waited: timeout });
            };
            self.consumers.wait(left, &self.options)?;
        }
    }

    /// Does what can be done without waiting.
    fn turn(&mut self) -> Result<()> {
        self.consumers.turn(&mut self.ledger, &self.options)
    }
}

impl AsFd for Producer {
    /// Readable when [`poll`](Self::poll) has something to do. Events that other calls have seen are
    /// not counted: poll until it returns `None` before waiting for this.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.consumers.as_fd()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.consumers.end_all(LeaveReason::Done);
    }
}

/// What is left of a wait; `None` where it is over.
pub(super) fn left(timeout: Duration, started: Instant) -> Option<Duration> {
    timeout.checked_sub(started.elapsed()).filter(|left| !left.is_zero())
}

impl Left {
    /// What the consumer is told.
    pub(super) fn reason(&self) -> Option<LeaveReason> {
        match self {
            Self::Leave | Self::Died => None,
            Self::Evicted { .. } => Some(LeaveReason::Evicted),
            Self::Broke(_) => Some(LeaveReason::Broke),
        }
    }
}

impl Over {
    /// What the consumer is told.
    pub(super) fn reason(&self) -> Option<LeaveReason> {
        match self {
            Self::Left(left) => left.reason(),
            Self::NotJoined(Error::Closed { .. }) | Self::Nothing => None,
            Self::NotJoined(Error::Timeout { .. }) => Some(LeaveReason::Evicted),
            Self::NotJoined(_) => Some(LeaveReason::Broke),
        }
    }
}
