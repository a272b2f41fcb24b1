//! Driver bugs that this peer works around, each by name, driver, version and reason.

use std::os::fd::{IntoRawFd, OwnedFd};

use ash::vk;

/// Spare bytes behind a shared buffer in its allocation.
///
/// Driver: Mesa llvmpipe, 22.3.6 and 25.0. `glNamedBufferStorageMemEXT` fails with
/// `GL_OUT_OF_MEMORY` when the memory object ends where the buffer ends: llvmpipe wants at least
/// 48 bytes more. A dedicated allocation has exactly the buffer's size
/// (VUID-VkMemoryDedicatedAllocateInfo-buffer-02965) and can't be lengthened.
pub const LLVMPIPE_BUFFER_TAIL_BYTES: u64 = 64;

/// A failed import closes the descriptor.
///
/// Driver: Mesa lavapipe. When `vkAllocateMemory` refuses a descriptor, it has closed it all the
/// same, against VUID-free text of `VkImportMemoryFdInfoKHR` ("importing memory from a file
/// descriptor transfers ownership of the file descriptor from the application to the Vulkan
/// implementation" on success only). Closing it again might close an unrelated file.
pub const LAVAPIPE_CLOSES_FD_OF_FAILED_IMPORT: bool = true;

/// Which of the bugs the present driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workarounds {
    /// [`LLVMPIPE_BUFFER_TAIL_BYTES`], or 0.
    pub(super) buffer_tail_bytes: u64,
    /// [`LAVAPIPE_CLOSES_FD_OF_FAILED_IMPORT`].
    pub(super) closes_fd_of_failed_import: bool,
}

impl Workarounds {
    pub(super) fn of(driver: vk::DriverId) -> Self {
        if driver == vk::DriverId::MESA_LLVMPIPE {
            return Self {
                buffer_tail_bytes: LLVMPIPE_BUFFER_TAIL_BYTES,
                closes_fd_of_failed_import: LAVAPIPE_CLOSES_FD_OF_FAILED_IMPORT,
            };
        }
        Self::default()
    }

    /// Disposes of the duplicate that a driver refused.
    pub(super) fn after_failed_import(self, fd: OwnedFd) {
        if self.closes_fd_of_failed_import {
            // The driver has closed it.
            let _ = fd.into_raw_fd();
        }
    }
}
