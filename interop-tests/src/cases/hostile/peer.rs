//! The hostile child, and how it is received.
//!
//! The child gets a valid payload, sends a corrupted copy of it, and then the valid one.

use std::fs::File;
use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::Error;
use gpu_interop::ipc::wire::Message;
use gpu_interop::ipc::{self, Receiver};
use gpu_interop::payload::Payload;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::cases::support::fds::leaves_nothing_open;
use crate::cases::support::importers::Importer;
use crate::cases::support::views::AnyContext;
use crate::harness::{Case, TestGpu, child_arguments};

/// The environment variable that names the corruption.
const WHICH: &str = "INTEROP_CORRUPTION";

/// Far longer than a child takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What goes over the socket: a message's bytes, and the descriptors that go with its first byte.
pub(super) struct RawMessage {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl RawMessage {
    /// A well-formed message with a descriptor.
    pub(super) fn new(message: &Message, fd: impl Into<OwnedFd>) -> Self {
        Self { bytes: message.encode(), descriptors: vec![fd.into()] }
    }

    /// Replaces the bytes from offset `at` of the body on.
    pub(super) fn with_body(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[ipc::wire::HEADER_LEN + at..][..bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Sends everything in one `sendmsg`, valid or not.
    fn send(&self, socket: &UnixStream) -> Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
            ensure!(pushed, "more than two descriptors");
        }
        let bytes = [IoSlice::new(&self.bytes)];
        let sent = sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        ensure!(sent == self.bytes.len(), "{sent} bytes sent");
        Ok(())
    }
}

/// Corrupts a payload: its message and its descriptor.
pub(super) type Corrupt = fn(Message, OwnedFd) -> Result<RawMessage>;

/// How a corruption is detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DetectedBy {
    /// Receiving fails with a typed error that names this field, before any driver sees the payload. The
    /// next message can be received.
    Receiving(&'static str),
    /// The same, but the stream is unusable afterwards.
    Ending(&'static str),
    /// Importing fails with a typed error that names this field, still before the driver sees it.
    Importing(&'static str),
    /// As [`Receiving`](Self::Receiving) if memory is a file. Other memory has no length: then the importing
    /// driver is the first to detect it.
    Length(&'static str),
}

/// A field that each API calls differently.
pub(super) const ANY_FIELD: &str = "any";

/// A corruption: its name, how it is made, and how it is detected.
pub(super) type Corruption = (&'static str, Corrupt, DetectedBy);

/// One case per importer and corruption, called `ipc/hostile/gl/` and the corruption's name.
pub(super) fn for_each_corruption(
    corruptions: &[Corruption],
    row: &str,
    run: fn(&TestGpu, &dyn AnyContext, &str, DetectedBy) -> Result<()>,
) -> Vec<(Importer, DetectedBy, Case)> {
    let mut cases = Vec::new();
    for importer in Importer::ALL {
        for &(what, _, detected_by) in corruptions {
            let name = format!("ipc/hostile/{}/{what}/{row}", importer.name());
            let run = move |test_gpu: &TestGpu| {
                let context = importer.open(test_gpu)?;
                leaves_nothing_open(|| run(test_gpu, context, what, detected_by))
            };
            let case = Case::new(name, run).needs(importer.needs());
            cases.push((importer, detected_by, case));
        }
    }
    cases
}

/// In the child, whose standard input is the socket: makes one of `corruptions`.
pub(super) fn corrupt(corruptions: &[Corruption]) -> Result<()> {
    let which = std::env::var(WHICH).context(WHICH)?;
    let found = corruptions.iter().find(|(name, ..)| *name == which);
    let (_, corrupt, _) = found.with_context(|| format!("no corruption is called {which}"))?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let valid = ipc::receive(&socket)?;
    let (message, fd) = parts(&valid)?;
    corrupt(message, fd)?.send(&socket)?;
    // If the corruption makes the stream unusable, the parent does not read this.
    let _ = ipc::send(&socket, &valid);
    // Until the parent closes its end, or exits with messages unread.
    let _ = socket.read(&mut [0]);
    Ok(())
}

fn parts(payload: &Payload) -> Result<(Message, OwnedFd)> {
    let (memory, message) = match payload {
        Payload::Buffer(payload) => {
            let (offset, desc) = (payload.offset(), *payload.desc());
            let memory = payload.memory().info().clone();
            (payload.memory().as_fd(), Message::Buffer { memory, offset, desc })
        }
        Payload::Image(payload) => {
            let (offset, desc, linear) =
                (payload.offset(), *payload.desc(), payload.linear().copied());
            let memory = payload.memory().info().clone();
            (payload.memory().as_fd(), Message::Image { memory, offset, desc, linear })
        }
        Payload::Semaphore(payload) => {
            (payload.as_fd(), Message::Semaphore(payload.info().clone()))
        }
        other => bail!("{:?} is not corrupted by any case", other.kind_name()),
    };
    Ok((message, memory.try_clone_to_owned()?))
}

/// A child that makes one corruption, and the socket to it.
pub(super) struct HostilePeer {
    child: Child,
    socket: UnixStream,
    receiver: Receiver,
}

impl HostilePeer {
    /// Starts a child with this role, which makes the corruption called `name` of `valid`.
    pub(super) fn start(role: &str, name: &str, valid: impl Into<Payload>) -> Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        for timeout in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            timeout(&socket, Some(TIMEOUT))?;
        }
        let child = child_arguments(role)?
            .env(WHICH, name)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .context("starting a child")?;
        let peer = Self { child, socket, receiver: Receiver::new() };
        ipc::send(&peer.socket, &valid.into())?;
        Ok(peer)
    }

    pub(super) fn receive(&mut self) -> gpu_interop::Result<Payload> {
        self.receiver.receive(&self.socket)
    }

    /// Receives the corrupted payload and the valid one, and checks how the corruption is detected.
    /// `import` returns the importer's error for the corrupted payload, after checking that it came back
    /// open; `check` uses the valid payload.
    pub(super) fn meet(
        mut self,
        detected_by: DetectedBy,
        import: impl FnOnce(Payload) -> Result<Error>,
        check: impl FnOnce(Payload) -> Result<()>,
    ) -> Result<()> {
        let error = match (self.receive(), detected_by) {
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
            (received, _) => bail!("{received:?}, not {detected_by:?}"),
        };
        match (self.receive(), detected_by) {
            (Err(again), DetectedBy::Ending(_)) => ensure!(again == error, "then {again}"),
            (Ok(valid), _) if !matches!(detected_by, DetectedBy::Ending(_)) => {
                check(valid).context("the valid payload, after the corrupted one")?;
            }
            (other, _) => bail!("after the corrupted payload: {other:?}"),
        }
        self.end()
    }

    /// Closes the socket and waits for the child's end.
    pub(super) fn end(self) -> Result<()> {
        let Self { mut child, socket, .. } = self;
        drop(socket);
        let status = child.wait()?;
        ensure!(status.success(), "the child: {status}");
        Ok(())
    }
}

/// Checks that the error is a typed one that names `field`.
fn typed(error: Error, field: &str) -> Result<Error> {
    let named: &str = match &error {
        Error::Invalid(invalid) => &invalid.parameter,
        Error::Mismatch(mismatch) => mismatch.field,
        other => bail!("not {field}: {other:?}"),
    };
    ensure!(field == ANY_FIELD || named == field, "not {field}: {error}");
    Ok(error)
}

/// Whether the descriptor is a file with a length.
fn is_file(payload: &Payload) -> Result<bool> {
    let (_, fd) = parts(payload)?;
    Ok(File::from(fd).metadata()?.is_file())
}

/// The reading end of a pipe.
pub(super) fn pipe() -> Result<OwnedFd> {
    Ok(io::pipe()?.0.into())
}
