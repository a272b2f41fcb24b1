//! Waiting for several sockets at once.
//!
//! # References
//! epoll(7), epoll_ctl(2).

use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of descriptors that is readable, as a descriptor itself, when one of them has something to
/// tell.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

/// What is asked of every socket: bytes, the end of the connection, out-of-band data.
pub(super) const READ: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI) as u32;
/// Room for bytes, besides.
pub(super) const WRITE: u32 = libc::EPOLLOUT as u32;
/// Out-of-band data have arrived.
pub(super) const OUT_OF_BAND: u32 = libc::EPOLLPRI as u32;

/// How many are told of at a time; the rest come with the next call.
const AT_ONCE: usize = 32;

impl Epoll {
    pub(super) fn new() -> Result<Self> {
        // SAFETY: epoll_create1 takes a number; its result is checked before it is used.
        let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if raw < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    pub(super) fn add(&self, fd: impl AsFd, token: u64, events: u32) -> Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), token, events)
    }

    pub(super) fn modify(&self, fd: impl AsFd, token: u64, events: u32) -> Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), token, events)
    }

    /// Takes `fd` out. Closing it is not enough where somebody has a duplicate.
    pub(super) fn remove(&self, fd: impl AsFd) -> Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, 0)
    }

    fn control(&self, what: i32, fd: BorrowedFd<'_>, token: u64, events: u32) -> Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        let (set, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open for as long as they are borrowed, and `event` is alive.
        match unsafe { libc::epoll_ctl(set, what, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }

    /// Token and events of those that have something to tell now; never waits.
    pub(super) fn ready(&self) -> Result<Vec<(u64, u32)>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; AT_ONCE];
        let count = loop {
            // SAFETY: there is room for `AT_ONCE` events.
            let count = unsafe {
                libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), AT_ONCE as i32, 0)
            };
            match usize::try_from(count) {
                Ok(count) => break count,
                Err(_) => match Error::last_os_error() {
                    error if error.kind() == std::io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        };
        Ok(events[..count].iter().map(|event| (event.u64, event.events)).collect())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
