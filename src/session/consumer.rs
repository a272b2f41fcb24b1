//! The consumer: joins, takes frames, gives them back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::address;
use super::connection::{Connection, End, end_of};
use super::consumer_connection::say_leave;
use super::credentials::Credentials;
use super::frame::Frame;
use super::options::JoinOptions;
use super::producer::left;
use super::ring::{Ring, SlotPayload, check_timeline};
use crate::error::{Error, Invalid, Mismatch, Result};
use crate::ipc::receiver::received;
use crate::ipc::wire::{Kind, LeaveReason, Message, RingInfo};
use crate::ipc::{Receiver, send_message, socket};

/// How long between two looks for a producer that does not listen yet.
const LOOK: Duration = Duration::from_millis(5);

/// The end of a session that uses the ring.
///
/// Every wait has a timeout, and ends at once when the producer is gone. Dropping the consumer leaves
/// the session: the producer takes what the consumer had as given back.
#[derive(Debug)]
pub struct Consumer {
    connection: Arc<Connection>,
    leaves_out: bool,
}

impl Consumer {
    /// Joins the session of the producer that listens at `path`.
    ///
    /// The ring's payloads are the caller's, to be imported. Until [`ready`](Self::ready) there are no
    /// frames, so that the import may take as long as the producer's `join_timeout`.
    ///
    /// # Errors
    /// - [`Error::Missing`]: nobody listens there (and `wait_for_producer` is off).
    /// - [`Error::Timeout`]: no producer, or no whole ring, in time.
    /// - [`Error::Closed`]: the producer refused this consumer, and says why, or is gone.
    /// - [`Error::Mismatch`]: the producer's user is not allowed (`peer.uid`), or it speaks another
    ///   version.
    /// - [`Error::Invalid`] and [`Error::Mismatch`]: what it sent makes no sense, or a payload is none,
    ///   as [`Receiver::receive`] tells.
    /// - [`Error::Driver`]: the kernel refused.
    #[doc(alias = "connect")]
    pub fn join(path: impl AsRef<Path>, options: JoinOptions) -> Result<(Self, Ring)> {
        let (path, started) = (path.as_ref(), Instant::now());
        let socket = loop {
            let remains = left(options.timeout, started).unwrap_or_default();
            match address::connect(path, remains) {
                Err(Error::Missing(_)) if options.wait_for_producer => {
                    if remains.is_zero() {
                        let what = format!("the start of a producer at {}", path.display());
                        return Err(Error::Timeout { what: what.into(), waited: options.timeout });
                    }
                    thread::sleep(LOOK.min(remains));
                }
                other => break other?,
            }
        };
        Self::start(socket, &options, started)
    }

    /// Joins over a connected socket, which a producer [admits](super::Producer::admit).
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn over(socket: UnixStream, options: JoinOptions) -> Result<(Self, Ring)> {
        Self::start(socket, &options, Instant::now())
    }

    fn start(socket: UnixStream, options: &JoinOptions, started: Instant) -> Result<(Self, Ring)> {
        let nonblocking = socket.set_nonblocking(true);
        nonblocking.map_err(|error| Error::io("ioctl(FIONBIO)", &error))?;
        options.allowed.check(Credentials::of_peer(socket.as_fd())?)?;
        // Where the producer is gone already, what it said before tells why.
        match send_message(&socket, &Message::Join { name: options.name.clone() }, None) {
            Ok(()) | Err(Error::Closed { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut joining = Joining { socket: &socket, receiver: Receiver::new(), options, started };
        let (info, ring) = joining.ring().inspect_err(|error| {
            if !matches!(error, Error::Closed { .. }) {
                say_leave(&socket, LeaveReason::Broke);
            }
        })?;
        let receiver = joining.receiver;
        let connection = Arc::new(Connection::new(socket, receiver, &info));
        Ok((Self { connection, leaves_out: info.leaves_out }, ring))
    }

    /// Tells the producer that frames may come. The first [`next_frame`](Self::next_frame) does so too.
    ///
    /// # Errors
    /// [`Error::Closed`] where the session has ended.
    pub fn ready(&mut self) -> Result<()> {
        self.connection.ready()
    }

    /// The next frame, in the order in which they were published.
    ///
    /// # Errors
    /// - [`Error::Timeout`]: none has come in time; with a timeout of 0, none is there. The session goes
    ///   on.
    /// - [`Error::Closed`]: the session has ended, and [`end`](Self::end) tells how. Where the producer
    ///   is done, all frames that it had published came before.
    /// - [`Error::Invalid`] and [`Error::Mismatch`]: the producer said what makes no sense; the session
    ///   has ended.
    /// - [`Error::Driver`]: the kernel refused.
    pub fn next_frame(&mut self, timeout: Duration) -> Result<Frame> {
        let started = Instant::now();
        self.connection.ready()?;
        loop {
            if let Some(token) = self.connection.next()? {
                return Ok(Frame::new(token, self.connection.clone()));
            }
            let Some(left) = left(timeout, started) else {
                let waited = started.elapsed().min(timeout);
                return Err(Error::Timeout { what: "the arrival of a frame".into(), waited });
            };
            self.connection.wait(left)?;
        }
    }

    /// How the session ended, as far as other calls have noticed; `None` where it goes on.
    pub fn end(&self) -> Option<End> {
        self.connection.end()
    }

    /// How many frames the producer has left out between others, because this consumer had too many
    /// slots. Always 0 where the producer does not do that.
    pub fn missed(&self) -> u64 {
        self.connection.missed()
    }

    /// Whether the producer leaves slow consumers out of frames
    /// ([`Pace::DropFrames`](super::Pace::DropFrames)).
    pub fn leaves_out(&self) -> bool {
        self.leaves_out
    }

    /// How many slots the ring has.
    pub fn slots(&self) -> usize {
        self.connection.slots()
    }

    /// Leaves the session. Frames that were not released count as given back.
    pub fn leave(self) {}
}

impl AsFd for Consumer {
    /// Readable when a frame has arrived, or the session has ended. Frames that other calls have taken
    /// in are not counted: take all there are before waiting for this.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.socket().as_fd()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.connection.leave();
    }
}

/// A consumer that is being sent the ring.
struct Joining<'a> {
    socket: &'a UnixStream,
    receiver: Receiver,
    options: &'a JoinOptions,
    started: Instant,
}

impl Joining<'_> {
    fn ring(&mut self) -> Result<(RingInfo, Ring)> {
        let info = match self.message()? {
            (Message::Ring(info), _) => info,
            (other, _) => {
                let found = other.kind().name();
                return Err(Mismatch::new("message kind", Kind::Ring.name(), found).into());
            }
        };
        let mut ring = Ring::new(info.name.clone(), info.format.clone());
        for _ in 0..info.slots {
            let (message, descriptor) = self.message()?;
            ring.slots.push(SlotPayload::try_from(received(message, descriptor)?)?);
        }
        for _ in 0..info.semaphores {
            let (message, descriptor) = self.message()?;
            let semaphore = received(message, descriptor)?.into_semaphore()?;
            check_timeline(&semaphore)?;
            ring.semaphores.push(semaphore);
        }
        Ok((info, ring))
    }

    /// The next message, within what is left of the time.
    fn message(&mut self) -> Result<(Message, Option<OwnedFd>)> {
        loop {
            match self.receiver.message(self.socket) {
                Ok((Message::Leave(reason), _)) => return Err(End::of(reason).error()),
                Ok(message) => return Ok(message),
                Err(Error::Timeout { .. }) => {}
                Err(error) if end_of(&error) == End::Lost => return Err(End::Lost.error()),
                Err(error) => return Err(error),
            }
            let Some(left) = left(self.options.timeout, self.started) else {
                let waited = self.options.timeout;
                return Err(Error::Timeout { what: "the arrival of the ring".into(), waited });
            };
            let events = libc::POLLIN | libc::POLLPRI;
            let seen = socket::wait(self.socket.as_fd(), events, Some(left));
            if seen.map_err(|error| Error::io("ppoll", &error))? & libc::POLLPRI != 0 {
                let problem = "has out-of-band data, which the format knows nothing of";
                return Err(Invalid::new("socket", problem).into());
            }
        }
    }
}
