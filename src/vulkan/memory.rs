//! Device memory that is allocated for export, imported, or adopted from the user.

use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use ash::vk;

use super::conv::{self, VkResultExt};
use super::endpoint::Endpoint;
use super::memory_options::check_allocation_size;
use crate::error::{Api, Invalid, Result};
use crate::fd::{self, MemoryHandleType, transfer_duplicate};
use crate::payload::{MemoryInfo, MemoryPayload};

/// Device memory that can be shared. Cheap to clone: several buffers and images may lie in one
/// allocation, which is freed with the last of them.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Inner>,
}

struct Inner {
    handle: vk::DeviceMemory,
    info: MemoryInfo,
    origin: Origin,
    /// Whether it was allocated with VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT.
    addressable: bool,
    // Last: it may destroy the device.
    endpoint: Endpoint,
}

/// Where an allocation comes from. It decides who frees it, and whether it can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
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
            // SAFETY: this library allocated the handle, and this structure is its only owner. The
            // caller of every submit promises that the memory is kept until the work is done
            // (VUID-vkFreeMemory-memory-00677).
            unsafe { self.endpoint.device().free_memory(self.handle, None) };
        }
    }
}

impl Memory {
    fn new(
        endpoint: &Endpoint,
        handle: vk::DeviceMemory,
        info: MemoryInfo,
        origin: Origin,
        addressable: bool,
    ) -> Self {
        let endpoint = endpoint.clone();
        Self { inner: Arc::new(Inner { handle, info, origin, addressable, endpoint }) }
    }

    /// Wraps the user's memory. It is `addressable` if it was allocated for device addresses.
    pub(super) fn adopted(
        endpoint: &Endpoint,
        handle: vk::DeviceMemory,
        info: MemoryInfo,
        addressable: bool,
    ) -> Self {
        Self::new(endpoint, handle, info, Origin::Adopted, addressable)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    pub(super) fn is_imported(&self) -> bool {
        self.inner.origin == Origin::Imported
    }

    pub(super) fn is_addressable(&self) -> bool {
        self.inner.addressable
    }

    /// Returns the Vulkan handle. This object owns it, unless it is adopted.
    pub fn handle(&self) -> vk::DeviceMemory {
        self.inner.handle
    }

    /// Returns what an importer must know of the allocation.
    pub fn info(&self) -> &MemoryInfo {
        &self.inner.info
    }

    /// Exports the allocation: a new descriptor each time, with FD_CLOEXEC. It keeps the memory
    /// alive by itself.
    ///
    /// # Errors
    /// [`Invalid`] for imported memory, which was not allocated for export: use
    /// [`MemoryPayload::try_clone`] before the import instead. [`Driver`](crate::Error::Driver) if
    /// the driver refuses, for example because the process is out of descriptors.
    ///
    /// # References
    /// `vkGetMemoryFdKHR`; VUID-VkMemoryGetFdInfoKHR-handleType-00671.
    #[doc(alias = "vkGetMemoryFdKHR")]
    pub fn export(&self) -> Result<MemoryPayload> {
        let Inner { handle, info, endpoint, .. } = &*self.inner;
        if self.is_imported() {
            return Err(Invalid::new("memory", "was imported, not allocated for export")
                .vuid("VUID-VkMemoryGetFdInfoKHR-handleType-00671")
                .help("duplicate the payload with try_clone before it is imported")
                .into());
        }
        let get = vk::MemoryGetFdInfoKHR::default()
            .memory(*handle)
            .handle_type(conv::memory_handle_type(info.handle_type));
        // SAFETY: the memory is alive (owned, or promised when it was adopted), of this device, and
        // was allocated with this handle type in VkExportMemoryAllocateInfo.
        let raw =
            unsafe { endpoint.memory_fd()?.get_memory_fd(&get) }.context("vkGetMemoryFdKHR")?;
        let raw = fd::check_descriptor(Api::Vulkan, "vkGetMemoryFdKHR", raw)?;
        // SAFETY: vkGetMemoryFdKHR returned success, so `raw` is a new descriptor that the
        // application owns ("Each call to vkGetMemoryFdKHR must create a new file descriptor
        // holding a reference to the memory object's payload and transfer ownership of the file
        // descriptor to the application").
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // Mesa's software drivers forget the flag.
        Ok(MemoryPayload::new(fd::close_on_exec(fd)?, info.clone())?)
    }
}

/// The resource that an allocation is dedicated to.
#[derive(Clone, Copy, Debug)]
pub(super) enum DedicatedTo {
    Nothing,
    Buffer(vk::Buffer),
    Image(vk::Image),
}

impl Endpoint {
    /// Allocates `size` bytes of exportable memory.
    pub(super) fn allocate_exportable(
        &self,
        size: u64,
        memory_type_index: u32,
        handle_type: MemoryHandleType,
        to: DedicatedTo,
        addressable: bool,
    ) -> Result<Memory> {
        let info = MemoryInfo {
            handle_type,
            allocation_size: size,
            memory_type_index: Some(memory_type_index),
            dedicated: !matches!(to, DedicatedTo::Nothing),
            identity: self.identity().clone(),
        };
        check_allocation_size(self.memory_properties(), "desc", size, memory_type_index)?;
        let addressable = addressable && self.features().buffer_device_address;
        let mut export = vk::ExportMemoryAllocateInfo::default()
            .handle_types(conv::memory_handle_type(handle_type));
        // SAFETY: the size fits the heap and the type exists (`choose_type`); the caller found the
        // handle type to be exportable.
        let handle =
            unsafe { self.allocate_memory(size, memory_type_index, to, addressable, &mut export) }?;
        Ok(Memory::new(self, handle, info, Origin::Created, addressable))
    }

    /// Imports a duplicate of the payload's descriptor, so that the payload stays usable if this or
    /// a later step fails.
    pub(super) fn allocate_imported(
        &self,
        payload: &MemoryPayload,
        memory_type_index: u32,
        to: DedicatedTo,
        addressable: bool,
    ) -> Result<Memory> {
        let info =
            MemoryInfo { memory_type_index: Some(memory_type_index), ..payload.info().clone() };
        let (size, parameter) = (info.allocation_size, "payload.allocation_size");
        check_allocation_size(self.memory_properties(), parameter, size, memory_type_index)?;
        let addressable = addressable && self.features().buffer_device_address;
        let handle = transfer_duplicate(payload, |raw| {
            let mut import = vk::ImportMemoryFdInfoKHR::default()
                .handle_type(conv::memory_handle_type(info.handle_type))
                .fd(raw);
            // SAFETY: the extension is enabled, and the device reported that it imports such a
            // resource; the descriptor is open, and a file is not too short (`MemoryPayload::check`).
            // As far as the payload says, the memory is of this GPU and driver, and size, type and
            // dedication repeat the exporter's (VUID-VkMemoryAllocateInfo-allocationSize-01742 and
            // -01743). No call can verify that for an opaque fd; the import rests on the exporter
            // (`MemoryPayload::new`).
            unsafe { self.allocate_memory(size, memory_type_index, to, addressable, &mut import) }
        })?;
        Ok(Memory::new(self, handle, info, Origin::Imported, addressable))
    }

    /// Calls `vkAllocateMemory`.
    ///
    /// # Safety
    /// The size is not 0, the memory type exists, `external` is the export or import structure for
    /// this allocation, and the resource that it is dedicated to is alive and of this device.
    unsafe fn allocate_memory(
        &self,
        size: u64,
        memory_type_index: u32,
        to: DedicatedTo,
        addressable: bool,
        external: &mut impl vk::ExtendsMemoryAllocateInfo,
    ) -> Result<vk::DeviceMemory> {
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default();
        let mut flags =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(size)
            .memory_type_index(memory_type_index)
            .push_next(external);
        match to {
            DedicatedTo::Nothing => {}
            DedicatedTo::Buffer(buffer) => dedicated = dedicated.buffer(buffer),
            DedicatedTo::Image(image) => dedicated = dedicated.image(image),
        }
        if !matches!(to, DedicatedTo::Nothing) {
            info = info.push_next(&mut dedicated);
        }
        if addressable {
            info = info.push_next(&mut flags);
        }
        // SAFETY: the caller's promise; the flag is set only if bufferDeviceAddress is enabled.
        unsafe { self.device().allocate_memory(&info, None) }.context("vkAllocateMemory")
    }
}
