//! What the kernel tells of a file descriptor, and FD_CLOEXEC.
//!
//! The only `unsafe` below the peers: three system calls that `std` doesn't offer for a borrowed
//! descriptor.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};

/// `/dev/null`, `/dev/zero` and the other devices of `Documentation/admin-guide/devices.txt` that
/// share major number 1. GPUs have others.
pub(crate) const MAJOR_MEMORY_DEVICES: u32 = 1;

/// What kind of file a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A file with a length: what a memfd is.
    Regular {
        len: u64,
    },
    /// A character device: what NVIDIA's descriptors point at.
    CharDevice {
        major: u32,
        minor: u32,
    },
    /// No file type at all: dma-bufs, sync files and other anonymous inodes.
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
                f.write_str("/dev/null or a device like it")
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

/// Asks `fstat` what `fd` is.
pub(crate) fn file_kind(fd: BorrowedFd<'_>) -> Result<FileKind> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `fd` is open for as long as it is borrowed, and `stat` is writable and of the size
    // fstat fills.
    if unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(Error::io("fstat", &std::io::Error::last_os_error()));
    }
    // SAFETY: fstat returned 0, so it has filled the structure.
    let stat = unsafe { stat.assume_init() };
    Ok(match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular { len: u64::try_from(stat.st_size).unwrap_or(0) },
        libc::S_IFCHR => FileKind::CharDevice {
            major: libc::major(stat.st_rdev),
            minor: libc::minor(stat.st_rdev),
        },
        libc::S_IFIFO => FileKind::Pipe,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFBLK => FileKind::BlockDevice,
        libc::S_IFLNK => FileKind::Link,
        _ => FileKind::Anonymous,
    })
}

/// Sets FD_CLOEXEC where a driver forgot it, so that no child inherits GPU memory.
#[cfg_attr(not(any(feature = "vulkan", feature = "cuda")), allow(dead_code))]
pub(crate) fn close_on_exec(fd: OwnedFd) -> Result<OwnedFd> {
    let raw = fd.as_raw_fd();
    // SAFETY: F_GETFD reads the flags of a descriptor that `fd` keeps open.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFD) };
    if flags < 0 {
        return Err(Error::io("fcntl(F_GETFD)", &std::io::Error::last_os_error()));
    }
    if flags & libc::FD_CLOEXEC == 0 {
        // SAFETY: F_SETFD changes the flags of a descriptor that `fd` keeps open, nothing else.
        if unsafe { libc::fcntl(raw, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
            return Err(Error::io("fcntl(F_SETFD)", &std::io::Error::last_os_error()));
        }
    }
    Ok(fd)
}

/// A duplicate of `fd`, with FD_CLOEXEC.
pub(crate) fn duplicate(fd: impl AsFd) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().map_err(|error| Error::io("fcntl(F_DUPFD_CLOEXEC)", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::FromRawFd;

    #[test]
    fn a_file_tells_its_length_and_a_device_its_number() {
        let dir = tempfile::tempfile().unwrap();
        dir.set_len(4097).unwrap();
        assert_eq!(file_kind(dir.as_fd()).unwrap(), FileKind::Regular { len: 4097 });
        let null = File::open("/dev/null").unwrap();
        assert_eq!(file_kind(null.as_fd()).unwrap(), FileKind::CharDevice { major: 1, minor: 3 });
    }

    #[test]
    fn close_on_exec_is_set_where_it_was_forgotten() {
        let null = File::open("/dev/null").unwrap();
        // SAFETY: dup returns a new descriptor (checked below) that nobody else owns.
        let bare = unsafe {
            let raw = libc::dup(null.as_raw_fd());
            assert!(raw >= 0);
            OwnedFd::from_raw_fd(raw)
        };
        let flags = |fd: &OwnedFd| {
            // SAFETY: F_GETFD reads the flags of an open descriptor.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }
        };
        assert_eq!(flags(&bare) & libc::FD_CLOEXEC, 0, "dup(2) clears the flag");
        let kept = close_on_exec(bare).unwrap();
        assert_eq!(flags(&kept) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
