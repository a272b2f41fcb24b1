//! Shared images: created for export, put at an offset of an allocation, or adopted.

use std::fmt;
use std::sync::Arc;

use ash::vk;

use super::allocation::{DedicatedTo, ImageOptions};
use super::conv;
use super::endpoint::{Endpoint, Shared};
use super::error::VkResultExt;
use super::memory::Memory;
use super::requirements::Requirements;
use crate::capabilities::Dedicated;
use crate::desc::{ImageDesc, Tiling};
use crate::error::{Invalid, Mismatch, Result};
use crate::fd::MemoryHandleType;
use crate::format::Aspects;
use crate::payload::{ImagePayload, LinearLayout};

/// An image in shared memory.
///
/// Dropping it destroys the `VkImage` and, with the last user of its allocation, frees the memory.
/// Whoever submits work that uses it keeps it until that work is done; views of it are the user's.
pub struct Image {
    // In this order: the image goes before the memory it is bound to.
    pub(crate) raw: RawImage,
    pub(crate) memory: Memory,
    pub(crate) offset: u64,
    pub(crate) desc: ImageDesc,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("handle", &self.raw.handle)
            .field("desc", &self.desc)
            .field("offset", &self.offset)
            .field("memory", &self.memory)
            .finish()
    }
}

/// A `VkImage` that is destroyed when dropped, unless it is the user's.
pub(crate) struct RawImage {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: vk::Image,
    /// Whether the handle type it is shared by wants memory of its own.
    pub(crate) dedicated: Dedicated,
    pub(crate) owned: bool,
}

impl Drop for RawImage {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: the handle was created by this library and is owned by this structure alone.
            // That no submitted work uses it is promised with every submit
            // (VUID-vkDestroyImage-image-01000).
            unsafe { self.shared.device.destroy_image(self.handle, None) };
        }
    }
}

impl RawImage {
    pub(crate) fn requirements(&self) -> Requirements {
        let info = vk::ImageMemoryRequirementsInfo2::default().image(self.handle);
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut requirements = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        // SAFETY: the image is alive, of this device and of one plane; Vulkan 1.1 has the call and
        // the structure.
        unsafe { self.shared.device.get_image_memory_requirements2(&info, &mut requirements) };
        Requirements::of_image(requirements.memory_requirements, &dedicated)
            .shared_by(self.dedicated)
    }

    /// Binds the image, which makes it a whole one.
    pub(crate) fn bind(self, memory: &Memory, offset: u64, desc: &ImageDesc) -> Result<Image> {
        // SAFETY: both are alive and of this device, the image is not bound yet, and offset, size,
        // alignment, type and dedication were checked by the callers against the image's own
        // requirements.
        unsafe { self.shared.device.bind_image_memory(self.handle, memory.inner.handle, offset) }
            .of("vkBindImageMemory")?;
        Ok(Image { raw: self, memory: memory.clone(), offset, desc: *desc })
    }

    /// Where one aspect of one level and layer of a linear image of `desc` lies.
    fn subresource_layout(
        &self,
        desc: &ImageDesc,
        subresource: vk::ImageSubresource,
    ) -> Result<vk::SubresourceLayout> {
        let vk::ImageSubresource { aspect_mask, mip_level, array_layer } = subresource;
        let refuse = |field: &'static str, problem: String, vuid: &'static str| {
            Err(Invalid::new(field, problem).vuid(vuid).into())
        };
        if desc.tiling != Tiling::Linear {
            let vuid = "VUID-vkGetImageSubresourceLayout-image-07790";
            return refuse("image", "is optimally tiled: its rows lie nowhere".into(), vuid);
        }
        let single = aspect_mask.as_raw().is_power_of_two();
        if !single || !conv::aspects(desc.format).contains(aspect_mask) {
            let what = format!("{:#x} is no one aspect of it", aspect_mask.as_raw());
            let vuid = "VUID-vkGetImageSubresourceLayout-aspectMask-00997";
            return refuse("subresource.aspect_mask", what, vuid);
        }
        if mip_level >= desc.levels {
            let what = format!("{mip_level}, but there are {} levels", desc.levels);
            let vuid = "VUID-vkGetImageSubresourceLayout-mipLevel-01716";
            return refuse("subresource.mip_level", what, vuid);
        }
        if array_layer >= desc.layers {
            let what = format!("{array_layer}, but there are {} layers", desc.layers);
            let vuid = "VUID-vkGetImageSubresourceLayout-arrayLayer-01717";
            return refuse("subresource.array_layer", what, vuid);
        }
        // SAFETY: the image is alive, linear, and has this level, layer and aspect.
        Ok(unsafe { self.shared.device.get_image_subresource_layout(self.handle, subresource) })
    }

    /// Where the rows of the first level lie; `None` for an optimal image.
    fn linear_layout(&self, desc: &ImageDesc) -> Result<Option<LinearLayout>> {
        if desc.tiling != Tiling::Linear {
            return Ok(None);
        }
        let color = desc.format.aspects().contains(Aspects::COLOR);
        let aspect = if color { vk::ImageAspectFlags::COLOR } else { vk::ImageAspectFlags::DEPTH };
        let first = vk::ImageSubresource { aspect_mask: aspect, mip_level: 0, array_layer: 0 };
        let found = self.subresource_layout(desc, first)?;
        Ok(Some(LinearLayout {
            offset: found.offset,
            row_pitch: found.row_pitch,
            depth_pitch: found.depth_pitch,
            array_pitch: found.array_pitch,
        }))
    }

    /// Checks that the rows lie here as the payload tells.
    pub(crate) fn check_linear(&self, desc: &ImageDesc, told: &LinearLayout) -> Result<()> {
        let Some(here) = self.linear_layout(desc)? else { return Ok(()) };
        let pitches = [
            ("payload.linear.offset", true, told.offset, here.offset),
            ("payload.linear.row_pitch", desc.extent.height > 1, told.row_pitch, here.row_pitch),
            (
                "payload.linear.depth_pitch",
                desc.extent.depth > 1,
                told.depth_pitch,
                here.depth_pitch,
            ),
            ("payload.linear.array_pitch", desc.layers > 1, told.array_pitch, here.array_pitch),
        ];
        for (field, counts, told, here) in pitches {
            if counts && told != here {
                return Err(Mismatch::new(field, here, told)
                    .help("an image of this description lies otherwise on this device")
                    .into());
            }
        }
        Ok(())
    }
}

impl Endpoint {
    /// Creates an image in memory that can be exported.
    ///
    /// The memory is the image's own where the driver requires or prefers that, by
    /// `options.dedicated`. Its content is undefined, and so is its layout
    /// (`VK_IMAGE_LAYOUT_UNDEFINED`; VUID-VkImageCreateInfo-pNext-01443 allows no other).
    ///
    /// # Errors
    /// [`Invalid`] for a wrong description, [`Missing`](crate::Error::Missing) where the driver
    /// can't export such an image (the format, shape, tiling, usage or size; it says which was
    /// asked), [`Driver`](crate::Error::Driver) where it is out of memory.
    ///
    /// # References
    /// `VkExternalMemoryImageCreateInfo`, `VkExportMemoryAllocateInfo`,
    /// `VkMemoryDedicatedAllocateInfo`; `vkGetPhysicalDeviceImageFormatProperties2` with
    /// `VkPhysicalDeviceExternalImageFormatInfo`.
    pub fn create_image(&self, desc: &ImageDesc, options: ImageOptions) -> Result<Image> {
        let raw = self.create_exportable_image(desc, options.handle_type)?;
        let needs = raw.requirements();
        let dedicated = options.dedicated.decide(&needs);
        let to = if dedicated { DedicatedTo::Image(raw.handle) } else { DedicatedTo::Nothing };
        let index = self.choose_type(needs.types, options.memory)?;
        let memory = self.shared.allocate(needs.size, index, options.handle_type, to, false)?;
        raw.bind(&memory, 0, desc)
    }

    /// Creates several images at offsets of one exportable allocation.
    ///
    /// # Errors
    /// As [`create_image`](Self::create_image), and [`Invalid`] where one of them needs an
    /// allocation of its own.
    pub fn create_images(&self, descs: &[ImageDesc], options: ImageOptions) -> Result<Vec<Image>> {
        let (memory, offsets) = self.allocate(descs, options)?;
        descs.iter().zip(offsets).map(|(desc, offset)| memory.image(offset, desc)).collect()
    }

    /// An image without memory, after asking whether it could be exported.
    pub(crate) fn create_exportable_image(
        &self,
        desc: &ImageDesc,
        handle_type: MemoryHandleType,
    ) -> Result<RawImage> {
        desc.validate()?;
        let support = self.shared.image_support(desc, handle_type)?;
        support.export?;
        self.create_raw_image(desc, handle_type, support.dedicated)
    }

    /// An image without memory, after asking whether it could be imported.
    pub(crate) fn create_importable_image(
        &self,
        desc: &ImageDesc,
        handle_type: MemoryHandleType,
    ) -> Result<RawImage> {
        desc.validate()?;
        let support = self.shared.image_support(desc, handle_type)?;
        support.import?;
        self.create_raw_image(desc, handle_type, support.dedicated)
    }

    /// An image without memory, for memory of `handle_type`.
    fn create_raw_image(
        &self,
        desc: &ImageDesc,
        handle_type: MemoryHandleType,
        dedicated: Dedicated,
    ) -> Result<RawImage> {
        let mut external = vk::ExternalMemoryImageCreateInfo::default()
            .handle_types(conv::memory_handle_type(handle_type));
        let info = conv::image_create_info(desc).push_next(&mut external);
        // SAFETY: the description was validated, and the device was asked about this very image with
        // this handle type, whose extension is enabled (`image_support`), by the callers.
        let handle = unsafe { self.shared.device.create_image(&info, None) }.of("vkCreateImage")?;
        Ok(RawImage { shared: self.shared.clone(), handle, dedicated, owned: true })
    }
}

impl Memory {
    /// An image of `desc` at `offset` bytes into this memory.
    ///
    /// # Errors
    /// [`Invalid`] where the image is none, lies askew, reaches past the end, needs an allocation of
    /// its own, or the memory belongs to another resource or is of a type that doesn't suit it;
    /// [`Missing`](crate::Error::Missing) where the device has no such image.
    ///
    /// # References
    /// `vkBindImageMemory` and its VUIDs. Resources of one allocation must not overlap, and buffers
    /// and linear images stay `bufferImageGranularity` away from optimal ones:
    /// [`Endpoint::allocate`] finds such offsets.
    pub fn image(&self, offset: u64, desc: &ImageDesc) -> Result<Image> {
        let (shared, info) = (&self.inner.shared, &self.inner.info);
        let endpoint = Endpoint { shared: shared.clone() };
        let raw = if self.is_imported() {
            endpoint.create_importable_image(desc, info.handle_type)?
        } else {
            endpoint.create_exportable_image(desc, info.handle_type)?
        };
        raw.requirements().check_shared(offset, info)?;
        raw.bind(self, offset, desc)
    }
}

impl Image {
    /// The Vulkan handle. Owned by this object, except when adopted.
    pub fn handle(&self) -> vk::Image {
        self.raw.handle
    }

    /// What the image is.
    pub fn desc(&self) -> &ImageDesc {
        &self.desc
    }

    /// The allocation it lies in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where in the allocation it lies, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The `VkFormat`.
    pub fn format(&self) -> vk::Format {
        vk::Format::from_raw(self.desc.format.vulkan())
    }

    /// All of it: every aspect, level and layer.
    pub fn full_range(&self) -> vk::ImageSubresourceRange {
        vk::ImageSubresourceRange {
            aspect_mask: conv::aspects(self.desc.format),
            base_mip_level: 0,
            level_count: self.desc.levels,
            base_array_layer: 0,
            layer_count: self.desc.layers,
        }
    }

    /// Where one aspect of one level and layer lies in a linear image, counted in bytes from
    /// [`offset`](Self::offset).
    ///
    /// # Errors
    /// [`Invalid`] for an optimal image, and for an aspect, level or layer that it doesn't have.
    ///
    /// # References
    /// `vkGetImageSubresourceLayout`.
    #[doc(alias = "vkGetImageSubresourceLayout")]
    pub fn subresource_layout(
        &self,
        subresource: vk::ImageSubresource,
    ) -> Result<vk::SubresourceLayout> {
        self.raw.subresource_layout(&self.desc, subresource)
    }

    /// Exports the image: a payload with a new descriptor each time. That of a linear image tells
    /// where its rows lie.
    ///
    /// # Errors
    /// As [`Memory::export`].
    #[doc(alias = "vkGetMemoryFdKHR")]
    pub fn export(&self) -> Result<ImagePayload> {
        let payload = ImagePayload::new(self.memory.export()?, self.offset, self.desc)?;
        Ok(match self.raw.linear_layout(&self.desc)? {
            Some(linear) => payload.with_linear(linear)?,
            None => payload,
        })
    }
}
