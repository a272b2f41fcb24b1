//! Checks for any stream of bytes and descriptors that a peer may send.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use gpu_interop::ipc::{self, Receiver};
use gpu_interop::payload::Payload;
use gpu_interop::{Error, MemoryPayload};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::allocations;

/// Largest allocation allowed while receiving, in bytes: that of a message.
pub(crate) const LARGEST_ALLOCATION: usize = ipc::wire::MAX_MESSAGE;

/// Length of the only file that may be memory, in bytes.
pub(crate) const FILE_BYTES: u64 = 8192;

/// The descriptors that a piece may have.
pub(crate) struct Descriptors([OwnedFd; 4]);

impl Descriptors {
    pub(crate) fn new() -> io::Result<Self> {
        let memory = memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, FILE_BYTES)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::SEAL)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self([memory, event, File::open("/dev/null")?.into(), File::open("/")?.into()]))
    }

    /// Returns a duplicate of the one that may be memory.
    #[allow(dead_code, reason = "only the target `session` uses it")]
    pub(crate) fn memory(&self) -> OwnedFd {
        self.0[0].try_clone().expect("a duplicate")
    }
}

/// Sends the pieces of `script` and receives them.
///
/// A script is a sequence of pieces. A piece is two bytes, of which the low twelve bits are its length
/// and the high four the number of its descriptors, a byte that selects the descriptor, and its bytes.
///
/// # Panics
/// If an error is of a kind that a peer can't cause, a final error is not the last one, a payload is
/// accepted whose memory is too short, a payload changes when it is sent on, a descriptor stays open, or
/// an allocation is larger than a message.
pub(crate) fn check(script: &[u8]) {
    let descriptors = Descriptors::new().expect("files to send");
    let lowest_free = lowest_free();
    run(script, &descriptors).expect("sockets");
    assert_closed(lowest_free);
}

/// Checks that the number of the next descriptor is `expected` soon: other threads close what was refused.
///
/// # Panics
/// If it is not after some seconds.
pub(crate) fn assert_closed(expected: RawFd) {
    let started = Instant::now();
    while lowest_free() != expected && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_micros(50));
    }
    assert_eq!(lowest_free(), expected, "a descriptor stays open");
}

/// Returns the pieces of a script.
#[allow(dead_code, reason = "only the mutators use it")]
pub(crate) fn pieces(mut script: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    std::iter::from_fn(move || {
        let (&mut [low, high, _], rest) = std::mem::take(&mut script).split_first_chunk_mut()?;
        let (piece, rest) = rest.split_at_mut(piece_len(low, high).min(rest.len()));
        script = rest;
        Some(piece)
    })
}

/// Returns the first piece of a script, its descriptor, how often that is attached, and the rest.
pub(crate) fn next_piece<'a, 'd>(
    script: &'a [u8],
    descriptors: &'d Descriptors,
) -> Option<(&'a [u8], BorrowedFd<'d>, usize, &'a [u8])> {
    let (&[low, high, which], rest) = script.split_first_chunk()?;
    let (piece, rest) = rest.split_at(piece_len(low, high).min(rest.len()));
    let fd = descriptors.0[usize::from(which) % descriptors.0.len()].as_fd();
    Some((piece, fd, usize::from(high >> 4), rest))
}

fn piece_len(low: u8, high: u8) -> usize {
    usize::from(low) | usize::from(high & 0xf) << 8
}

/// Returns the number of the next descriptor. It is higher if one was left open.
pub(crate) fn lowest_free() -> RawFd {
    File::open("/dev/null").expect("/dev/null").as_raw_fd()
}

fn run(mut script: &[u8], descriptors: &Descriptors) -> io::Result<()> {
    let (producer, consumer) = UnixStream::pair()?;
    producer.set_nonblocking(true)?;
    consumer.set_nonblocking(true)?;
    let mut receiver = Receiver::new();
    let mut sent_on = 0;
    while let Some((piece, fd, count, rest)) = next_piece(script, descriptors) {
        script = rest;
        send_piece(&producer, piece, fd, count);
        receive(&mut receiver, &consumer, &mut sent_on);
    }
    drop(producer);
    let last = receive(&mut receiver, &consumer, &mut sent_on);
    assert!(!matches!(last, Error::Timeout { .. }), "the end of the stream is not seen");
    Ok(())
}

/// Receives until nothing more arrives, and returns the last error.
fn receive(receiver: &mut Receiver, socket: &UnixStream, sent_on: &mut u32) -> Error {
    let mut before: Option<Error> = None;
    loop {
        let next = || receiver.receive(socket);
        match allocations::within(LARGEST_ALLOCATION, next) {
            Ok(received) => {
                assert!(before.is_none_or(|error| !ends(&error)), "the stream had ended");
                before = None;
                // Each needs a pair of sockets, so only a few are sent on.
                if *sent_on < 4 {
                    *sent_on += 1;
                    check_sent_on(received);
                }
            }
            Err(error @ Error::Timeout { .. }) => return error,
            Err(error) if before.as_ref() == Some(&error) && ends(&error) => return error,
            Err(error) => {
                let typed =
                    matches!(error, Error::Invalid(_) | Error::Mismatch(_) | Error::Closed { .. });
                assert!(typed, "{error:?}");
                assert!(before.is_none_or(|before| !ends(&before)), "the stream had ended");
                before = Some(error);
            }
        }
    }
}

/// Returns whether the error is final.
fn ends(error: &Error) -> bool {
    let is_final = |name: &str| {
        name.starts_with("header") || matches!(name, "message" | "descriptors" | "socket")
    };
    match error {
        Error::Closed { .. } => true,
        Error::Invalid(invalid) => is_final(&invalid.parameter),
        Error::Mismatch(mismatch) => is_final(mismatch.field),
        _ => false,
    }
}

/// Checks that a payload stays the same when it is sent on.
fn check_sent_on(received: Payload) {
    let (one, other) = UnixStream::pair().expect("sockets");
    ipc::send(&one, &received).expect("it was received from a socket");
    let again = ipc::receive(&other).expect("it was received before");
    assert_eq!(description(&received), description(&again));
}

/// Returns everything about a payload except its descriptor, after a check of its file.
fn description(received: &Payload) -> String {
    match received {
        Payload::Memory(payload) => memory(payload),
        Payload::Buffer(payload) => {
            format!("{} {} {:?}", memory(payload.memory()), payload.offset(), payload.desc())
        }
        Payload::Image(payload) => {
            let (offset, desc, linear) = (payload.offset(), payload.desc(), payload.linear());
            format!("{} {offset} {desc:?} {linear:?}", memory(payload.memory()))
        }
        Payload::Semaphore(payload) => format!("{:?}", payload.info()),
        other => format!("{other:?}"),
    }
}

fn memory(payload: &MemoryPayload) -> String {
    let fd = payload.as_fd().try_clone_to_owned().expect("a duplicate");
    let metadata = File::from(fd).metadata().expect("fstat");
    let promised = payload.info().allocation_size;
    assert!(!metadata.is_file() || promised <= metadata.len(), "{promised} bytes, {metadata:?}");
    assert!(!metadata.is_dir());
    format!("{:?}", payload.info())
}

/// Sends `piece` with `count` duplicates of `fd`. An empty piece and a full socket send nothing.
pub(crate) fn send_piece(socket: &UnixStream, piece: &[u8], fd: BorrowedFd<'_>, count: usize) {
    const MAX: usize = 15;
    let descriptors = [fd; MAX];
    let rights = SendAncillaryMessage::ScmRights(&descriptors[..count.min(MAX)]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if count > 0 {
        assert!(control.push(rights), "there is room for {MAX}");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = sendmsg(socket, &[IoSlice::new(piece)], &mut control, flags);
}
