//! The consumer: joins a session, receives frames, and releases them.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::options::JoinOptions;
use super::peer;
use super::producer_connection::{ProducerConnection, SessionEnd};
use super::ring::{Ring, check_timeline};
use super::work::{Deadline, monotonic};
use crate::error::{Error, Mismatch, Result};
use crate::fd::refuse_descriptors;
use crate::ipc::Receiver;
use crate::ipc::foreign::{self, Foreign};
use crate::ipc::payload::payload_of;
use crate::ipc::socket::{self, Direction, send_message};
use crate::ipc::wire::{FrameToken, Kind, Layouts, LeaveReason, Message, RingInfo, TimelinePoint};
use crate::payload::Payload;

/// Time between two attempts to connect to a producer that does not listen yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Interval at which a wait checks the work on frames that were dropped.
const WORK_INTERVAL: Duration = Duration::from_millis(1);

/// The side of a session that uses the ring.
///
/// Every wait has a timeout, and ends at once when the producer is gone. Dropping the consumer
/// leaves the session: the slots that it holds are released. Before that, it waits up to 5 seconds
/// for the [work](Frame::add_work) that was added to frames.
#[derive(Debug)]
pub struct Consumer {
    connection: Arc<ProducerConnection>,
    drops_frames: bool,
}

impl Consumer {
    /// Joins the session of the producer that listens at `path`.
    ///
    /// The caller imports the payloads of the ring. No frame arrives before [`ready`](Self::ready),
    /// so the import may take as long as the producer's
    /// [`join_timeout`](super::ProducerOptions::join_timeout).
    ///
    /// # Errors
    /// - [`Error::Missing`]: no process listens there, and `wait_for_producer` is off.
    /// - [`Error::Timeout`]: no producer accepted the connection, or the ring did not arrive, in
    ///   time.
    /// - [`Error::Closed`]: the producer refused this consumer, with the reason in the error, or it
    ///   is gone.
    /// - [`Error::Mismatch`]: the producer's user is not allowed (`peer.uid`), or the producer uses
    ///   another version of the format.
    /// - [`Error::Invalid`] and [`Error::Mismatch`]: the producer violated the protocol, or sent an
    ///   invalid payload; see [`Receiver::receive`].
    /// - [`Error::Driver`]: a system call failed.
    #[doc(alias = "connect")]
    pub fn join(path: impl AsRef<Path>, options: JoinOptions) -> Result<(Self, Ring)> {
        let path = path.as_ref();
        let deadline = Deadline::after(options.timeout);
        let socket = loop {
            let left = deadline.left();
            match (peer::connect(path, left.unwrap_or_default()), left) {
                (Err(Error::Missing(_)), Some(left)) if options.wait_for_producer => {
                    thread::sleep(RETRY_INTERVAL.min(left));
                }
                (Err(Error::Missing(_)), None) if options.wait_for_producer => {
                    return Err(deadline.error(format!("a producer at {}", path.display())));
                }
                (socket, _) => break socket?,
            }
        };
        Self::start(Foreign::new(socket), &options, deadline)
    }

    /// Joins over a connected socket, whose other end a producer [admits](super::Producer::admit).
    ///
    /// # Errors
    /// The errors of [`join`](Self::join).
    pub fn join_socket(socket: UnixStream, options: JoinOptions) -> Result<(Self, Ring)> {
        Self::start(Foreign::new(socket), &options, Deadline::after(options.timeout))
    }

    fn start(
        socket: Foreign<UnixStream>,
        options: &JoinOptions,
        deadline: Deadline,
    ) -> Result<(Self, Ring)> {
        foreign::wait_for_room(Some(deadline.left().unwrap_or_default()))?;
        options.allowed.check(peer::open(&socket)?)?;
        // A producer that has closed the socket may have sent the reason before.
        match send_message(&socket, &Message::Join { name: options.name.clone() }, None) {
            Ok(()) | Err(Error::Closed { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut joining = Joining { socket: &socket, receiver: Receiver::new(), deadline };
        let (info, ring) = joining.ring().inspect_err(|error| {
            let reason = LeaveReason::ProtocolError;
            peer::close(&socket, (!matches!(error, Error::Closed { .. })).then_some(reason));
        })?;
        let receiver = joining.receiver;
        // The producer sends no descriptors from now on.
        refuse_descriptors(socket.as_fd());
        let connection = Arc::new(ProducerConnection::new(socket, receiver, &info));
        Ok((Self { connection, drops_frames: info.drops_frames }, ring))
    }

    /// Asks the producer to send frames. The first [`next_frame`](Self::next_frame) does this too.
    ///
    /// # Errors
    /// [`Error::Closed`] if the session has ended.
    pub fn ready(&mut self) -> Result<()> {
        self.connection.ready()
    }

    /// Returns the next frame, in the order of publication.
    ///
    /// # Errors
    /// - [`Error::Timeout`]: none arrived in time, or, with a timeout of 0, none has arrived. The
    ///   session continues.
    /// - [`Error::Closed`]: the session has ended; see [`end`](Self::end). If the producer is done,
    ///   all its frames were returned before.
    /// - [`Error::Invalid`] and [`Error::Mismatch`]: the producer violated the protocol. The
    ///   session has ended.
    /// - [`Error::Driver`]: a system call failed.
    pub fn next_frame(&mut self, timeout: Duration) -> Result<Frame> {
        let deadline = Deadline::after(timeout);
        self.connection.ready()?;
        loop {
            if let Some(token) = self.connection.next()? {
                let connection = self.connection.clone();
                return Ok(Frame { token, connection, released: false });
            }
            let Some(left) = deadline.left() else {
                return Err(deadline.error("the arrival of a frame"));
            };
            // A dropped frame is released when the work on it is done.
            let dropped = self.connection.is_any_dropped();
            self.connection.wait(if dropped { left.min(WORK_INTERVAL) } else { left })?;
        }
    }

    /// Returns how the session ended, as far as other methods have noticed; `None` while it
    /// continues.
    pub fn end(&self) -> Option<SessionEnd> {
        self.connection.end()
    }

    /// Returns the number of frames that this consumer has missed because it held too many slots, by
    /// their sequence numbers, which are the producer's. Always 0 unless the producer
    /// [drops frames](Self::drops_frames).
    pub fn missed(&self) -> u64 {
        self.connection.missed()
    }

    /// Returns whether slow consumers miss frames
    /// ([`SlowConsumer::DropFrames`](super::SlowConsumer::DropFrames)).
    pub fn drops_frames(&self) -> bool {
        self.drops_frames
    }

    /// Returns the number of slots of the ring.
    pub fn slots(&self) -> usize {
        self.connection.slots()
    }

    /// Leaves the session. Frames that were not released count as released.
    pub fn leave(self) {}
}

impl AsFd for Consumer {
    /// Returns a descriptor that is readable when a frame has arrived or the session has ended. It
    /// does not reflect frames that other methods have already received: call
    /// [`next_frame`](Self::next_frame) until it times out before you wait for this descriptor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.socket().as_fd()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.connection.leave();
    }
}

/// A consumer that is receiving the ring.
struct Joining<'a> {
    socket: &'a UnixStream,
    receiver: Receiver,
    deadline: Deadline,
}

impl Joining<'_> {
    fn ring(&mut self) -> Result<(RingInfo, Ring)> {
        let info = match self.message()? {
            (Message::Ring(info), _) => info,
            (other, _) => return Err(unexpected(Kind::Ring.name(), &other)),
        };
        let mut ring = Ring::new(info.name.clone(), info.format.clone());
        for _ in 0..info.slots {
            match self.message()? {
                (message @ Message::Semaphore(_), _) => {
                    return Err(unexpected("the payload of a slot", &message));
                }
                (message, descriptor) => ring.slots.push(self.payload(message, descriptor)?),
            }
        }
        for _ in 0..info.semaphores {
            match self.message()? {
                (message @ Message::Semaphore(_), descriptor) => {
                    let semaphore = self.payload(message, descriptor)?.into_semaphore()?;
                    check_timeline(&semaphore)?;
                    ring.semaphores.push(semaphore);
                }
                (message, _) => return Err(unexpected(Kind::Semaphore.name(), &message)),
            }
        }
        Ok((info, ring))
    }

    fn payload(&self, message: Message, descriptor: Option<Foreign>) -> Result<Payload> {
        payload_of(message, descriptor, self.deadline.left().unwrap_or_default())
    }

    /// Returns the next message, within what is left of the timeout.
    fn message(&mut self) -> Result<(Message, Option<Foreign>)> {
        loop {
            match self.receiver.message(self.socket) {
                Ok((Message::Leave(reason), _)) => return Err(SessionEnd::of(reason).error()),
                Ok(message) => return Ok(message),
                Err(Error::Timeout { .. }) => {}
                Err(error) if peer::is_lost(&error) => return Err(SessionEnd::Lost.error()),
                Err(error) => return Err(error),
            }
            let Some(left) = self.deadline.left() else {
                return Err(self.deadline.error("the arrival of the ring"));
            };
            socket::wait(self.socket, Direction::Read, Some(left))?;
        }
    }
}

fn unexpected(expected: &str, found: &Message) -> Error {
    Mismatch::new("message kind", expected, found.kind().name())
        .help("the producer must send the ring, then its slots, then its semaphores")
        .into()
}

/// The duration of a wait for a semaphore, after which the session is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A slot that contains a frame. The producer does not write to it until it is released.
///
/// Dropping the frame also releases the slot, but does not report whether the frame was valid to
/// the end. If added [work](Self::add_work) is not done yet, a later call of
/// [`Consumer::next_frame`] releases the slot.
#[derive(Debug)]
#[must_use = "release the frame when all work on it is done; the producer runs out of slots otherwise"]
pub struct Frame {
    token: FrameToken,
    connection: Arc<ProducerConnection>,
    released: bool,
}

impl Frame {
    /// Returns the index of the slot, from 0. Its payload is the one at this index of
    /// [`Ring::slots`](super::Ring::slots).
    pub fn slot(&self) -> usize {
        self.token.slot as usize
    }

    /// Returns the sequence number of the frame in the session, starting at 1.
    pub fn sequence(&self) -> u64 {
        self.token.sequence
    }

    /// Returns the point to wait for before the slot is used, or `None` if the frame is complete.
    ///
    /// Wait on the host, for example with [`wait`](Self::wait). A producer that dies never signals;
    /// a wait that was submitted to the GPU would then never end.
    pub fn point(&self) -> Option<TimelinePoint> {
        self.token.point
    }

    /// Returns the layouts of the producer's release. The acquire of the slot's image must use the
    /// same two.
    pub fn layouts(&self) -> Option<Layouts> {
        self.token.layouts
    }

    /// Returns the number that the producer's application gave to the frame.
    pub fn tag(&self) -> u64 {
        self.token.tag
    }

    /// Returns the time since the frame was published.
    ///
    /// # References
    /// `CLOCK_MONOTONIC`, which all processes of a machine share unless they are in different time
    /// namespaces.
    pub fn age(&self) -> Duration {
        monotonic().saturating_sub(Duration::from_nanos(self.token.published))
    }

    /// Waits for the frame's [`point`](Self::point), if it has one, but not after the session has
    /// ended.
    ///
    /// `semaphore` waits on the host until the imported semaphore has the value, and returns
    /// [`Error::Timeout`] if it does not within the given time.
    ///
    /// # Errors
    /// - [`Error::Timeout`]: the value was not reached in time.
    /// - [`Error::Closed`]: the session has ended, and the frame is not valid.
    /// - Any other error that `semaphore` returns.
    pub fn wait(
        &self,
        timeout: Duration,
        mut semaphore: impl FnMut(TimelinePoint, Duration) -> Result<()>,
    ) -> Result<()> {
        let Some(point) = self.token.point else { return self.check() };
        let deadline = Deadline::after(timeout);
        loop {
            let left = deadline.left().unwrap_or_default();
            match semaphore(point, left.min(CHECK_INTERVAL)) {
                Err(Error::Timeout { .. }) => self.check()?,
                other => return other,
            }
            if deadline.left().is_none() {
                return Err(deadline.error("the completion of a frame"));
            }
        }
    }

    /// Adds submitted GPU work that uses the slot, as [described](super#work-on-the-gpu). The slot
    /// is not released before the work is done, even if the frame or the consumer is dropped.
    ///
    /// `wait` waits on the host for at most the given time (0: not at all), and returns
    /// [`Error::Timeout`] if the work is not done by then. It owns what the work uses, and must not
    /// use this session.
    pub fn add_work(&mut self, wait: impl FnMut(Duration) -> Result<()> + Send + 'static) {
        self.connection.add_work(&self.token, wait);
    }

    /// Checks that the frame is still valid, that is, that nothing read so far was overwritten.
    ///
    /// # Errors
    /// [`Error::Closed`] if the consumer was evicted, or the connection ended without *leave*. The
    /// producer may have written to the slot at any time; discard what was read.
    pub fn check(&self) -> Result<()> {
        self.connection.check()
    }

    /// Releases the slot, and checks that the frame was valid to the end.
    ///
    /// All use of the slot must have ended as seen *on the host*: if the GPU read it, wait for the
    /// fence first. This waits up to 5 seconds for added [work](Self::add_work). The producer
    /// writes to the slot once all consumers have released it.
    ///
    /// # Errors
    /// The errors of [`check`](Self::check); the slot is released nevertheless. [`Error::Timeout`]
    /// if added work is not done: the slot is released when it is, as if the frame had been
    /// dropped.
    pub fn release(mut self) -> Result<()> {
        self.released = true;
        self.connection.release(&self.token)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if !self.released {
            self.connection.drop_frame(&self.token);
        }
    }
}
