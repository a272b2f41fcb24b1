//! Group B over a socket: a child that lies about what it passes on. The child and how it is met; the
//! lies are in `hostile_buffers`, `hostile_images` and `hostile_semaphores`.
//!
//! The child gets a true payload, makes a lie of it, sends that and then the truth.

pub(crate) mod buffers;
pub(crate) mod images;
pub(crate) mod payload_fields;
pub(crate) mod semaphores;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::Error;
use gpu_interop::ipc::wire::Message;
use gpu_interop::ipc::{self, Payload, Received, Receiver};

use crate::harness::{Role, child_arguments};

const LIES: &str = "lies about a payload";
const WHICH: &str = "INTEROP_LIE";

/// Far longer than a child takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What goes over the socket: a message's bytes, and the descriptors on its first byte.
pub(crate) struct RawMessage {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl RawMessage {
    /// A message that is well formed, with a descriptor.
    pub(crate) fn message(message: &Message, fd: impl Into<OwnedFd>) -> Self {
        Self { bytes: message.encode(), descriptors: vec![fd.into()] }
    }

    /// The same with other bytes from offset `at` of the body on.
    pub(crate) fn with_body(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[ipc::wire::HEADER_LEN + at..][..bytes.len()].copy_from_slice(bytes);
        self
    }
}

/// Makes a lie of a payload that was true: of its message and its descriptor.
pub(crate) type Tell = fn(Message, OwnedFd) -> Result<RawMessage>;

/// What a lie is found out by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DetectedBy {
    /// The field that a typed error names when it is received: no driver has seen it. What comes next
    /// is received as ever.
    Receiving(&'static str),
    /// The same, and the stream is out of step.
    Ending(&'static str),
    /// The field that a typed error names when it is imported: the driver still hasn't seen it.
    Importing(&'static str),
    /// As [`Receiving`](Self::Receiving) where memory is a file. Others tell no length: there the
    /// importing driver is the first to know, and says so.
    Length(&'static str),
}

/// A field that each API names in its own words.
pub(crate) const ANY_FIELD: &str = "any";

/// A lie: its name, how it is told, and what finds it out.
pub(crate) type Corruption = (&'static str, Tell, DetectedBy);

/// The roles of these cases.
pub(crate) fn roles() -> Vec<Role> {
    vec![(LIES, lie)]
}

/// Every lie of these cases, for the child to look up.
fn all() -> impl Iterator<Item = Corruption> {
    let kinds = [crate::cases::hostile::buffers::LIES, crate::cases::hostile::images::LIES];
    kinds.into_iter().chain([crate::cases::hostile::semaphores::LIES]).flatten().copied()
}

/// The child: its standard input is the socket.
fn lie() -> Result<()> {
    let which = std::env::var(WHICH).context(WHICH)?;
    let tell = all().find(|(name, ..)| *name == which).context("no such lie")?.1;
    // SAFETY: the parent gave the socket by this number, and nothing else here uses it.
    let mut socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let truth = ipc::receive(&socket)?;
    let (message, fd) = parts(&truth)?;
    let told = tell(message, fd)?;
    send_raw(&socket, &told)?;
    // Where the lie has put the stream out of step, nobody reads this.
    let _ = send(&socket, &truth);
    // Until the parent closes its end, or is gone with messages unread.
    let _ = socket.read(&mut [0]);
    Ok(())
}

fn parts(payload: &Received) -> Result<(Message, OwnedFd)> {
    let (memory, message) = match payload {
        Received::Buffer(payload) => {
            let (offset, desc) = (payload.offset(), *payload.desc());
            let memory = payload.memory().info().clone();
            (payload.memory().as_fd(), Message::Buffer { memory, offset, desc })
        }
        Received::Image(payload) => {
            let (offset, desc, linear) =
                (payload.offset(), *payload.desc(), payload.linear().copied());
            let memory = payload.memory().info().clone();
            (payload.memory().as_fd(), Message::Image { memory, offset, desc, linear })
        }
        Received::Semaphore(payload) => {
            (payload.as_fd(), Message::Semaphore(payload.info().clone()))
        }
        other => bail!("{:?} is not lied about", other.kind()),
    };
    Ok((message, memory.try_clone_to_owned()?))
}

fn send(socket: &UnixStream, payload: &Received) -> gpu_interop::Result<()> {
    match payload {
        Received::Memory(payload) => ipc::send(socket, payload),
        Received::Buffer(payload) => ipc::send(socket, payload),
        Received::Image(payload) => ipc::send(socket, payload),
        Received::Semaphore(payload) => ipc::send(socket, payload),
        _ => Ok(()),
    }
}

/// A child that tells one lie, and the socket to it.
pub(crate) struct HostilePeer {
    child: Child,
    socket: UnixStream,
    receiver: Receiver,
}

impl HostilePeer {
    /// Starts a child that tells the lie called `name` of `truth`.
    pub(crate) fn start(name: &str, truth: &impl Payload) -> Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        for timeout in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            timeout(&socket, Some(TIMEOUT))?;
        }
        let child = child_arguments(LIES)?
            .env(WHICH, name)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .context("starting a child")?;
        let liar = Self { child, socket, receiver: Receiver::new() };
        ipc::send(&liar.socket, truth)?;
        Ok(liar)
    }

    pub(crate) fn receive(&mut self) -> gpu_interop::Result<Received> {
        self.receiver.receive(&self.socket)
    }

    /// Receives the lie and the truth, as `found` says. `import` returns what the importer says of the
    /// lie, after a look that the payload came back, open; `check` uses the truth.
    pub(crate) fn meet(
        mut self,
        found: DetectedBy,
        import: impl FnOnce(Received) -> Result<Error>,
        check: impl FnOnce(Received) -> Result<()>,
    ) -> Result<()> {
        let error = match (self.receive(), found) {
            (Ok(received), DetectedBy::Importing(field)) => typed(import(received)?, field)?,
            (
                Err(error),
                DetectedBy::Receiving(field)
                | DetectedBy::Ending(field)
                | DetectedBy::Length(field),
            ) => typed(error, field)?,
            (Ok(received), DetectedBy::Length(_)) if !is_file(&received)? => {
                match import(received)? {
                    error @ (Error::Driver(_) | Error::Invalid(_)) => error,
                    error => bail!("{error:?}"),
                }
            }
            (received, _) => bail!("{received:?} is not {found:?}"),
        };
        match (self.receive(), found) {
            (Err(again), DetectedBy::Ending(_)) => ensure!(again == error, "then {again}"),
            (Ok(truth), _) if !matches!(found, DetectedBy::Ending(_)) => {
                check(truth).context("the truth, after the lie")?;
            }
            (other, _) => bail!("after the lie: {other:?}"),
        }
        self.end()
    }

    /// Closes the socket and waits for the child's end.
    pub(crate) fn end(self) -> Result<()> {
        let Self { mut child, socket, .. } = self;
        drop(socket);
        let status = child.wait()?;
        ensure!(status.success(), "the child: {status}");
        Ok(())
    }
}

/// The error, after a look that it is a typed one that names `field`.
fn typed(error: Error, field: &str) -> Result<Error> {
    let named: &str = match &error {
        Error::Invalid(invalid) => &invalid.parameter,
        Error::Mismatch(mismatch) => mismatch.field,
        other => bail!("not {field}: {other:?}"),
    };
    ensure!(field == ANY_FIELD || named == field, "not {field}: {error}");
    Ok(error)
}

/// Whether the descriptor is of a file with a length.
fn is_file(payload: &Received) -> Result<bool> {
    let (_, fd) = parts(payload)?;
    Ok(File::from(fd).metadata()?.is_file())
}

/// `sendmsg` of all of it, whatever it is.
fn send_raw(socket: &UnixStream, told: &RawMessage) -> Result<()> {
    let fds: Vec<RawFd> = told.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let bytes = size_of_val(&fds[..]) as u32;
    let mut iov =
        libc::iovec { iov_base: told.bytes.as_ptr().cast_mut().cast(), iov_len: told.bytes.len() };
    // SAFETY: CMSG_SPACE computes a number from a number.
    let space = unsafe { libc::CMSG_SPACE(bytes) } as usize;
    let mut control = vec![0u64; space.div_ceil(8)];
    // SAFETY: a structure of numbers and pointers, for which 0 is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    // SAFETY: `control` is aligned for a header and has room for it and the numbers; sendmsg reads it,
    // `iov` and the bytes, which are alive.
    let sent = unsafe {
        if !fds.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = space as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(header).cast(), fds.len());
        }
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL)
    };
    ensure!(sent == told.bytes.len() as isize, "sendmsg: {}", io::Error::last_os_error());
    Ok(())
}

/// The end of a pipe to read.
pub(crate) fn pipe() -> Result<OwnedFd> {
    Ok(io::pipe()?.0.into())
}

/// Adds seals to a memfd.
pub(crate) fn seal(fd: BorrowedFd<'_>, seals: libc::c_int) -> Result<()> {
    // SAFETY: F_ADD_SEALS takes an integer; the descriptor is open while it is borrowed.
    let added = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    ensure!(added == 0, "F_ADD_SEALS: {}", io::Error::last_os_error());
    Ok(())
}

/// The seals of a memfd; `None` for what can't have any.
pub(crate) fn seals(fd: BorrowedFd<'_>) -> Option<libc::c_int> {
    // SAFETY: F_GET_SEALS reads a number; the descriptor is open while it is borrowed.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    (seals >= 0).then_some(seals)
}
