//! Device memory that was allocated to be exported, imported, or adopted from the user.

use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use ash::vk;

use super::conv;
use super::endpoint::Shared;
use super::error::VkResultExt;
use crate::error::{Api, Invalid, Result};
use crate::fd;
use crate::payload::{MemoryInfo, MemoryPayload};

/// Device memory that can be shared. Reference counted: several buffers and images may lie in one
/// allocation, which is freed with the last of them.
#[derive(Clone)]
pub struct Memory {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: vk::DeviceMemory,
    pub(crate) info: MemoryInfo,
    pub(crate) origin: Origin,
    /// Allocated with VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT.
    pub(crate) addressed: bool,
}

/// Where an allocation comes from: who frees it, and whether it can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Allocated here with VkExportMemoryAllocateInfo.
    Created,
    /// Imported from a payload.
    Imported,
    /// The user's, allocated with VkExportMemoryAllocateInfo, and freed by the user.
    Adopted,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("handle", &self.inner.handle)
            .field("info", &self.inner.info)
            .field("origin", &self.inner.origin)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.origin != Origin::Adopted {
            // SAFETY: the handle was allocated by this library and is owned by this structure
            // alone. That no submitted work uses it is promised with every submit
            // (VUID-vkFreeMemory-memory-00677).
            unsafe { self.shared.device.free_memory(self.handle, None) };
        }
    }
}

impl Memory {
    /// The user's memory; `addressed` where it was allocated for device addresses.
    pub(crate) fn adopted(
        shared: &Arc<Shared>,
        handle: vk::DeviceMemory,
        info: MemoryInfo,
        addressed: bool,
    ) -> Self {
        let (shared, origin) = (shared.clone(), Origin::Adopted);
        Self { inner: Arc::new(Inner { shared, handle, info, origin, addressed }) }
    }

    pub(crate) fn is_imported(&self) -> bool {
        self.inner.origin == Origin::Imported
    }

    /// The Vulkan handle. Owned by this object, except when adopted.
    pub fn handle(&self) -> vk::DeviceMemory {
        self.inner.handle
    }

    /// What an importer must know of the allocation.
    pub fn info(&self) -> &MemoryInfo {
        &self.inner.info
    }

    /// Exports the allocation: a new descriptor each time, with FD_CLOEXEC, that keeps the memory
    /// alive on its own.
    ///
    /// # Errors
    /// [`Invalid`] for imported memory, which was not allocated for export: use
    /// [`MemoryPayload::try_clone`] before the import instead. [`Driver`](crate::Error::Driver)
    /// where the driver refuses, as it does when the process is out of descriptors.
    ///
    /// # References
    /// `vkGetMemoryFdKHR`; VUID-VkMemoryGetFdInfoKHR-handleType-00671.
    #[doc(alias = "vkGetMemoryFdKHR")]
    pub fn export(&self) -> Result<MemoryPayload> {
        let inner = &*self.inner;
        if self.is_imported() {
            return Err(Invalid::new("memory", "was imported, not allocated for export")
                .vuid("VUID-VkMemoryGetFdInfoKHR-handleType-00671")
                .help("duplicate the payload with try_clone before it is imported")
                .into());
        }
        let get = vk::MemoryGetFdInfoKHR::default()
            .memory(inner.handle)
            .handle_type(conv::memory_handle_type(inner.info.handle_type));
        // SAFETY: the memory is alive (owned, or promised when it was adopted), of this device, and
        // was allocated with this handle type in VkExportMemoryAllocateInfo.
        let raw =
            unsafe { inner.shared.memory_fd()?.get_memory_fd(&get) }.of("vkGetMemoryFdKHR")?;
        let raw = fd::check_descriptor(Api::Vulkan, "vkGetMemoryFdKHR", raw)?;
        // SAFETY: vkGetMemoryFdKHR returned success, so `raw` is a new descriptor that the
        // application owns ("Each call to vkGetMemoryFdKHR must create a new file descriptor
        // holding a reference to the memory object's payload and transfer ownership of the file
        // descriptor to the application").
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // Mesa's software drivers forget the flag.
        Ok(MemoryPayload::new(fd::close_on_exec(fd)?, inner.info.clone())?)
    }
}
