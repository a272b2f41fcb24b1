//! A semaphore as a payload.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::fd::{SemaphoreHandleType, check_semaphore_fd, duplicate};
use crate::identity::Identity;

/// Whether a semaphore is a flag or a counter.
#[doc(alias = "VkSemaphoreType")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SemaphoreKind {
    /// Signalled once, waited for once (`VK_SEMAPHORE_TYPE_BINARY`).
    Binary,
    /// A 64-bit counter that only grows (`VK_SEMAPHORE_TYPE_TIMELINE`).
    Timeline,
}

impl fmt::Display for SemaphoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Binary => "binary semaphore",
            Self::Timeline => "timeline semaphore",
        })
    }
}

#[cfg(any(feature = "vulkan", feature = "gl", feature = "cuda"))]
impl SemaphoreKind {
    /// Checks that `value` is given for a timeline semaphore, and left out for a binary one.
    pub(crate) fn check_value(self, value: Option<u64>) -> Result<()> {
        let (problem, help) = match (self, value) {
            (Self::Binary, None) | (Self::Timeline, Some(_)) => return Ok(()),
            (Self::Binary, Some(_)) => {
                ("is given for a binary semaphore", "leave it out: only a timeline has a counter")
            }
            (Self::Timeline, None) => (
                "is missing for a timeline semaphore",
                "give the counter's value to wait for or to signal",
            ),
        };
        Err(Invalid::new("value", problem).help(help).into())
    }
}

/// What an importer must know about a semaphore besides its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreInfo {
    /// The handle type of the descriptor.
    pub handle_type: SemaphoreHandleType,
    /// Binary or timeline. The driver can't check it.
    pub kind: SemaphoreKind,
    /// The GPU and the driver of the exporter.
    pub identity: Identity,
}

/// A semaphore on its way to an importer.
#[derive(Debug)]
pub struct SemaphorePayload {
    fd: OwnedFd,
    info: SemaphoreInfo,
}

impl SemaphorePayload {
    /// Combines a descriptor with its description.
    ///
    /// # Trust
    /// An importer checks that `info` names its own GPU and driver, and that the descriptor may be
    /// a semaphore at all. A GPU's opaque fd reveals neither whether it is a semaphore, nor its
    /// kind, nor which GPU and driver made it. The driver relies on `info` for these; if it is
    /// wrong, the behaviour is undefined. Import only payloads whose exporter you trust as much as
    /// your own process.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a timeline semaphore as a sync fd; the
    /// descriptor is returned.
    pub fn new(fd: OwnedFd, info: SemaphoreInfo) -> ImportResult<Self, OwnedFd> {
        let sync_fd = info.handle_type == SemaphoreHandleType::SyncFd;
        if sync_fd && info.kind == SemaphoreKind::Timeline {
            let error = Invalid::new("payload.kind", "a timeline semaphore can't be a sync fd")
                .vuid("VUID-VkImportSemaphoreFdInfoKHR-flags-03323")
                .help("export the timeline semaphore as an opaque fd");
            return Err(ImportError::new(fd, error));
        }
        Ok(Self { fd, info })
    }

    /// Returns the description.
    pub fn info(&self) -> &SemaphoreInfo {
        &self.info
    }

    /// Returns a second payload of the same semaphore, with a duplicate of the descriptor.
    /// FD_CLOEXEC is set.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) if the process is out of descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: duplicate(&self.fd)?, info: self.info.clone() })
    }

    /// Returns the descriptor and its description.
    pub fn into_parts(self) -> (OwnedFd, SemaphoreInfo) {
        (self.fd, self.info)
    }

    /// Checks what can be checked before a driver sees the descriptor: that the importer is on the
    /// exporter's GPU and driver, and that the descriptor may be a semaphore at all.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) for another GPU or driver,
    /// [`Error::Invalid`](crate::Error::Invalid) for a descriptor that can't be a semaphore.
    pub fn check(&self, importer: &[Identity]) -> Result<()> {
        self.info.identity.check_same(importer)?;
        check_semaphore_fd(&self.fd, self.info.handle_type)
    }
}

impl AsFd for SemaphorePayload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
