//! How a connection begins and ends: the socket's file, the users that may connect, and the close.
//!
//! The file admits only processes of the same user. It is replaced if its owner is gone, and
//! removed at the end.
//!
//! # References
//! unix(7).

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock, fstat, open as open_file};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect as connect_to,
    listen as start_listening, send, socket_with,
};
use rustix::process::geteuid;

use super::work::Deadline;
use crate::error::{Api, Error, Invalid, Mismatch, Missing, Result};
use crate::fd::{PeerCredentials, failed, refuse_descriptors};
use crate::ipc::socket::send_message;
use crate::ipc::wire::{LeaveReason, Message};

/// Read and write for the owner. Connecting requires write permission.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Number of connections that wait to be accepted.
pub(super) const BACKLOG: i32 = 64;

/// Timeout for another producer that binds to the same path.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum length of a path, which a terminating 0 follows in the `sockaddr_un`.
const MAX_PATH: usize = 107;

/// A socket's file. Dropping it removes the file unless another producer has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    file: (u64, u64),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The listener is still open, so another producer does not replace the file: to it, the file
        // belongs to a producer. No lock is needed, and another user's lock can't delay this.
        let removed =
            fs::symlink_metadata(&self.path).and_then(|found| match id(&found) == self.file {
                true => fs::remove_file(&self.path),
                false => Ok(()),
            });
        if let Err(error) = removed {
            tracing::debug!(path = %self.path.display(), %error, "the socket's file stays");
        }
    }
}

fn id(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Listens at `path`, to which only processes of the same user can connect.
///
/// The socket gets its mode before it gets its name, and the kernel creates the file with this
/// mode. So other users can't connect at any moment, whatever the process's umask is.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let address = address(path)?;
    // The file is removed later, when the current directory may be another one.
    let path = std::path::absolute(path).map_err(|error| Error::io("getcwd", &error))?;
    let _lock = BindLock::take(&path)?;
    remove_stale(&path, &address)?;
    let socket = stream_socket(SocketFlags::NONBLOCK)?;
    fchmod(&socket, MODE).map_err(failed("fchmod"))?;
    bind(&socket, &address).map_err(failed("bind"))?;
    let created = fs::symlink_metadata(&path).map_err(|error| Error::io("lstat", &error))?;
    let file = SocketFile { path, file: id(&created) };
    // The umask may have removed the owner's permissions. No process can connect before listen(2).
    let mode = MODE.as_raw_mode();
    if created.mode() & 0o7777 != mode {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(&file.path, permissions).map_err(|error| Error::io("chmod", &error))?;
    }
    // Connections inherit it. Older kernels do not have it.
    refuse_descriptors(socket.as_fd());
    start_listening(&socket, BACKLOG).map_err(failed("listen"))?;
    Ok((UnixListener::from(socket), file))
}

/// Connects to the producer that listens at `path`.
///
/// # Errors
/// [`Error::Missing`] if no process listens there, [`Error::Timeout`] if the producer accepts no
/// connection in time.
pub(super) fn connect(path: &Path, timeout: Duration) -> Result<UnixStream> {
    let address = address(path)?;
    let socket = UnixStream::from(stream_socket(SocketFlags::empty())?);
    let set_timeout = |timeout| {
        let set = socket.set_write_timeout(timeout);
        set.map_err(|error| Error::io("setsockopt(SO_SNDTIMEO)", &error))
    };
    // If the listener's queue is full, connect(2) waits for the write timeout. 0 would mean no
    // limit.
    let timeout = timeout.max(Duration::from_millis(1));
    set_timeout(Some(timeout))?;
    let deadline = Deadline::after(timeout);
    loop {
        match connect_to(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) if deadline.left().is_some() => {}
            Err(Errno::INTR | Errno::AGAIN) => {
                return Err(deadline.error(format!("a connection to {}", path.display())));
            }
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(no_producer(path).into()),
            Err(errno) => return Err(failed("connect")(errno)),
        }
    }
    set_timeout(None)?;
    Ok(socket)
}

fn no_producer(path: &Path) -> Missing {
    let what = format!("a producer that listens at {}", path.display());
    Missing::new(Api::Linux, what, "joining its session")
        .help("start the producer, or set options.wait_for_producer")
}

/// Removes a socket's file at which no process listens, and nothing else.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("lstat", &error)),
    };
    let refuse = |problem: &str, help: &'static str| {
        let problem = format!("{} {problem}", path.display());
        Err(Invalid::new("path", problem).help(help).into())
    };
    if !found.file_type().is_socket() {
        return refuse("exists and is not a socket", "use a path that does not exist");
    }
    let probe = stream_socket(SocketFlags::NONBLOCK)?;
    match connect_to(&probe, address) {
        Ok(()) | Err(Errno::AGAIN) => {
            refuse("belongs to another producer", "stop it, or use another path")
        }
        Err(Errno::CONNREFUSED) => {
            tracing::debug!(path = %path.display(), "removing the socket of a producer that is gone");
            fs::remove_file(path).map_err(|error| Error::io("unlink", &error))
        }
        Err(errno) => Err(failed("connect")(errno)),
    }
}

/// Keeps other producers from binding to the same path until it is dropped: a lock on a file beside
/// the socket, with the suffix `.lock`, which exists only meanwhile.
///
/// The file belongs to the user of this process and has mode 0600, so no other user can lock it. If
/// another user has created a file of this name, or it can't be created, there is no lock: then two
/// producers of this user that replace the same abandoned socket at once may both succeed.
///
/// # References
/// flock(2).
#[derive(Debug)]
struct BindLock {
    /// The lock's file, while it is locked.
    locked: Option<(OwnedFd, PathBuf)>,
}

impl BindLock {
    fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let name = PathBuf::from(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let deadline = Deadline::after(LOCK_TIMEOUT);
        loop {
            let opened = open_file(&name, flags | OFlags::CLOEXEC, MODE);
            let found = opened.and_then(|file| Ok((fstat(&file)?, file)));
            let (found, file) = match found {
                Ok((found, file)) if found.st_uid == geteuid().as_raw() => (found, file),
                other => {
                    let error = other.err();
                    tracing::debug!(name = %name.display(), ?error, "binding without a lock");
                    return Ok(Self { locked: None });
                }
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // The previous owner may have removed it before it was locked here.
                    let now = fs::symlink_metadata(&name).map(|now| id(&now));
                    if now.is_ok_and(|now| now == (found.st_dev, found.st_ino)) {
                        return Ok(Self { locked: Some((file, name)) });
                    }
                }
                Err(Errno::INTR | Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(failed("flock")(errno)),
            }
            if deadline.left().is_none() {
                return Err(deadline.error("another producer that binds to the same path"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for BindLock {
    fn drop(&mut self) {
        if let Some((_locked, name)) = &self.locked {
            let _ = fs::remove_file(name);
        }
    }
}

/// Returns a path as a socket address.
fn address(path: &Path) -> Result<SocketAddrUnix> {
    let bytes = path.as_os_str().as_bytes();
    let problem = match bytes.len() {
        0 => "is empty".to_owned(),
        len if len > MAX_PATH => {
            format!("has {len} bytes, but the path of a socket has at most {MAX_PATH}")
        }
        _ if bytes.contains(&0) => "contains a 0 byte".to_owned(),
        _ => return SocketAddrUnix::new(path).map_err(failed("bind")),
    };
    Err(Invalid::new("path", problem)
        .help("use a short path, for example in XDG_RUNTIME_DIR")
        .into())
}

fn stream_socket(flags: SocketFlags) -> Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed("socket"))
}

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
                own = [geteuid().as_raw()];
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
/// A peer that doesn't get the reason learns the same from the end of the connection: its slots are
/// no longer its own.
pub(super) fn close(socket: &UnixStream, reason: Option<LeaveReason>) {
    if let Some(reason) = reason
        && let Err(error) = send_message(socket, &Message::Leave(reason), None)
    {
        tracing::debug!(?reason, %error, "the reason for the end of the connection was not sent");
    }
    // Closing alone has no effect while a duplicate of the socket is open.
    let _ = socket.shutdown(Shutdown::Both);
}

/// Whether the peer no longer reads, although it may still write (shutdown(2) with SHUT_RD): sending
/// fails. Sends nothing.
pub(super) fn is_deaf(socket: &UnixStream) -> bool {
    matches!(send(socket, &[], SendFlags::DONTWAIT | SendFlags::NOSIGNAL), Err(Errno::PIPE))
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
        let own = geteuid().as_raw();
        let other = PeerCredentials { pid: 1, uid: own + 1 };
        let error = PeerPolicy::OwnUser.check(other).unwrap_err();
        assert!(matches!(&error, Error::Mismatch(m) if m.field == "peer.uid"), "{error:?}");
        assert!(error.to_string().contains(&other.uid.to_string()), "{error}");
        PeerPolicy::Users(vec![0, other.uid]).check(other).unwrap();
        PeerPolicy::Anyone.check(other).unwrap();
        assert!(PeerPolicy::Users(vec![]).check(other).is_err());
    }
}
