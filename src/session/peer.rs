//! The process at the other end of a connection: which users are accepted, and how it is disconnected.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::error::{Error, Mismatch, Result};
use crate::fd::PeerCredentials;
use crate::ipc::socket::send_message;
use crate::ipc::wire::{LeaveReason, Message};

/// The users whose processes may take part in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerPolicy {
    /// Only processes with the effective user ID of this process. root is not exempt.
    #[default]
    OwnUser,
    /// Processes with one of these effective user IDs. Your own must be listed too.
    Users(Vec<u32>),
    /// All processes. Nothing is checked.
    Anyone,
}

impl PeerPolicy {
    /// Refuses a process of a user that may not take part.
    pub(super) fn check(&self, peer: PeerCredentials) -> Result<()> {
        let own;
        let users = match self {
            Self::Anyone => return Ok(()),
            Self::Users(users) => users.as_slice(),
            Self::OwnUser => {
                own = [rustix::process::geteuid().as_raw()];
                &own
            }
        };
        if users.contains(&peer.uid) {
            return Ok(());
        }
        let users: Vec<_> = users.iter().map(u32::to_string).collect();
        Err(Mismatch::new("peer.uid", users.join(" or "), peer.uid)
            .help("list the users that may take part in options.allowed")
            .into())
    }
}

/// Makes a connected socket non-blocking and returns the credentials of its peer.
pub(super) fn open(socket: &UnixStream) -> Result<PeerCredentials> {
    let nonblocking = socket.set_nonblocking(true);
    nonblocking.map_err(|error| Error::io("ioctl(FIONBIO)", &error))?;
    PeerCredentials::of(socket.as_fd())
}

/// Sends *leave* with the reason, if there is one and the socket has room, and ends the connection.
///
/// A peer that doesn't get the reason learns the same from the end of the connection: its slots are no
/// longer its own.
pub(super) fn close(socket: &UnixStream, reason: Option<LeaveReason>) {
    if let Some(reason) = reason
        && let Err(error) = send_message(socket, &Message::Leave(reason), None)
    {
        tracing::debug!(?reason, %error, "the reason for the end of the connection was not sent");
    }
    // Closing alone has no effect while a duplicate of the socket is open.
    let _ = socket.shutdown(Shutdown::Both);
}

/// Classifies a receive error: whether the connection was lost, between two messages or within one.
/// Every other error is a protocol violation or a failed system call.
pub(super) fn is_lost(error: &Error) -> bool {
    match error {
        Error::Closed { .. } => true,
        Error::Invalid(invalid) => invalid.parameter == "message",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_same_user_is_accepted() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = open(&one).unwrap();
        PeerPolicy::OwnUser.check(peer).unwrap();
        PeerPolicy::Users(vec![peer.uid]).check(peer).unwrap();
    }

    #[test]
    fn a_process_of_another_user_is_refused_unless_the_user_is_listed() {
        let own = rustix::process::geteuid().as_raw();
        let other = PeerCredentials { pid: 1, uid: own + 1 };
        let error = PeerPolicy::OwnUser.check(other).unwrap_err();
        assert!(matches!(&error, Error::Mismatch(m) if m.field == "peer.uid"), "{error:?}");
        assert!(error.to_string().contains(&other.uid.to_string()), "{error}");
        PeerPolicy::Users(vec![0, other.uid]).check(other).unwrap();
        PeerPolicy::Anyone.check(other).unwrap();
        assert!(PeerPolicy::Users(vec![]).check(other).is_err());
    }
}
