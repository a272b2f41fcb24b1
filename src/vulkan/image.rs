//! Shared images: created for export, or at an offset of an allocation.

use ash::prelude::VkResult;
use ash::vk;

use super::conv::{self, VkResultExt};
use super::endpoint::Endpoint;
use super::memory::{DedicatedTo, Memory, Side};
use super::memory_options::{ImageOptions, choose_type, sum};
use super::requirements::{IMAGE, Rules};
use super::resource::{Bound, Resource, Unbound, bound};
use crate::desc::{ImageDesc, Tiling};
use crate::error::{Invalid, Mismatch, Result, counted};
use crate::fd::MemoryHandleType;
use crate::payload::{ImagePayload, LinearLayout};

/// An image in shared memory. Cheap to clone.
///
/// Dropping the last clone destroys the `VkImage`, and frees the memory if no other resource uses
/// it. A submitted handoff keeps a clone until its work is done; keep one yourself for other work
/// that uses the image. The application creates the image views.
#[derive(Clone)]
pub struct Image(pub(super) Bound<vk::Image>);

bound!(Image, vk::Image, ImageDesc);

impl Resource for vk::Image {
    type Desc = ImageDesc;
    const RULES: Rules = IMAGE;
    const BIND: &'static str = "vkBindImageMemory";

    fn dedicated_to(self) -> DedicatedTo {
        DedicatedTo::Image(self)
    }

    unsafe fn requirements(self, device: &ash::Device, found: &mut vk::MemoryRequirements2<'_>) {
        let info = vk::ImageMemoryRequirementsInfo2::default().image(self);
        // SAFETY: the caller's promise.
        unsafe { device.get_image_memory_requirements2(&info, found) };
    }

    unsafe fn bind(
        self,
        device: &ash::Device,
        memory: vk::DeviceMemory,
        offset: u64,
    ) -> VkResult<()> {
        // SAFETY: the caller's promise.
        unsafe { device.bind_image_memory(self, memory, offset) }
    }

    unsafe fn destroy(self, device: &ash::Device) {
        // SAFETY: the caller's promise.
        unsafe { device.destroy_image(self, None) };
    }
}

impl Unbound<vk::Image> {
    /// Returns the layout of the first level's rows; `None` for an optimal image.
    fn linear_layout(&self, desc: &ImageDesc) -> Option<LinearLayout> {
        if desc.tiling != Tiling::Linear {
            return None;
        }
        let aspect_mask = conv::first_aspect(desc.format);
        let first = vk::ImageSubresource { aspect_mask, mip_level: 0, array_layer: 0 };
        // SAFETY: the image is alive and linear, and every image has this level, layer and aspect.
        let found =
            unsafe { self.endpoint().device().get_image_subresource_layout(self.handle, first) };
        Some(LinearLayout {
            offset: found.offset,
            row_pitch: found.row_pitch,
            depth_pitch: found.depth_pitch,
            array_pitch: found.array_pitch,
        })
    }

    /// Checks that the rows have the same layout here as in the payload.
    pub(super) fn check_linear(&self, desc: &ImageDesc, payload: &LinearLayout) -> Result<()> {
        let Some(here) = self.linear_layout(desc) else { return Ok(()) };
        let (height, depth) = (desc.format.rows(desc.extent.height), desc.extent.depth);
        for (field, count, found, expected) in [
            ("payload.linear.offset", u32::MAX, payload.offset, here.offset),
            ("payload.linear.row_pitch", height, payload.row_pitch, here.row_pitch),
            ("payload.linear.depth_pitch", depth, payload.depth_pitch, here.depth_pitch),
            ("payload.linear.array_pitch", desc.layers, payload.array_pitch, here.array_pitch),
        ] {
            if count > 1 && found != expected {
                return Err(Mismatch::new(field, expected, found)
                    .help("this device lays out an image of this description differently")
                    .into());
            }
        }
        Ok(())
    }
}

impl Endpoint {
    /// Creates an image in memory that can be exported.
    ///
    /// `options.dedicated` determines whether the image has an allocation of its own; by default it
    /// has one if the driver requires or prefers that. The content is undefined, and so is the
    /// layout (`VK_IMAGE_LAYOUT_UNDEFINED`; VUID-VkImageCreateInfo-pNext-01443 allows no other).
    ///
    /// # Errors
    /// [`Invalid`] for an invalid description, [`Missing`](crate::Error::Missing) if the driver
    /// can't export such an image (it names the format, shape, tiling, usage or size that was
    /// requested), [`Driver`](crate::Error::Driver) if memory runs out.
    ///
    /// # References
    /// `VkExternalMemoryImageCreateInfo`, `VkExportMemoryAllocateInfo`,
    /// `VkMemoryDedicatedAllocateInfo`; `vkGetPhysicalDeviceImageFormatProperties2` with
    /// `VkPhysicalDeviceExternalImageFormatInfo`.
    #[doc(alias = "vkCreateImage")]
    pub fn create_image(&self, desc: &ImageDesc, options: ImageOptions) -> Result<Image> {
        desc.validate()?;
        let raw = self.unbound_image(desc, options.handle_type, Side::Exporter)?;
        let needs = raw.requirements();
        let index = choose_type(self.memory_properties(), needs.types, options.memory)?;
        let (size, to) = if options.decide(needs.dedicated)? {
            (needs.size, raw.handle.dedicated_to())
        } else {
            (sum(needs.size, &[options.spare_bytes])?, DedicatedTo::Nothing)
        };
        let memory = self.allocate_exportable(size, index, options.handle_type, to, false)?;
        raw.bind(memory, 0, *desc).map(Image)
    }

    /// Creates an image without memory, if memory of `handle_type` can be shared for it. `desc` is
    /// valid.
    pub(super) fn unbound_image(
        &self,
        desc: &ImageDesc,
        handle_type: MemoryHandleType,
        side: Side,
    ) -> Result<Unbound<vk::Image>> {
        let support = self.image_support(desc, handle_type)?;
        side.check(&support)?;
        let mut external = vk::ExternalMemoryImageCreateInfo::default()
            .handle_types(conv::memory_handle_type(handle_type));
        let views = conv::view_formats(desc);
        let mut list = vk::ImageFormatListCreateInfo::default().view_formats(&views);
        let mut info = conv::image_create_info(desc).push_next(&mut external);
        if !views.is_empty() {
            info = info.push_next(&mut list);
        }
        // SAFETY: the description is valid, and the device reported that it supports this very
        // image with this handle type, whose extension is enabled.
        let handle = unsafe { self.device().create_image(&info, None) }.context("vkCreateImage")?;
        Ok(Unbound::created(self, handle, support.dedicated))
    }
}

impl Memory {
    /// Creates the image that `desc` describes, `offset` bytes into this memory.
    ///
    /// # Errors
    /// [`Invalid`] if the description is invalid, if the image is misaligned, reaches past the end
    /// or needs a dedicated allocation, or if the memory is a dedicated allocation or of an
    /// unsuitable type; [`Missing`](crate::Error::Missing) if the device doesn't support such an
    /// image.
    ///
    /// # References
    /// `vkBindImageMemory` and its VUIDs. Resources of one allocation must not overlap, and buffers
    /// and linear images must be `bufferImageGranularity` away from optimal images:
    /// [`Endpoint::allocate`] finds such offsets.
    #[doc(alias = "vkBindImageMemory")]
    pub fn image(&self, offset: u64, desc: &ImageDesc) -> Result<Image> {
        desc.validate()?;
        let (endpoint, info) = (self.endpoint(), self.info());
        let raw = endpoint.unbound_image(desc, info.handle_type, self.side())?;
        raw.requirements().check_placed(offset, info)?;
        raw.bind(self.clone(), offset, *desc).map(Image)
    }
}

impl Image {
    /// Returns the `VkFormat`.
    pub fn format(&self) -> vk::Format {
        vk::Format::from_raw(self.desc().format.vulkan())
    }

    /// Returns the range that covers the whole image: every aspect, level and layer.
    pub fn full_range(&self) -> vk::ImageSubresourceRange {
        vk::ImageSubresourceRange {
            aspect_mask: conv::aspects(self.desc().format),
            base_mip_level: 0,
            level_count: self.desc().levels,
            base_array_layer: 0,
            layer_count: self.desc().layers,
        }
    }

    /// Returns the layout of one aspect of one level and layer of a linear image, in bytes from
    /// [`offset`](Self::offset).
    ///
    /// # Errors
    /// [`Invalid`] for an optimal image, and for an aspect, level or layer that the image doesn't
    /// have.
    ///
    /// # References
    /// `vkGetImageSubresourceLayout`.
    #[doc(alias = "vkGetImageSubresourceLayout")]
    pub fn subresource_layout(
        &self,
        subresource: vk::ImageSubresource,
    ) -> Result<vk::SubresourceLayout> {
        let (desc, vk::ImageSubresource { aspect_mask, mip_level, array_layer }) =
            (self.desc(), subresource);
        let refuse = |field: &'static str, problem: String, vuid: &'static str| {
            Err(Invalid::new(field, problem).vuid(vuid).into())
        };
        if desc.tiling != Tiling::Linear {
            let vuid = "VUID-vkGetImageSubresourceLayout-image-07790";
            return refuse("image", "is optimally tiled: its rows have no layout".into(), vuid);
        }
        let single = aspect_mask.as_raw().is_power_of_two();
        if !single || !conv::aspects(desc.format).contains(aspect_mask) {
            let problem = format!("{:#x} is not one aspect of the image", aspect_mask.as_raw());
            let vuid = "VUID-vkGetImageSubresourceLayout-aspectMask-00997";
            return refuse("subresource.aspect_mask", problem, vuid);
        }
        if mip_level >= desc.levels {
            let problem =
                format!("{mip_level}, but the image has {}", counted(desc.levels, "level"));
            let vuid = "VUID-vkGetImageSubresourceLayout-mipLevel-01716";
            return refuse("subresource.mip_level", problem, vuid);
        }
        if array_layer >= desc.layers {
            let problem =
                format!("{array_layer}, but the image has {}", counted(desc.layers, "layer"));
            let vuid = "VUID-vkGetImageSubresourceLayout-arrayLayer-01717";
            return refuse("subresource.array_layer", problem, vuid);
        }
        let device = self.endpoint().device();
        // SAFETY: the image is alive, linear, and has this level, layer and aspect.
        Ok(unsafe { device.get_image_subresource_layout(self.handle(), subresource) })
    }

    /// Exports the image: a payload with a new descriptor each time. The payload of a linear image
    /// contains the layout of its rows.
    ///
    /// # Errors
    /// Same as [`Memory::export`].
    #[doc(alias = "vkGetMemoryFdKHR")]
    pub fn export(&self) -> Result<ImagePayload> {
        let payload = ImagePayload::new(self.memory().export()?, self.offset(), *self.desc())?;
        Ok(match self.0.raw().linear_layout(self.desc()) {
            Some(linear) => payload.with_linear(linear)?,
            None => payload,
        })
    }
}
