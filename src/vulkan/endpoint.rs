//! The endpoint: the user's device, borrowed.
//!
//! Everything that the peer knows about the device is reached by methods of [`Endpoint`], and every
//! object that is made from an endpoint holds a clone of it.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;

use super::device_info::{DeviceInfo, Features, SupportedExtensions};
use super::workarounds::Workarounds;
use crate::error::{Api, Missing, Result};
use crate::identity::{Identity, Uuid};

/// A borrowed Vulkan device that exports and imports. Cheap to clone; `Send` and `Sync`.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    instance: ash::Instance,
    device: ash::Device,
    physical_device: vk::PhysicalDevice,
    memory_fd: Option<ash::khr::external_memory_fd::Device>,
    semaphore_fd: Option<ash::khr::external_semaphore_fd::Device>,
    timeline: Option<TimelineFns>,
    features: Features,
    identities: [Identity; 1],
    memory_properties: vk::PhysicalDeviceMemoryProperties,
    buffer_image_granularity: u64,
    max_buffer_size: u64,
    workarounds: Workarounds,
    has_format_list: bool,
    extensions: BTreeSet<CString>,
    /// Fences that were dropped while a submit may still have used them.
    retired_fences: Mutex<Vec<vk::Fence>>,
    // Last: it may destroy the device, so everything above must be dropped first.
    _owner: Option<Arc<dyn Any + Send + Sync>>,
}

/// The timeline functions of Vulkan 1.2, or of the extension.
pub(super) enum TimelineFns {
    Core,
    Khr(ash::khr::timeline_semaphore::Device),
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("device", &self.device().handle())
            .field("identity", self.identity())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Returns the device extensions to enable: those that this library uses, that
    /// `physical_device` supports, and that Vulkan `api_version` doesn't include.
    ///
    /// None of them is required. Without `VK_KHR_external_memory_fd` no memory can be shared; without
    /// `VK_KHR_external_semaphore_fd` handoffs wait on the host. `VK_NVX_binary_import`, for CUDA
    /// kernels in a Vulkan queue, is not among them: enable it only if CUDA works on the machine.
    /// The features to enable are those of [`Features`].
    ///
    /// # Safety
    /// `instance` is valid, and `physical_device` belongs to it.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if memory runs out.
    #[doc(alias = "vkEnumerateDeviceExtensionProperties")]
    pub unsafe fn wanted_extensions(
        instance: &ash::Instance,
        physical_device: vk::PhysicalDevice,
        api_version: u32,
    ) -> Result<Vec<&'static CStr>> {
        // SAFETY: the caller's promise.
        let supported = unsafe { SupportedExtensions::query(instance, physical_device) }?;
        Ok(supported.wanted(api_version))
    }

    /// Creates an endpoint over the user's device.
    ///
    /// `owner` is kept until the endpoint and everything made from it are dropped. Pass the object
    /// that destroys the device, or pass `None` and keep the device alive yourself.
    ///
    /// # Safety
    /// - `info` is accurate: the handles are valid and belong together, and exactly the extensions and
    ///   features that it lists were enabled.
    /// - The device outlives the endpoint and everything made from it, unless `owner` ensures that.
    ///
    /// # Errors
    /// [`Missing`] for Vulkan 1.0, which lacks the queries for external memory;
    /// [`Invalid`](crate::error::Invalid) if an extension is listed whose functions the device
    /// lacks; [`Driver`](crate::Error::Driver) if memory runs out.
    ///
    /// # References
    /// `vkGetDeviceProcAddr`, `VkPhysicalDeviceIDProperties`, `VkPhysicalDeviceDriverProperties`.
    pub unsafe fn new(
        info: &DeviceInfo<'_>,
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Self> {
        if info.api_version < vk::API_VERSION_1_1 {
            return Err(Missing::new(Api::Vulkan, "Vulkan 1.1", "external memory")
                .help("set VkApplicationInfo::apiVersion to 1.1 or higher")
                .into());
        }
        let (instance, device) = (info.instance, info.device);
        let memory_fd = info
            .has_functions(
                ash::khr::external_memory_fd::NAME,
                &[c"vkGetMemoryFdKHR", c"vkGetMemoryFdPropertiesKHR"],
            )?
            .then(|| ash::khr::external_memory_fd::Device::new(instance, device));
        let semaphore_fd = info
            .has_functions(
                ash::khr::external_semaphore_fd::NAME,
                &[c"vkGetSemaphoreFdKHR", c"vkImportSemaphoreFdKHR"],
            )?
            .then(|| ash::khr::external_semaphore_fd::Device::new(instance, device));
        let timeline = timeline_fns(info)?;
        let features = Features {
            timeline_semaphore: timeline.is_some(),
            // Only the function of Vulkan 1.2 is called.
            buffer_device_address: info.features.buffer_device_address
                && info.api_version >= vk::API_VERSION_1_2,
            ..info.features
        };
        // SAFETY: the caller promises a valid instance and one of its physical devices.
        let found = unsafe { Properties::query(info) }?;
        let identity = found.identity;
        tracing::debug!(gpu = %identity.name, uuid = %identity.device, "Vulkan endpoint");
        Ok(Self(Arc::new(Inner {
            instance: instance.clone(),
            device: device.clone(),
            physical_device: info.physical_device,
            memory_fd,
            semaphore_fd,
            timeline,
            features,
            identities: [identity],
            memory_properties: found.memory,
            buffer_image_granularity: found.buffer_image_granularity,
            max_buffer_size: found.max_buffer_size,
            workarounds: found.workarounds,
            has_format_list: info.api_version >= vk::API_VERSION_1_2
                || info.is_enabled(ash::khr::image_format_list::NAME),
            extensions: info.enabled_extensions.iter().map(|&name| name.into()).collect(),
            retired_fences: Mutex::default(),
            _owner: owner,
        })))
    }

    /// Returns the user's device.
    pub fn device(&self) -> &ash::Device {
        &self.0.device
    }

    /// Returns the user's instance.
    pub fn instance(&self) -> &ash::Instance {
        &self.0.instance
    }

    /// Returns the physical device.
    pub fn physical_device(&self) -> vk::PhysicalDevice {
        self.0.physical_device
    }

    /// Returns the features that were enabled and that this library uses.
    pub fn features(&self) -> Features {
        self.0.features
    }

    /// Returns the identity of the GPU and its driver: one entry.
    pub fn identities(&self) -> &[Identity] {
        &self.0.identities
    }

    /// Returns the memory types and heaps of the physical device.
    #[doc(alias = "vkGetPhysicalDeviceMemoryProperties")]
    pub fn memory_properties(&self) -> &vk::PhysicalDeviceMemoryProperties {
        &self.0.memory_properties
    }

    /// Returns the workarounds that the driver needs.
    pub fn workarounds(&self) -> Workarounds {
        self.0.workarounds
    }

    /// Returns whether both endpoints are over the same logical device.
    pub fn is_same_device(&self, other: &Endpoint) -> bool {
        self.device().handle() == other.device().handle()
    }

    /// Whether images may be created with a list of the formats of their views.
    pub(super) fn has_format_list(&self) -> bool {
        self.0.has_format_list
    }

    pub(super) fn has_extension(&self, name: &CStr) -> bool {
        self.0.extensions.contains(name)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identities[0]
    }

    /// The distance that a linear resource must keep from an optimal image in one allocation, in bytes.
    pub(super) fn buffer_image_granularity(&self) -> u64 {
        self.0.buffer_image_granularity
    }

    /// The maximum size of a buffer, in bytes.
    pub(super) fn max_buffer_size(&self) -> u64 {
        self.0.max_buffer_size
    }

    pub(super) fn memory_fd(&self) -> Result<&ash::khr::external_memory_fd::Device, Missing> {
        self.0.memory_fd.as_ref().ok_or_else(|| {
            Missing::new(Api::Vulkan, "VK_KHR_external_memory_fd", "memory as a file descriptor")
                .help("enable the device extension and list it in DeviceInfo::enabled_extensions")
        })
    }

    pub(super) fn semaphore_fd(&self) -> Result<&ash::khr::external_semaphore_fd::Device, Missing> {
        self.0.semaphore_fd.as_ref().ok_or_else(|| {
            let what = "VK_KHR_external_semaphore_fd";
            Missing::new(Api::Vulkan, what, "a semaphore as a file descriptor")
                .help("enable the device extension if the driver has it, or use a host wait")
        })
    }

    pub(super) fn timeline(&self) -> Result<&TimelineFns, Missing> {
        self.0.timeline.as_ref().ok_or_else(|| {
            Missing::new(Api::Vulkan, "the feature timelineSemaphore", "a timeline semaphore")
                .help("enable it when the device is created and set it in DeviceInfo::features")
        })
    }

    /// Destroys `fence` as soon as it is signalled, which may be now.
    ///
    /// # Safety
    /// `fence` belongs to this device, was submitted, and is used by nothing but that submit.
    pub(super) unsafe fn retire_fence(&self, fence: vk::Fence) {
        let mut retired = self.0.retired_fences.lock().unwrap_or_else(PoisonError::into_inner);
        retired.push(fence);
        self.0.destroy_signaled(&mut retired);
    }
}

impl Inner {
    /// Destroys those of the retired fences that are signalled.
    fn destroy_signaled(&self, retired: &mut Vec<vk::Fence>) {
        retired.retain(|&fence| {
            // SAFETY: the fence is alive and of this device. Once it is signalled, no submit uses it
            // any more (VUID-vkDestroyFence-fence-01120), and `retire_fence` was promised that
            // nothing else does.
            unsafe {
                let is_signaled = matches!(self.device.get_fence_status(fence), Ok(true));
                if is_signaled {
                    self.device.destroy_fence(fence, None);
                }
                !is_signaled
            }
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let retired = self.retired_fences.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut retired = std::mem::take(retired);
        self.destroy_signaled(&mut retired);
        if !retired.is_empty() {
            // A submit may still use them.
            let leaked = retired.len();
            tracing::warn!(leaked, "fences that were never signalled are leaked");
        }
    }
}

fn timeline_fns(info: &DeviceInfo<'_>) -> Result<Option<TimelineFns>> {
    if !info.features.timeline_semaphore {
        return Ok(None);
    }
    if info.api_version >= vk::API_VERSION_1_2 {
        return Ok(Some(TimelineFns::Core));
    }
    let functions: &[&CStr] =
        &[c"vkGetSemaphoreCounterValueKHR", c"vkWaitSemaphoresKHR", c"vkSignalSemaphoreKHR"];
    let enabled = info.has_functions(ash::khr::timeline_semaphore::NAME, functions)?;
    Ok(enabled.then(|| {
        TimelineFns::Khr(ash::khr::timeline_semaphore::Device::new(info.instance, info.device))
    }))
}

/// The properties of the physical device that this peer depends on.
struct Properties {
    identity: Identity,
    memory: vk::PhysicalDeviceMemoryProperties,
    buffer_image_granularity: u64,
    max_buffer_size: u64,
    workarounds: Workarounds,
}

impl Properties {
    /// Queries them.
    ///
    /// # Safety
    /// The instance is valid, and the physical device belongs to it.
    unsafe fn query(info: &DeviceInfo<'_>) -> Result<Self> {
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
            max_buffer_size,
            workarounds: Workarounds::of(driver.driver_id, core.device_type),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vulkan::fake;

    #[test]
    fn an_extension_whose_functions_the_device_lacks_is_refused() {
        let (memory, semaphore) =
            (ash::khr::external_memory_fd::NAME, ash::khr::external_semaphore_fd::NAME);
        let endpoint = fake::open(1, Features::default(), &[memory]).unwrap();
        assert!(endpoint.memory_fd().is_ok() && endpoint.semaphore_fd().is_err());
        let text =
            fake::open(1, Features::default(), &[memory, semaphore]).unwrap_err().to_string();
        assert!(text.contains("VK_KHR_external_semaphore_fd"), "{text}");
        assert!(text.contains("vkGetSemaphoreFdKHR"), "{text}");
    }
}
