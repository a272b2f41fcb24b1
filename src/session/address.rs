//! The socket's file: made so that only the own user can connect, taken over where its owner is gone,
//! and removed at the end.
//!
//! # References
//! unix(7), flock(2).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Api, Error, Invalid, Missing, Result};

/// Read and write for the own user, nothing for others. To connect one must be able to write.
const MODE: libc::mode_t = 0o600;

/// Connections that wait to be accepted.
const BACKLOG: libc::c_int = 64;

/// How long another producer of the same directory may take to bind.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A socket's file. Dropping it removes the file, if it is still the same one.
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
        // Between the look and the removal only a producer could put another file there that holds
        // the lock, too. Without the lock the file stays: it is stale from now on, no more.
        let removed = lock_directory(&self.path).and_then(|_lock| {
            let now =
                fs::symlink_metadata(&self.path).map_err(|error| Error::io("lstat", &error))?;
            if id(&now) == self.file {
                fs::remove_file(&self.path).map_err(|error| Error::io("unlink", &error))?;
            }
            Ok(())
        });
        if let Err(error) = removed {
            tracing::debug!(path = %self.path.display(), %error, "the socket's file stays");
        }
    }
}

fn id(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Listens at `path`, which only the own user can connect to.
///
/// The mode is the socket's before it has a name: the kernel makes the file with it, so that there is
/// no moment in which others could connect, whatever the process's umask.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let address = Address::new(path)?;
    // For the end, when the process may be in another directory.
    let path = std::path::absolute(path).map_err(|error| Error::io("getcwd", &error))?;
    let _lock = lock_directory(&path)?;
    remove_stale(&path, &address)?;
    let socket = stream_socket()?;
    // SAFETY: fchmod takes numbers; on a socket without a name it sets the mode that bind uses, less
    // the umask's bits.
    check("fchmod", unsafe { libc::fchmod(socket.as_raw_fd(), MODE) })?;
    // SAFETY: the address is of the length given and alive.
    check("bind", unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len) })?;
    let made = fs::symlink_metadata(&path).map_err(|error| Error::io("lstat", &error))?;
    let file = SocketFile { path, file: id(&made) };
    // Where the umask takes bits of the own user away. Nobody can connect before listen(2).
    if made.mode() & 0o7777 != MODE {
        let mode = fs::Permissions::from_mode(MODE);
        fs::set_permissions(&file.path, mode).map_err(|error| Error::io("chmod", &error))?;
    }
    // SAFETY: listen takes two numbers.
    check("listen", unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(|error| Error::io("ioctl(FIONBIO)", &error))?;
    Ok((listener, file))
}

/// Connects to whoever listens at `path`.
///
/// # Errors
/// [`Error::Missing`] where nobody does, [`Error::Timeout`] where he takes no more connections.
pub(super) fn connect(path: &Path, timeout: Duration) -> Result<UnixStream> {
    let address = Address::new(path)?;
    let socket = UnixStream::from(stream_socket()?);
    let io = |call| move |error| Error::io(call, &error);
    // A connect waits for as long where the listener's queue is full. 0 would be for ever.
    let timeout = timeout.max(Duration::from_millis(1));
    socket.set_write_timeout(Some(timeout)).map_err(io("setsockopt(SO_SNDTIMEO)"))?;
    let started = Instant::now();
    loop {
        // SAFETY: the address is of the length given and alive.
        let connected = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr(), address.len) };
        if connected == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        let waited = started.elapsed();
        match error.raw_os_error() {
            Some(libc::EINTR) if waited < timeout => {}
            Some(libc::EINTR | libc::EAGAIN) => {
                let what = format!("a connection to {}", path.display());
                return Err(Error::Timeout { what: what.into(), waited });
            }
            Some(libc::ENOENT | libc::ECONNREFUSED) => return Err(nobody(path).into()),
            _ => return Err(Error::io("connect", &error)),
        }
    }
    socket.set_write_timeout(None).map_err(io("setsockopt(SO_SNDTIMEO)"))?;
    Ok(socket)
}

fn nobody(path: &Path) -> Missing {
    let what = format!("a producer that listens at {}", path.display());
    Missing::new(Api::Linux, what, "joining its session")
        .help("start the producer, or wait for it with options.wait_for_producer")
}

/// Removes a socket's file at which nobody listens, and nothing else.
fn remove_stale(path: &Path, address: &Address) -> Result<()> {
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
        return refuse("is there already, and is no socket", "name a path that is free");
    }
    let probe = stream_socket()?;
    let raw = probe.as_raw_fd();
    // SAFETY: F_SETFL takes the flags; a connection that has to wait shall fail instead.
    check("fcntl(F_SETFL)", unsafe { libc::fcntl(raw, libc::F_SETFL, libc::O_NONBLOCK) })?;
    // SAFETY: the address is of the length given and alive.
    if unsafe { libc::connect(raw, address.as_ptr(), address.len) } == 0 {
        return refuse("is another producer's", "end that one, or name another path");
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => {
            tracing::debug!(path = %path.display(), "removing the socket of a producer that is gone");
            fs::remove_file(path).map_err(|error| Error::io("unlink", &error))
        }
        Some(libc::EAGAIN) => {
            refuse("is another producer's, which is busy", "end that one, or name another path")
        }
        _ => Err(Error::io("connect", &error)),
    }
}

/// Keeps other producers of the path's directory from binding and removing, until it is dropped.
fn lock_directory(path: &Path) -> Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(OsStr::new(".")));
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(directory)
        .map_err(|error| Error::io("open", &error))?;
    let started = Instant::now();
    // SAFETY: flock takes two numbers; the lock goes with the descriptor.
    while unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        let waited = started.elapsed();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock if waited < TIMEOUT => {
                std::thread::sleep(Duration::from_millis(1));
            }
            io::ErrorKind::WouldBlock => {
                let what = "the lock of the socket's directory".into();
                return Err(Error::Timeout { what, waited });
            }
            _ => return Err(Error::io("flock", &error)),
        }
    }
    Ok(directory)
}

/// A path as the kernel takes it.
struct Address {
    address: libc::sockaddr_un,
    len: libc::socklen_t,
}

impl Address {
    fn new(path: &Path) -> Result<Self> {
        // SAFETY: a sockaddr_un is integers, for which 0 is a value.
        let mut address: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let bytes = path.as_os_str().as_bytes();
        let room = address.sun_path.len() - 1;
        let problem = match bytes.len() {
            0 => "is empty".to_owned(),
            len if len > room => format!("has {len} bytes, where a socket's has at most {room}"),
            _ if bytes.contains(&0) => "has a byte 0".to_owned(),
            _ => {
                for (to, from) in address.sun_path.iter_mut().zip(bytes) {
                    *to = *from as libc::c_char;
                }
                let begin = mem::offset_of!(libc::sockaddr_un, sun_path);
                // With the terminating 0.
                let len = (begin + bytes.len() + 1) as libc::socklen_t;
                return Ok(Self { address, len });
            }
        };
        Err(Invalid::new("path", problem).help("name a short path, in XDG_RUNTIME_DIR say").into())
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.address).cast()
    }
}

fn stream_socket() -> Result<OwnedFd> {
    // SAFETY: socket takes numbers; its result is checked before it is used.
    let raw = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    check("socket", raw)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn check(call: &'static str, returned: libc::c_int) -> Result<()> {
    match returned {
        0.. => Ok(()),
        _ => Err(Error::io(call, &io::Error::last_os_error())),
    }
}
