//! Handle types, and the one helper that hands a file descriptor to a driver.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};

use super::file::{self as fd, FileKind};
use crate::error::{Invalid, Result};

/// How memory travels as a file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MemoryHandleType {
    /// `VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT`: means something only to the driver and GPU
    /// that made it; the importer repeats the exporter's allocation size and memory type.
    OpaqueFd,
    /// `VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT`: a Linux dma-buf, understood across
    /// drivers; its memory types are asked with `vkGetMemoryFdPropertiesKHR`.
    DmaBuf,
}

impl fmt::Display for MemoryHandleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpaqueFd => "opaque fd",
            Self::DmaBuf => "dma-buf",
        })
    }
}

/// How a semaphore travels as a file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SemaphoreHandleType {
    /// `VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT`: binary and timeline semaphores.
    OpaqueFd,
    /// `VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT`: a Linux sync file, one signal of a binary
    /// semaphore. Never a timeline semaphore (VUID-VkSemaphoreGetFdInfoKHR-handleType-03253).
    SyncFd,
}

impl fmt::Display for SemaphoreHandleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpaqueFd => "opaque fd",
            Self::SyncFd => "sync fd",
        })
    }
}

/// Hands `fd` to a driver's import call.
///
/// Every import call of Vulkan, OpenGL and CUDA has the same rule: on success the driver owns the
/// descriptor and the application must not touch the number again; on failure it is the
/// application's as before. So on success the descriptor is forgotten, on failure it comes back.
///
/// # References
/// `VkImportMemoryFdInfoKHR`, `VkImportSemaphoreFdInfoKHR`, `glImportMemoryFdEXT`,
/// `glImportSemaphoreFdEXT`, `cuImportExternalMemory`, `cuImportExternalSemaphore`.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn transfer_fd<T, E>(
    fd: OwnedFd,
    import: impl FnOnce(RawFd) -> std::result::Result<T, E>,
) -> std::result::Result<T, (OwnedFd, E)> {
    match import(fd.as_raw_fd()) {
        Ok(imported) => {
            // The driver closes this number from now on.
            let _driver_owns_it = fd.into_raw_fd();
            Ok(imported)
        }
        Err(error) => Err((fd, error)),
    }
}

/// Hands a duplicate of `fd` to a driver's import call, so that `fd` stays open if the call fails.
///
/// Where memory is a file, it is opened anew rather than duplicated: Mesa's software drivers (22.3.6 to
/// 25.2.8) seek and read in what they import (`os_import_memory_fd`), and duplicates share one file
/// offset, so that two imports at once disturb each other. Only where it isn't open for reading and
/// writing it is duplicated: nothing is opened for more than its owner allowed.
///
/// Some drivers close a descriptor that they refuse, which the rule of [`transfer_fd`] doesn't let
/// them: Mesa's lavapipe every one (22.3.6, 23.2.1 and 25.0.7; 25.2.8 none), NVIDIA's (580.159) those
/// that it made itself in Vulkan and OpenGL, and others in CUDA. So after a failure the duplicate is
/// closed only where it is still there: closing it twice might close another thread's descriptor,
/// closing it never would leak it. A second duplicate, kept from the driver, tells.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn transfer_duplicate<T>(
    fd: impl AsFd,
    import: impl FnOnce(RawFd) -> Result<T>,
) -> Result<T> {
    let given = fd::reopen(fd.as_fd())?;
    let probe = fd::duplicate(&given)?;
    transfer_fd(given, import).map_err(|(refused, error)| {
        fd::close_refused(refused, probe.as_fd());
        error
    })
}

/// Refuses what NVIDIA's driver can't have exported, before it sees it.
///
/// An opaque fd of that driver is an open `/dev/nvidiactl`. Given anything else (a memfd, an
/// eventfd, a pipe), the driver refuses it rightly, but from then on refuses *every* import of that
/// kind through that API in the process, in other contexts and devices too (580.159, Vulkan and
/// OpenGL).
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn check_nvidia_fd(fd: impl AsFd) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::CharDevice { major: fd::MAJOR_NVIDIA, .. } => Ok(()),
        other => Err(Invalid::new("payload.fd", format!("is {other}, none of NVIDIA's driver"))
            .help("pass the fd that the exporter returned, with nothing in between")
            .into()),
    }
}

/// Refuses what can't be GPU memory, before a driver sees it.
///
/// Drivers trust an opaque fd: Mesa's software drivers map it and read a header, so that a file
/// shorter than promised ends in SIGBUS. They trust a dma-buf too, and take any file for one. What
/// the kernel tells of a descriptor rules out pipes, sockets, directories, `/dev/null` and its like,
/// files that are shorter than the allocation, and files that are no dma-buf where one was promised.
/// What remains (another allocation's fd, say) only the driver can judge.
pub(crate) fn check_memory_fd(
    fd: impl AsFd,
    handle_type: MemoryHandleType,
    allocation_size: u64,
) -> Result<()> {
    let fd = fd.as_fd();
    let refuse = |what: String| Err(not_memory(&what).into());
    match fd::file_kind(fd)? {
        // First: other anonymous inodes (an eventfd, a sync file) look like a dma-buf otherwise.
        kind if handle_type == MemoryHandleType::DmaBuf && !fd::is_dma_buf(fd) => {
            refuse(format!("{kind}, no dma-buf"))
        }
        FileKind::Regular { len } if len < allocation_size => {
            refuse(format!("a file of {len} bytes where {allocation_size} were promised"))
        }
        FileKind::Regular { .. } | FileKind::Anonymous => Ok(()),
        FileKind::CharDevice { major, .. } if major != fd::MAJOR_MEMORY_DEVICES => Ok(()),
        other => refuse(other.to_string()),
    }
}

/// Refuses all but a file with a length: what the memory of a driver that runs on the CPU is.
///
/// For drivers that read from whatever they are given, which waits for ever where nobody writes: an
/// eventfd, a terminal.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl")), allow(dead_code))]
pub(crate) fn check_file(fd: impl AsFd) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::Regular { .. } => Ok(()),
        other => Err(not_memory(&other.to_string()).into()),
    }
}

fn not_memory(what: &str) -> Invalid {
    Invalid::new("payload.fd", format!("is {what}, not GPU memory"))
        .help("pass the fd that the exporter returned, with nothing in between")
}

/// Refuses what can't be a semaphore, before a driver sees it.
pub(crate) fn check_semaphore_fd(fd: impl AsFd) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::Anonymous => Ok(()),
        FileKind::CharDevice { major, .. } if major != fd::MAJOR_MEMORY_DEVICES => Ok(()),
        other => Err(Invalid::new("payload.fd", format!("is {other}, not a semaphore"))
            .help("pass the fd that the exporter returned, with nothing in between")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::FromRawFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_failed_import_gives_the_same_descriptor_back() {
        let fd = null();
        let number = fd.as_raw_fd();
        let (back, error) = transfer_fd(fd, |_| Err::<(), _>("no")).unwrap_err();
        assert_eq!((back.as_raw_fd(), error), (number, "no"));
        assert!(fd::file_kind(back.as_fd()).is_ok(), "it is still open");
    }

    #[test]
    fn a_successful_import_leaves_the_descriptor_to_the_driver() {
        // The "driver" here keeps a duplicate of the number's file, then closes the number itself.
        let fd = null();
        let driver = transfer_fd(fd, |raw| {
            std::fs::read_link(format!("/proc/self/fd/{raw}")).map(|path| (raw, path))
        });
        let (raw, path) = driver.unwrap();
        let now = std::fs::read_link(format!("/proc/self/fd/{raw}")).unwrap();
        assert_eq!(now, path, "the number still names the driver's file");
    }

    #[test]
    fn a_duplicate_is_handed_over_and_the_descriptor_stays_whole() {
        let fd = null();
        let refuse = |raw| {
            assert_ne!(raw, fd.as_raw_fd());
            Err::<(), _>(Invalid::new("fd", "is refused").into())
        };
        assert!(transfer_duplicate(&fd, refuse).is_err());
        assert!(fd::file_kind(fd.as_fd()).is_ok(), "it is still open");
        // The "driver" closes what it is given.
        let take = |raw| {
            // SAFETY: on success the number is the driver's.
            drop(unsafe { OwnedFd::from_raw_fd(raw) });
            Ok(())
        };
        transfer_duplicate(&fd, take).unwrap();
        assert!(fd::file_kind(fd.as_fd()).is_ok(), "it is still open");
    }

    #[test]
    fn only_nvidias_own_descriptors_go_to_nvidias_driver() {
        for fd in [null(), tempfile::tempfile().unwrap().into()] {
            let error = check_nvidia_fd(&fd).unwrap_err().to_string();
            assert!(error.contains("NVIDIA"), "{error}");
        }
    }

    #[test]
    fn what_is_no_gpu_memory_is_refused() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdout.take().unwrap();
        let directory = File::open("/").unwrap();
        for (fd, word) in [
            (null(), "/dev/null"),
            (socket.into(), "socket"),
            (pipe.into(), "pipe"),
            (directory.into(), "directory"),
        ] {
            for handle_type in [MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf] {
                let memory = check_memory_fd(&fd, handle_type, 64).unwrap_err().to_string();
                assert!(memory.contains(word), "{memory}");
            }
            let semaphore = check_semaphore_fd(&fd).unwrap_err().to_string();
            assert!(semaphore.contains(word), "{semaphore}");
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_file_may_be_an_opaque_fd_but_never_a_dma_buf() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64).unwrap();
        check_memory_fd(&file, MemoryHandleType::OpaqueFd, 64).unwrap();
        let error = check_memory_fd(&file, MemoryHandleType::DmaBuf, 64).unwrap_err();
        assert!(error.to_string().contains("no dma-buf"), "{error}");
    }

    #[test]
    fn an_anonymous_inode_may_be_an_opaque_fd_but_is_no_dma_buf_by_itself() {
        // SAFETY: eventfd takes two numbers and returns a new descriptor, checked below.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(raw >= 0);
        // SAFETY: new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        check_memory_fd(&fd, MemoryHandleType::OpaqueFd, 64).unwrap();
        let error = check_memory_fd(&fd, MemoryHandleType::DmaBuf, 64).unwrap_err();
        assert!(error.to_string().contains("anonymous inode, no dma-buf"), "{error}");
    }

    #[test]
    fn only_a_file_is_read_from() {
        check_file(tempfile::tempfile().unwrap()).unwrap();
        let terminal = File::options().read(true).write(true).open("/dev/ptmx");
        for fd in terminal.into_iter().map(OwnedFd::from).chain([null()]) {
            let error = check_file(fd).unwrap_err();
            assert!(error.to_string().contains("not GPU memory"), "{error}");
        }
    }
}
