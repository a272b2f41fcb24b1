//! Device memory that is allocated for export, imported, or adopted from the application.

use std::fmt;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;

use super::conv::{self, VkResultExt};
use super::endpoint::Endpoint;
use super::memory_options::check_allocation_size;
use crate::capabilities::{MemorySupport, Support};
use crate::error::{Api, Error, Invalid, Result};
use crate::fd::{self, FileKind, MemoryHandleType, file_kind, transfer_duplicate};
use crate::payload::{MemoryInfo, MemoryPayload};

/// Device memory that can be shared. Cheap to clone: several buffers and images may share an
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
    /// The address that it is mapped at; 0 before it is mapped.
    mapped: Mutex<usize>,
    // Last: it may destroy the device.
    endpoint: Endpoint,
}

/// The origin of an allocation, which determines how it is freed, and whether it can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Allocated here with VkExportMemoryAllocateInfo.
    Created,
    /// Imported from a payload.
    Imported,
    /// The application's, allocated with VkExportMemoryAllocateInfo, and freed by the application.
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
        let endpoint = endpoint.for_object();
        let mapped = Mutex::default();
        Self { inner: Arc::new(Inner { handle, info, origin, addressable, mapped, endpoint }) }
    }

    /// Wraps the application's memory. It is `addressable` if it was allocated for device
    /// addresses.
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

    /// Returns the side for which resources in this memory are created.
    pub(super) fn side(&self) -> Side {
        if self.inner.origin == Origin::Imported { Side::Importer } else { Side::Exporter }
    }

    pub(super) fn is_addressable(&self) -> bool {
        self.inner.addressable
    }

    /// Returns the Vulkan handle. This object owns it, unless it is adopted.
    pub fn handle(&self) -> vk::DeviceMemory {
        self.inner.handle
    }

    /// Returns what an importer must know about the allocation.
    pub fn info(&self) -> &MemoryInfo {
        &self.inner.info
    }

    /// Returns the properties of its memory type.
    pub(super) fn properties(&self) -> vk::MemoryPropertyFlags {
        let types = self.endpoint().memory_properties().memory_types_as_slice();
        let index = self.info().memory_type_index.map_or(usize::MAX, |index| index as usize);
        types.get(index).map_or(vk::MemoryPropertyFlags::empty(), |ty| ty.property_flags)
    }

    /// Maps the whole allocation and returns its address. It remains mapped until it is freed,
    /// which unmaps it.
    pub(super) fn map_whole(&self) -> Result<*mut u8> {
        let Inner { handle, origin, mapped, endpoint, .. } = &*self.inner;
        if *origin == Origin::Adopted {
            return Err(Invalid::new("memory", "is adopted, and may be mapped only once")
                .vuid("VUID-vkMapMemory-memory-00678")
                .help("map it with vkMapMemory yourself")
                .into());
        }
        if !self.properties().contains(vk::MemoryPropertyFlags::HOST_VISIBLE) {
            return Err(Invalid::new("memory", "has a type that is not host-visible")
                .vuid("VUID-vkMapMemory-memory-00682")
                .help("allocate it with MemoryLocation::HostVisible")
                .into());
        }
        let mut mapped = mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if *mapped == 0 {
            let flags = vk::MemoryMapFlags::empty();
            // SAFETY: the memory is alive, of this device, host-visible and not mapped; the lock
            // keeps other threads from mapping it.
            let address =
                unsafe { endpoint.device().map_memory(*handle, 0, vk::WHOLE_SIZE, flags) };
            *mapped = address.context("vkMapMemory")?.expose_provenance();
        }
        Ok(std::ptr::with_exposed_provenance_mut(*mapped))
    }

    /// Exports the allocation: a new descriptor each time, with FD_CLOEXEC. The descriptor itself
    /// keeps the memory alive.
    ///
    /// # Errors
    /// [`Invalid`] for imported memory, which was not allocated for export: use
    /// [`MemoryPayload::try_clone`] before the import instead. [`Driver`](crate::Error::Driver) if
    /// the call fails, for example because the process is out of descriptors.
    ///
    /// # References
    /// `vkGetMemoryFdKHR`; VUID-VkMemoryGetFdInfoKHR-handleType-00671.
    #[doc(alias = "vkGetMemoryFdKHR")]
    pub fn export(&self) -> Result<MemoryPayload> {
        let Inner { handle, info, endpoint, .. } = &*self.inner;
        if self.side() == Side::Importer {
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
        let raw = unsafe { endpoint.memory_fd()?.get_memory_fd(&get) };
        let raw = raw
            .context("vkGetMemoryFdKHR")
            .and_then(|raw| fd::check_descriptor(Api::Vulkan, "vkGetMemoryFdKHR", raw))
            .map_err(|error| self.explain_export(error))?;
        // SAFETY: vkGetMemoryFdKHR returned success, so `raw` is a new descriptor that the
        // application owns ("Each call to vkGetMemoryFdKHR must create a new file descriptor
        // holding a reference to the memory object's payload and transfer ownership of the file
        // descriptor to the application").
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // Mesa's software drivers don't set the flag.
        Ok(MemoryPayload::new(fd::close_on_exec(fd)?, info.clone())?)
    }
}

/// The side of a payload for which a resource is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Exporter,
    Importer,
}

impl Side {
    /// Checks that the device supports that side.
    pub(super) fn check(self, support: &MemorySupport) -> Support {
        match self {
            Self::Exporter => support.export.clone(),
            Self::Importer => support.import.clone(),
        }
    }
}

impl Memory {
    /// Adds to an export's error what the owner of adopted memory can do about it.
    fn explain_export(&self, error: Error) -> Error {
        match error {
            Error::Driver(error)
                if error.help.is_none() && self.inner.origin == Origin::Adopted =>
            {
                let handle_type = self.inner.info.handle_type;
                let help = format!(
                    "allocate adopted memory with VkExportMemoryAllocateInfo of the handle type \
                     that it is adopted with ({handle_type}; \
                     VUID-VkMemoryGetFdInfoKHR-handleType-00671)"
                );
                error.help(help).into()
            }
            error => error,
        }
    }

    /// Checks adopted memory by exporting it: nothing else shows that it was allocated for export
    /// and, with drivers whose memory is a file, how large it is.
    pub(super) fn check_export(&self) -> Result<()> {
        /// More than a driver adds to a file: a header, and the rest of the last page.
        const OVERHEAD: u64 = 64 << 10;
        let size = self.info().allocation_size;
        match file_kind(self.export()?.as_fd())? {
            FileKind::Regular { len } if len < size || len - size > OVERHEAD => {
                let problem = format!("is {size} bytes, but the driver's memory has about {len}");
                Err(Invalid::new("adopted.allocation_size", problem)
                    .help(
                        "pass VkMemoryAllocateInfo::allocationSize of the whole block, not the \
                         size of a suballocation",
                    )
                    .into())
            }
            _ => Ok(()),
        }
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
    /// Allocates `size` bytes of exportable memory. The caller found `handle_type` to be
    /// exportable.
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
        self.allocate_memory(info, memory_type_index, to, addressable, None)
    }

    /// Imports a duplicate of the payload's descriptor, so that the payload can be returned if this
    /// or a later step fails. The caller checked the payload.
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
        self.allocate_memory(info, memory_type_index, to, addressable, Some(payload))
    }

    /// Allocates the memory that `info` describes, for export or from `payload`.
    fn allocate_memory(
        &self,
        info: MemoryInfo,
        memory_type_index: u32,
        to: DedicatedTo,
        addressable: bool,
        payload: Option<&MemoryPayload>,
    ) -> Result<Memory> {
        let addressable = addressable && self.features().buffer_device_address;
        let handle_type = conv::memory_handle_type(info.handle_type);
        let allocate = |external: &mut dyn vk::ExtendsMemoryAllocateInfo| {
            let mut dedicated = match to {
                DedicatedTo::Nothing => vk::MemoryDedicatedAllocateInfo::default(),
                DedicatedTo::Buffer(buffer) => {
                    vk::MemoryDedicatedAllocateInfo::default().buffer(buffer)
                }
                DedicatedTo::Image(image) => {
                    vk::MemoryDedicatedAllocateInfo::default().image(image)
                }
            };
            let mut flags = vk::MemoryAllocateFlagsInfo::default()
                .flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
            let mut allocation = vk::MemoryAllocateInfo::default()
                .allocation_size(info.allocation_size)
                .memory_type_index(memory_type_index)
                .push_next(external);
            if info.dedicated {
                allocation = allocation.push_next(&mut dedicated);
            }
            if addressable {
                allocation = allocation.push_next(&mut flags);
            }
            // SAFETY: the size is not 0 and fits the heap, and the type exists. The extension is
            // enabled, and the device reported that it exports or imports such a resource. A
            // dedicated allocation names its resource, which is alive; the flag is set only if
            // bufferDeviceAddress is enabled. An imported descriptor is open, and a file is not too
            // short (`MemoryPayload::check`). According to the payload, it is from this GPU and
            // driver, and size, type and dedication repeat the exporter's
            // (VUID-VkMemoryAllocateInfo-allocationSize-01742 and -01743). No call can verify that
            // for an opaque fd; the import rests on the exporter (`MemoryPayload::new`).
            unsafe { self.device().allocate_memory(&allocation, None) }.context("vkAllocateMemory")
        };
        let (handle, origin) = match payload {
            None => {
                let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(handle_type);
                (allocate(&mut export)?, Origin::Created)
            }
            Some(payload) => {
                let import = vk::ImportMemoryFdInfoKHR::default().handle_type(handle_type);
                let handle = transfer_duplicate(payload, |raw| allocate(&mut import.fd(raw)))?;
                (handle, Origin::Imported)
            }
        };
        Ok(Memory::new(self, handle, info, origin, addressable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vulkan::fake;

    #[test]
    fn imported_memory_is_not_exported_again() {
        let endpoint = fake::endpoint();
        let info = MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size: 64,
            memory_type_index: Some(0),
            dedicated: false,
            identity: endpoint.identity().clone(),
        };
        let handle = vk::Handle::from_raw(1);
        let memory = Memory::new(&endpoint, handle, info, Origin::Imported, false);
        let error = memory.export().unwrap_err();
        assert!(
            matches!(error, Error::Invalid(ref invalid) if invalid.parameter == "memory"),
            "{error:?}"
        );
    }
}
