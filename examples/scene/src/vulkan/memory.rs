//! Private images and buffers for drawing.

use std::fmt;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;

/// A two-dimensional image in device memory, and a view of its first level.
#[derive(Debug)]
pub struct PrivateImage {
    vulkan: Vulkan,
    /// The image.
    pub image: vk::Image,
    view: Option<ImageView>,
    memory: vk::DeviceMemory,
}

/// The description of a private image.
#[derive(Clone, Copy)]
pub struct PrivateImageInfo {
    /// Its format.
    pub format: vk::Format,
    /// Width and height in texels.
    pub size: (u32, u32),
    /// Number of mip levels.
    pub levels: u32,
    /// Samples per texel.
    pub samples: u32,
    /// Its usage.
    pub usage: vk::ImageUsageFlags,
}

impl fmt::Debug for PrivateImageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateImageInfo")
            .field("format", &self.format.as_raw())
            .field("size", &self.size)
            .field("levels", &self.levels)
            .field("samples", &self.samples)
            .field("usage", &format_args!("{:#x}", self.usage.as_raw()))
            .finish()
    }
}

impl PrivateImage {
    /// Creates the image. Its content is undefined.
    ///
    /// # Errors
    /// If the driver does not support such an image, or is out of memory.
    pub fn new(vulkan: &Vulkan, info: &PrivateImageInfo) -> Result<Self> {
        let device = vulkan.device();
        // Every vkDestroy call ignores null handles, so Drop cleans up after a failure half-way.
        let (image, view, memory) = (vk::Image::null(), None, vk::DeviceMemory::null());
        let mut made = Self { vulkan: vulkan.clone(), image, view, memory };
        let (width, height) = info.size;
        let create = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(info.format)
            .extent(vk::Extent3D { width, height, depth: 1 })
            .mip_levels(info.levels)
            .array_layers(1)
            .samples(vk::SampleCountFlags::from_raw(info.samples))
            .usage(info.usage);
        // SAFETY: a valid device; the callers ask for sizes within its limits and for formats and usages
        // that every device has.
        made.image = unsafe { device.create_image(&create, None) }?;
        // SAFETY: the image is alive.
        let needs = unsafe { device.get_image_memory_requirements(made.image) };
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        made.memory = allocate(vulkan, needs, local).with_context(|| {
            format!("{} MiB for an image of {width}×{height}", needs.size >> 20)
        })?;
        // SAFETY: size and type are the image's own, and it is bound once, at 0, before it is viewed.
        unsafe {
            device.bind_image_memory(made.image, made.memory, 0)?;
            made.view = Some(ImageView::new(vulkan, made.image, info.format, 1)?);
        }
        Ok(made)
    }
}

impl PrivateImage {
    /// The view of its first level.
    pub fn view(&self) -> vk::ImageView {
        self.view.as_ref().map_or(vk::ImageView::null(), |view| view.handle)
    }
}

impl Drop for PrivateImage {
    fn drop(&mut self) {
        self.view = None;
        let device = self.vulkan.device();
        // SAFETY: owned here alone; the code that submits work with it waits before dropping it.
        unsafe {
            device.destroy_image(self.image, None);
            device.free_memory(self.memory, None);
        }
    }
}

/// A buffer that the host writes to and the device reads.
#[derive(Debug)]
pub(super) struct HostBuffer {
    vulkan: Vulkan,
    pub(super) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    bytes: u64,
}

impl HostBuffer {
    pub(super) fn new(vulkan: &Vulkan, bytes: u64, usage: vk::BufferUsageFlags) -> Result<Self> {
        let device = vulkan.device();
        let (buffer, memory) = Default::default();
        let mut made = Self { vulkan: vulkan.clone(), buffer, memory, bytes };
        let info = vk::BufferCreateInfo::default().size(bytes).usage(usage);
        let host = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        // SAFETY: a valid device; size and usage are not 0, and size and type of the memory are the
        // buffer's own, which is bound once, at 0.
        unsafe {
            made.buffer = device.create_buffer(&info, None)?;
            made.memory =
                allocate(vulkan, device.get_buffer_memory_requirements(made.buffer), host)?;
            device.bind_buffer_memory(made.buffer, made.memory, 0)?;
        }
        Ok(made)
    }

    /// Overwrites the beginning. No submitted work uses the buffer.
    pub(super) fn write(&self, data: &[u8]) -> Result<()> {
        anyhow::ensure!(data.len() as u64 <= self.bytes, "{} of {}", data.len(), self.bytes);
        let device = self.vulkan.device();
        // SAFETY: the memory is host-visible and coherent, alive, not mapped, and long enough; nothing
        // that was submitted reads it.
        unsafe {
            let flags = vk::MemoryMapFlags::empty();
            let start = device.map_memory(self.memory, 0, vk::WHOLE_SIZE, flags)?;
            std::ptr::copy_nonoverlapping(data.as_ptr(), start.cast(), data.len());
            device.unmap_memory(self.memory);
        }
        Ok(())
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let device = self.vulkan.device();
        // SAFETY: as above.
        unsafe {
            device.destroy_buffer(self.buffer, None);
            device.free_memory(self.memory, None);
        }
    }
}

/// A view of the first levels of a two-dimensional image, destroyed with it.
#[derive(Debug)]
pub struct ImageView {
    vulkan: Vulkan,
    /// The handle.
    pub handle: vk::ImageView,
}

impl ImageView {
    /// Creates a view of the first `levels` of `image` as `format`.
    ///
    /// # Safety
    /// The image is bound to memory, of this device, can be viewed as `format`, has these levels, and outlives the
    /// view.
    ///
    /// # Errors
    /// If the driver fails.
    pub unsafe fn new(
        vulkan: &Vulkan,
        image: vk::Image,
        format: vk::Format,
        levels: u32,
    ) -> Result<Self> {
        let range = vk::ImageSubresourceRange {
            aspect_mask: aspect_of(format),
            level_count: levels,
            layer_count: 1,
            ..Default::default()
        };
        let info = vk::ImageViewCreateInfo::default()
            .image(image)
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(format)
            .subresource_range(range);
        // SAFETY: the caller's promise.
        let handle = unsafe { vulkan.device().create_image_view(&info, None) }?;
        Ok(Self { vulkan: vulkan.clone(), handle })
    }
}

impl Drop for ImageView {
    fn drop(&mut self) {
        // SAFETY: owned here alone; the code that submits work with it waits before dropping it.
        unsafe { self.vulkan.device().destroy_image_view(self.handle, None) };
    }
}

fn aspect_of(format: vk::Format) -> vk::ImageAspectFlags {
    match format {
        DEPTH_FORMAT => vk::ImageAspectFlags::DEPTH,
        _ => vk::ImageAspectFlags::COLOR,
    }
}

/// The depth format. Vulkan requires every device to support it or 24-bit integers; all that can share images
/// support it.
pub(super) const DEPTH_FORMAT: vk::Format = vk::Format::D32_SFLOAT;

fn allocate(
    vulkan: &Vulkan,
    needs: vk::MemoryRequirements,
    wanted: vk::MemoryPropertyFlags,
) -> Result<vk::DeviceMemory> {
    // SAFETY: the physical device is the instance's.
    let types = unsafe {
        vulkan.instance().get_physical_device_memory_properties(vulkan.physical_device())
    };
    let suits = |(i, ty): &(u32, &vk::MemoryType)| {
        needs.memory_type_bits >> i & 1 == 1 && ty.property_flags.contains(wanted)
    };
    let found = (0u32..).zip(types.memory_types_as_slice()).find(suits);
    let (index, _) = found.context("the device has no suitable memory type")?;
    let info =
        vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(index);
    // SAFETY: the size is not 0 and the type exists.
    Ok(unsafe { vulkan.device().allocate_memory(&info, None) }?)
}
