//! Memory, buffers and images that were created elsewhere: imported from payloads, or adopted from
//! the user.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use ash::vk;

use super::buffer::Buffer;
use super::conv::{self, VkResultExt};
use super::endpoint::Endpoint;
use super::image::Image;
use super::memory::{DedicatedTo, Memory, Side};

use super::memory_options::{MemoryLocation, check_memory_type, choose_type};
use super::requirements::Source;
use super::resource::{Bound, Resource, Unbound};
use crate::desc::{BufferDesc, BufferUsage, ImageDesc};
use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::fd::MemoryHandleType;
use crate::payload::{BufferPayload, ImagePayload, MemoryInfo, MemoryPayload};

impl Endpoint {
    /// Imports an allocation, for one or several resources in it.
    ///
    /// The payload is consumed; on failure it is returned, its descriptor still open.
    ///
    /// # Errors
    /// [`Mismatch`](crate::Error::Mismatch) for a payload from another GPU or driver, [`Invalid`]
    /// for a descriptor that isn't GPU memory, a memory type that doesn't exist, or a dedicated
    /// allocation (import it with its resource), [`Missing`](crate::Error::Missing) for a handle
    /// type that is not enabled, [`Driver`](crate::Error::Driver) if the driver rejects the import.
    ///
    /// # References
    /// `VkImportMemoryFdInfoKHR`; VUID-VkMemoryAllocateInfo-allocationSize-01742,
    /// VUID-VkImportMemoryFdInfoKHR-handleType-00670.
    #[doc(alias = "VkImportMemoryFdInfoKHR")]
    pub fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory, MemoryPayload> {
        self.try_import_memory(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports a buffer.
    ///
    /// The payload is consumed; on failure it is returned, its descriptor still open.
    ///
    /// # Errors
    /// Same as [`import_memory`](Self::import_memory); also [`Invalid`] if the buffer doesn't fit
    /// the allocation or exceeds the device's maximum buffer size, and
    /// [`Missing`](crate::Error::Missing) if the device can't import such a buffer.
    #[doc(alias = "VkImportMemoryFdInfoKHR")]
    pub fn import_buffer(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.try_import_buffer(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports an image: creates one of the same description in the same memory.
    ///
    /// Its content is kept, although its layout starts as `VK_IMAGE_LAYOUT_UNDEFINED`: acquire it
    /// from `VK_QUEUE_FAMILY_EXTERNAL` with the layouts with which the other side released it
    /// ([`ImageAccess`](super::ImageAccess)).
    ///
    /// The payload is consumed; on failure it is returned, its descriptor still open.
    ///
    /// # Errors
    /// Same as [`import_memory`](Self::import_memory); also [`Invalid`] if the image doesn't fit
    /// the allocation, [`Missing`](crate::Error::Missing) if the device can't import such an image,
    /// and [`Mismatch`](crate::Error::Mismatch) if the rows of a linear image have a different
    /// layout on this device, or if a dedicated allocation is not exactly as large as the image.
    ///
    /// # References
    /// VUID-VkMemoryDedicatedAllocateInfo-image-01878: the image is created with the same create
    /// info as the exporter's.
    #[doc(alias = "VkImportMemoryFdInfoKHR")]
    pub fn import_image(&self, payload: ImagePayload) -> ImportResult<Image, ImagePayload> {
        self.try_import_image(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Returns the memory types with which `fd` can be imported: bit i stands for type i.
    ///
    /// # Errors
    /// [`Invalid`] for an opaque fd, which has no such query: its type is part of the payload.
    /// [`Missing`](crate::Error::Missing) if the extension is not enabled,
    /// [`Driver`](crate::Error::Driver) for a descriptor that the driver doesn't know.
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
            let problem = "the memory types of an opaque fd can't be queried";
            return Err(Invalid::new("handle_type", problem)
                .vuid("VUID-vkGetMemoryFdPropertiesKHR-handleType-00674")
                .help("its memory type is part of the payload: MemoryInfo::memory_type_index")
                .into());
        }
        self.check_handle_type(handle_type)?;
        let mut properties = vk::MemoryFdPropertiesKHR::default();
        // SAFETY: the extension of the handle type is enabled, and the descriptor is open while it
        // is borrowed; the call doesn't consume it.
        unsafe {
            self.memory_fd()?.get_memory_fd_properties(
                conv::memory_handle_type(handle_type),
                fd.as_raw_fd(),
                &mut properties,
            )
        }
        .context("vkGetMemoryFdPropertiesKHR")?;
        Ok(properties.memory_type_bits)
    }

    fn check_handle_type(&self, handle_type: MemoryHandleType) -> Result<()> {
        Ok(self.has_memory_extension(handle_type)?)
    }

    fn try_import_memory(&self, payload: &MemoryPayload) -> Result<Memory> {
        if payload.info().dedicated {
            return Err(Invalid::new(
                "payload.dedicated",
                "the memory is dedicated to one resource",
            )
            .vuid("VUID-VkMemoryDedicatedAllocateInfo-buffer-01879")
            .help("import it together with its resource, with import_buffer or import_image")
            .into());
        }
        self.check(payload)?;
        let index = self.import_type(payload, u32::MAX)?;
        self.allocate_imported(payload, index, DedicatedTo::Nothing, true)
    }

    fn try_import_buffer(&self, payload: &BufferPayload) -> Result<Buffer> {
        let (memory, desc) = (payload.memory(), payload.desc());
        self.check(memory)?;
        let raw = self.unbound_buffer(desc, memory.info().handle_type, Side::Importer)?;
        let addressable = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        let imported = self.import_for(&raw, memory, payload.offset(), addressable)?;
        raw.bind(imported, payload.offset(), *desc).map(Buffer)
    }

    fn try_import_image(&self, payload: &ImagePayload) -> Result<Image> {
        let (memory, desc) = (payload.memory(), payload.desc());
        self.check(memory)?;
        let raw = self.unbound_image(desc, memory.info().handle_type, Side::Importer)?;
        if let Some(linear) = payload.linear() {
            raw.check_linear(desc, linear)?;
        }
        let imported = self.import_for(&raw, memory, payload.offset(), false)?;
        raw.bind(imported, payload.offset(), *desc).map(Image)
    }

    /// Imports memory for `resource`, which needs it at `offset`.
    fn import_for<R: Resource>(
        &self,
        resource: &Unbound<R>,
        payload: &MemoryPayload,
        offset: u64,
        addressable: bool,
    ) -> Result<Memory> {
        let needs = resource.requirements();
        let index = self.import_type(payload, needs.types)?;
        let info = MemoryInfo { memory_type_index: Some(index), ..payload.info().clone() };
        needs.check_described(offset, &info, Source::Payload)?;
        let dedicated = resource.handle.dedicated_to();
        let to = if info.dedicated { dedicated } else { DedicatedTo::Nothing };
        self.allocate_imported(payload, index, to, addressable)
    }

    fn check(&self, payload: &MemoryPayload) -> Result<()> {
        payload.check(self.identities())?;
        let MemoryInfo { handle_type, allocation_size, .. } = *payload.info();
        self.check_handle_type(handle_type)?;
        self.workarounds().check_memory_fd(handle_type, payload.as_fd(), allocation_size)
    }

    /// Returns the memory type to import `payload` as, of the `types` that suit its resource.
    fn import_type(&self, payload: &MemoryPayload, types: u32) -> Result<u32> {
        let info = payload.info();
        let choose = |types, location| choose_type(self.memory_properties(), types, location);
        match (info.handle_type, info.memory_type_index) {
            (MemoryHandleType::OpaqueFd, Some(index)) => {
                check_memory_type(self.memory_properties(), index)?;
                Ok(index)
            }
            // CUDA exports no Vulkan memory type; its memory is device-local.
            (MemoryHandleType::OpaqueFd, None) => choose(types, MemoryLocation::DeviceLocal),
            (MemoryHandleType::DmaBuf, _) => {
                let importable = self.fd_memory_types(info.handle_type, payload.as_fd())?;
                let types = types & importable;
                choose(types, MemoryLocation::DeviceLocal)
                    .or_else(|_| choose(types, MemoryLocation::HostVisible))
            }
        }
    }
}

crate::peer::impl_peer! {
    Endpoint, crate::error::Api::Vulkan, Memory, Buffer, Image, super::semaphore::Semaphore,
    unsafe fn wait_idle(&self) -> Result<()> {
        // SAFETY: the device is alive; the caller keeps its queues to this thread during the call.
        unsafe { self.device().device_wait_idle() }.context("vkDeviceWaitIdle")
    }
}

/// A buffer and memory that the application created, with export enabled on both.
#[derive(Clone, Copy, Debug)]
pub struct AdoptedBuffer {
    /// The buffer, created with `VkExternalMemoryBufferCreateInfo` of `handle_type`.
    pub buffer: vk::Buffer,
    /// The description that it was created with.
    pub desc: BufferDesc,
    /// The memory it is bound to, allocated with `VkExportMemoryAllocateInfo` of `handle_type`, and
    /// with `VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT` if `desc.usage` has
    /// [`BufferUsage::DEVICE_ADDRESS`].
    pub memory: vk::DeviceMemory,
    /// The offset at which it is bound, in bytes.
    pub offset: u64,
    /// `VkMemoryAllocateInfo::allocationSize`, in bytes. If an allocator places several resources
    /// into one `VkDeviceMemory`, this is the size of that block, not of the suballocation. It can
    /// be checked only with drivers whose memory is a file; with others, a wrong value makes
    /// imports fail or read other bytes.
    pub allocation_size: u64,
    /// `VkMemoryAllocateInfo::memoryTypeIndex`.
    pub memory_type_index: u32,
    /// Whether it was allocated with `VkMemoryDedicatedAllocateInfo` for this buffer. Only the size
    /// can be checked: a dedicated allocation is exactly as large as its buffer.
    pub dedicated: bool,
    /// The handle type that it can be exported as.
    pub handle_type: MemoryHandleType,
}

/// An image and memory that the application created, with export enabled on both.
#[derive(Clone, Copy, Debug)]
pub struct AdoptedImage {
    /// The image, created with `VkExternalMemoryImageCreateInfo` of `handle_type`.
    pub image: vk::Image,
    /// The description that it was created with, its flags and the formats of its views included.
    /// The importer creates its image from this alone; anything else in the application's
    /// `VkImageCreateInfo` must not affect the memory's layout.
    pub desc: ImageDesc,
    /// The memory it is bound to, allocated with `VkExportMemoryAllocateInfo` of `handle_type`.
    pub memory: vk::DeviceMemory,
    /// The offset at which it is bound, in bytes.
    pub offset: u64,
    /// `VkMemoryAllocateInfo::allocationSize`, in bytes. If an allocator places several resources
    /// into one `VkDeviceMemory`, this is the size of that block, not of the suballocation. It can
    /// be checked only with drivers whose memory is a file; with others, a wrong value makes
    /// imports fail or read other bytes.
    pub allocation_size: u64,
    /// `VkMemoryAllocateInfo::memoryTypeIndex`.
    pub memory_type_index: u32,
    /// Whether it was allocated with `VkMemoryDedicatedAllocateInfo` for this image. Only the size
    /// can be checked: a dedicated allocation is exactly as large as its image.
    pub dedicated: bool,
    /// The handle type that it can be exported as.
    pub handle_type: MemoryHandleType,
}

impl<R: Resource> Unbound<R> {
    /// Checks the description of the application's resource and of `memory`, to which it is bound.
    fn adopt(self, memory: Memory, offset: u64, desc: R::Desc) -> Result<Bound<R>> {
        self.requirements().check_described(offset, memory.info(), Source::Adopted)?;
        memory.check_export()?;
        Ok(self.bound(memory, offset, desc))
    }
}

impl Endpoint {
    /// Wraps the application's own buffer for export. The application still owns the buffer and its
    /// memory, and destroys them after the last clone of the returned buffer is dropped. The memory
    /// is exported once, as a check.
    ///
    /// # Safety
    /// `adopted` describes the buffer and its memory correctly, both handles belong to this device,
    /// and they outlive the returned buffer.
    ///
    /// # Errors
    /// [`Invalid`] and [`Mismatch`](crate::Error::Mismatch) if the values contradict each other or
    /// the buffer, [`Missing`](crate::Error::Missing) if the device can't export such a buffer,
    /// [`Driver`](crate::Error::Driver) if the memory can't be exported.
    ///
    /// # References
    /// VUID-vkBindBufferMemory-memory-01508, VUID-VkMemoryDedicatedAllocateInfo-buffer-02965.
    pub unsafe fn adopt_buffer(&self, adopted: &AdoptedBuffer) -> Result<Buffer> {
        let AdoptedBuffer { buffer, desc, memory, offset, handle_type, .. } = *adopted;
        desc.validate()?;
        check_handles(buffer == vk::Buffer::null(), memory)?;
        let info = self.adopted_info(
            handle_type,
            adopted.allocation_size,
            adopted.memory_type_index,
            adopted.dedicated,
        )?;
        let support = self.buffer_support(&desc, handle_type);
        support.export?;
        let raw = Unbound::adopted(self, buffer, support.dedicated);
        // The application promises that the memory was allocated for such a buffer.
        let addressable = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        let memory = Memory::adopted(self, memory, info, addressable);
        raw.adopt(memory, offset, desc).map(Buffer)
    }

    /// Wraps the application's own image for export. The application still owns the image and its
    /// memory, and destroys them after the last clone of the returned image is dropped. The memory
    /// is exported once, as a check.
    ///
    /// # Safety
    /// `adopted` describes the image and its memory correctly, both handles belong to this device,
    /// and they outlive the returned image.
    ///
    /// # Errors
    /// [`Invalid`] and [`Mismatch`](crate::Error::Mismatch) if the values contradict each other or
    /// the image, [`Missing`](crate::Error::Missing) if the device can't export such an image,
    /// [`Driver`](crate::Error::Driver) if the memory can't be exported.
    ///
    /// # References
    /// VUID-vkBindImageMemory-memory-02628, VUID-VkMemoryDedicatedAllocateInfo-image-02964.
    pub unsafe fn adopt_image(&self, adopted: &AdoptedImage) -> Result<Image> {
        let AdoptedImage { image, desc, memory, offset, handle_type, .. } = *adopted;
        desc.validate()?;
        check_handles(image == vk::Image::null(), memory)?;
        let info = self.adopted_info(
            handle_type,
            adopted.allocation_size,
            adopted.memory_type_index,
            adopted.dedicated,
        )?;
        let support = self.image_support(&desc, handle_type)?;
        support.export?;
        let raw = Unbound::adopted(self, image, support.dedicated);
        raw.adopt(Memory::adopted(self, memory, info, false), offset, desc).map(Image)
    }

    fn adopted_info(
        &self,
        handle_type: MemoryHandleType,
        allocation_size: u64,
        memory_type_index: u32,
        dedicated: bool,
    ) -> Result<MemoryInfo> {
        check_memory_type(self.memory_properties(), memory_type_index)?;
        let (memory_type_index, identity) = (Some(memory_type_index), self.identity().clone());
        Ok(MemoryInfo { handle_type, allocation_size, memory_type_index, dedicated, identity })
    }
}

/// Rejects null handles, which must not reach a driver.
fn check_handles(resource_is_null: bool, memory: vk::DeviceMemory) -> Result<()> {
    if resource_is_null || memory == vk::DeviceMemory::null() {
        return Err(Invalid::new("adopted", "has a null handle").into());
    }
    Ok(())
}
