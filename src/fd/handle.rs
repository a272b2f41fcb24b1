//! Handle types, the checks of a descriptor, and its transfer to a driver.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};

use super::file::{self as fd, FileKind};
use crate::error::{Invalid, Result};

pub(super) const PASS_AS_EXPORTED: &str = "pass the fd that the exporter returned, unchanged";

/// The kind of file descriptor that shares memory.
#[doc(alias = "VkExternalMemoryHandleTypeFlagBits")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MemoryHandleType {
    /// `VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT`: valid only with the driver and on the GPU
    /// that made it. The importer repeats the exporter's allocation size and memory type.
    OpaqueFd,
    /// `VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT`: a Linux dma-buf, which other drivers can
    /// import too. `vkGetMemoryFdPropertiesKHR` returns its memory types.
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

/// The kind of file descriptor that shares a semaphore.
#[doc(alias = "VkExternalSemaphoreHandleTypeFlagBits")]
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

/// Passes `fd` to a driver's import call.
///
/// All import calls of Vulkan, OpenGL and CUDA have the same rule: on success the driver owns the
/// descriptor and the application must not use the number again; on failure the application still
/// owns it. So this gives it up on success and returns it on failure.
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
            // From now on the driver closes it.
            let _driver_owns_it = fd.into_raw_fd();
            Ok(imported)
        }
        Err(error) => Err((fd, error)),
    }
}

/// Passes a duplicate of `fd` to a driver's import call, so that `fd` stays open if the call fails.
///
/// Memory that is a file is reopened instead of duplicated: Mesa's software drivers (22.3.6 to
/// 25.2.8) seek and read in what they import (`os_import_memory_fd`), and duplicates share one file
/// offset, so that concurrent imports would disturb each other. A file that is not open for reading
/// and writing is duplicated all the same: reopening must not grant more access than its owner did.
///
/// Some drivers close a descriptor that they refuse, against the rule of [`transfer_fd`]: Mesa's
/// lavapipe closes every one (22.3.6, 23.2.1 and 25.0.7; 25.2.8 none), NVIDIA's driver (580.159)
/// those that it made itself in Vulkan and OpenGL, and others in CUDA. So after a failure the
/// duplicate is closed only if it is still open: closing it twice could close another thread's
/// descriptor, and not closing it would leak it. Comparing it with a second duplicate, which the
/// driver never sees, shows whether it is.
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

/// Refuses a descriptor that NVIDIA's driver can't have exported, before that driver sees it.
///
/// An opaque fd of that driver is an open `/dev/nvidiactl`. The driver refuses anything else (a
/// memfd, an eventfd, a pipe), but from then on refuses *every* import of that kind through that
/// API in the process, in other contexts and devices too (580.159, Vulkan and OpenGL).
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn check_nvidia_fd(fd: impl AsFd) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::CharDevice { major: fd::MAJOR_NVIDIA, .. } => Ok(()),
        other => Err(Invalid::new(
            "payload.fd",
            format!("is {other}, which NVIDIA's driver did not export"),
        )
        .help(PASS_AS_EXPORTED)
        .into()),
    }
}

/// Refuses a descriptor that can't be GPU memory, before a driver sees it.
///
/// Drivers trust an opaque fd: Mesa's software drivers map it and read a header, so a file that is
/// too short causes a SIGBUS. They also accept any file as a dma-buf. What the kernel reports about
/// a descriptor rules out pipes, sockets, directories, `/dev/null` and similar devices, files that
/// are shorter than the allocation, and files that are described as a dma-buf but are not. Only the
/// driver can check the rest, for example that it is not the descriptor of another allocation.
pub(crate) fn check_memory_fd(
    fd: impl AsFd,
    handle_type: MemoryHandleType,
    allocation_size: u64,
) -> Result<()> {
    let fd = fd.as_fd();
    let refuse = |what: String| Err(not_memory(&what).into());
    match fd::file_kind(fd)? {
        // First, because other anonymous inodes (an eventfd, a sync file) look the same below.
        kind if handle_type == MemoryHandleType::DmaBuf && !fd::is_dma_buf(fd) => {
            refuse(format!("{kind} and not a dma-buf"))
        }
        FileKind::Regular { len } if len < allocation_size => Err(Invalid::new(
            "payload.fd",
            format!("is a file of {len} bytes, but the allocation has {allocation_size}"),
        )
        .help(PASS_AS_EXPORTED)
        .into()),
        FileKind::Regular { .. } | FileKind::Anonymous => Ok(()),
        FileKind::CharDevice { major, .. } if major != fd::MAJOR_MEMORY_DEVICES => Ok(()),
        other => refuse(other.to_string()),
    }
}

/// Refuses everything but a regular file, which a software driver's memory is.
///
/// For drivers that read from any descriptor: a read from an eventfd or a terminal may block
/// indefinitely.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl")), allow(dead_code))]
pub(crate) fn check_file(fd: impl AsFd) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::Regular { .. } => Ok(()),
        other => Err(not_memory(&other.to_string()).into()),
    }
}

pub(super) fn not_memory(what: &str) -> Invalid {
    Invalid::new("payload.fd", format!("is {what}, not GPU memory")).help(PASS_AS_EXPORTED)
}

/// Refuses a descriptor that can't be a semaphore, before a driver sees it.
///
/// An opaque fd may be a file: SwiftShader, a software driver, keeps its semaphores in memory.
pub(crate) fn check_semaphore_fd(fd: impl AsFd, handle_type: SemaphoreHandleType) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::Anonymous => Ok(()),
        FileKind::CharDevice { major, .. } if major != fd::MAJOR_MEMORY_DEVICES => Ok(()),
        FileKind::Regular { len } if len > 0 && handle_type == SemaphoreHandleType::OpaqueFd => {
            Ok(())
        }
        other => not_a_semaphore(other),
    }
}

/// Refuses a file as a semaphore, for importers whose semaphores are not files.
#[cfg_attr(not(any(feature = "vulkan", feature = "gl", feature = "cuda")), allow(dead_code))]
pub(crate) fn check_no_file(fd: impl AsFd) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        file @ FileKind::Regular { .. } => not_a_semaphore(file),
        _ => Ok(()),
    }
}

/// Refuses everything but a file of `bytes` bytes, which a driver maps as `what`.
#[cfg_attr(not(feature = "vulkan"), allow(dead_code))]
pub(crate) fn check_mapped_file(fd: impl AsFd, bytes: u64, what: &str) -> Result<()> {
    match fd::file_kind(fd.as_fd())? {
        FileKind::Regular { len } if len == bytes => Ok(()),
        other => {
            let problem = format!("is {other}, not {what} of {bytes} bytes");
            Err(Invalid::new("payload.fd", problem).help(PASS_AS_EXPORTED).into())
        }
    }
}

pub(super) fn not_a_semaphore(kind: FileKind) -> Result<()> {
    let problem = format!("is {kind}, not a semaphore");
    Err(Invalid::new("payload.fd", problem).help(PASS_AS_EXPORTED).into())
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
    fn a_failed_import_returns_the_same_descriptor() {
        let fd = null();
        let number = fd.as_raw_fd();
        let (back, error) = transfer_fd(fd, |_| Err::<(), _>("no")).unwrap_err();
        assert_eq!((back.as_raw_fd(), error), (number, "no"));
        assert!(fd::file_kind(back.as_fd()).is_ok(), "it is still open");
    }

    #[test]
    fn a_successful_import_gives_the_descriptor_to_the_driver() {
        let fd = null();
        let driver = transfer_fd(fd, |raw| {
            std::fs::read_link(format!("/proc/self/fd/{raw}")).map(|path| (raw, path))
        });
        let (raw, path) = driver.unwrap();
        let now = std::fs::read_link(format!("/proc/self/fd/{raw}")).unwrap();
        assert_eq!(now, path, "the number still names the driver's file");
    }

    #[test]
    fn a_duplicate_is_passed_on_and_the_descriptor_stays_open() {
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

    /// How many descriptors of this process refer to `file`, which only the calling test opened.
    fn count_descriptors_of(file: &File) -> usize {
        use std::os::unix::fs::MetadataExt as _;
        let own = file.metadata().unwrap();
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        // Other tests open and close descriptors meanwhile.
        let files = open.filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok());
        files.filter(|file| (file.dev(), file.ino()) == (own.dev(), own.ino())).count()
    }

    #[test]
    fn no_descriptor_is_lost_whether_a_driver_closes_what_it_refuses_or_not() {
        let refused = || Err::<(), _>(Invalid::new("fd", "is refused").into());
        let file = tempfile::tempfile().unwrap();
        for _ in 0..3 {
            transfer_duplicate(&file, |_| refused()).unwrap_err();
            assert_eq!(count_descriptors_of(&file), 1, "a driver left it open");
        }
        let close = |raw| {
            // SAFETY: the number was passed to this "driver", which closes it against the rule; the
            // library checks that before it closes it itself.
            drop(unsafe { OwnedFd::from_raw_fd(raw) });
            refused()
        };
        transfer_duplicate(&file, close).unwrap_err();
        assert_eq!(count_descriptors_of(&file), 1, "a driver closed it");
        let mut kept = None;
        let keep = |raw| {
            // SAFETY: on success the number is the driver's.
            kept = Some(unsafe { OwnedFd::from_raw_fd(raw) });
            Ok(())
        };
        transfer_duplicate(&file, keep).unwrap();
        assert_eq!(count_descriptors_of(&file), 2, "the driver's and the exporter's");
        drop(kept);
        assert_eq!(count_descriptors_of(&file), 1);
    }

    #[test]
    fn only_descriptors_of_nvidias_driver_are_passed_to_it() {
        for fd in [null(), tempfile::tempfile().unwrap().into()] {
            let error = check_nvidia_fd(&fd).unwrap_err().to_string();
            assert!(error.contains("NVIDIA"), "{error}");
        }
    }

    #[test]
    fn a_descriptor_that_is_not_gpu_memory_is_refused() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdout.take().unwrap();
        let directory = File::open("/").unwrap();
        for (fd, name) in [
            (null(), "/dev/null"),
            (socket.into(), "socket"),
            (pipe.into(), "pipe"),
            (directory.into(), "directory"),
        ] {
            for handle_type in [MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf] {
                let memory = check_memory_fd(&fd, handle_type, 64).unwrap_err().to_string();
                assert!(memory.contains(name), "{memory}");
            }
            for handle_type in [SemaphoreHandleType::OpaqueFd, SemaphoreHandleType::SyncFd] {
                let semaphore = check_semaphore_fd(&fd, handle_type).unwrap_err().to_string();
                assert!(semaphore.contains(name), "{semaphore}");
            }
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_file_may_be_a_semaphore_only_of_a_software_driver() {
        let (opaque, sync) = (SemaphoreHandleType::OpaqueFd, SemaphoreHandleType::SyncFd);
        let file = tempfile::tempfile().unwrap();
        assert!(check_semaphore_fd(&file, opaque).is_err(), "it is empty");
        file.set_len(64).unwrap();
        check_semaphore_fd(&file, opaque).unwrap();
        check_mapped_file(&file, 64, "a semaphore").unwrap();
        assert!(check_mapped_file(&file, 63, "a semaphore").is_err());
        assert!(check_mapped_file(&file, 65, "a semaphore").is_err());
        assert!(check_mapped_file(null(), 0, "a semaphore").is_err());
        for refused in [check_semaphore_fd(&file, sync), check_no_file(&file)] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("a file of 64 bytes, not a semaphore"), "{text}");
        }
        check_no_file(null()).unwrap();
    }

    #[test]
    fn a_file_may_be_an_opaque_fd_but_never_a_dma_buf() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64).unwrap();
        check_memory_fd(&file, MemoryHandleType::OpaqueFd, 64).unwrap();
        let error = check_memory_fd(&file, MemoryHandleType::DmaBuf, 64).unwrap_err();
        assert!(error.to_string().contains("not a dma-buf"), "{error}");
    }

    #[test]
    fn an_anonymous_inode_may_be_an_opaque_fd_but_is_not_always_a_dma_buf() {
        // SAFETY: eventfd takes two numbers and returns a new descriptor, checked below.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(raw >= 0);
        // SAFETY: it is open, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        check_memory_fd(&fd, MemoryHandleType::OpaqueFd, 64).unwrap();
        let error = check_memory_fd(&fd, MemoryHandleType::DmaBuf, 64).unwrap_err();
        assert!(error.to_string().contains("anonymous inode and not a dma-buf"), "{error}");
    }

    #[test]
    fn only_a_regular_file_passes_as_a_software_drivers_memory() {
        check_file(tempfile::tempfile().unwrap()).unwrap();
        let terminal = File::options().read(true).write(true).open("/dev/ptmx");
        for fd in terminal.into_iter().map(OwnedFd::from).chain([null()]) {
            let error = check_file(fd).unwrap_err();
            assert!(error.to_string().contains("not GPU memory"), "{error}");
        }
    }
}
