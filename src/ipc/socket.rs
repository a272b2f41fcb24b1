//! Sending to and receiving from a socket, and waiting for it.
//!
//! # References
//! unix(7), cmsg(3), sendmsg(2), recvmsg(2), ppoll(2).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::foreign::Foreign;
use super::wire::Message;
use crate::error::{Error, Invalid, Result};
use crate::fd::failed;

/// How many descriptors there is room for in one `recvmsg`: more than a message has, to notice too
/// many. The control buffer's alignment adds room for one or two.
const MAX_SHOWN: usize = 2;

/// The result of one `recvmsg`.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Number of bytes; 0 at the end of the stream.
    pub(crate) bytes: usize,
    /// The descriptors that accompany them, with FD_CLOEXEC.
    pub(crate) descriptors: Vec<Foreign>,
    /// Whether the kernel did not deliver all control messages (MSG_CTRUNC).
    pub(crate) truncated: bool,
}

/// Looks at what has arrived, without waiting. `into` must not be empty.
///
/// The bytes stay in the socket (MSG_PEEK), and the descriptors are duplicates: only a few, however
/// many a peer attached. A peek that has all the bytes it asked for continues
/// until it finds descriptors, so they may accompany a later byte.
pub(crate) fn peek(socket: &UnixStream, into: &mut [u8]) -> Result<Arrived, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SHOWN))];
    receive(socket, into, RecvFlags::PEEK, RecvAncillaryBuffer::new(&mut space))
}

/// Takes bytes that [`peek`] has shown.
///
/// Descriptors are not delivered: `truncated` shows whether there were any. The kernel drops its
/// reference to them, which never blocks if a duplicate that was shown is still open.
pub(crate) fn take(socket: &UnixStream, into: &mut [u8]) -> Result<Arrived, Errno> {
    receive(socket, into, RecvFlags::empty(), RecvAncillaryBuffer::new(&mut []))
}

fn receive(
    socket: &UnixStream,
    into: &mut [u8],
    flags: RecvFlags,
    mut control: RecvAncillaryBuffer<'_>,
) -> Result<Arrived, Errno> {
    // The kernel sets FD_CLOEXEC, so that a child that another thread starts never inherits them.
    let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received =
        retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, flags))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights.map(Foreign::new));
        }
    }
    let truncated = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(Arrived { bytes: received.bytes, descriptors, truncated })
}

/// Calls `sendmsg` without waiting and without SIGPIPE. Returns how many bytes were sent; a
/// descriptor accompanies the first.
fn send(
    socket: &UnixStream,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptor.is_some() && !control.push(SendAncillaryMessage::ScmRights(descriptor.as_slice()))
    {
        return Err(Errno::NOBUFS);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags))
}

/// Sends one message with its descriptor on the first byte.
///
/// # Errors
/// The errors of [`send`](super::send()).
pub(crate) fn send_message(
    socket: &UnixStream,
    message: &Message,
    mut descriptor: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let bytes = message.encode();
    let wait = Wait::start(Direction::Write);
    let mut sent = 0;
    while sent < bytes.len() {
        match send(socket, &bytes[sent..], descriptor) {
            Ok(count) => {
                sent += count;
                descriptor = None;
            }
            Err(Errno::AGAIN) => wait.until_ready(socket).map_err(|error| match error {
                Error::Timeout { .. } if sent > 0 => cut_off(sent, bytes.len()),
                error => error,
            })?,
            Err(Errno::PIPE | Errno::CONNRESET) => {
                return Err(Error::Closed { what: "the socket".into() });
            }
            Err(errno) => return Err(failed("sendmsg")(errno)),
        }
    }
    Ok(())
}

fn cut_off(sent: usize, whole: usize) -> Error {
    let problem = format!("was cut off after {sent} of its {whole} bytes: the socket stayed full");
    Invalid::new("message", problem)
        .help("close the socket: the peer waits for the rest of the message")
        .into()
}

/// What to wait for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Bytes to read. The socket's read timeout applies.
    Read,
    /// Room to write. The socket's write timeout applies.
    Write,
}

/// A wait for one message, as long as a blocking call on the socket would wait: not at all if the
/// socket is non-blocking, for its timeout if it has one, else until something happens.
///
/// The timeout covers the whole message, starting with the call. A peer that sends single bytes
/// can't extend it.
#[derive(Debug)]
pub(crate) struct Wait {
    direction: Direction,
    started: Instant,
}

impl Wait {
    pub(crate) fn start(direction: Direction) -> Self {
        Self { direction, started: Instant::now() }
    }

    /// Returns what is left of the timeout: 0 if the socket is non-blocking, `None` without a limit.
    pub(crate) fn left(&self, socket: &UnixStream) -> Result<Option<Duration>> {
        if is_nonblocking(socket)? {
            return Ok(Some(Duration::ZERO));
        }
        let timeout = match self.direction {
            Direction::Read => socket.read_timeout(),
            Direction::Write => socket.write_timeout(),
        };
        let timeout = timeout.map_err(|error| Error::io("getsockopt", &error))?;
        Ok(timeout.map(|timeout| timeout.saturating_sub(self.started.elapsed())))
    }

    /// Returns when the socket can be tried again.
    pub(crate) fn until_ready(&self, socket: &UnixStream) -> Result<()> {
        let left = self.left(socket)?;
        if left.is_some_and(|left| left.is_zero()) {
            return Err(self.timed_out(socket)?);
        }
        wait(socket, self.direction, left)
    }

    fn timed_out(&self, socket: &UnixStream) -> Result<Error> {
        let waited = if is_nonblocking(socket)? { Duration::ZERO } else { self.started.elapsed() };
        let what = match self.direction {
            Direction::Read => "the arrival of a message",
            Direction::Write => "room in the socket",
        };
        Ok(Error::Timeout { what: what.into(), waited })
    }
}

fn is_nonblocking(socket: &UnixStream) -> Result<bool> {
    let flags = fcntl_getfl(socket).map_err(failed("fcntl(F_GETFL)"))?;
    Ok(flags.contains(OFlags::NONBLOCK))
}

/// Waits until `fd` is ready or its connection has ended, `limit` has passed, or a signal has
/// arrived.
///
/// # Errors
/// [`Error::Invalid`] if the peer has sent out-of-band data.
pub(crate) fn wait(fd: impl AsFd, direction: Direction, limit: Option<Duration>) -> Result<()> {
    let events = match direction {
        Direction::Read => PollFlags::IN | PollFlags::PRI,
        Direction::Write => PollFlags::OUT,
    };
    // The limit fits into every time_t. The caller waits again if that was too short.
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().min(i32::MAX as u64) as _,
        tv_nsec: limit.subsec_nanos() as _,
    });
    let mut polled = [PollFd::new(&fd, events)];
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) if polled[0].revents().contains(PollFlags::PRI) => Err(out_of_band()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(failed("ppoll")(errno)),
    }
}

/// The error for out-of-band data. It makes a socket ready although there is nothing to read: if it
/// were ignored, every wait would return at once.
pub(crate) fn out_of_band() -> Error {
    Invalid::new("socket", "received out-of-band data, which the format does not use")
        .help("close the socket; the peer must not send with MSG_OOB")
        .into()
}
