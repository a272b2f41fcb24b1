//! What holds of any stream of bytes and descriptors that a peer may send.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use gpu_interop::ipc::{self, Received, Receiver};
use gpu_interop::{Error, MemoryPayload};

use crate::allocations;

/// What receiving may allocate at once, in bytes: a message is the largest.
pub(crate) const LARGEST_ALLOCATION: usize = ipc::wire::MAX_MESSAGE;

/// Length of the one file that may be memory.
pub(crate) const FILE_BYTES: u64 = 8192;

/// The descriptors that a piece may carry.
pub(crate) struct Descriptors([OwnedFd; 4]);

impl Descriptors {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the name ends in a NUL; the result is checked.
        let memory = owned(unsafe { libc::memfd_create(c"fuzz".as_ptr(), libc::MFD_CLOEXEC) })?;
        File::from(memory.try_clone()?).set_len(FILE_BYTES)?;
        // SAFETY: eventfd takes two numbers; the result is checked.
        let event = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        Ok(Self([memory, event, File::open("/dev/null")?.into(), File::open("/")?.into()]))
    }
}

impl Descriptors {
    /// Another descriptor of the one that may be memory.
    #[allow(dead_code, reason = "the session's")]
    pub(crate) fn memory(&self) -> OwnedFd {
        self.0[0].try_clone().expect("a duplicate")
    }
}

fn owned(raw: RawFd) -> io::Result<OwnedFd> {
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Sends what `script` says and receives it; panics where that breaks a promise.
///
/// A script is pieces: two bytes, of which the low twelve bits are the piece's length and the high four
/// how many descriptors ride on it; a byte that picks the descriptor; then the piece.
///
/// # Panics
/// Where an error is of a kind that a peer can't cause, an error that ends the stream isn't the last, a
/// payload is taken whose memory is too short, is sent on as another one, a descriptor stays open, or an
/// allocation is larger than a message.
pub(crate) fn check(script: &[u8]) {
    let descriptors = Descriptors::new().expect("files to send");
    let lowest_free = lowest_free();
    run(script, &descriptors).expect("sockets");
    assert_eq!(self::lowest_free(), lowest_free, "a descriptor stays open");
}

/// The pieces of a script.
#[allow(dead_code, reason = "the mutator's")]
pub(crate) fn pieces(mut script: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    std::iter::from_fn(move || {
        let (&mut [low, high, _], rest) = std::mem::take(&mut script).split_first_chunk_mut()?;
        let (piece, rest) = rest.split_at_mut(piece_len(low, high).min(rest.len()));
        script = rest;
        Some(piece)
    })
}

/// The first piece of a script, the descriptor on it, how often, and what follows.
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

/// The number that the next descriptor will have: a higher one where one was left open.
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

/// Receives until nothing more comes, and tells why.
fn receive(receiver: &mut Receiver, socket: &UnixStream, sent_on: &mut u32) -> Error {
    let mut before: Option<Error> = None;
    loop {
        let next = || receiver.receive(socket);
        match allocations::within(LARGEST_ALLOCATION, next) {
            Ok(received) => {
                assert!(before.is_none_or(|error| !ends(&error)), "the stream had ended");
                before = None;
                // Each takes a socket pair: a few will do.
                if *sent_on < 4 {
                    *sent_on += 1;
                    comes_out_the_same(received);
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

/// Whether every later call returns the same error.
fn ends(error: &Error) -> bool {
    let is_of_stream = |name: &str| {
        name.starts_with("header") || matches!(name, "message" | "descriptors" | "socket")
    };
    match error {
        Error::Closed { .. } => true,
        Error::Invalid(invalid) => is_of_stream(&invalid.parameter),
        Error::Mismatch(mismatch) => is_of_stream(mismatch.field),
        _ => false,
    }
}

/// What was received, sent on, is received as the same.
fn comes_out_the_same(received: Received) {
    let (one, other) = UnixStream::pair().expect("sockets");
    let sent = match &received {
        Received::Memory(payload) => ipc::send(&one, payload),
        Received::Buffer(payload) => ipc::send(&one, payload),
        Received::Image(payload) => ipc::send(&one, payload),
        Received::Semaphore(payload) => ipc::send(&one, payload),
        _ => return,
    };
    sent.expect("it came by a socket");
    let again = ipc::receive(&other).expect("it was received before");
    assert_eq!(description(&received), description(&again));
}

/// All that is known of a payload but its descriptor, after a look at what a file can tell.
fn description(received: &Received) -> String {
    match received {
        Received::Memory(payload) => memory(payload),
        Received::Buffer(payload) => {
            format!("{} {} {:?}", memory(payload.memory()), payload.offset(), payload.desc())
        }
        Received::Image(payload) => {
            let (offset, desc, linear) = (payload.offset(), payload.desc(), payload.linear());
            format!("{} {offset} {desc:?} {linear:?}", memory(payload.memory()))
        }
        Received::Semaphore(payload) => format!("{:?}", payload.info()),
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

/// `sendmsg` of `piece` with `fd` on it `count` times. An empty piece and a full socket send nothing.
pub(crate) fn send_piece(socket: &UnixStream, piece: &[u8], fd: BorrowedFd<'_>, count: usize) {
    const MAX: usize = 15;
    let count = count.min(MAX);
    let mut iov = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
    let fds = [fd.as_raw_fd(); MAX];
    // 16 bytes of header, and the numbers, rounded up to 8 bytes.
    let mut control = [0u64; (16 + 4 * MAX).div_ceil(8)];
    let bytes = (count * size_of::<RawFd>()) as u32;
    // SAFETY: a structure of numbers and pointers, for which 0 is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    // SAFETY: `control` is aligned for a header and has room for it and MAX numbers; the header is
    // written before the kernel reads it. sendmsg reads `iov`, `piece` and `control`, which are alive.
    unsafe {
        if count > 0 {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(header).cast(), count);
        }
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    }
}
