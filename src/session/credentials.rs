//! Whose process is at the other end.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::{Error, Mismatch, Result};

/// Whose processes may take part in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerPolicy {
    /// Those of this process's own effective user. Not even root's, unless that is the user.
    #[default]
    OwnUser,
    /// Those of these users, by number. The own is one only where it is named.
    Users(Vec<u32>),
    /// Anyone's. Nothing is asked.
    Anyone,
}

/// A process at the other end of a socket, as the kernel knew it when the socket was connected or
/// began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// 0 where it is outside this process's namespace.
    pub(super) pid: u32,
    pub(super) uid: u32,
}

impl Credentials {
    /// Asks the kernel.
    pub(super) fn of_peer(socket: BorrowedFd<'_>) -> Result<Self> {
        let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = mem::size_of_val(&found) as libc::socklen_t;
        // SAFETY: the socket is open for as long as it is borrowed; `found` is writable and `len` its
        // size.
        let got = unsafe {
            let into = (&raw mut found).cast();
            let raw = socket.as_raw_fd();
            libc::getsockopt(raw, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &mut len)
        };
        if got != 0 {
            return Err(Error::io("getsockopt(SO_PEERCRED)", &io::Error::last_os_error()));
        }
        Ok(Self { pid: found.pid.try_into().unwrap_or(0), uid: found.uid })
    }
}

impl PeerPolicy {
    /// Refuses a process of another user.
    pub(super) fn check(&self, peer: Credentials) -> Result<()> {
        let own;
        let users = match self {
            Self::Anyone => return Ok(()),
            Self::Users(users) => users.as_slice(),
            Self::OwnUser => {
                // SAFETY: geteuid takes nothing and never fails.
                own = [unsafe { libc::geteuid() }];
                &own
            }
        };
        if users.contains(&peer.uid) {
            return Ok(());
        }
        let users: Vec<_> = users.iter().map(u32::to_string).collect();
        Err(Mismatch::new("peer.uid", users.join(" or "), peer.uid)
            .help("name the users that may take part in options.allowed")
            .into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Credentials::of_peer(one.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id());
        PeerPolicy::OwnUser.check(peer).unwrap();
        PeerPolicy::Users(vec![peer.uid]).check(peer).unwrap();
    }

    #[test]
    fn another_user_is_refused_with_both_numbers_unless_he_is_named() {
        // SAFETY: geteuid takes nothing and never fails.
        let other = Credentials { pid: 1, uid: unsafe { libc::geteuid() } + 1 };
        let error = PeerPolicy::OwnUser.check(other).unwrap_err();
        assert!(matches!(&error, Error::Mismatch(m) if m.field == "peer.uid"), "{error:?}");
        assert!(error.to_string().contains(&other.uid.to_string()), "{error}");
        PeerPolicy::Users(vec![0, other.uid]).check(other).unwrap();
        PeerPolicy::Anyone.check(other).unwrap();
        assert!(PeerPolicy::Users(vec![]).check(other).is_err());
    }
}
