//! The application's description of the device: handles, version, enabled extensions and features.

use std::ffi::CStr;
use std::fmt;

use ash::vk;

use crate::error::{Api, Missing, Result};

/// A Vulkan device that the application owns, with the extensions and features that were enabled
/// when it was created. Vulkan has no query for those.
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
    /// The Vulkan version that it is used with: the lower of `VkApplicationInfo::apiVersion` and
    /// the physical device's. At least 1.1.
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

    /// Whether the functions of timeline semaphores are those of Vulkan 1.2.
    pub(super) fn is_1_2(&self) -> bool {
        self.api_version >= vk::API_VERSION_1_2
    }

    /// Checks that the device has every function that this library calls because of the version,
    /// extensions and features that are described: calling one that is missing ends the process.
    pub(super) fn check_functions(&self) -> Result<(), Missing> {
        let version = |names| self.require(names, "DeviceInfo::api_version");
        let feature = |names| self.require(names, "DeviceInfo::features");
        version(&VULKAN_1_1)?;
        for (extension, names) in EXTENSIONS {
            if self.is_enabled(extension) {
                let listed = format!("{}, which is listed as enabled", extension.to_string_lossy());
                self.require(names, &listed)?;
            }
        }
        if self.features.timeline_semaphore {
            match self.is_1_2() {
                true => feature(&TIMELINE)?,
                false if self.is_enabled(ash::khr::timeline_semaphore::NAME) => {
                    feature(&TIMELINE_KHR)?;
                }
                false => {}
            }
        }
        if self.features.buffer_device_address && self.is_1_2() {
            feature(&DEVICE_ADDRESS)?;
        }
        Ok(())
    }

    /// Checks that the device has the functions `names`.
    fn require(&self, names: &[&'static CStr], needed_for: &str) -> Result<(), Missing> {
        let lacks = |name: &&&CStr| {
            // SAFETY: the caller of `Endpoint::new` promises a valid instance and a device created
            // from it.
            let found =
                unsafe { self.instance.get_device_proc_addr(self.device.handle(), name.as_ptr()) };
            found.is_none()
        };
        let Some(name) = names.iter().find(lacks) else { return Ok(()) };
        let what = format!("the function {}", name.to_string_lossy());
        Err(Missing::new(Api::Vulkan, what, needed_for.to_owned()).help(
            "describe the device as it was created: its extensions are exactly those in \
             VkDeviceCreateInfo::ppEnabledExtensionNames",
        ))
    }
}

/// The device functions of Vulkan 1.1 that are called.
const VULKAN_1_1: [&CStr; 2] =
    [c"vkGetBufferMemoryRequirements2", c"vkGetImageMemoryRequirements2"];

/// The functions of each extension that are called. Those of timeline semaphores are called only if
/// the version doesn't include them; `nvx` looks for its own when it loads a kernel.
const EXTENSIONS: &[(&CStr, &[&CStr])] = &[
    (ash::khr::external_memory_fd::NAME, &[c"vkGetMemoryFdKHR", c"vkGetMemoryFdPropertiesKHR"]),
    (ash::khr::external_semaphore_fd::NAME, &[c"vkGetSemaphoreFdKHR", c"vkImportSemaphoreFdKHR"]),
];

/// The functions of `timelineSemaphore` in Vulkan 1.2.
const TIMELINE: [&CStr; 3] =
    [c"vkGetSemaphoreCounterValue", c"vkWaitSemaphores", c"vkSignalSemaphore"];

/// The functions of `VK_KHR_timeline_semaphore`.
const TIMELINE_KHR: [&CStr; 3] =
    [c"vkGetSemaphoreCounterValueKHR", c"vkWaitSemaphoresKHR", c"vkSignalSemaphoreKHR"];

/// The function of `bufferDeviceAddress` in Vulkan 1.2.
const DEVICE_ADDRESS: [&CStr; 1] = [c"vkGetBufferDeviceAddress"];

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vulkan::fake;

    /// Opens an endpoint over a device that lacks `function`, and expects that to be named.
    fn check_named(function: &'static CStr, extensions: &[&CStr], version: u32) -> String {
        let features = Features::default().timeline_semaphore(true).buffer_device_address(true);
        fake::open_with(1, version, features, extensions).unwrap();
        fake::set_lacking(Some(function));
        let refused = fake::open_with(1, version, features, extensions);
        fake::set_lacking(None);
        let missing = match refused {
            Err(crate::Error::Missing(missing)) => missing,
            other => panic!("{function:?}: {other:?}"),
        };
        assert!(missing.help.is_some(), "{missing}");
        let text = missing.to_string();
        assert!(text.contains(function.to_str().unwrap()), "{text}");
        text
    }

    #[test]
    fn each_function_of_a_listed_extension_is_required() {
        for (extension, functions) in EXTENSIONS {
            for function in *functions {
                let text = check_named(function, &[extension], vk::API_VERSION_1_2);
                assert!(text.contains(extension.to_str().unwrap()), "{text}");
            }
        }
    }

    #[test]
    fn each_function_of_the_version_and_of_a_feature_is_required() {
        let khr = [ash::khr::timeline_semaphore::NAME];
        for function in VULKAN_1_1.iter().chain(&TIMELINE).chain(&DEVICE_ADDRESS) {
            check_named(function, &[], vk::API_VERSION_1_2);
        }
        for function in VULKAN_1_1.iter().chain(&TIMELINE_KHR) {
            check_named(function, &khr, vk::API_VERSION_1_1);
        }
    }

    #[test]
    fn a_function_that_is_never_called_is_not_required() {
        let functions = EXTENSIONS.iter().flat_map(|(_, functions)| *functions);
        for function in functions.chain(&TIMELINE).chain(&TIMELINE_KHR).chain(&DEVICE_ADDRESS) {
            fake::set_lacking(Some(function));
            fake::open_with(1, vk::API_VERSION_1_2, Features::default(), &[]).unwrap();
            fake::set_lacking(None);
        }
    }
}
