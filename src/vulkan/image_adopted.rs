//! Images that the user made, with export enabled.

use ash::vk;

use super::endpoint::{Endpoint, check_memory_type};
use super::image::{Image, RawImage};
use super::memory::Memory;
use crate::desc::ImageDesc;
use crate::error::{Invalid, Result};
use crate::fd::MemoryHandleType;
use crate::payload::MemoryInfo;

/// An image and memory that the user made, with export enabled on both.
#[derive(Clone, Copy, Debug)]
pub struct AdoptedImage {
    /// The image, made with `VkExternalMemoryImageCreateInfo` of `handle_type`.
    pub image: vk::Image,
    /// What it was made as. The importer makes its image of this and of nothing else: where the
    /// user's `VkImageCreateInfo` says more (another flag, usage or view format), the two differ.
    pub desc: ImageDesc,
    /// The memory it is bound to, allocated with `VkExportMemoryAllocateInfo` of `handle_type`.
    pub memory: vk::DeviceMemory,
    /// Where it is bound, in bytes.
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
    /// Makes an image of the user's own exportable. It and its memory stay the user's, who destroys
    /// them after this object is gone.
    ///
    /// # Safety
    /// `adopted` tells the truth, both handles are of this device, and they outlive the returned
    /// image.
    ///
    /// # Errors
    /// [`Invalid`] and [`Mismatch`](crate::Error::Mismatch) where the figures contradict each other
    /// or the image itself, [`Missing`](crate::Error::Missing) where the device can't export such an
    /// image.
    ///
    /// # References
    /// VUID-vkBindImageMemory-memory-02628, VUID-VkMemoryDedicatedAllocateInfo-image-02964.
    pub unsafe fn adopt_image(&self, adopted: &AdoptedImage) -> Result<Image> {
        adopted.desc.validate()?;
        if adopted.image == vk::Image::null() || adopted.memory == vk::DeviceMemory::null() {
            return Err(Invalid::new("adopted", "names no image, or no memory").into());
        }
        check_memory_type(&self.shared.memory_properties, adopted.memory_type_index)?;
        let support = self.shared.image_support(&adopted.desc, adopted.handle_type)?;
        support.export?;
        let info = MemoryInfo {
            handle_type: adopted.handle_type,
            allocation_size: adopted.allocation_size,
            memory_type_index: Some(adopted.memory_type_index),
            dedicated: adopted.dedicated,
            identity: self.shared.identity().clone(),
        };
        let shared = &self.shared;
        let raw = RawImage {
            shared: shared.clone(),
            handle: adopted.image,
            dedicated: support.dedicated,
            owned: false,
        };
        let needs = raw.requirements();
        if adopted.dedicated {
            needs.check_dedicated(adopted.offset, &info)?;
        } else {
            needs.check_shared(adopted.offset, &info)?;
        }
        let memory = Memory::adopted(shared, adopted.memory, info, false);
        Ok(Image { raw, memory, offset: adopted.offset, desc: adopted.desc })
    }
}
