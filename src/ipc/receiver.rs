//! Receiving: a receiver keeps a message that has arrived in part until the rest arrives.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;

use super::foreign::{self, Foreign};
use super::payload::payload_of;
use super::socket::{self, Arrived, Direction, Wait};
use super::wire::{HEADER_LEN, Header, Message};
use crate::error::{Error, Invalid, Mismatch, Result, counted};
use crate::fd::failed;
use crate::payload::Payload;

/// The maximum number of descriptors per message of any kind. More end the connection.
const MAX_DESCRIPTORS: usize = 1;

/// The number of attempts to receive descriptors that the kernel does not deliver although this
/// process has room for them.
const MAX_TRIES: u32 = 16;

/// Receives the next payload, of any kind.
///
/// Waits for the socket's read timeout, or not at all if the socket is non-blocking. Only one
/// thread at a time may receive from a socket.
///
/// Nothing is kept between two calls. Use a [`Receiver`] to continue after a timeout in the middle
/// of a message.
///
/// # Errors
/// The errors of [`Receiver::receive`], except that a timeout in the middle of a message is
/// [`Error::Invalid`], since the part that has arrived is lost. Close the socket after any error
/// but [`Error::Timeout`].
///
/// # References
/// recvmsg(2), unix(7) `SCM_RIGHTS`.
#[doc(alias = "recvmsg")]
#[doc(alias = "SCM_RIGHTS")]
pub fn receive(socket: &UnixStream) -> Result<Payload> {
    let mut receiver = Receiver::new();
    receiver.receive(socket).map_err(|error| match (error, receiver.partial()) {
        (Error::Timeout { .. }, Some(partial)) => partial
            .invalid("the wait for the rest has timed out")
            .help("close the socket; a Receiver can continue after a timeout")
            .into(),
        (error, _) => error,
    })
}

/// Receives the messages of one socket.
///
/// After a timeout, even in the middle of a message, what has arrived is kept, and the next call
/// continues. Use one receiver per socket. It holds one message at most, and never reads past the
/// end of a message.
#[derive(Debug, Default)]
pub struct Receiver {
    /// The header, then the whole message; the first `filled` bytes have arrived.
    message: Vec<u8>,
    filled: usize,
    header: Option<Header>,
    /// Descriptors that the socket has shown and whose bytes were not taken yet. They may belong to a
    /// later message.
    shown: Vec<Foreign>,
    descriptors: Vec<Foreign>,
    ended: Option<Error>,
}

/// Why no message was received.
enum ReceiveError {
    /// Nothing is lost; the call can be repeated.
    Retry(Error),
    /// The stream has ended or can't be used any more.
    Ended(Error),
}

impl<E: Into<Error>> From<E> for ReceiveError {
    fn from(error: E) -> Self {
        Self::Ended(error.into())
    }
}

/// How much of a message has arrived, in bytes.
#[derive(Clone, Copy, Debug)]
struct PartialMessage {
    arrived: usize,
    expected: usize,
}

impl PartialMessage {
    fn invalid(self, reason: &str) -> Invalid {
        let Self { arrived, expected } = self;
        let problem =
            format!("ends after {} of at least {expected}: {reason}", counted(arrived, "byte"));
        Invalid::new("message", problem)
    }
}

impl Receiver {
    /// Creates a receiver for a socket from which nothing but whole messages has been received.
    pub fn new() -> Self {
        Self::default()
    }

    /// Receives the next payload, of any kind. Its descriptor has FD_CLOEXEC set.
    ///
    /// Waits for the socket's read timeout, which covers the whole message, or not at all if the
    /// socket is non-blocking. Only one thread at a time may receive from a socket.
    ///
    /// Every descriptor that accompanied a refused message is closed.
    ///
    /// # Errors
    /// The receiver can still be used after these errors:
    /// - [`Error::Timeout`]: no whole message arrived in time. Nothing is lost.
    /// - [`Error::Driver`] with `EMFILE` or `ENFILE`: this process can't have another descriptor.
    ///   The message stays in the socket and is received by the next call.
    /// - [`Error::Invalid`] and [`Error::Mismatch`] for a message that arrived whole: a field of
    ///   the body (`body.`…) or of the description (`desc.`…, `offset`, `payload.linear`) is
    ///   invalid, the descriptor can't be what the message says (`payload.fd`), or the message
    ///   belongs to a session (`message kind`). The next call receives the next message.
    ///
    /// These errors are final. Every later call returns the same error; close the socket:
    /// - [`Error::Closed`]: the peer closed the connection between two messages.
    /// - [`Error::Invalid`] with the parameter `message`: the peer closed it within a message.
    /// - [`Error::Mismatch`] and [`Error::Invalid`] for the header (`header.`…), for the number of
    ///   descriptors (`descriptors`) and for the socket (`socket`).
    /// - [`Error::Driver`]: a system call failed.
    #[doc(alias = "recvmsg")]
    pub fn receive(&mut self, socket: &UnixStream) -> Result<Payload> {
        let wait = Wait::start(Direction::Read);
        foreign::wait_for_room(wait.left(socket)?)?;
        let (message, descriptor) = self.message(socket)?;
        payload_of(message, descriptor, wait.left(socket)?.unwrap_or(Duration::MAX))
    }

    /// Receives the next message of any kind with the descriptor that accompanied it.
    pub(crate) fn message(&mut self, socket: &UnixStream) -> Result<(Message, Option<Foreign>)> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        match self.whole(socket) {
            Ok(header) => {
                let message = Message::decode_body(&header, &self.message[HEADER_LEN..]);
                let descriptor = self.descriptors.pop();
                self.clear();
                Ok((message?, descriptor))
            }
            Err(ReceiveError::Retry(error)) => Err(error),
            Err(ReceiveError::Ended(error)) => {
                self.clear();
                self.shown.clear();
                self.ended = Some(error.clone());
                Err(error)
            }
        }
    }

    fn clear(&mut self) {
        self.message.clear();
        self.filled = 0;
        self.header = None;
        self.descriptors.clear();
    }

    /// Returns how much of a message has arrived, or `None` at the start of a message.
    fn partial(&self) -> Option<PartialMessage> {
        let partial = PartialMessage { arrived: self.filled, expected: self.message.len() };
        (partial.arrived > 0).then_some(partial)
    }

    /// Returns once a whole message has arrived.
    fn whole(&mut self, socket: &UnixStream) -> Result<Header, ReceiveError> {
        let wait = Wait::start(Direction::Read);
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
                .help("attach them to the first byte of the message, as SCM_RIGHTS")
                .into());
        }
        self.header = Some(header);
        Ok(header)
    }

    /// Reads until exactly the first `expected` bytes of the message have arrived.
    fn fill(
        &mut self,
        socket: &UnixStream,
        expected: usize,
        wait: &Wait,
    ) -> Result<(), ReceiveError> {
        // Exactly: a peer can't cause an allocation that is larger than a message.
        self.message.reserve_exact(expected.saturating_sub(self.message.len()));
        self.message.resize(expected, 0);
        while self.filled < expected {
            // While descriptors that were shown are held, the kernel has only other references to them.
            let looked = match self.shown.is_empty() {
                true => Some(self.look(socket, wait)?),
                false => None,
            };
            let bytes = looked.unwrap_or(expected - self.filled);
            let taken = match socket::take(socket, &mut self.message[self.filled..][..bytes]) {
                Ok(taken) if looked.is_some_and(|looked| looked != taken.bytes) => {
                    return Err(Invalid::new("socket", OTHER_READER).help(ONE_READER).into());
                }
                Ok(taken) if taken.bytes > 0 => taken,
                Ok(_) | Err(Errno::CONNRESET) => return Err(self.end_of_stream().into()),
                Err(Errno::AGAIN) => {
                    until_ready(socket, wait)?;
                    continue;
                }
                Err(errno) => return Err(failed("recvmsg")(errno).into()),
            };
            if taken.truncated {
                if self.shown.is_empty() {
                    return Err(Invalid::new("socket", OPTIONS).help(OPTIONS_HELP).into());
                }
                if self.filled > 0 {
                    return Err(in_the_middle());
                }
                self.descriptors.append(&mut self.shown);
            }
            self.filled += taken.bytes;
        }
        Ok(())
    }

    /// Returns the number of bytes that can be taken, with their descriptors in `shown`.
    ///
    /// Nothing is taken before its descriptors are here: none is lost while this process can't have
    /// another one, and the kernel closes none of them in this thread.
    fn look(&mut self, socket: &UnixStream, wait: &Wait) -> Result<usize, ReceiveError> {
        let mut tries = 0;
        loop {
            let arrived = match socket::peek(socket, &mut self.message[self.filled..]) {
                Ok(Arrived { bytes: 0, .. }) | Err(Errno::CONNRESET) => {
                    return Err(self.end_of_stream().into());
                }
                Ok(arrived) => arrived,
                Err(Errno::AGAIN) => {
                    until_ready(socket, wait)?;
                    continue;
                }
                Err(errno) => return Err(failed("recvmsg")(errno).into()),
            };
            let count = arrived.descriptors.len();
            if count > MAX_DESCRIPTORS {
                let problem = format!("more than {MAX_DESCRIPTORS} arrived with one message");
                return Err(Invalid::new("descriptors", problem).into());
            }
            if !arrived.truncated {
                self.shown = arrived.descriptors;
                return Ok(arrived.bytes);
            }
            out_of_descriptors(socket, arrived)?;
            tries += 1;
            if tries == MAX_TRIES {
                return Err(Invalid::new("descriptors", WITHHELD).help(OPTIONS_HELP).into());
            }
        }
    }

    fn end_of_stream(&self) -> Error {
        match self.partial() {
            None => Error::Closed { what: "the socket".into() },
            Some(partial) => partial.invalid("the peer closed the socket").into(),
        }
    }
}

const WITHHELD: &str = "did not all arrive although this process has room for them; \
                        a security module may withhold them";
const OPTIONS: &str = "adds control messages of its own";
const OPTIONS_HELP: &str = "leave SO_PASSCRED, SO_PASSSEC and SO_PASSPIDFD unset";
const OTHER_READER: &str = "was read by another thread or process at the same time";
const ONE_READER: &str = "receive from a socket in one place only";

fn until_ready(socket: &UnixStream, wait: &Wait) -> Result<(), ReceiveError> {
    wait.until_ready(socket).map_err(|error| match error {
        Error::Timeout { .. } => ReceiveError::Retry(error),
        error => ReceiveError::Ended(error),
    })
}

fn in_the_middle() -> ReceiveError {
    Invalid::new("descriptors", "arrived in the middle of a message")
        .help("attach them to the first byte of the message, as SCM_RIGHTS")
        .into()
}

/// Returns an error if descriptors did not arrive because this process can't have another one.
///
/// The control buffer has room for all that the kernel delivers, so the only other cause is a
/// security module that withholds a descriptor.
fn out_of_descriptors(socket: &UnixStream, arrived: Arrived) -> Result<(), ReceiveError> {
    // Those that did arrive are still open, so that this fails for the same reason.
    let duplicate = socket.try_clone();
    drop(arrived);
    duplicate.map(drop).map_err(|error| ReceiveError::Retry(Error::io("recvmsg", &error)))
}
