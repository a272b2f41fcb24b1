//! Descriptors that another process attached to a message, and sockets in which it may have left
//! some: closed and examined without waiting for it.
//!
//! close(2) can block for as long as another process likes: on a TCP socket with `SO_LINGER` and
//! unsent data, on a file that a process serves (FUSE), or on a socket that still has such
//! descriptors in its queue. So what a peer may have touched is closed by threads named
//! `interop-close`, of which there are at most [`MAX_CLOSERS`]. A thread starts when there is
//! something to close that no idle thread can take, and ends when it has been idle for
//! [`IDLE_TIMEOUT`]. Callers accept nothing new while [`MAX_WAITING`] descriptors wait
//! ([`is_congested`]).
//!
//! What could block in the examination of a descriptor runs in a thread named `interop-examine`,
//! and the caller waits for it for a limited time. There are at most [`MAX_EXAMINATIONS`].
//!
//! # References
//! close(2), socket(7) `SO_LINGER`, unix(7) `SCM_RIGHTS`.

use std::collections::VecDeque;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fd::can_answer_at_once;

/// Maximum number of threads that close descriptors, so that some can block.
const MAX_CLOSERS: usize = 16;

/// Number of descriptors waiting for such a thread at which nothing new is accepted.
const MAX_WAITING: usize = 64;

/// How long an idle thread waits for the next descriptor.
const IDLE_TIMEOUT: Duration = Duration::from_millis(20);

/// Maximum number of examinations that have not ended, in this process.
const MAX_EXAMINATIONS: usize = 8;

/// What an examination gets at least, if the caller's own timeout has less left. It takes
/// microseconds unless another process delays it.
const LEAST_EXAMINATION: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Closers {
    waiting: VecDeque<OwnedFd>,
    /// Threads that exist.
    threads: usize,
    /// Those of them that wait for a descriptor.
    idle: usize,
}

static CLOSERS: Mutex<Closers> =
    Mutex::new(Closers { waiting: VecDeque::new(), threads: 0, idle: 0 });
static CHANGED: Condvar = Condvar::new();

fn closers() -> MutexGuard<'static, Closers> {
    // No code that holds the lock panics.
    CLOSERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a descriptor soon, in another thread.
pub(super) fn close_elsewhere(fd: OwnedFd) {
    let mut closers = closers();
    closers.waiting.push_back(fd);
    if closers.waiting.len() > closers.idle && closers.threads < MAX_CLOSERS {
        let started = thread::Builder::new().name("interop-close".into()).spawn(close_all);
        match started {
            Ok(_detached) => closers.threads += 1,
            // It waits for one of the threads that exist, or for the next call.
            Err(error) => tracing::warn!(%error, "no thread to close a descriptor in"),
        }
    }
    drop(closers);
    CHANGED.notify_all();
}

/// Closes descriptors until there have been none for a while.
fn close_all() {
    let mut locked = closers();
    loop {
        if let Some(fd) = locked.waiting.pop_front() {
            drop(locked);
            CHANGED.notify_all();
            drop(fd);
            locked = closers();
            continue;
        }
        CHANGED.notify_all();
        locked.idle += 1;
        let waited = CHANGED.wait_timeout_while(locked, IDLE_TIMEOUT, |c| c.waiting.is_empty());
        locked = waited.unwrap_or_else(PoisonError::into_inner).0;
        locked.idle -= 1;
        if locked.waiting.is_empty() {
            locked.threads -= 1;
            return;
        }
    }
}

/// Whether so many descriptors wait to be closed that no more should be accepted.
#[cfg(feature = "session")]
pub(crate) fn is_congested() -> bool {
    closers().waiting.len() >= MAX_WAITING
}

/// Waits until more descriptors can be accepted.
///
/// # Errors
/// [`Error::Timeout`] after `limit`.
pub(crate) fn wait_for_room(limit: Option<Duration>) -> Result<()> {
    let waited = limit.unwrap_or(Duration::MAX);
    let congested = |closers: &mut Closers| closers.waiting.len() >= MAX_WAITING;
    let mut locked = closers();
    if congested(&mut locked) {
        locked = match limit {
            None => CHANGED.wait_while(locked, congested).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = CHANGED.wait_timeout_while(locked, limit, congested);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
    if congested(&mut locked) {
        let what = "the closing of descriptors that other processes have sent".into();
        return Err(Error::Timeout { what, waited });
    }
    Ok(())
}

/// Waits until everything is closed, or for 10 seconds.
#[cfg(test)]
pub(crate) fn settle() {
    let limit = Duration::from_secs(10);
    let busy = |c: &mut Closers| !c.waiting.is_empty() || c.threads > c.idle;
    drop(CHANGED.wait_timeout_while(closers(), limit, busy));
}

/// A descriptor that another process has sent, or a socket that it can write to. Dropping it closes
/// it in another thread, unless it is a memfd.
#[derive(Debug)]
pub(crate) struct Foreign<T: Into<OwnedFd> = OwnedFd>(Option<T>);

/// Why a [`Foreign`] always has its descriptor.
const FULL: &str = "only trust and drop empty it, and nothing uses it afterwards";

impl<T: Into<OwnedFd>> Foreign<T> {
    pub(crate) fn new(descriptor: T) -> Self {
        Self(Some(descriptor))
    }

    /// Returns it, to be closed by an ordinary drop.
    pub(crate) fn trust(mut self) -> T {
        self.0.take().expect(FULL)
    }
}

impl<T: Into<OwnedFd>> Deref for Foreign<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(FULL)
    }
}

impl<T: Into<OwnedFd> + AsFd> AsFd for Foreign<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl<T: Into<OwnedFd>> Drop for Foreign<T> {
    fn drop(&mut self) {
        let Some(descriptor) = self.0.take().map(Into::into) else { return };
        // The close of a memfd does not block.
        if !can_answer_at_once(&descriptor) {
            close_elsewhere(descriptor);
        }
    }
}

/// Examinations that have not ended.
static EXAMINATIONS: AtomicUsize = AtomicUsize::new(0);

/// One of them. Dropped when it has ended, also by a panic.
struct Examination;

impl Examination {
    /// Returns `None` if there are [`MAX_EXAMINATIONS`].
    fn begin() -> Option<Self> {
        let running = EXAMINATIONS.fetch_add(1, Ordering::Relaxed);
        let this = Self;
        (running < MAX_EXAMINATIONS).then_some(this)
    }
}

impl Drop for Examination {
    fn drop(&mut self) {
        EXAMINATIONS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `check` on a descriptor in a thread of its own, for at most `limit`, and returns the
/// descriptor if it passes.
///
/// # Errors
/// The errors of `check`; [`Error::Timeout`] if it does not end in time. The descriptor is closed
/// when it has ended.
pub(super) fn examine(
    fd: Foreign,
    limit: Duration,
    check: impl FnOnce(BorrowedFd<'_>) -> Result<()> + Send + 'static,
) -> Result<Foreign> {
    let limit = limit.max(LEAST_EXAMINATION);
    let late = || {
        let what = "the examination of a descriptor, which another process may delay".into();
        Error::Timeout { what, waited: limit }
    };
    let examination = Examination::begin().ok_or_else(late)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let run = move || {
        let result = check(fd.as_fd()).map(|()| fd);
        drop(examination);
        // If the caller no longer waits, the descriptor is dropped, which closes it.
        let _ = sender.send(result);
    };
    let started = thread::Builder::new().name("interop-examine".into()).spawn(run);
    started.map_err(|error| Error::io("clone", &error))?;
    receiver.recv_timeout(limit).unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use rustix::net::sockopt::set_socket_linger;

    use super::*;

    /// A TCP socket whose close(2) waits up to `time`: it has unsent data that the other end, which is
    /// returned as well, does not read.
    fn lingering(time: Duration) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 1 << 16]).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        set_socket_linger(&socket, Some(time)).unwrap();
        (socket, other)
    }

    #[test]
    fn a_close_that_blocks_delays_neither_the_caller_nor_other_closes() {
        let time = Duration::from_secs(2);
        let (socket, _other) = lingering(time);
        let started = Instant::now();
        drop(Foreign::new(OwnedFd::from(socket)));
        let (mut read, write) = std::io::pipe().unwrap();
        drop(Foreign::new(OwnedFd::from(write)));
        assert_eq!(std::io::Read::read(&mut read, &mut [0]).unwrap(), 0, "it is closed");
        assert!(started.elapsed() < time / 2, "{:?}", started.elapsed());
        settle();
    }

    #[test]
    fn an_examination_that_does_not_end_is_a_timeout() {
        let (_read, write) = std::io::pipe().unwrap();
        let fd = Foreign::new(OwnedFd::from(write));
        let fd = examine(fd, Duration::from_secs(9), |_| Ok(())).unwrap();
        let started = Instant::now();
        let result = examine(fd, Duration::from_millis(60), |_| {
            thread::sleep(Duration::from_secs(1));
            Ok(())
        });
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
        assert!(started.elapsed() < Duration::from_millis(500));
    }
}
