//! What the Vulkan driver reports, without the library.

use anyhow::{Context as _, Result};
use gpu_interop::ash::{self, vk};
use gpu_interop::desc::{ImageKind, Tiling};
use gpu_interop::{BufferDesc, ImageDesc, SemaphoreKind};

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
    let mut flags = vk::ImageCreateFlags::from_raw(desc.flags.bits());
    if desc.kind == ImageKind::Cube {
        flags |= vk::ImageCreateFlags::CUBE_COMPATIBLE;
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

/// Whether a semaphore of this kind can be exported as an opaque fd, and whether it can be imported.
pub(crate) fn semaphore_is_supported(
    gpu: &VulkanContext,
    kind: SemaphoreKind,
) -> Result<(bool, bool)> {
    let (instance, device) = (gpu.vulkan.instance(), gpu.vulkan.physical_device());
    // SAFETY: the device is the instance's.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }?;
    let name = ash::khr::external_semaphore_fd::NAME;
    let has_fds = extensions.iter().any(|found| found.extension_name_as_c_str() == Ok(name));
    let mut timelines = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
    let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut timelines);
    // SAFETY: as above, and Vulkan 1.1 has the call.
    unsafe { instance.get_physical_device_features2(device, &mut features) };
    let is_timeline = kind == SemaphoreKind::Timeline;
    if !has_fds || is_timeline && timelines.timeline_semaphore == vk::FALSE {
        return Ok((false, false));
    }
    let mut ty = vk::SemaphoreTypeCreateInfo::default().semaphore_type(match kind {
        SemaphoreKind::Timeline => vk::SemaphoreType::TIMELINE,
        _ => vk::SemaphoreType::BINARY,
    });
    let opaque = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
    let mut info = vk::PhysicalDeviceExternalSemaphoreInfo::default().handle_type(opaque);
    if is_timeline {
        info = info.push_next(&mut ty);
    }
    let mut found = vk::ExternalSemaphoreProperties::default();
    // SAFETY: as above; the device has timeline semaphores if their structure is chained.
    unsafe {
        instance.get_physical_device_external_semaphore_properties(device, &info, &mut found);
    }
    let has = |feature| found.external_semaphore_features.contains(feature);
    Ok((
        has(vk::ExternalSemaphoreFeatureFlags::EXPORTABLE),
        has(vk::ExternalSemaphoreFeatureFlags::IMPORTABLE),
    ))
}

/// Returns how many bytes of GPU memory this process uses: as the driver reports it, or else those mapped
/// from the files by which software drivers share memory.
pub(crate) fn memory_in_use(gpu: &VulkanContext) -> Result<u64> {
    let (instance, physical) = (gpu.vulkan.instance(), gpu.vulkan.physical_device());
    // SAFETY: valid handles.
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }?;
    let name = ash::ext::memory_budget::NAME;
    if extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name)) {
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: valid handles, and the physical device has the extension of the structure.
        unsafe { instance.get_physical_device_memory_properties2(physical, &mut properties) };
        return Ok(budget.heap_usage.iter().sum());
    }
    let maps = std::fs::read_to_string("/proc/self/maps").context("/proc/self/maps")?;
    let mut bytes = 0;
    for line in maps.lines().filter(|line| line.contains("memory fd")) {
        let (range, _) = line.split_once(' ').context("an address range")?;
        let (from, to) = range.split_once('-').context("two addresses")?;
        bytes += u64::from_str_radix(to, 16)? - u64::from_str_radix(from, 16)?;
    }
    Ok(bytes)
}
