//! The producer: announces a ring, publishes frames, and gets the slots back.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};

use super::consumer_connection::{ConsumerId, Event};
use super::consumers::{Consumers, Sent};
use super::options::{ProducerOptions, SlowConsumer};
use super::ring::{Ring, SlotTable, WritableSlot};
use super::work::{Deadline, monotonic};
use crate::error::{Error, Invalid, Result, counted};
use crate::ipc::wire::{FrameToken, Layouts, LeaveReason, TimelinePoint};
use crate::payload::Payload;

/// Interval at which a wait checks the producer's own work on a slot.
const WORK_INTERVAL: Duration = Duration::from_millis(1);

/// The description of a frame. The default is a complete frame in a buffer, with tag 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// The point that consumers must wait for; `None` if this process has already waited for the
    /// work.
    pub point: Option<TimelinePoint>,
    /// The layouts of the release to `VK_QUEUE_FAMILY_EXTERNAL`, if the slot is an image.
    pub layouts: Option<Layouts>,
    /// A number with a meaning of the application's own.
    pub tag: u64,
}

/// The result of publishing a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Sequence number of the frame in the session, starting at 1.
    pub sequence: u64,
    /// Number of consumers that got the frame.
    pub sent: usize,
    /// Number of consumers that missed it. 0 unless [`SlowConsumer::DropFrames`] is set, except for
    /// consumers [on probation](super#consumers-that-do-not-work).
    pub dropped: usize,
}

/// The side of a session that has the ring and fills it.
///
/// A producer does all its work within its methods. Consumers are not served
/// between calls: call [`poll`](Self::poll) regularly if you call nothing else. The producer's
/// descriptor ([`AsFd`]) is readable when there is something to do.
///
/// Dropping the producer ends the session with [`SessionEnd::Done`](super::SessionEnd::Done),
/// removes the socket's file, and waits up to 5 seconds for the [work](WritableSlot::add_work)
/// added to slots.
#[derive(Debug)]
pub struct Producer {
    consumers: Consumers,
    options: ProducerOptions,
    slots: SlotTable,
    /// Sequence number of the last frame.
    sequence: u64,
    /// The last published value of each semaphore.
    values: Vec<u64>,
    /// Whether `poll` has returned an event since it last returned `None`.
    is_polled: bool,
}

impl Producer {
    /// Announces `ring` at `path`, to which only processes of the same user can connect.
    ///
    /// The socket's file gets mode 0600. An existing socket's file at which no process listens is
    /// replaced; any other file is left alone. The file is removed when the producer is dropped.
    /// While this runs, a lock on a file beside the socket, with the suffix `.lock`, keeps other
    /// producers of the same user from binding to the same path.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: an invalid ring or invalid options, or a path that
    ///   is too long (more than 107 bytes), belongs to another producer, or is not a socket.
    /// - [`Error::Driver`]: a system call failed.
    #[doc(alias = "listen")]
    pub fn bind(path: impl AsRef<Path>, ring: Ring, options: ProducerOptions) -> Result<Self> {
        Self::new(Some(path.as_ref()), ring, options)
    }

    /// Announces `ring` only to the peers of sockets that are passed to [`admit`](Self::admit).
    ///
    /// # Errors
    /// The errors of [`bind`](Self::bind), except for those of the path.
    pub fn unbound(ring: Ring, options: ProducerOptions) -> Result<Self> {
        Self::new(None, ring, options)
    }

    fn new(path: Option<&Path>, ring: Ring, options: ProducerOptions) -> Result<Self> {
        options.check()?;
        let slots = SlotTable::new(ring.slots.len());
        let values = vec![0; ring.semaphores.len()];
        let info = ring.info(options.slow_consumer != SlowConsumer::Wait)?;
        ring.slots.iter().for_each(seal);
        let consumers = Consumers::new(path, ring, info)?;
        Ok(Self { consumers, options, slots, sequence: 0, values, is_polled: false })
    }

    /// Adds a connected socket of a consumer. Its peer is checked as if it had connected to the
    /// producer's path.
    ///
    /// # Errors
    /// - [`Error::Mismatch`]: the peer's user may not join (`peer.uid`).
    /// - [`Error::Timeout`]: the process was disconnected recently and has to wait before it joins
    ///   again.
    /// - [`Error::Driver`]: a system call failed.
    pub fn admit(&mut self, socket: UnixStream) -> Result<()> {
        self.consumers.admit(socket, &self.options)
    }

    /// Returns the absolute path at which the producer listens, or `None` if it does not listen.
    pub fn path(&self) -> Option<&Path> {
        self.consumers.path()
    }

    /// Returns the number of consumers that are ready.
    pub fn consumers(&self) -> usize {
        self.consumers.ready()
    }

    /// Handles what is pending and returns the next event, or `None` after the timeout.
    ///
    /// With a timeout of 0, a loop that calls this until it returns `None` ends soon even if processes
    /// connect all the time: it gets the events that were there at its start, and continues with the
    /// next call.
    ///
    /// # Errors
    /// [`Error::Driver`] if a system call failed that affects more than one consumer.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Event>> {
        // Events that are there come first. Processes that connect all the time cause new ones all the
        // time, so with a timeout of 0 the last one that was there is followed by `None`.
        if let Some(event) = self.consumers.events.pop() {
            self.is_polled = true;
            return Ok(Some(event));
        }
        if std::mem::take(&mut self.is_polled) && timeout.is_zero() {
            self.progress()?;
            self.consumers.announce_events()?;
            return Ok(None);
        }
        let event = self.until(timeout, |this| this.consumers.events.pop())?;
        self.is_polled = event.is_some();
        Ok(event)
    }

    /// Waits until `count` consumers are ready.
    ///
    /// # Errors
    /// [`Error::Timeout`] if they are not ready in time, and the errors of
    /// [`poll`](Self::poll).
    pub fn wait_for_consumers(&mut self, count: usize, timeout: Duration) -> Result<()> {
        self.until(timeout, |this| (this.consumers() >= count).then_some(()))?.ok_or_else(|| {
            let ready = self.consumers();
            let what =
                format!("the joining of {} ({ready} joined)", counted(count, "consumer")).into();
            Error::Timeout { what, waited: timeout }
        })
    }

    /// Returns the slot that has been free for longest. Waits for one if no slot is free; a timeout
    /// of 0 never waits.
    ///
    /// Consumers that hold slots and have released none for
    /// [`evict_after`](ProducerOptions::evict_after) are evicted, which [`poll`](Self::poll)
    /// reports.
    ///
    /// # Errors
    /// [`Error::Timeout`] if all slots are held by consumers or the caller, or are in use by
    /// [work](WritableSlot::add_work) that is not done; and the errors of [`poll`](Self::poll).
    pub fn free_slot(&mut self, timeout: Duration) -> Result<WritableSlot> {
        let deadline = Deadline::after(timeout);
        loop {
            self.progress()?;
            if let Some(slot) = self.slots.take() {
                return Ok(slot);
            }
            // The producer's own work must not cause the eviction of a consumer.
            let evict_after = self.options.evict_after;
            let in_work = self.slots.is_any_in_work();
            if !in_work && self.consumers.evict_silent(evict_after, &mut self.slots) {
                continue;
            }
            let Some(left) = deadline.left() else {
                return Err(deadline.error(match in_work {
                    true => "the end of the producer's own work on a free slot",
                    false => "the release of a slot of the ring",
                }));
            };
            let until = match in_work {
                true => Some(WORK_INTERVAL),
                false => self.consumers.until_silent(evict_after),
            };
            let left = until.map_or(left, |until| left.min(until));
            self.consumers.wait(left, &self.options)?;
        }
    }

    /// Sends a slot to all consumers that are ready, as the next frame. Never waits.
    ///
    /// Without a [`point`](FrameInfo::point), this process must have waited on the host for all
    /// work on the slot. If no consumer gets the slot, it is free again.
    ///
    /// # Errors
    /// After an error the frame is not published, and the slot is free again.
    /// - [`Error::Mismatch`]: the slot belongs to another producer.
    /// - [`Error::Invalid`]: the ring has no such semaphore, or the value is less than the
    ///   semaphore's last one; or there is no point, and [work](WritableSlot::add_work) on the slot
    ///   is not done.
    /// - The errors of [`poll`](Self::poll).
    pub fn publish(&mut self, slot: WritableSlot, frame: FrameInfo) -> Result<Published> {
        self.slots.check_own(&slot)?;
        self.progress()?;
        if frame.point.is_none() && !slot.is_done() {
            return Err(Invalid::new("frame.point", "is absent, but work on the slot is not done")
                .help("wait for the work on the host, or publish a value of a timeline semaphore")
                .into());
        }
        self.check_point(frame.point)?;
        self.sequence += 1;
        let token = FrameToken {
            slot: slot.index() as u32,
            sequence: self.sequence,
            point: frame.point,
            layouts: frame.layouts,
            published: monotonic().as_nanos().try_into().unwrap_or(u64::MAX),
            tag: frame.tag,
        };
        let Sent { sent, dropped, gone, lost } =
            self.consumers.send(&token, self.options.max_held());
        self.slots.sent(&slot, sent);
        // Only after this slot was recorded as sent: the lost consumers may hold other slots.
        for (id, disconnect) in lost {
            self.consumers.end(id, disconnect, &mut self.slots);
        }
        for id in gone {
            self.consumers.end_gone(id, &mut self.slots);
        }
        // Ends the connections that were found closed while the frame was sent.
        self.progress()?;
        Ok(Published { sequence: self.sequence, sent, dropped })
    }

    fn check_point(&mut self, point: Option<TimelinePoint>) -> Result<()> {
        let Some(TimelinePoint { semaphore, value }) = point else { return Ok(()) };
        let count = self.values.len();
        let Some(last) = self.values.get_mut(semaphore as usize) else {
            let problem =
                format!("is {semaphore}, but the ring has {}", counted(count, "semaphore"));
            return Err(Invalid::new("frame.point.semaphore", problem).into());
        };
        if value < *last {
            let problem = format!("is {value}, but an earlier frame's was {last}");
            return Err(Invalid::new("frame.point.value", problem)
                .help("the value of a timeline semaphore only increases")
                .into());
        }
        *last = value;
        Ok(())
    }

    /// Ends the session for one consumer and frees its slots. Returns whether it was connected.
    pub fn evict(&mut self, consumer: ConsumerId) -> bool {
        self.consumers.evict(consumer, &mut self.slots)
    }

    /// Accepts no more consumers, waits until all slots have been released, and ends the session.
    ///
    /// Consumers that hold slots and have released none for
    /// [`evict_after`](ProducerOptions::evict_after) are evicted, so that they delay no other consumer.
    ///
    /// # Errors
    /// [`Error::Timeout`] if slots were not released in time. The session ends
    /// nevertheless, and the frames that consumers hold stay valid. Also the errors of
    /// [`poll`](Self::poll).
    pub fn finish(mut self, timeout: Duration) -> Result<()> {
        self.consumers.stop_listening();
        let (deadline, evict_after) = (Deadline::after(timeout), self.options.evict_after);
        loop {
            self.progress()?;
            if !self.slots.is_any_sent() {
                return Ok(());
            }
            if self.consumers.evict_silent(evict_after, &mut self.slots) {
                continue;
            }
            let Some(left) = deadline.left() else {
                return Err(deadline.error("the release of all slots of the ring"));
            };
            let until = self.consumers.until_silent(evict_after);
            self.consumers.wait(until.map_or(left, |until| left.min(until)), &self.options)?;
        }
    }

    /// Makes progress until `done` returns a value; `None` after `timeout`.
    fn until<T>(
        &mut self,
        timeout: Duration,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>> {
        let deadline = Deadline::after(timeout);
        loop {
            self.progress()?;
            if let Some(value) = done(self) {
                return Ok(Some(value));
            }
            let Some(left) = deadline.left() else { return Ok(None) };
            self.consumers.wait(left, &self.options)?;
        }
    }

    fn progress(&mut self) -> Result<()> {
        self.consumers.progress(&mut self.slots, &self.options)
    }
}

/// Seals memory that is a memfd against shrinking, and against further seals: a consumer could
/// otherwise seal it against writing, and then no other consumer could import it.
fn seal(slot: &Payload) {
    if fcntl_get_seals(slot).is_ok_and(|seals| !seals.contains(SealFlags::SEAL))
        && let Err(error) = fcntl_add_seals(slot, SealFlags::SHRINK | SealFlags::SEAL)
    {
        tracing::debug!(%error, "a consumer can add seals to the memory of a slot");
    }
}

impl AsFd for Producer {
    /// Returns a descriptor that is readable when [`poll`](Self::poll) has something to do. It does
    /// not reflect events that other methods have already seen: call `poll` until it returns `None`
    /// before you wait for this descriptor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.consumers.as_fd()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.consumers.end_all(LeaveReason::Done);
    }
}
