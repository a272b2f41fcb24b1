//! Driver bugs that this peer works around, each by name, driver, version and reason.

use std::os::fd::BorrowedFd;

use ash::vk;

use crate::error::Result;
use crate::fd::{MemoryHandleType, SemaphoreHandleType, check_file, check_nvidia_fd};

/// Spare bytes behind a shared buffer in its allocation.
///
/// Driver: Mesa llvmpipe, 22.3.6 and 25.0. `glNamedBufferStorageMemEXT` fails with
/// `GL_OUT_OF_MEMORY` when the memory object ends where the buffer ends: llvmpipe wants at least
/// 48 bytes more. A dedicated allocation has exactly the buffer's size
/// (VUID-VkMemoryDedicatedAllocateInfo-buffer-02965) and can't be lengthened.
pub const LLVMPIPE_BUFFER_TAIL_BYTES: u64 = 64;

/// Memory has to be a file.
///
/// Driver: Mesa lavapipe, 22.3.6 measured and all later sources seen. `vkAllocateMemory` reads a
/// header from whatever descriptor it is given (`os_import_memory_fd`), which never returns where
/// nobody writes to it: an eventfd, a terminal. lavapipe's own memory is a memfd.
pub const LAVAPIPE_READS_FROM_DESCRIPTORS: bool = true;

/// A descriptor that NVIDIA's driver can't have made is refused before the driver sees it.
///
/// Driver: NVIDIA 580.159. After one failed import of a foreign descriptor (a memfd, an eventfd, a
/// pipe) every later import of that kind in the process fails, in every device. Integrated GPUs are
/// left out: their descriptors may be dma-bufs.
pub const NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS: bool = true;

/// Bytes of a block's shared memory that a launch in a Vulkan queue can't have.
///
/// Driver: NVIDIA 580.159 on an H200. `vkCmdCuLaunchKernelNVX` with as much dynamic shared memory as
/// `maxComputeSharedMemorySize` loses the device; with 1 KiB less it is right. Since compute
/// capability 8.0 the system keeps 1 KiB of each block's shared memory to itself; `cuLaunchKernel`
/// adds it to what is asked for, and this call seems not to.
pub const NVIDIA_KEEPS_SHARED_MEMORY_BYTES: u32 = 1024;

/// Which of the bugs the present driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workarounds {
    /// [`LLVMPIPE_BUFFER_TAIL_BYTES`], or 0.
    pub(crate) buffer_tail_bytes: u64,
    /// [`LAVAPIPE_READS_FROM_DESCRIPTORS`].
    pub(crate) memory_is_a_file: bool,
    /// [`NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS`].
    pub(crate) refuse_foreign_fds: bool,
    /// [`NVIDIA_KEEPS_SHARED_MEMORY_BYTES`], or 0.
    #[cfg_attr(not(feature = "nvx"), allow(dead_code))]
    pub(crate) kept_shared_bytes: u32,
}

impl Workarounds {
    pub(crate) fn of(driver: vk::DriverId, device: vk::PhysicalDeviceType) -> Self {
        match driver {
            vk::DriverId::MESA_LLVMPIPE => Self {
                buffer_tail_bytes: LLVMPIPE_BUFFER_TAIL_BYTES,
                memory_is_a_file: LAVAPIPE_READS_FROM_DESCRIPTORS,
                ..Self::default()
            },
            vk::DriverId::NVIDIA_PROPRIETARY => Self {
                refuse_foreign_fds: NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS
                    && device != vk::PhysicalDeviceType::INTEGRATED_GPU,
                kept_shared_bytes: NVIDIA_KEEPS_SHARED_MEMORY_BYTES,
                ..Self::default()
            },
            _ => Self::default(),
        }
    }

    /// Refuses a descriptor that the driver would hang on, or be harmed by.
    pub(crate) fn check_memory_fd(
        self,
        handle_type: MemoryHandleType,
        fd: BorrowedFd<'_>,
    ) -> Result<()> {
        match handle_type {
            MemoryHandleType::OpaqueFd if self.memory_is_a_file => check_file(fd),
            MemoryHandleType::OpaqueFd if self.refuse_foreign_fds => check_nvidia_fd(fd),
            _ => Ok(()),
        }
    }

    /// Refuses a descriptor that the driver would be harmed by.
    pub(crate) fn check_semaphore_fd(
        self,
        handle_type: SemaphoreHandleType,
        fd: BorrowedFd<'_>,
    ) -> Result<()> {
        match handle_type {
            SemaphoreHandleType::OpaqueFd if self.refuse_foreign_fds => check_nvidia_fd(fd),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_that_harms_the_driver_does_not_reach_it() {
        use vk::{DriverId as Driver, PhysicalDeviceType as Type};
        let file = tempfile::tempfile().unwrap();
        let null = File::open("/dev/null").unwrap();
        let takes = |driver, device, fd: &File| {
            let workarounds = Workarounds::of(driver, device);
            workarounds.check_memory_fd(MemoryHandleType::OpaqueFd, fd.as_fd()).is_ok()
        };
        assert!(takes(Driver::MESA_LLVMPIPE, Type::CPU, &file));
        assert!(!takes(Driver::MESA_LLVMPIPE, Type::CPU, &null));
        assert!(!takes(Driver::NVIDIA_PROPRIETARY, Type::DISCRETE_GPU, &file));
        assert!(takes(Driver::NVIDIA_PROPRIETARY, Type::INTEGRATED_GPU, &file));
        assert!(takes(Driver::MESA_RADV, Type::DISCRETE_GPU, &null));
    }
}
