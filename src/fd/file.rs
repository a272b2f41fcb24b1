//! What the kernel reports about a file descriptor or a socket's peer; duplicates; FD_CLOEXEC.
//!
//! The only `unsafe` below the peers is in this file: `F_SETSIG`, `SO_PEERCRED` and `SO_PASSRIGHTS`,
//! which rustix lacks.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, OFlags, StatxFlags, fcntl_getfl, fstat, fstatfs, major, minor, statx,
};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::process::{Resource, getrlimit};

use crate::error::{Api, DriverError, Error, OUT_OF_DESCRIPTORS, Result};

/// `/dev/null`, `/dev/zero` and the other devices of `Documentation/admin-guide/devices.txt` that
/// share major number 1. GPUs have others.
pub(crate) const MAJOR_MEMORY_DEVICES: u32 = 1;

/// `/dev/nvidiactl` and the other devices of NVIDIA's kernel module, in the same list.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) const MAJOR_NVIDIA: u32 = 195;

/// What kind of file a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A file with a length, such as a memfd.
    Regular {
        len: u64,
    },
    /// A character device, such as the descriptors of NVIDIA's driver.
    CharDevice {
        major: u32,
        minor: u32,
    },
    /// No file type: dma-bufs, sync files and other anonymous inodes.
    Anonymous,
    Pipe,
    Socket,
    Directory,
    BlockDevice,
    Link,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regular { len } => write!(f, "a file of {len} bytes"),
            Self::CharDevice { major: MAJOR_MEMORY_DEVICES, .. } => {
                f.write_str("/dev/null or a similar device")
            }
            Self::CharDevice { major, minor } => write!(f, "character device {major}:{minor}"),
            Self::Anonymous => f.write_str("an anonymous inode"),
            Self::Pipe => f.write_str("a pipe"),
            Self::Socket => f.write_str("a socket"),
            Self::Directory => f.write_str("a directory"),
            Self::BlockDevice => f.write_str("a block device"),
            Self::Link => f.write_str("a symbolic link"),
        }
    }
}

/// Converts the error of a system call.
pub(crate) fn failed(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::io(call, &errno.into())
}

/// Returns the kind of file that `fd` refers to.
///
/// The file may be another process's, in a file system that a process serves (FUSE). Therefore the
/// kernel returns what it has in memory and does not ask that process (`AT_STATX_DONT_SYNC`), which
/// could let this one wait.
///
/// # References
/// statx(2).
pub(crate) fn file_kind(fd: BorrowedFd<'_>) -> Result<FileKind> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let (mode, len, device) = match statx(fd, c"", flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => {
            (stat.stx_mode.into(), stat.stx_size, (stat.stx_rdev_major, stat.stx_rdev_minor))
        }
        // Some containers forbid the newer call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let stat = fstat(fd).map_err(failed("fstat"))?;
            let device = (major(stat.st_rdev), minor(stat.st_rdev));
            (stat.st_mode, u64::try_from(stat.st_size).unwrap_or(0), device)
        }
        Err(errno) => return Err(failed("statx")(errno)),
    };
    Ok(match FileType::from_raw_mode(mode) {
        FileType::RegularFile => FileKind::Regular { len },
        FileType::CharacterDevice => FileKind::CharDevice { major: device.0, minor: device.1 },
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket => FileKind::Socket,
        FileType::Directory => FileKind::Directory,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Anonymous,
    })
}

/// Whether `fd` is a dma-buf: they have a file system of their own.
///
/// # References
/// `DMA_BUF_MAGIC` of `linux/magic.h` ("DMAB"), since Linux 5.3.
pub(crate) fn is_dma_buf(fd: BorrowedFd<'_>) -> bool {
    const DMA_BUF_MAGIC: u64 = 0x444d_4142;
    fstatfs(fd).is_ok_and(|found| u64::try_from(found.f_type) == Ok(DMA_BUF_MAGIC))
}

/// Refuses a number that is not a descriptor, although the driver's `call` reported success.
///
/// Mesa's lavapipe does this when the process is out of descriptors, and for memory that was not
/// allocated for export (22.3.6, 23.2.1, 25.0.7 and 25.2.8): `vkGetMemoryFdKHR` returns
/// `VK_SUCCESS` and -1.
#[cfg_attr(not(any(feature = "vulkan", feature = "cuda")), allow(dead_code))]
pub(crate) fn check_descriptor(api: Api, call: &'static str, raw: RawFd) -> Result<RawFd> {
    if raw >= 0 {
        return Ok(raw);
    }
    Err(explain(DriverError::new(api, call, raw, "success but returned no descriptor")).into())
}

/// Adds to `error` that the process is out of descriptors, if it is.
///
/// Drivers report that by codes that don't name it: `VK_ERROR_INITIALIZATION_FAILED` (NVIDIA
/// 580.159), `VK_ERROR_OUT_OF_HOST_MEMORY`, `GL_OUT_OF_MEMORY`.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn explain(error: DriverError) -> DriverError {
    /// A call may need several, which it has closed again by the time it fails.
    const NEARLY: u64 = 8;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let is_out = match File::open("/") {
        // The lowest number that is free.
        Ok(file) => u64::try_from(file.as_raw_fd()).is_ok_and(|lowest| lowest + NEARLY >= limit),
        Err(error) => error.raw_os_error() == Some(libc::EMFILE),
    };
    if is_out { error.help(OUT_OF_DESCRIPTORS) } else { error }
}

/// Sets FD_CLOEXEC if a driver did not, so that no child process inherits GPU memory.
///
/// # References
/// fcntl(2), `F_SETFD`.
#[cfg_attr(not(any(feature = "vulkan", feature = "cuda")), allow(dead_code))]
pub(crate) fn close_on_exec(fd: OwnedFd) -> Result<OwnedFd> {
    let flags = fcntl_getfd(&fd).map_err(failed("fcntl(F_GETFD)"))?;
    if !flags.contains(FdFlags::CLOEXEC) {
        fcntl_setfd(&fd, flags | FdFlags::CLOEXEC).map_err(failed("fcntl(F_SETFD)"))?;
    }
    Ok(fd)
}

/// Returns a duplicate of `fd`, with FD_CLOEXEC.
pub(crate) fn duplicate(fd: impl AsFd) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().map_err(|error| Error::io("fcntl(F_DUPFD_CLOEXEC)", &error))
}

/// Returns `fd` with a high number, from half of the process's limit on (`RLIMIT_NOFILE`) but at
/// most 1024; `fd` itself if none is free there.
///
/// Drivers give exports the lowest numbers. A validation layer (1.4.309) remembers what was
/// exported by the descriptor's number, even after the descriptor was closed, and reports an import
/// of anything else by that number. So no import uses a number that an export may have had.
fn with_high_number(fd: OwnedFd) -> OwnedFd {
    /// Not higher, since the kernel's table of a process has an entry for each lower number.
    const HIGH: u64 = 1024;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let minimum = RawFd::try_from((limit / 2).min(HIGH)).unwrap_or(0);
    fcntl_dupfd_cloexec(&fd, minimum).unwrap_or(fd)
}

/// Returns a descriptor of the same file as `fd` for a driver to import, with FD_CLOEXEC and a high
/// number: with a file offset of its own if `fd` is a regular file that is open for reading and
/// writing, otherwise a duplicate.
///
/// The result never allows more than `fd` does.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    if matches!(file_kind(fd)?, FileKind::Regular { .. }) && is_read_write(fd) {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        // Without O_NONBLOCK, a lease (`F_SETLEASE`) of another process on the file would make this
        // wait until the lease is broken, after 45 seconds by default.
        let flags = libc::O_NONBLOCK;
        let reopened = File::options().read(true).write(true).custom_flags(flags).open(path);
        // Without /proc, without the permission to open the file, or while there is a lease, a
        // duplicate is used.
        if let Ok(file) = reopened {
            return Ok(with_high_number(file.into()));
        }
    }
    duplicate(fd).map(with_high_number)
}

/// Whether `fd` is open for reading and writing.
fn is_read_write(fd: BorrowedFd<'_>) -> bool {
    fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// Closes `refused`, which a driver has refused, unless the driver has closed it already: then the
/// number may belong to another thread by now, even for the same file.
///
/// `probe` is a duplicate of `refused`, made before the driver saw it.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn close_refused(refused: OwnedFd, probe: BorrowedFd<'_>) {
    if !is_duplicate(refused.as_raw_fd(), probe) {
        let _driver_closed_it = refused.into_raw_fd();
    }
}

/// Whether the number `raw` is open and a duplicate of `original`. The same file is not enough:
/// another thread may have opened it at that number since.
///
/// Duplicates share the signal that `F_SETSIG` sets, and it is sent only to a process that requests
/// it with `O_ASYNC`. So it is changed for a moment, to one that is ignored by default. Unlike
/// kcmp(2), every kernel has this and no container forbids it; unlike /proc, it is always
/// available.
///
/// # References
/// fcntl(2), `F_SETSIG`: the open file description has the signal.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
fn is_duplicate(raw: RawFd, original: BorrowedFd<'_>) -> bool {
    // `F_SETSIG` and `F_GETSIG` of `fcntl.h`, which libc lacks.
    const SET: libc::c_int = 10;
    const GET: libc::c_int = 11;
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: both commands take numbers, open or not, and access no memory of this process.
    let fcntl = |raw, command, signal: libc::c_int| unsafe { libc::fcntl(raw, command, signal) };
    let signal_of = |raw| fcntl(raw, GET, 0);
    let (own, before) = (original.as_raw_fd(), signal_of(original.as_raw_fd()));
    let mark = if before == libc::SIGURG { libc::SIGWINCH } else { libc::SIGURG };
    if before == -1 || signal_of(raw) != before || fcntl(own, SET, mark) == -1 {
        return false;
    }
    let is_marked = signal_of(raw) == mark;
    fcntl(own, SET, before);
    is_marked && signal_of(raw) == before
}

/// The credentials of the process at the other end of a Unix socket, as the kernel recorded them
/// when the socket was connected or began to listen.
///
/// rustix can't return them: its process IDs are never 0, but the kernel reports 0 for a process of
/// another PID namespace, such as a container.
///
/// # References
/// unix(7), `SO_PEERCRED`.
#[cfg(feature = "session")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerCredentials {
    /// Its process ID; 0 if it is outside the PID namespace of this process.
    pub(crate) pid: u32,
    /// Its effective user ID.
    pub(crate) uid: u32,
}

#[cfg(feature = "session")]
impl PeerCredentials {
    /// Returns the credentials of the peer of `socket`.
    ///
    /// # Errors
    /// [`Error::Driver`] if `socket` is not a socket.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Result<Self> {
        let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = size_of_val(&found) as libc::socklen_t;
        // SAFETY: the socket is open while it is borrowed. `found` is writable and has `len` bytes,
        // and any bytes are valid for it, since it consists of integers.
        let result = unsafe {
            let into = (&raw mut found).cast();
            let raw = socket.as_raw_fd();
            libc::getsockopt(raw, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &mut len)
        };
        if result != 0 {
            return Err(Error::io("getsockopt(SO_PEERCRED)", &std::io::Error::last_os_error()));
        }
        Ok(Self { pid: found.pid.try_into().unwrap_or(0), uid: found.uid })
    }
}

/// Makes the kernel refuse descriptors (`SCM_RIGHTS`) that a peer attaches to what it sends to
/// `socket`: its `sendmsg` fails with EPERM. Connections that a listener accepts inherit this.
///
/// Returns whether the kernel has this option, as Linux 6.16 and later do. What is already in the
/// socket keeps its descriptors.
///
/// # References
/// unix(7), `SO_PASSRIGHTS`.
#[cfg(feature = "session")]
pub(crate) fn refuse_descriptors(socket: BorrowedFd<'_>) -> bool {
    set_pass_rights(socket, false)
}

/// Sets `SO_PASSRIGHTS`. Returns whether the kernel has it.
#[cfg(feature = "session")]
pub(crate) fn set_pass_rights(socket: BorrowedFd<'_>, value: bool) -> bool {
    /// Of `asm-generic/socket.h`; libc lacks it. SPARC has numbers of its own.
    const SO_PASSRIGHTS: libc::c_int = if cfg!(target_arch = "sparc64") { 0x5d } else { 83 };
    let value = libc::c_int::from(value);
    // SAFETY: the socket is open while it is borrowed, and `value` is readable and has the given
    // length. A kernel that does not know the option refuses it.
    let result = unsafe {
        let len = size_of_val(&value) as libc::socklen_t;
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, value, len)
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, FromRawFd};
    #[cfg(feature = "session")]
    use std::os::unix::net::UnixStream;

    use rustix::io::dup2;

    use super::*;

    #[test]
    fn a_refused_descriptor_that_a_driver_left_open_is_closed() {
        let original = tempfile::tempfile().unwrap();
        let refused = duplicate(&original).unwrap();
        let raw = refused.as_raw_fd();
        assert!(is_duplicate(raw, original.as_fd()));
        close_refused(refused, original.as_fd());
        assert!(!is_duplicate(raw, original.as_fd()));
    }

    #[test]
    fn a_reopened_file_has_an_offset_of_its_own() {
        use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
        let mut original = tempfile::tempfile().unwrap();
        original.write_all(b"header").unwrap();
        let mut other = File::from(reopen(original.as_fd()).unwrap());
        original.seek(SeekFrom::Start(3)).unwrap();
        let mut read = String::new();
        other.read_to_string(&mut read).unwrap();
        assert_eq!(read, "header");
    }

    #[test]
    fn a_reopened_file_allows_no_more_than_before() {
        let writable = tempfile::tempfile().unwrap();
        let path = format!("/proc/self/fd/{}", writable.as_raw_fd());
        let original = File::open(path).unwrap();
        let other = reopen(original.as_fd()).unwrap();
        assert!(is_read_write(writable.as_fd()));
        assert!(!is_read_write(other.as_fd()));
    }

    #[test]
    fn another_threads_descriptor_of_the_same_file_is_not_closed() {
        let original = tempfile::tempfile().unwrap();
        let mut refused = reopen(original.as_fd()).unwrap();
        let probe = duplicate(&refused).unwrap();
        assert!(
            !is_duplicate(refused.as_raw_fd(), original.as_fd()),
            "the same file, opened twice"
        );
        let raw = refused.as_raw_fd();
        // The "driver" closes the number, and another thread duplicates its own descriptor there.
        dup2(&original, &mut refused).unwrap();
        close_refused(refused, probe.as_fd());
        // SAFETY: the number is the duplicate of `original` made above, and nothing else owns it.
        let kept = unsafe { OwnedFd::from_raw_fd(raw) };
        assert!(is_duplicate(kept.as_raw_fd(), original.as_fd()), "it is still open");
    }

    #[test]
    fn a_refused_descriptor_that_a_driver_closed_is_not_closed_again() {
        let original = tempfile::tempfile().unwrap();
        let mut refused = duplicate(&original).unwrap();
        let raw = refused.as_raw_fd();
        // The "driver" puts another file at the number, as if it had closed it and another thread
        // had opened one since.
        let other = tempfile::tempfile().unwrap();
        dup2(&other, &mut refused).unwrap();
        close_refused(refused, original.as_fd());
        // SAFETY: the number is the duplicate of `other` made above, and nothing else owns it.
        let kept = unsafe { OwnedFd::from_raw_fd(raw) };
        assert!(is_duplicate(kept.as_raw_fd(), other.as_fd()));
        assert!(!is_duplicate(-1, other.as_fd()));
    }

    #[test]
    fn a_file_has_its_length_and_a_device_its_number() {
        let dir = tempfile::tempfile().unwrap();
        dir.set_len(4097).unwrap();
        assert_eq!(file_kind(dir.as_fd()).unwrap(), FileKind::Regular { len: 4097 });
        let null = File::open("/dev/null").unwrap();
        assert_eq!(file_kind(null.as_fd()).unwrap(), FileKind::CharDevice { major: 1, minor: 3 });
    }

    #[test]
    fn an_import_gets_a_high_number() {
        let file = tempfile::tempfile().unwrap();
        let null = File::open("/dev/null").unwrap();
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        for fd in [reopen(file.as_fd()).unwrap(), reopen(null.as_fd()).unwrap()] {
            let number = u64::try_from(fd.as_raw_fd()).unwrap();
            assert!(number >= (limit / 2).min(1024), "{number} of {limit}");
            assert_eq!(fcntl_getfd(&fd), Ok(FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn an_error_names_the_limit_of_descriptors_only_if_it_is_reached() {
        let error = explain(DriverError::new(Api::Vulkan, "vkAllocateMemory", -3, "VK_X"));
        assert_eq!(error.help, None, "far from the limit");
    }

    #[test]
    fn a_negative_number_is_not_a_descriptor() {
        assert_eq!(check_descriptor(Api::Vulkan, "vkGetMemoryFdKHR", 0), Ok(0));
        let refused = check_descriptor(Api::Vulkan, "vkGetMemoryFdKHR", -1);
        assert!(matches!(refused, Err(Error::Driver(_))), "{refused:?}");
    }

    #[test]
    fn close_on_exec_is_set_if_it_is_missing() {
        let null = File::open("/dev/null").unwrap();
        let bare = rustix::io::dup(&null).unwrap();
        assert!(fcntl_getfd(&bare).unwrap().is_empty(), "dup(2) clears the flag");
        let kept = close_on_exec(bare).unwrap();
        assert_eq!(fcntl_getfd(&kept), Ok(FdFlags::CLOEXEC));
    }

    #[cfg(feature = "session")]
    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = PeerCredentials::of(one.as_fd()).unwrap();
        assert_eq!(peer.pid, std::process::id());
    }

    #[cfg(feature = "session")]
    #[test]
    fn a_file_has_no_peer() {
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(PeerCredentials::of(file.as_fd()), Err(Error::Driver(_))));
    }
}
