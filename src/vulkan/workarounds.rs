//! The driver bugs that this peer works around.

use std::os::fd::BorrowedFd;

use ash::vk;
use bitflags::bitflags;

use crate::error::Result;
use crate::fd::{
    MemoryHandleType, SemaphoreHandleType, check_file, check_mapped_file, check_no_file,
    check_nvidia_fd,
};

bitflags! {
    /// The workarounds that are active for a device:
    /// [`Endpoint::workarounds`](super::Endpoint::workarounds).
    ///
    /// | workaround | driver | versions |
    /// |---|---|---|
    /// | `LLVMPIPE_BUFFER_TAIL` | Mesa llvmpipe (OpenGL), so lavapipe's exports | 22.3.6 and 25.0 |
    /// | `LAVAPIPE_READS_FROM_DESCRIPTORS` | Mesa lavapipe | 22.3.6 and later |
    /// | `NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS` | NVIDIA, discrete GPUs | 580.159 |
    /// | `NVIDIA_KEEPS_SHARED_MEMORY` | NVIDIA | 580.159 |
    /// | `SWIFTSHADER_MAPS_DESCRIPTORS` | SwiftShader | of Chromium 148 |
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Workarounds: u32 {
        /// Appends [`LLVMPIPE_BUFFER_TAIL_BYTES`] to the allocation of a shared buffer.
        ///
        /// `glNamedBufferStorageMemEXT` fails with `GL_OUT_OF_MEMORY` if the memory object ends
        /// where the buffer ends: llvmpipe requires at least 48 more bytes. A dedicated allocation
        /// has exactly the buffer's size (VUID-VkMemoryDedicatedAllocateInfo-buffer-02965) and
        /// can't be lengthened.
        const LLVMPIPE_BUFFER_TAIL = 1 << 0;
        /// Imports memory only from regular files, since lavapipe's own memory is one (a memfd).
        ///
        /// `vkAllocateMemory` reads a header from the descriptor that it imports
        /// (`os_import_memory_fd`). If the other end never writes, as with an eventfd or a
        /// terminal, that read never returns.
        const LAVAPIPE_READS_FROM_DESCRIPTORS = 1 << 1;
        /// Rejects a descriptor that NVIDIA's driver can't have exported, before the driver sees
        /// it.
        ///
        /// After one failed import of a foreign descriptor (a memfd, an eventfd, a pipe) every
        /// later import of that kind in the process fails, on every device. Integrated GPUs are
        /// exempt: their descriptors may be dma-bufs.
        const NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS = 1 << 2;
        /// Lowers the shared memory of a kernel launch in a Vulkan queue by
        /// [`NVIDIA_KEEPS_SHARED_MEMORY_BYTES`].
        ///
        /// `vkCmdCuLaunchKernelNVX` with as much dynamic shared memory as
        /// `maxComputeSharedMemorySize` loses the device (measured on an H200); 1 KiB less is
        /// correct. Since compute capability 8.0 the system reserves 1 KiB of each block's shared
        /// memory. `cuLaunchKernel` adds it to the requested size; this call seems not to.
        const NVIDIA_KEEPS_SHARED_MEMORY = 1 << 3;
        /// Imports only files (memfds) as long as SwiftShader's own: for memory
        /// [`SWIFTSHADER_PADDING_BYTES`] more than the allocation, for a semaphore
        /// [`SWIFTSHADER_SEMAPHORE_BYTES`]. Other drivers' semaphores are not files, so files are
        /// refused there.
        ///
        /// `vkAllocateMemory` and `vkImportSemaphoreFdKHR` map any file; accesses past the end of a
        /// shorter one raise SIGBUS.
        const SWIFTSHADER_MAPS_DESCRIPTORS = 1 << 4;
    }
}

/// Bytes that [`Workarounds::LLVMPIPE_BUFFER_TAIL`] appends to an allocation.
pub const LLVMPIPE_BUFFER_TAIL_BYTES: u64 = 64;

/// Bytes of each block's shared memory that [`Workarounds::NVIDIA_KEEPS_SHARED_MEMORY`] leaves to
/// the system.
pub const NVIDIA_KEEPS_SHARED_MEMORY_BYTES: u32 = 1024;

/// Bytes of a semaphore that [`Workarounds::SWIFTSHADER_MAPS_DESCRIPTORS`] requires.
pub const SWIFTSHADER_SEMAPHORE_BYTES: u64 = 4096;

/// Bytes that SwiftShader adds to an allocation, whose start it aligns to 16.
pub const SWIFTSHADER_PADDING_BYTES: u64 = 15;

impl Workarounds {
    /// The workarounds that `driver` needs on a `device` of this type.
    pub(super) fn of(driver: vk::DriverId, device: vk::PhysicalDeviceType) -> Self {
        match driver {
            vk::DriverId::MESA_LLVMPIPE => {
                Self::LLVMPIPE_BUFFER_TAIL | Self::LAVAPIPE_READS_FROM_DESCRIPTORS
            }
            vk::DriverId::NVIDIA_PROPRIETARY
                if device == vk::PhysicalDeviceType::INTEGRATED_GPU =>
            {
                Self::NVIDIA_KEEPS_SHARED_MEMORY
            }
            vk::DriverId::NVIDIA_PROPRIETARY => {
                Self::NVIDIA_KEEPS_SHARED_MEMORY | Self::NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS
            }
            vk::DriverId::GOOGLE_SWIFTSHADER => Self::SWIFTSHADER_MAPS_DESCRIPTORS,
            _ => Self::empty(),
        }
    }

    /// Padding after a shared buffer in its allocation, in bytes.
    pub(super) fn buffer_tail_bytes(self) -> u64 {
        if self.contains(Self::LLVMPIPE_BUFFER_TAIL) { LLVMPIPE_BUFFER_TAIL_BYTES } else { 0 }
    }

    /// Bytes of each block's shared memory that a launch in a Vulkan queue can't use.
    #[cfg_attr(not(feature = "nvx"), allow(dead_code))]
    pub(crate) fn reserved_shared_bytes(self) -> u32 {
        let reserved = self.contains(Self::NVIDIA_KEEPS_SHARED_MEMORY);
        if reserved { NVIDIA_KEEPS_SHARED_MEMORY_BYTES } else { 0 }
    }

    /// Rejects a descriptor that would make the driver hang or break its later imports.
    pub(super) fn check_memory_fd(
        self,
        handle_type: MemoryHandleType,
        fd: BorrowedFd<'_>,
        allocation_size: u64,
    ) -> Result<()> {
        if handle_type != MemoryHandleType::OpaqueFd {
            return Ok(());
        }
        if self.contains(Self::LAVAPIPE_READS_FROM_DESCRIPTORS) {
            check_file(fd)?;
        }
        if self.contains(Self::SWIFTSHADER_MAPS_DESCRIPTORS) {
            let bytes = allocation_size.saturating_add(SWIFTSHADER_PADDING_BYTES);
            check_mapped_file(fd, bytes, "GPU memory")?;
        }
        self.check_foreign_fd(fd)
    }

    /// Rejects a descriptor that the driver can't have exported, or that would break its later
    /// imports.
    pub(super) fn check_semaphore_fd(
        self,
        handle_type: SemaphoreHandleType,
        fd: BorrowedFd<'_>,
    ) -> Result<()> {
        if handle_type == SemaphoreHandleType::SyncFd {
            return Ok(());
        }
        if self.contains(Self::SWIFTSHADER_MAPS_DESCRIPTORS) {
            return check_mapped_file(fd, SWIFTSHADER_SEMAPHORE_BYTES, "a semaphore");
        }
        check_no_file(fd)?;
        self.check_foreign_fd(fd)
    }

    fn check_foreign_fd(self, fd: BorrowedFd<'_>) -> Result<()> {
        let refuse = self.contains(Self::NVIDIA_FOREIGN_FD_BREAKS_LATER_IMPORTS);
        if refuse { check_nvidia_fd(fd) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_that_damages_the_driver_does_not_reach_it() {
        use vk::{DriverId as Driver, PhysicalDeviceType as Type};
        let file = tempfile::tempfile().unwrap();
        file.set_len(SWIFTSHADER_SEMAPHORE_BYTES).unwrap();
        let null = File::open("/dev/null").unwrap();
        let accepts = |driver, device, fd: &File| {
            let workarounds = Workarounds::of(driver, device);
            let opaque = MemoryHandleType::OpaqueFd;
            let bytes = SWIFTSHADER_SEMAPHORE_BYTES - SWIFTSHADER_PADDING_BYTES;
            let memory = workarounds.check_memory_fd(opaque, fd.as_fd(), bytes);
            let semaphore =
                workarounds.check_semaphore_fd(SemaphoreHandleType::OpaqueFd, fd.as_fd());
            (memory.is_ok(), semaphore.is_ok())
        };
        assert_eq!(accepts(Driver::MESA_LLVMPIPE, Type::CPU, &file), (true, false));
        assert_eq!(accepts(Driver::MESA_LLVMPIPE, Type::CPU, &null), (false, true));
        assert_eq!(accepts(Driver::GOOGLE_SWIFTSHADER, Type::CPU, &file), (true, true));
        assert_eq!(accepts(Driver::GOOGLE_SWIFTSHADER, Type::CPU, &null), (false, false));
        let discrete = Type::DISCRETE_GPU;
        assert_eq!(accepts(Driver::NVIDIA_PROPRIETARY, discrete, &file), (false, false));
        let integrated = Type::INTEGRATED_GPU;
        assert_eq!(accepts(Driver::NVIDIA_PROPRIETARY, integrated, &null), (true, true));
        assert_eq!(accepts(Driver::MESA_RADV, discrete, &null), (true, true));
    }
}
