//! Importing memory, buffers and images from payloads.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use ash::vk;

use super::allocation::{DedicatedTo, MemoryLocation};
use super::buffer::Buffer;
use super::conv;
use super::endpoint::{Endpoint, check_memory_type};
use super::error::VkResultExt;
use super::image::Image;
use super::memory::{Inner, Memory, Origin};
use super::requirements::Requirements;
use crate::desc::BufferUsage;
use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::fd::{MemoryHandleType, transfer_duplicate};
use crate::payload::{BufferPayload, ImagePayload, MemoryInfo, MemoryPayload};

impl Endpoint {
    /// Imports an allocation, to put one or several resources into it.
    ///
    /// The payload is consumed; on failure it comes back, its descriptor still open.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for another GPU or driver, [`Invalid`] for a descriptor
    /// that is no GPU memory, a memory type that doesn't exist, or a dedicated allocation (import it
    /// with its resource), [`Missing`](crate::Error::Missing) for a handle type that is not enabled,
    /// [`Driver`](crate::Error::Driver) where the driver refuses.
    ///
    /// # References
    /// `VkImportMemoryFdInfoKHR`; VUID-VkMemoryAllocateInfo-allocationSize-01742,
    /// VUID-VkImportMemoryFdInfoKHR-handleType-00670.
    #[doc(alias = "VkImportMemoryFdInfoKHR")]
    pub fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory, MemoryPayload> {
        match self.try_import_memory(&payload) {
            Ok(memory) => Ok(memory),
            Err(error) => Err(ImportError::new(payload, error)),
        }
    }

    /// Imports a buffer.
    ///
    /// The payload is consumed; on failure it comes back, its descriptor still open.
    ///
    /// # Errors
    /// As [`import_memory`](Self::import_memory), [`Invalid`] where the buffer doesn't fit the
    /// allocation or is larger than a buffer of this device can be, and
    /// [`Missing`](crate::Error::Missing) where the device can't import such a buffer.
    #[doc(alias = "VkImportMemoryFdInfoKHR")]
    pub fn import_buffer(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        match self.try_import_buffer(&payload) {
            Ok(buffer) => Ok(buffer),
            Err(error) => Err(ImportError::new(payload, error)),
        }
    }

    /// Imports an image: one of the same description, in the same memory.
    ///
    /// What is in it is kept, though its layout starts as `VK_IMAGE_LAYOUT_UNDEFINED`: acquire it
    /// from `VK_QUEUE_FAMILY_EXTERNAL` with the layouts that the other side released it with
    /// ([`ImageAccess`](super::ImageAccess)).
    ///
    /// The payload is consumed; on failure it comes back, its descriptor still open.
    ///
    /// # Errors
    /// As [`import_memory`](Self::import_memory), [`Invalid`] where the image doesn't fit the
    /// allocation, [`Missing`](crate::Error::Missing) where the device can't import such an image,
    /// and [`Mismatch`](crate::Error::Mismatch) where a linear image's rows lie otherwise here or a
    /// dedicated allocation is not as large as the image.
    ///
    /// # References
    /// VUID-VkMemoryDedicatedAllocateInfo-image-01878: the image is made with the very same create
    /// info as the exporter's.
    #[doc(alias = "VkImportMemoryFdInfoKHR")]
    pub fn import_image(&self, payload: ImagePayload) -> ImportResult<Image, ImagePayload> {
        match self.try_import_image(&payload) {
            Ok(image) => Ok(image),
            Err(error) => Err(ImportError::new(payload, error)),
        }
    }

    /// The memory types that `fd` can be imported as: bit i for type i.
    ///
    /// # Errors
    /// [`Invalid`] for opaque fds, which can't be asked: their type travels in the payload.
    /// [`Missing`](crate::Error::Missing) where the extension is not enabled,
    /// [`Driver`](crate::Error::Driver) for a descriptor the driver doesn't know.
    ///
    /// # References
    /// `vkGetMemoryFdPropertiesKHR`; VUID-vkGetMemoryFdPropertiesKHR-handleType-00674.
    #[doc(alias = "vkGetMemoryFdPropertiesKHR")]
    pub fn fd_memory_types(
        &self,
        handle_type: MemoryHandleType,
        fd: BorrowedFd<'_>,
    ) -> Result<u32> {
        if handle_type == MemoryHandleType::OpaqueFd {
            return Err(Invalid::new(
                "handle_type",
                "an opaque fd can't be asked its memory types",
            )
            .vuid("VUID-vkGetMemoryFdPropertiesKHR-handleType-00674")
            .help("its memory type travels in the payload: MemoryInfo::memory_type_index")
            .into());
        }
        self.check_handle_type(handle_type)?;
        let mut properties = vk::MemoryFdPropertiesKHR::default();
        // SAFETY: the extension of the handle type is enabled, and the descriptor is open while it
        // is borrowed; the call doesn't take it.
        unsafe {
            self.shared.memory_fd()?.get_memory_fd_properties(
                conv::memory_handle_type(handle_type),
                fd.as_raw_fd(),
                &mut properties,
            )
        }
        .of("vkGetMemoryFdPropertiesKHR")?;
        Ok(properties.memory_type_bits)
    }

    fn check_handle_type(&self, handle_type: MemoryHandleType) -> Result<()> {
        self.shared.missing_memory_extension(handle_type).map_or(Ok(()), |lacks| Err(lacks.into()))
    }

    fn try_import_memory(&self, payload: &MemoryPayload) -> Result<Memory> {
        if payload.info().dedicated {
            return Err(Invalid::new("payload.dedicated", "the memory belongs to one resource")
                .vuid("VUID-VkMemoryDedicatedAllocateInfo-buffer-01879")
                .help("import it together with its resource, by import_buffer or import_image")
                .into());
        }
        self.check(payload)?;
        let index = self.import_type(payload, u32::MAX)?;
        self.import(payload, index, DedicatedTo::Nothing, true)
    }

    fn try_import_buffer(&self, payload: &BufferPayload) -> Result<Buffer> {
        let (memory, desc) = (payload.memory(), payload.desc());
        self.check(memory)?;
        let raw = self.create_importable_buffer(desc, memory.info().handle_type)?;
        let to = DedicatedTo::Buffer(raw.handle);
        let addressed = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        let needs = raw.requirements();
        let imported = self.import_for(&needs, memory, payload.offset(), to, addressed)?;
        raw.bind(&imported, payload.offset(), desc)
    }

    fn try_import_image(&self, payload: &ImagePayload) -> Result<Image> {
        let (memory, desc) = (payload.memory(), payload.desc());
        self.check(memory)?;
        let raw = self.create_importable_image(desc, memory.info().handle_type)?;
        if let Some(told) = payload.linear() {
            raw.check_linear(desc, told)?;
        }
        let to = DedicatedTo::Image(raw.handle);
        let imported = self.import_for(&raw.requirements(), memory, payload.offset(), to, false)?;
        raw.bind(&imported, payload.offset(), desc)
    }

    /// Imports memory for a resource that `needs` it at `offset`, and, where it is dedicated, is `to`.
    fn import_for(
        &self,
        needs: &Requirements,
        payload: &MemoryPayload,
        offset: u64,
        to: DedicatedTo,
        addressed: bool,
    ) -> Result<Memory> {
        let index = self.import_type(payload, needs.types)?;
        let info = MemoryInfo { memory_type_index: Some(index), ..payload.info().clone() };
        if info.dedicated {
            needs.check_dedicated(offset, &info)?;
            return self.import(payload, index, to, addressed);
        }
        needs.check_shared(offset, &info)?;
        self.import(payload, index, DedicatedTo::Nothing, addressed)
    }

    fn check(&self, payload: &MemoryPayload) -> Result<()> {
        payload.check(self.identities())?;
        let handle_type = payload.info().handle_type;
        self.check_handle_type(handle_type)?;
        self.shared.workarounds.check_memory_fd(handle_type, payload.as_fd())
    }

    /// The memory type to import `payload` as, among those that suit its resource.
    fn import_type(&self, payload: &MemoryPayload, types: u32) -> Result<u32> {
        let info = payload.info();
        match (info.handle_type, info.memory_type_index) {
            (MemoryHandleType::OpaqueFd, Some(index)) => {
                check_memory_type(&self.shared.memory_properties, index)?;
                Ok(index)
            }
            // The exporter knows no Vulkan memory types (CUDA); its memory is the device's.
            (MemoryHandleType::OpaqueFd, None) => {
                self.choose_type(types, MemoryLocation::DeviceLocal)
            }
            (MemoryHandleType::DmaBuf, _) => {
                let importable = self.fd_memory_types(info.handle_type, payload.as_fd())?;
                let types = types & importable;
                self.choose_type(types, MemoryLocation::DeviceLocal)
                    .or_else(|_| self.choose_type(types, MemoryLocation::HostVisible))
            }
        }
    }

    /// Imports a duplicate of the payload's descriptor, so that the payload stays whole if this or
    /// a later step fails.
    fn import(
        &self,
        payload: &MemoryPayload,
        memory_type_index: u32,
        dedicated: DedicatedTo,
        addressed: bool,
    ) -> Result<Memory> {
        let memory_info =
            MemoryInfo { memory_type_index: Some(memory_type_index), ..payload.info().clone() };
        let size = memory_info.allocation_size;
        self.shared.check_allocation_size("payload.allocation_size", size, memory_type_index)?;
        let addressed = addressed && self.shared.features.buffer_device_address;
        let mut dedicated_info = dedicated.info();
        let mut flags =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let handle = transfer_duplicate(payload, |raw| {
            let mut import = vk::ImportMemoryFdInfoKHR::default()
                .handle_type(conv::memory_handle_type(memory_info.handle_type))
                .fd(raw);
            let mut info = vk::MemoryAllocateInfo::default()
                .allocation_size(size)
                .memory_type_index(memory_type_index)
                .push_next(&mut import);
            if dedicated.is_something() {
                info = info.push_next(&mut dedicated_info);
            }
            if addressed {
                info = info.push_next(&mut flags);
            }
            // SAFETY: the extension is enabled, and the device said that it imports such a resource;
            // the descriptor is open, and a file is not too short (`check`). As far as the payload
            // tells, the memory is of this GPU and driver, and size, type and dedication repeat the
            // exporter's (VUID-VkMemoryAllocateInfo-allocationSize-01742 and -01743): nobody can
            // ask an opaque fd, so these are the exporter's word (`MemoryPayload::new`).
            unsafe { self.shared.device.allocate_memory(&info, None) }.of("vkAllocateMemory")
        })?;
        let (shared, origin) = (self.shared.clone(), Origin::Imported);
        Ok(Memory {
            inner: Arc::new(Inner { shared, handle, info: memory_info, origin, addressed }),
        })
    }
}
