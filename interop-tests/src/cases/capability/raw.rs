//! What Vulkan itself answers, without the library.

use anyhow::Result;
use gpu_interop::ash::vk;
use gpu_interop::desc::Tiling;
use gpu_interop::{BufferDesc, ImageDesc};

use interop_gpu::vulkan::VulkanContext;

const OPAQUE_FD: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;

/// Whether an exportable buffer needs, or likes, an allocation of its own.
pub(crate) struct Raw {
    pub(crate) required: bool,
    pub(crate) preferred: bool,
}

impl Raw {
    /// Makes such a buffer and asks it.
    pub(crate) fn of(gpu: &VulkanContext, desc: &BufferDesc) -> Result<Self> {
        let device = gpu.device();
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(OPAQUE_FD);
        let info = vk::BufferCreateInfo::default()
            .size(desc.size)
            .usage(vk::BufferUsageFlags::from_raw(desc.usage.bits()))
            .push_next(&mut external);
        // SAFETY: the caller has asked whether such a buffer can be exported.
        let buffer = unsafe { device.create_buffer(&info, None) }?;
        let asked = vk::BufferMemoryRequirementsInfo2::default().buffer(buffer);
        let mut dedicated = vk::MemoryDedicatedRequirements::default();
        let mut requirements = vk::MemoryRequirements2::default().push_next(&mut dedicated);
        // SAFETY: the buffer is alive until the second call, and used by nothing.
        unsafe {
            device.get_buffer_memory_requirements2(&asked, &mut requirements);
            device.destroy_buffer(buffer, None);
        }
        Ok(Self {
            required: dedicated.requires_dedicated_allocation == vk::TRUE,
            preferred: dedicated.prefers_dedicated_allocation == vk::TRUE,
        })
    }
}

pub(crate) fn requires_dedicated(gpu: &VulkanContext, desc: &BufferDesc) -> Result<bool> {
    Ok(Raw::of(gpu, desc)?.required)
}

/// `VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT`.
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

/// Whether such an image can be exported and imported: a two-dimensional one of one level and layer.
pub(crate) fn image_is_supported(gpu: &VulkanContext, desc: &ImageDesc) -> Result<(bool, bool)> {
    let mut external = vk::PhysicalDeviceExternalImageFormatInfo::default().handle_type(OPAQUE_FD);
    let info = vk::PhysicalDeviceImageFormatInfo2::default()
        .format(vk::Format::from_raw(desc.format.vulkan()))
        .ty(vk::ImageType::TYPE_2D)
        .tiling(match desc.tiling {
            Tiling::Optimal => vk::ImageTiling::OPTIMAL,
            Tiling::Linear => vk::ImageTiling::LINEAR,
        })
        .usage(vk::ImageUsageFlags::from_raw(desc.usage.bits()))
        .push_next(&mut external);
    let mut found = vk::ExternalImageFormatProperties::default();
    let mut properties = vk::ImageFormatProperties2::default().push_next(&mut found);
    let (instance, device) = (gpu.vulkan.instance(), gpu.vulkan.physical_device());
    // SAFETY: as above.
    let asked = unsafe {
        instance.get_physical_device_image_format_properties2(device, &info, &mut properties)
    };
    match asked {
        Err(vk::Result::ERROR_FORMAT_NOT_SUPPORTED) => return Ok((false, false)),
        other => other?,
    }
    let features = found.external_memory_properties.external_memory_features;
    let has = |feature| features.contains(feature);
    Ok((
        has(vk::ExternalMemoryFeatureFlags::EXPORTABLE),
        has(vk::ExternalMemoryFeatureFlags::IMPORTABLE),
    ))
}
