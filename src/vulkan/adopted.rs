//! Buffers and images that the user made, with export enabled.

use ash::vk;

use super::buffer::{Buffer, RawBuffer};
use super::endpoint::Endpoint;
use super::image::{Image, RawImage};
use super::memory::Memory;
use super::memory_options::check_memory_type;
use crate::desc::{BufferDesc, BufferUsage, ImageDesc};
use crate::error::{Invalid, Result};
use crate::fd::MemoryHandleType;
use crate::payload::MemoryInfo;

/// A buffer and memory that the user made, with export enabled on both.
#[derive(Clone, Copy, Debug)]
pub struct AdoptedBuffer {
    /// The buffer, created with `VkExternalMemoryBufferCreateInfo` of `handle_type`.
    pub buffer: vk::Buffer,
    /// What it was created as.
    pub desc: BufferDesc,
    /// The memory it is bound to, allocated with `VkExportMemoryAllocateInfo` of `handle_type`, and
    /// with `VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT` if `desc.usage` has
    /// [`BufferUsage::DEVICE_ADDRESS`].
    pub memory: vk::DeviceMemory,
    /// The offset that it is bound at, in bytes.
    pub offset: u64,
    /// `VkMemoryAllocateInfo::allocationSize`, in bytes.
    pub allocation_size: u64,
    /// `VkMemoryAllocateInfo::memoryTypeIndex`.
    pub memory_type_index: u32,
    /// Whether it was allocated with `VkMemoryDedicatedAllocateInfo` for this buffer.
    pub dedicated: bool,
    /// How it can be exported.
    pub handle_type: MemoryHandleType,
}

/// An image and memory that the user made, with export enabled on both.
#[derive(Clone, Copy, Debug)]
pub struct AdoptedImage {
    /// The image, created with `VkExternalMemoryImageCreateInfo` of `handle_type`.
    pub image: vk::Image,
    /// What it was created as. The importer creates its image from this alone: if the user's
    /// `VkImageCreateInfo` has more (another flag, usage or view format), the two images differ.
    pub desc: ImageDesc,
    /// The memory it is bound to, allocated with `VkExportMemoryAllocateInfo` of `handle_type`.
    pub memory: vk::DeviceMemory,
    /// The offset that it is bound at, in bytes.
    pub offset: u64,
    /// `VkMemoryAllocateInfo::allocationSize`, in bytes.
    pub allocation_size: u64,
    /// `VkMemoryAllocateInfo::memoryTypeIndex`.
    pub memory_type_index: u32,
    /// Whether it was allocated with `VkMemoryDedicatedAllocateInfo` for this image.
    pub dedicated: bool,
    /// How it can be exported.
    pub handle_type: MemoryHandleType,
}

impl Endpoint {
    /// Makes a buffer of the user's exportable. The user keeps it and its memory, and destroys them
    /// after the last clone of the returned buffer is dropped.
    ///
    /// # Safety
    /// `adopted` is true, both handles are of this device, and they outlive the returned buffer.
    ///
    /// # Errors
    /// [`Invalid`] and [`Mismatch`](crate::Error::Mismatch) if the values contradict each other or
    /// the buffer, [`Missing`](crate::Error::Missing) if the device can't export such a buffer.
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
        let raw = RawBuffer::adopted(self, buffer, support.dedicated);
        raw.requirements().check_any(offset, &info)?;
        // The user promises that the memory was allocated for such a buffer.
        let addressable = desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
        Ok(raw.bound(Memory::adopted(self, memory, info, addressable), offset, desc))
    }

    /// Makes an image of the user's exportable. The user keeps it and its memory, and destroys them
    /// after the last clone of the returned image is dropped.
    ///
    /// # Safety
    /// `adopted` is true, both handles are of this device, and they outlive the returned image.
    ///
    /// # Errors
    /// [`Invalid`] and [`Mismatch`](crate::Error::Mismatch) if the values contradict each other or
    /// the image, [`Missing`](crate::Error::Missing) if the device can't export such an image.
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
        let raw = RawImage::adopted(self, image, support.dedicated);
        raw.requirements().check_any(offset, &info)?;
        Ok(raw.bound(Memory::adopted(self, memory, info, false), offset, desc))
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

/// Refuses null handles, which no driver can be asked about.
fn check_handles(resource_is_null: bool, memory: vk::DeviceMemory) -> Result<()> {
    if resource_is_null || memory == vk::DeviceMemory::null() {
        return Err(Invalid::new("adopted", "has a null handle").into());
    }
    Ok(())
}
