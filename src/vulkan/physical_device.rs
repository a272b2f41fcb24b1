//! The extensions, features and properties of a physical device that this library uses.

use std::ffi::{CStr, CString};

use ash::vk;

use super::conv::VkResultExt;
use super::device_info::{DeviceInfo, Features};
use super::workarounds::Workarounds;
use crate::error::Result;
use crate::identity::{Identity, Uuid};

/// The names of the device extensions that a physical device supports.
pub(super) struct SupportedExtensions(Vec<CString>);

impl SupportedExtensions {
    /// Queries them from the driver.
    ///
    /// # Safety
    /// `instance` is valid, and `physical_device` belongs to it.
    pub(super) unsafe fn query(
        instance: &ash::Instance,
        physical_device: vk::PhysicalDevice,
    ) -> Result<Self> {
        // SAFETY: the caller's promise is the call's only rule.
        let found = unsafe { instance.enumerate_device_extension_properties(physical_device) }
            .context("vkEnumerateDeviceExtensionProperties")?;
        let names = found.iter().filter_map(|extension| extension.extension_name_as_c_str().ok());
        Ok(Self(names.map(CStr::to_owned).collect()))
    }

    pub(super) fn contains(&self, name: &CStr) -> bool {
        self.0.iter().any(|found| found.as_c_str() == name)
    }

    /// The extensions that this library uses on a device of `api_version`.
    pub(super) fn wanted(&self, api_version: u32) -> Vec<&'static CStr> {
        let wanted = WANTED.iter().filter(|(_, core)| core.is_none_or(|core| api_version < core));
        wanted.map(|(name, _)| *name).filter(|name| self.contains(name)).collect()
    }
}

/// The device extensions that this library uses, and the Vulkan version that includes each.
const WANTED: &[(&CStr, Option<u32>)] = &[
    (ash::khr::external_memory_fd::NAME, None),
    (ash::khr::external_semaphore_fd::NAME, None),
    (ash::ext::external_memory_dma_buf::NAME, None),
    (ash::khr::timeline_semaphore::NAME, Some(vk::API_VERSION_1_2)),
    (ash::khr::image_format_list::NAME, Some(vk::API_VERSION_1_2)),
];

impl Features {
    /// Queries which features a device of `api_version` can enable.
    ///
    /// # Safety
    /// `instance` is valid and of Vulkan 1.1 at least, and `physical_device` belongs to it.
    pub(super) unsafe fn supported(
        instance: &ash::Instance,
        physical_device: vk::PhysicalDevice,
        api_version: u32,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        let extensions = unsafe { SupportedExtensions::query(instance, physical_device) }?;
        let is_1_2 = api_version >= vk::API_VERSION_1_2;
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
        let mut address = vk::PhysicalDeviceBufferDeviceAddressFeatures::default();
        let mut found = vk::PhysicalDeviceFeatures2::default();
        if is_1_2 || extensions.contains(ash::khr::timeline_semaphore::NAME) {
            found = found.push_next(&mut timeline);
        }
        if is_1_2 {
            found = found.push_next(&mut address);
        }
        // SAFETY: the caller's promise; each structure of the chain is part of the version, or of
        // an extension that the physical device supports.
        unsafe { instance.get_physical_device_features2(physical_device, &mut found) };
        let multisample = found.features.shader_storage_image_multisample;
        Ok(Self {
            timeline_semaphore: timeline.timeline_semaphore == vk::TRUE,
            buffer_device_address: address.buffer_device_address == vk::TRUE,
            storage_image_multisample: multisample == vk::TRUE,
        })
    }
}

/// The properties of the physical device that this peer depends on.
pub(super) struct Properties {
    pub(super) identity: Identity,
    pub(super) memory: vk::PhysicalDeviceMemoryProperties,
    pub(super) buffer_image_granularity: u64,
    pub(super) non_coherent_atom_size: u64,
    pub(super) max_buffer_size: u64,
    pub(super) workarounds: Workarounds,
}

impl Properties {
    /// Queries them from the driver.
    ///
    /// # Safety
    /// The instance is valid, and the physical device belongs to it.
    pub(super) unsafe fn query(info: &DeviceInfo<'_>) -> Result<Self> {
        let (instance, physical_device) = (info.instance, info.physical_device);
        // SAFETY: the caller's promise.
        let supported = unsafe { SupportedExtensions::query(instance, physical_device) }?;
        let has = |core, name| info.api_version >= core || supported.contains(name);
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut maintenance4 = vk::PhysicalDeviceMaintenance4Properties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        // The workarounds depend on it.
        if has(vk::API_VERSION_1_2, ash::khr::driver_properties::NAME) {
            properties = properties.push_next(&mut driver);
        }
        if has(vk::API_VERSION_1_3, ash::khr::maintenance4::NAME) {
            properties = properties.push_next(&mut maintenance4);
        }
        // SAFETY: the caller's promise; each structure of the chain is part of the version that the
        // device is used with, or of an extension that the physical device supports.
        let memory = unsafe {
            instance.get_physical_device_properties2(physical_device, &mut properties);
            instance.get_physical_device_memory_properties(physical_device)
        };
        let core = properties.properties;
        let name = core.device_name_as_c_str().map(CStr::to_string_lossy).unwrap_or_default();
        // A device without this limit still can't make a buffer larger than a heap.
        let heaps = memory.memory_heaps_as_slice().iter().map(|heap| heap.size);
        let max_buffer_size = match maintenance4.max_buffer_size {
            0 => heaps.max().unwrap_or(0),
            limit => limit,
        };
        Ok(Self {
            identity: Identity {
                device: Uuid::from_bytes(id.device_uuid),
                driver: Some(Uuid::from_bytes(id.driver_uuid)),
                name: name.into_owned(),
            },
            memory,
            buffer_image_granularity: core.limits.buffer_image_granularity,
            non_coherent_atom_size: core.limits.non_coherent_atom_size,
            max_buffer_size,
            workarounds: Workarounds::of(driver.driver_id, core.device_type),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_wanted_if_supported_and_not_part_of_the_version() {
        let supported = SupportedExtensions(vec![
            c"VK_KHR_timeline_semaphore".into(),
            c"VK_KHR_external_memory_fd".into(),
            c"VK_KHR_swapchain".into(),
        ]);
        let memory = ash::khr::external_memory_fd::NAME;
        assert_eq!(supported.wanted(vk::API_VERSION_1_2), [memory]);
        let timeline = ash::khr::timeline_semaphore::NAME;
        assert_eq!(supported.wanted(vk::API_VERSION_1_1), [memory, timeline]);
    }
}
