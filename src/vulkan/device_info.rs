//! The user's description of the device: handles, version, enabled extensions and features.

use std::ffi::{CStr, CString};
use std::fmt;

use ash::vk;

use super::conv::VkResultExt;
use crate::error::{Invalid, Result};

/// A Vulkan device that the user owns, with the extensions and features that were enabled when it
/// was created. Vulkan has no query for those.
///
/// ```no_run
/// # fn open(instance: &ash::Instance, physical_device: ash::vk::PhysicalDevice,
/// #     device: &ash::Device) -> gpu_interop::Result<()> {
/// use gpu_interop::vulkan::{DeviceInfo, Endpoint, Features};
///
/// let info = DeviceInfo::new(instance, physical_device, device, ash::vk::API_VERSION_1_2)
///     .enabled_extensions(&[
///         ash::khr::external_memory_fd::NAME,
///         ash::khr::external_semaphore_fd::NAME,
///     ])
///     .features(Features::default().timeline_semaphore(true));
/// // SAFETY: the handles belong together, exactly these extensions and features were enabled, and
/// // the device outlives the endpoint.
/// let endpoint = unsafe { Endpoint::new(&info, None) }?;
/// # drop(endpoint);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct DeviceInfo<'a> {
    /// The instance that the device belongs to.
    pub instance: &'a ash::Instance,
    /// The physical device that it was created from.
    pub physical_device: vk::PhysicalDevice,
    /// The device.
    pub device: &'a ash::Device,
    /// The Vulkan version that it is used with: the lower of `VkApplicationInfo::apiVersion` and the
    /// physical device's. At least 1.1.
    pub api_version: u32,
    /// Device extensions that were *enabled*. Default: none.
    pub enabled_extensions: &'a [&'a CStr],
    /// Features that were *enabled*. Default: none.
    pub features: Features,
}

impl<'a> DeviceInfo<'a> {
    /// Describes a device without extensions and features.
    pub fn new(
        instance: &'a ash::Instance,
        physical_device: vk::PhysicalDevice,
        device: &'a ash::Device,
        api_version: u32,
    ) -> Self {
        let features = Features::default();
        Self { instance, physical_device, device, api_version, enabled_extensions: &[], features }
    }

    /// Sets the device extensions that were enabled.
    #[must_use]
    pub fn enabled_extensions(mut self, names: &'a [&'a CStr]) -> Self {
        self.enabled_extensions = names;
        self
    }

    /// Sets the features that were enabled.
    #[must_use]
    pub fn features(mut self, features: Features) -> Self {
        self.features = features;
        self
    }

    /// Whether the extension was enabled.
    pub(super) fn is_enabled(&self, name: &CStr) -> bool {
        self.enabled_extensions.contains(&name)
    }

    /// Whether `extension` was enabled. Rejects a list that names it if the device lacks one of its
    /// `functions`.
    pub(super) fn has_functions(&self, extension: &CStr, functions: &[&CStr]) -> Result<bool> {
        if !self.is_enabled(extension) {
            return Ok(false);
        }
        for function in functions {
            // SAFETY: the caller of `Endpoint::new` promises a valid instance and a device created from it.
            let found = unsafe {
                self.instance.get_device_proc_addr(self.device.handle(), function.as_ptr())
            };
            if found.is_none() {
                let (extension, function) =
                    (extension.to_string_lossy(), function.to_string_lossy());
                let problem = format!("lists {extension}, but the device has no {function}");
                return Err(Invalid::new("enabled_extensions", problem)
                    .help("list exactly the extensions in VkDeviceCreateInfo::ppEnabledExtensionNames")
                    .into());
            }
        }
        Ok(true)
    }
}

impl fmt::Debug for DeviceInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceInfo")
            .field("physical_device", &self.physical_device)
            .field("device", &self.device.handle())
            .field("api_version", &self.api_version)
            .field("enabled_extensions", &self.enabled_extensions)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// The device features that this library uses if they are enabled. Default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// `timelineSemaphore`, of Vulkan 1.2 or `VK_KHR_timeline_semaphore`.
    pub timeline_semaphore: bool,
    /// `bufferDeviceAddress`, of Vulkan 1.2; ignored if the device is used with 1.1.
    pub buffer_device_address: bool,
    /// `shaderStorageImageMultisample`, for multisample images that shaders write.
    pub storage_image_multisample: bool,
}

impl Features {
    /// Sets whether `timelineSemaphore` was enabled.
    #[must_use]
    pub fn timeline_semaphore(mut self, enabled: bool) -> Self {
        self.timeline_semaphore = enabled;
        self
    }

    /// Sets whether `bufferDeviceAddress` was enabled.
    #[must_use]
    pub fn buffer_device_address(mut self, enabled: bool) -> Self {
        self.buffer_device_address = enabled;
        self
    }

    /// Sets whether `shaderStorageImageMultisample` was enabled.
    #[must_use]
    pub fn storage_image_multisample(mut self, enabled: bool) -> Self {
        self.storage_image_multisample = enabled;
        self
    }
}

/// The names of the device extensions that a physical device supports.
pub(super) struct SupportedExtensions(Vec<CString>);

impl SupportedExtensions {
    /// Queries them.
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
