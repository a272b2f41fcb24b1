//! Vulkan's own answers, without the library.

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::desc::{ImageKind, Tiling};
use gpu_interop::{BufferDesc, ImageDesc};

use interop_gpu::vulkan::VulkanContext;

const OPAQUE_FD: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;

/// Whether an exportable buffer requires or prefers a dedicated allocation.
pub(crate) struct Dedication {
    pub(crate) required: bool,
    pub(crate) preferred: bool,
}

impl Dedication {
    /// Creates such a buffer and queries its requirements.
    pub(crate) fn of(gpu: &VulkanContext, desc: &BufferDesc) -> Result<Self> {
        let device = gpu.device();
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(OPAQUE_FD);
        let info = vk::BufferCreateInfo::default()
            .size(desc.size)
            .usage(vk::BufferUsageFlags::from_raw(desc.usage.bits()))
            .push_next(&mut external);
        // SAFETY: the callers have checked that such a buffer can be exported.
        let buffer = unsafe { device.create_buffer(&info, None) }?;
        let question = vk::BufferMemoryRequirementsInfo2::default().buffer(buffer);
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut requirements = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        // SAFETY: the buffer is alive until the second call, and nothing uses it.
        unsafe {
            device.get_buffer_memory_requirements2(&question, &mut requirements);
            device.destroy_buffer(buffer, None);
        }
        Ok(Self {
            required: dedicated.requires_dedicated_allocation == vk::TRUE,
            preferred: dedicated.prefers_dedicated_allocation == vk::TRUE,
        })
    }
}

/// Whether `VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT` is set.
pub(crate) fn dedicated_only(gpu: &VulkanContext, desc: &BufferDesc) -> bool {
    let info = vk::PhysicalDeviceExternalBufferInfo::default()
        .usage(vk::BufferUsageFlags::from_raw(desc.usage.bits()))
        .handle_type(OPAQUE_FD);
    let mut properties = vk::ExternalBufferProperties::default();
    let (instance, device) = (gpu.vulkan.instance(), gpu.vulkan.physical_device());
    // SAFETY: the device is the instance's, and Vulkan 1.1 has the call.
    unsafe {
        instance.get_physical_device_external_buffer_properties(device, &info, &mut properties);
    }
    let features = properties.external_memory_properties.external_memory_features;
    features.contains(vk::ExternalMemoryFeatureFlags::DEDICATED_ONLY)
}

/// Whether such an image can be exported, and whether it can be imported.
pub(crate) fn image_is_supported(gpu: &VulkanContext, desc: &ImageDesc) -> Result<(bool, bool)> {
    let mut flags = vk::ImageCreateFlags::empty();
    if desc.kind == ImageKind::Cube {
        flags |= vk::ImageCreateFlags::CUBE_COMPATIBLE;
    }
    if desc.mutable_format {
        flags |= vk::ImageCreateFlags::MUTABLE_FORMAT;
    }
    let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default().handle_type(OPAQUE_FD);
    let info = vk::PhysicalDeviceImageFormatInfo2::default()
        .format(vk::Format::from_raw(desc.format.vulkan()))
        .ty(match desc.kind {
            ImageKind::D1 => vk::ImageType::TYPE_1D,
            ImageKind::D2 | ImageKind::Cube => vk::ImageType::TYPE_2D,
            _ => vk::ImageType::TYPE_3D,
        })
        .tiling(match desc.tiling {
            Tiling::Optimal => vk::ImageTiling::OPTIMAL,
            Tiling::Linear => vk::ImageTiling::LINEAR,
        })
        .usage(vk::ImageUsageFlags::from_raw(desc.usage.bits()))
        .flags(flags)
        .push_next(&mut external);
    let mut found = vk::ExternalImageFormatProperties::default();
    let mut properties = vk::ImageFormatProperties2::default().push_next(&mut found);
    let (instance, device) = (gpu.vulkan.instance(), gpu.vulkan.physical_device());
    // SAFETY: as above.
    let answer = unsafe {
        instance.get_physical_device_image_format_properties2(device, &info, &mut properties)
    };
    match answer {
        Err(vk::Result::ERROR_FORMAT_NOT_SUPPORTED) => return Ok((false, false)),
        other => other?,
    }
    let limits = properties.image_format_properties;
    let (most, extent) = (limits.max_extent, desc.extent);
    let fits = extent.width <= most.width
        && extent.height <= most.height
        && extent.depth <= most.depth
        && desc.levels <= limits.max_mip_levels
        && desc.layers <= limits.max_array_layers
        && limits.sample_counts.contains(vk::SampleCountFlags::from_raw(desc.samples));
    if !fits {
        return Ok((false, false));
    }
    let features = found.external_memory_properties.external_memory_features;
    let has = |feature| features.contains(feature);
    Ok((
        has(vk::ExternalMemoryFeatureFlags::EXPORTABLE),
        has(vk::ExternalMemoryFeatureFlags::IMPORTABLE),
    ))
}
