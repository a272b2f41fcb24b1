//! How long a send or a receive waits: as long as the socket says.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::socket;
use crate::error::{Error, Invalid, Result};

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Bytes to read, within the socket's read timeout.
    Reading,
    /// Room to write, within the socket's write timeout.
    Writing,
}

/// Waits as the socket would by itself: not at all where it is non-blocking, for its timeout where it
/// has one, else until something happens.
///
/// The timeout counts once for a whole message, from the call on: a peer that sends a byte now and
/// then holds nobody up for longer.
#[derive(Debug)]
pub(crate) struct Wait {
    kind: For,
    started: Instant,
}

impl Wait {
    pub(crate) fn start(kind: For) -> Self {
        Self { kind, started: Instant::now() }
    }

    /// Returns when the socket may be tried again.
    pub(crate) fn until_ready(&self, socket: &UnixStream) -> Result<()> {
        let io = |call| move |error| Error::io(call, &error);
        if socket::is_nonblocking(socket.as_fd()).map_err(io("fcntl(F_GETFL)"))? {
            return Err(self.timed_out(Duration::ZERO));
        }
        let (timeout, event) = match self.kind {
            For::Reading => (socket.read_timeout(), libc::POLLIN | libc::POLLPRI),
            For::Writing => (socket.write_timeout(), libc::POLLOUT),
        };
        let waited = self.started.elapsed();
        let left = match timeout.map_err(io("getsockopt"))? {
            None => None,
            Some(limit) if limit > waited => Some(limit - waited),
            Some(_) => return Err(self.timed_out(waited)),
        };
        let seen = socket::wait(socket.as_fd(), event, left).map_err(io("ppoll"))?;
        // Out-of-band data make a socket ready without anything to read: waiting would spin.
        if seen & libc::POLLPRI != 0 {
            let problem = "has out-of-band data, which the format knows nothing of";
            return Err(Invalid::new("socket", problem).into());
        }
        Ok(())
    }

    fn timed_out(&self, waited: Duration) -> Error {
        let what = match self.kind {
            For::Reading => "a message from the peer",
            For::Writing => "room in the socket",
        };
        Error::Timeout { what: what.into(), waited }
    }
}
