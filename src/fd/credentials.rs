//! The process at the other end of a Unix socket.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, mem};

use crate::error::{Error, Result};

/// The credentials of the process at the other end of a Unix socket, as the kernel recorded them when
/// the socket was connected or began to listen.
///
/// rustix can't return them: its process IDs are never 0, but the kernel reports 0 for a process of
/// another PID namespace, such as a container.
///
/// # References
/// unix(7), `SO_PEERCRED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerCredentials {
    /// Its process ID; 0 if it is outside the PID namespace of this process.
    pub(crate) pid: u32,
    /// Its effective user ID.
    pub(crate) uid: u32,
}

impl PeerCredentials {
    /// Returns the credentials of the peer of `socket`.
    ///
    /// # Errors
    /// [`Error::Driver`] if `socket` is not a socket.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Result<Self> {
        let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = mem::size_of_val(&found) as libc::socklen_t;
        // SAFETY: the socket is open while it is borrowed. `found` is writable and has `len` bytes, and
        // any bytes are valid for it, since it consists of integers.
        let result = unsafe {
            let into = (&raw mut found).cast();
            let raw = socket.as_raw_fd();
            libc::getsockopt(raw, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &mut len)
        };
        if result != 0 {
            return Err(Error::io("getsockopt(SO_PEERCRED)", &io::Error::last_os_error()));
        }
        Ok(Self { pid: found.pid.try_into().unwrap_or(0), uid: found.uid })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = PeerCredentials::of(one.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id());
    }

    #[test]
    fn a_file_has_no_peer() {
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(PeerCredentials::of(file.as_fd()), Err(Error::Driver(_))));
    }
}
