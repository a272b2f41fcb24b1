//! One socket's receiver, which keeps a half-arrived message between two waits.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::descriptor::check_memory;
use super::receive::Received;
use super::socket::{self, Arrived, Read};
use super::wait::{For, Wait};
use super::wire::{HEADER_LEN, Header, Kind, Message};
use crate::error::{Error, Invalid, Mismatch, Result};
use crate::fd::check_semaphore_fd;
use crate::payload::{BufferPayload, ImagePayload, MemoryPayload, SemaphorePayload};

/// Descriptors that a message of any kind has at most. Who sends more is not listened to further.
const MAX_DESCRIPTORS: usize = 1;

/// Receives the messages of one socket.
///
/// A wait that ends leaves it as it was, even in the middle of a message: what had arrived is kept,
/// and the next call goes on. So a receiver belongs to one socket. It holds one message at most, and
/// never reads past the end of one.
#[derive(Debug, Default)]
pub struct Receiver {
    /// As much of the message as is wanted next; the first `filled` bytes have arrived.
    message: Vec<u8>,
    filled: usize,
    header: Option<Header>,
    descriptors: Vec<OwnedFd>,
    broken: Option<Error>,
}

/// Why there is no message yet.
enum Stop {
    /// Nothing is lost; it can be tried again.
    Later(Error),
    /// The stream has ended or is out of step.
    Broken(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// How much of a message has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    arrived: usize,
    wanted: usize,
}

impl Half {
    pub(crate) fn invalid(self, verb: &str, why: &str) -> Invalid {
        let Self { arrived, wanted } = self;
        let problem = format!("{verb} after {arrived} bytes, where {wanted} were wanted: {why}");
        Invalid::new("message", problem)
    }
}

impl Receiver {
    /// A receiver for a socket of which nothing has been received, or whole messages only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Receives the next payload, whatever it is.
    ///
    /// Waits for as long as the socket's read timeout says, counted once for the whole message, and
    /// not at all where the socket is non-blocking. One thread at a time may receive from a socket.
    ///
    /// Every descriptor that arrived with what is refused is closed.
    ///
    /// # Errors
    /// What leaves the receiver usable:
    /// - [`Error::Timeout`]: no whole message came in time; nothing is lost.
    /// - [`Error::Driver`] with `EMFILE` or `ENFILE`: there is no room for another descriptor. The
    ///   message stays in the socket and comes with the next call.
    /// - [`Error::Invalid`] and [`Error::Mismatch`] for a message that arrived whole: a field of the
    ///   body (`body.`…) or of the description (`desc.`…, `offset`, `payload.linear`) is wrong, or
    ///   the descriptor can't be what is said of it (`payload.fd`), or it is no payload but a
    ///   session's (`message kind`). The next call receives the next message.
    ///
    /// What ends it; every later call returns the same error, and the socket should be closed:
    /// - [`Error::Closed`]: the peer closed the connection between two messages.
    /// - [`Error::Invalid`], parameter `message`: the peer closed it in the middle of one.
    /// - [`Error::Mismatch`] and [`Error::Invalid`] for the header (`header.`…), for the number of
    ///   descriptors (`descriptors`) and for the socket (`socket`).
    /// - [`Error::Driver`]: the kernel refused.
    #[doc(alias = "recvmsg")]
    pub fn receive(&mut self, socket: &UnixStream) -> Result<Received> {
        let (message, descriptor) = self.message(socket)?;
        received(message, descriptor)
    }

    /// Receives the next message, whatever it is, with the descriptor that rode on it.
    pub(crate) fn message(&mut self, socket: &UnixStream) -> Result<(Message, Option<OwnedFd>)> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        match self.whole(socket) {
            Ok(header) => {
                let message = Message::decode_body(&header, &self.message[HEADER_LEN..]);
                let descriptor = self.descriptors.pop();
                self.clear();
                Ok((message?, descriptor))
            }
            Err(Stop::Later(error)) => Err(error),
            Err(Stop::Broken(error)) => {
                self.clear();
                self.broken = Some(error.clone());
                Err(error)
            }
        }
    }

    /// How much of a message has arrived, if it is neither nothing nor all.
    pub(crate) fn half(&self) -> Option<Half> {
        let half = Half { arrived: self.filled, wanted: self.message.len() };
        (half.arrived > 0).then_some(half)
    }

    fn clear(&mut self) {
        self.message.clear();
        self.filled = 0;
        self.header = None;
        self.descriptors.clear();
    }

    /// Returns when a whole message is there.
    fn whole(&mut self, socket: &UnixStream) -> Result<Header, Stop> {
        let wait = Wait::start(For::Reading);
        let header = match self.header {
            Some(header) => header,
            None => {
                self.fill(socket, HEADER_LEN, &wait)?;
                self.check_header()?
            }
        };
        self.fill(socket, header.message_len(), &wait)?;
        Ok(header)
    }

    fn check_header(&mut self) -> Result<Header> {
        let bytes = self.message.first_chunk::<HEADER_LEN>();
        let bytes = bytes.ok_or_else(|| Invalid::new("header", "is cut off"))?;
        let header = Header::decode(bytes)?;
        let announced = usize::from(header.kind.descriptors());
        let arrived = self.descriptors.len();
        if announced != arrived {
            return Err(Mismatch::new("descriptors", announced, arrived)
                .help("they ride on the message's first byte, as SCM_RIGHTS")
                .into());
        }
        self.header = Some(header);
        Ok(header)
    }

    /// Reads until the first `wanted` bytes of the message are there, and none more.
    fn fill(&mut self, socket: &UnixStream, wanted: usize, wait: &Wait) -> Result<(), Stop> {
        // Exactly: what a peer announces never makes an allocation larger than a message may be.
        self.message.reserve_exact(wanted.saturating_sub(self.message.len()));
        self.message.resize(wanted, 0);
        let mut tries = 0;
        while self.filled < wanted {
            // The first byte may carry descriptors. It is looked at first and taken out only when
            // they have all arrived, so that none is lost where this process has no room for them.
            let first = self.filled == 0;
            let read = if first { Read::Peek } else { Read::Take };
            match socket::receive(socket.as_fd(), &mut self.message[self.filled..], read) {
                Ok(arrived) if arrived.truncated => {
                    tries += 1;
                    match truncated(socket, arrived, first) {
                        Some(stop) => return Err(stop),
                        None if tries < MAX_TRIES => {}
                        None => return Err(Invalid::new("descriptors", WITHHELD).into()),
                    }
                }
                Ok(Arrived { bytes: 0, .. }) => return Err(self.ended().into()),
                Ok(arrived) if first => self.first(socket, arrived)?,
                Ok(arrived) if arrived.descriptors.is_empty() => self.filled += arrived.bytes,
                Ok(arrived) => {
                    let count = arrived.descriptors.len();
                    let problem = format!("{count} arrived in the middle of a message");
                    return Err(Invalid::new("descriptors", problem).into());
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        wait.until_ready(socket).map_err(|error| match error {
                            Error::Timeout { .. } => Stop::Later(error),
                            error => Stop::Broken(error),
                        })?
                    }
                    // The peer closed with messages of ours unread.
                    ErrorKind::ConnectionReset => return Err(self.ended().into()),
                    _ => return Err(Error::io("recvmsg", &error).into()),
                },
            }
        }
        Ok(())
    }

    /// Takes what a peek has shown out of the socket.
    fn first(&mut self, socket: &UnixStream, peeked: Arrived) -> Result<()> {
        let into = &mut self.message[..peeked.bytes];
        let taken = match socket::receive(socket.as_fd(), into, Read::Take) {
            Ok(taken) if taken.bytes == peeked.bytes => taken,
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return Err(Error::io("recvmsg", &error));
            }
            _ => return Err(Invalid::new("socket", OTHER_READER).into()),
        };
        self.filled = taken.bytes;
        // Only now is it known whose descriptors they are: a peek that has all the bytes it wants goes
        // on to the next message and shows the descriptors of that. Where there was no room for them
        // twice, the peek's are the same ones.
        self.descriptors = if taken.truncated { peeked.descriptors } else { taken.descriptors };
        let count = self.descriptors.len();
        if count > MAX_DESCRIPTORS {
            let problem = format!("{count} arrived, where a message has at most {MAX_DESCRIPTORS}");
            return Err(Invalid::new("descriptors", problem).into());
        }
        Ok(())
    }

    fn ended(&self) -> Error {
        match self.half() {
            None => Error::Closed { what: "the socket".into() },
            Some(half) => half.invalid("ends", "the peer closed the socket").into(),
        }
    }
}

/// Looks at a message whose descriptors could not be delivered before they count as withheld.
const MAX_TRIES: u32 = 16;

const WITHHELD: &str =
    "did not all arrive, though there is room for them: a security module refuses";
const OTHER_READER: &str = "was read by somebody else at the same time";

/// Why descriptors did not all arrive; `None` where it may be tried again at once.
///
/// The control buffer has room for all that the kernel ever delivers, so truncation means that the
/// process may not have another descriptor, or that a security module withholds one.
fn truncated(socket: &UnixStream, arrived: Arrived, first: bool) -> Option<Stop> {
    if !first {
        return Some(Invalid::new("descriptors", "arrived in the middle of a message").into());
    }
    // Those that did arrive are still open, so this fails for the same reason.
    let error = socket.try_clone().err()?;
    drop(arrived);
    Some(Stop::Later(Error::io("recvmsg", &error)))
}

/// Puts a message and its descriptor together, and checks what can be checked without a driver.
pub(crate) fn received(message: Message, descriptor: Option<OwnedFd>) -> Result<Received> {
    let kind = message.kind();
    let fd = descriptor.ok_or_else(|| not_a_payload(kind))?;
    let received = match message {
        Message::Memory(info) => {
            check_memory(fd.as_fd(), &info)?;
            Received::Memory(MemoryPayload::new(fd, info)?)
        }
        Message::Buffer { memory, offset, desc } => {
            check_memory(fd.as_fd(), &memory)?;
            Received::Buffer(BufferPayload::new(MemoryPayload::new(fd, memory)?, offset, desc)?)
        }
        Message::Image { memory, offset, desc, linear } => {
            check_memory(fd.as_fd(), &memory)?;
            let image = ImagePayload::new(MemoryPayload::new(fd, memory)?, offset, desc)?;
            Received::Image(match linear {
                Some(linear) => image.with_linear(linear)?,
                None => image,
            })
        }
        Message::Semaphore(info) => {
            check_semaphore_fd(&fd)?;
            Received::Semaphore(SemaphorePayload::new(fd, info)?)
        }
        // Those of a session have no descriptor.
        _ => return Err(not_a_payload(kind)),
    };
    tracing::debug!(kind = received.kind().name(), "payload received");
    Ok(received)
}

fn not_a_payload(kind: Kind) -> Error {
    Mismatch::new("message kind", "a payload", kind.name())
        .help("a session is joined by ipc::session::Consumer")
        .into()
}
