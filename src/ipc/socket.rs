//! The system calls: `sendmsg`, `recvmsg` and `ppoll`, with descriptors owned from the first moment.
//!
//! # References
//! unix(7), cmsg(3), sendmsg(2), recvmsg(2).

use std::io::{Error, ErrorKind, Result};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// The most descriptors that one message can carry: SCM_MAX_FD of the kernel's `net/scm.h`.
const SCM_MAX_FD: u32 = 253;

/// `SCM_PIDFD` of the kernel's `linux/socket.h`: sent where the socket has SO_PASSPIDFD.
const SCM_PIDFD: libc::c_int = 0x04;

const FD_BYTES: u32 = mem::size_of::<RawFd>() as u32;

/// Room for control messages.
///
/// Big enough for all the descriptors that the kernel would ever deliver at once, and for the
/// credentials and the security label that it adds where the socket asks for them. So whatever a
/// peer attaches arrives whole, is owned and is closed; truncation means that this process has no
/// room for more descriptors.
#[repr(C, align(16))]
struct Control([u8; CONTROL_LEN]);

const CONTROL_LEN: usize = 2048;

/// Bytes that `count` descriptors take as control message.
const fn space(count: u32) -> usize {
    // SAFETY: CMSG_SPACE computes a number from a number.
    unsafe { libc::CMSG_SPACE(count * FD_BYTES) as usize }
}

const _: () = assert!(space(SCM_MAX_FD) + 512 <= CONTROL_LEN);
const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// What one `recvmsg` returned.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// How many bytes; 0 at the end of the stream.
    pub(crate) bytes: usize,
    /// The descriptors that rode on them, all with FD_CLOEXEC.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// There were more descriptors than the kernel could deliver (MSG_CTRUNC).
    pub(crate) truncated: bool,
}

/// Whether a read leaves what it read in the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// It stays; descriptors are duplicated (MSG_PEEK).
    Peek,
    /// It is taken out.
    Take,
}

/// `recvmsg` that never waits. `into` is not empty.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8], read: Read) -> Result<Arrived> {
    let mut control = Control([0; CONTROL_LEN]);
    let mut iov = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut message = empty_message(&mut iov);
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _;
    let peek = if read == Read::Peek { libc::MSG_PEEK } else { 0 };
    // FD_CLOEXEC is set by the kernel: a child that another thread starts never sees them.
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | peek;
    let bytes = retry(|| {
        // SAFETY: `socket` is open for as long as it is borrowed; `message` points at `iov`, which
        // describes `into`, and at `control`, each writable, of the length given, and alive.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) }
    })?;
    // SAFETY: recvmsg has succeeded and filled `message`; `control` is alive, and its descriptors are
    // new and taken here only.
    let descriptors = unsafe { take_descriptors(&message) };
    Ok(Arrived { bytes, descriptors, truncated: message.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// `sendmsg` that never waits and never raises SIGPIPE. Returns how many bytes went; a descriptor
/// goes with the first.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<usize> {
    let mut control = Control([0; CONTROL_LEN]);
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = empty_message(&mut iov);
    if let Some(descriptor) = descriptor {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = space(1) as _;
        // SAFETY: `message` points at `control`, which is aligned for a cmsghdr and has room for one
        // with one descriptor, so that CMSG_FIRSTHDR is its start and CMSG_DATA lies inside.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(FD_BYTES) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor.as_raw_fd());
        }
    }
    retry(|| {
        // SAFETY: `socket` and `descriptor` are open for as long as they are borrowed; `message`
        // points at `iov`, which describes `bytes` and is only read, and at `control`.
        unsafe {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            libc::sendmsg(socket.as_raw_fd(), &message, flags)
        }
    })
}

/// Waits until `events` or an end of the connection are seen, `limit` has passed, or a signal came;
/// returns what was seen.
pub(crate) fn wait(
    socket: BorrowedFd<'_>,
    events: libc::c_short,
    limit: Option<Duration>,
) -> Result<libc::c_short> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    let limit = limit.map(timespec);
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `poll` is one entry, `limit` is null or points at a timespec that is alive, and a null
    // mask leaves the signals as they are.
    match unsafe { libc::ppoll(&mut poll, 1, limit, ptr::null()) } {
        0.. => Ok(poll.revents),
        _ => match Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        },
    }
}

/// Whether the socket is in non-blocking mode, which `std` can set and not tell.
pub(crate) fn is_nonblocking(socket: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: F_GETFL reads the flags of a descriptor that is open for as long as it is borrowed.
    match unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(Error::last_os_error()),
        flags => Ok(flags & libc::O_NONBLOCK != 0),
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    // SAFETY: a timespec is integers (and padding in some C libraries), for which 0 is a value.
    let mut spec: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
    // Fits every C library's time_t; who wants to wait for longer than 68 years waits again.
    spec.tv_sec = duration.as_secs().min(i32::MAX as u64) as _;
    spec.tv_nsec = duration.subsec_nanos() as _;
    spec
}

fn empty_message(iov: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: a msghdr is integers and pointers (and padding in some C libraries), for which 0 and
    // null are values.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = iov;
    message.msg_iovlen = 1;
    message
}

/// Calls again while a signal interrupts.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Takes ownership of every descriptor in a received message.
///
/// # Safety
/// A successful `recvmsg` has filled `message`, its control buffer is alive and initialised, and
/// nobody else takes the descriptors.
unsafe fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: `message` and its control buffer are as the kernel left them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or an aligned header inside the buffer.
        let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { *header };
        // SAFETY: CMSG_LEN computes a number, and the data of a header begin behind it.
        let (data, overhead) = unsafe { (libc::CMSG_DATA(header), libc::CMSG_LEN(0) as usize) };
        // A u32 in some C libraries.
        #[allow(clippy::unnecessary_cast)]
        let cmsg_len = cmsg_len as usize;
        let count = cmsg_len.saturating_sub(overhead) / FD_BYTES as usize;
        if cmsg_level == libc::SOL_SOCKET && cmsg_type == libc::SCM_RIGHTS {
            for index in 0..count {
                // SAFETY: the header's length covers `count` descriptors, each new in this process
                // and owned by nobody: unix(7), "as though it had been created with dup(2)".
                descriptors.push(unsafe {
                    OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned())
                });
            }
        } else if cmsg_level == libc::SOL_SOCKET && cmsg_type == SCM_PIDFD && count == 1 {
            // The socket's owner asked for it; here nobody does.
            // SAFETY: the data are one descriptor or, where there is none, a negative number, and
            // the new descriptor is owned by nobody.
            unsafe {
                let pidfd = data.cast::<RawFd>().read_unaligned();
                if pidfd >= 0 {
                    drop(OwnedFd::from_raw_fd(pidfd));
                }
            }
        }
        // SAFETY: `header` is a header of `message`, whose control buffer is alive.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    descriptors
}
