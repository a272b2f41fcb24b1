//! Handle types, and the one helper that hands a file descriptor to a driver.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::error::{Invalid, Result};
use crate::fd::{self, FileKind};

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
    /// semaphore. Never a timeline semaphore (VUID-VkSemaphoreGetFdInfoKHR-handleType-01132).
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
pub(crate) fn hand_over<T, E>(
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

/// Refuses what can't be GPU memory, before a driver sees it.
///
/// Drivers trust an opaque fd: Mesa's software drivers map it and read a header, so that a file
/// shorter than promised ends in SIGBUS. What the kernel tells of a descriptor rules out pipes,
/// sockets, directories, `/dev/null` and its like, and files that are shorter than the allocation.
/// What remains (another allocation's fd, say) only the driver can judge.
pub(crate) fn check_memory_fd(fd: impl AsFd, allocation_size: u64) -> Result<()> {
    let refuse = |what: String| {
        Err(Invalid::new("payload.fd", format!("is {what}, not GPU memory"))
            .help("pass the fd that the exporter returned, with nothing in between")
            .into())
    };
    match fd::file_kind(fd.as_fd())? {
        FileKind::Regular { len } if len < allocation_size => {
            refuse(format!("a file of {len} bytes where {allocation_size} were promised"))
        }
        FileKind::Regular { .. } | FileKind::Anonymous => Ok(()),
        FileKind::CharDevice { major, .. } if major != fd::MAJOR_MEMORY_DEVICES => Ok(()),
        other => refuse(other.to_string()),
    }
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
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_failed_import_gives_the_same_descriptor_back() {
        let fd = null();
        let number = fd.as_raw_fd();
        let (back, error) = hand_over(fd, |_| Err::<(), _>("no")).unwrap_err();
        assert_eq!((back.as_raw_fd(), error), (number, "no"));
        assert!(fd::file_kind(back.as_fd()).is_ok(), "it is still open");
    }

    #[test]
    fn a_successful_import_leaves_the_descriptor_to_the_driver() {
        // The "driver" here keeps a duplicate of the number's file, then closes the number itself.
        let fd = null();
        let driver = hand_over(fd, |raw| {
            std::fs::read_link(format!("/proc/self/fd/{raw}")).map(|path| (raw, path))
        });
        let (raw, path) = driver.unwrap();
        let now = std::fs::read_link(format!("/proc/self/fd/{raw}")).unwrap();
        assert_eq!(now, path, "the number still names the driver's file");
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
            let memory = check_memory_fd(&fd, 64).unwrap_err().to_string();
            assert!(memory.contains(word), "{memory}");
            let semaphore = check_semaphore_fd(&fd).unwrap_err().to_string();
            assert!(semaphore.contains(word), "{semaphore}");
        }
        child.wait().unwrap();
    }
}
