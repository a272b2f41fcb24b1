//! Semaphores on their way to an importer.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Invalid, Result};
use crate::fd;
use crate::fd::{SemaphoreHandleType, check_semaphore_fd};
use crate::identity::Identity;

/// Whether a semaphore is a flag or a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SemaphoreKind {
    /// Signalled once, waited for once.
    Binary,
    /// A 64-bit counter that only grows (`VK_SEMAPHORE_TYPE_TIMELINE`).
    Timeline,
}

#[cfg(any(feature = "vulkan", feature = "gl", feature = "cuda"))]
impl SemaphoreKind {
    /// A timeline semaphore has a value, a binary one has none.
    pub(crate) fn check_value(self, value: Option<u64>) -> Result<()> {
        let (problem, help) = match (self, value) {
            (Self::Binary, None) | (Self::Timeline, Some(_)) => return Ok(()),
            (Self::Binary, Some(_)) => {
                ("given for a binary semaphore", "leave it out: a binary semaphore has no counter")
            }
            (Self::Timeline, None) => (
                "missing for a timeline semaphore",
                "give the counter's value to wait for or to signal",
            ),
        };
        Err(Invalid::new("value", problem).help(help).into())
    }
}

/// What an importer must know of a semaphore, apart from its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreInfo {
    /// How the semaphore travels.
    pub handle_type: SemaphoreHandleType,
    /// Flag or counter; an importer that gets it wrong reads nonsense.
    pub kind: SemaphoreKind,
    /// The GPU and driver that made it.
    pub identity: Identity,
}

/// A semaphore on its way to an importer.
#[derive(Debug)]
pub struct SemaphorePayload {
    fd: OwnedFd,
    info: SemaphoreInfo,
}

impl SemaphorePayload {
    /// Puts a descriptor and what is known of it together.
    ///
    /// # Trust
    /// An importer checks that `info` names its own GPU and driver, and that the descriptor may be a
    /// semaphore at all. Whether an opaque fd of a GPU is a semaphore, is binary or a timeline, and
    /// is of the GPU and driver that `info` names, nobody can ask: the driver takes it as it is told,
    /// and where that is wrong its behaviour is undefined. Import only payloads whose exporter you
    /// trust as you trust your own process.
    pub fn new(fd: OwnedFd, info: SemaphoreInfo) -> Self {
        Self { fd, info }
    }

    /// What an importer must know.
    pub fn info(&self) -> &SemaphoreInfo {
        &self.info
    }

    /// A second payload for the same semaphore, with a duplicate of the descriptor (FD_CLOEXEC set).
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) when the process is out of descriptors; this payload is untouched.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: fd::duplicate(&self.fd)?, info: self.info.clone() })
    }

    /// The descriptor and what is known of it.
    pub fn into_parts(self) -> (OwnedFd, SemaphoreInfo) {
        (self.fd, self.info)
    }

    /// All that can be checked before a driver sees the descriptor.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) for another GPU or driver, [`Error::Invalid`](crate::Error::Invalid) for a timeline semaphore as
    /// sync fd or a descriptor that can't be a semaphore.
    pub fn check(&self, importer: &[Identity]) -> Result<()> {
        self.info.identity.check_same(importer)?;
        let sync_fd = self.info.handle_type == SemaphoreHandleType::SyncFd;
        if sync_fd && self.info.kind == SemaphoreKind::Timeline {
            return Err(Invalid::new("payload.kind", "a timeline semaphore can't be a sync fd")
                .vuid("VUID-VkImportSemaphoreFdInfoKHR-flags-03323")
                .into());
        }
        check_semaphore_fd(&self.fd)
    }
}

impl AsFd for SemaphorePayload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
