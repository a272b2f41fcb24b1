//! The endpoint: the user's device, borrowed.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;

use super::error::VkResultExt;
use super::workarounds::Workarounds;
use crate::error::{Api, Invalid, Missing, Result};
use crate::identity::{Identity, Uuid};

/// A Vulkan device that the user owns, and what was enabled when it was made, which Vulkan can't be
/// asked for.
#[derive(Clone, Copy)]
pub struct DeviceInfo<'a> {
    /// The instance the device belongs to.
    pub instance: &'a ash::Instance,
    /// The physical device it was made of.
    pub physical_device: vk::PhysicalDevice,
    /// The device.
    pub device: &'a ash::Device,
    /// The Vulkan version it is used with: the lower of `VkApplicationInfo::apiVersion` and the
    /// physical device's. At least 1.1.
    pub api_version: u32,
    /// Device extensions that were *enabled*.
    pub enabled_extensions: &'a [&'a CStr],
    /// Features that were *enabled*.
    pub features: Features,
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

/// Device features that this library makes use of where they are enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `timelineSemaphore`, of Vulkan 1.2 or `VK_KHR_timeline_semaphore`.
    pub timeline_semaphore: bool,
    /// `bufferDeviceAddress`, of Vulkan 1.2; taken as `false` where the device is used with 1.1.
    pub buffer_device_address: bool,
    /// `shaderStorageImageMultisample`, for multisample images that shaders write.
    pub storage_image_multisample: bool,
}

/// A borrowed Vulkan device, able to export and import. Cheap to clone; `Send` and `Sync`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) instance: ash::Instance,
    pub(crate) device: ash::Device,
    pub(crate) physical_device: vk::PhysicalDevice,
    pub(crate) memory_fd: Option<ash::khr::external_memory_fd::Device>,
    pub(crate) semaphore_fd: Option<ash::khr::external_semaphore_fd::Device>,
    pub(crate) timeline: Option<TimelineFns>,
    pub(crate) features: Features,
    pub(crate) identities: [Identity; 1],
    pub(crate) memory_properties: vk::PhysicalDeviceMemoryProperties,
    /// How far a linear resource must be from an optimal image in one allocation, in bytes.
    pub(crate) buffer_image_granularity: u64,
    /// How large a buffer can be, in bytes.
    pub(crate) max_buffer_size: u64,
    pub(crate) workarounds: Workarounds,
    extensions: BTreeSet<CString>,
    /// Fences that were dropped while a submit may still have held them.
    retired_fences: Mutex<Vec<vk::Fence>>,
    // Last: what may destroy the device goes when nothing above is in use any more.
    _owner: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("device", &self.device.handle())
            .field("identity", &self.identities[0])
            .finish_non_exhaustive()
    }
}

/// The timeline calls of Vulkan 1.2, or of the extension.
pub(crate) enum TimelineFns {
    Core,
    Khr(ash::khr::timeline_semaphore::Device),
}

impl Endpoint {
    /// An endpoint over the user's device.
    ///
    /// `owner` is kept until the endpoint and everything made from it is gone: give what destroys
    /// the device where there is such a thing, or `None` and keep the promise below yourself.
    ///
    /// # Safety
    /// - `info` tells the truth: the handles belong together, and exactly the extensions and
    ///   features it lists were enabled. An extension that is listed but not enabled makes calls
    ///   through null function pointers.
    /// - The device outlives the endpoint and everything made from it, unless `owner` sees to it.
    ///
    /// # Errors
    /// [`Missing`] for Vulkan 1.0, which can't be asked about external memory;
    /// [`Driver`](crate::Error::Driver) where the driver is out of memory.
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
        let enabled = |name: &CStr| info.enabled_extensions.contains(&name);
        let memory_fd = enabled(ash::khr::external_memory_fd::NAME)
            .then(|| ash::khr::external_memory_fd::Device::new(instance, device));
        let semaphore_fd = enabled(ash::khr::external_semaphore_fd::NAME)
            .then(|| ash::khr::external_semaphore_fd::Device::new(instance, device));
        let timeline = timeline_fns(info);
        let features = Features {
            timeline_semaphore: timeline.is_some(),
            // Only the call of Vulkan 1.2 is made.
            buffer_device_address: info.features.buffer_device_address
                && info.api_version >= vk::API_VERSION_1_2,
            ..info.features
        };

        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut maintenance4 = vk::PhysicalDeviceMaintenance4Properties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        // The workarounds rest on it, so it is asked for wherever it can be.
        if info.api_version >= vk::API_VERSION_1_2 || offers_driver_properties(info)? {
            properties = properties.push_next(&mut driver);
        }
        if info.api_version >= vk::API_VERSION_1_3 || enabled(ash::khr::maintenance4::NAME) {
            properties = properties.push_next(&mut maintenance4);
        }
        // SAFETY: the caller promises a valid instance and one of its physical devices; the
        // structures of the chain exist in the versions, or with the extensions of the physical
        // device, that they are chained for.
        unsafe { instance.get_physical_device_properties2(info.physical_device, &mut properties) };
        let core = properties.properties;
        let name = core.device_name_as_c_str().map(CStr::to_string_lossy).unwrap_or_default();
        let identity = Identity {
            device: Uuid::from_bytes(id.device_uuid),
            driver: Some(Uuid::from_bytes(id.driver_uuid)),
            name: name.into_owned(),
        };
        // SAFETY: as above.
        let memory_properties =
            unsafe { instance.get_physical_device_memory_properties(info.physical_device) };
        // Without a limit of its own, a buffer still has to fit a heap.
        let heaps = memory_properties.memory_heaps_as_slice().iter().map(|heap| heap.size);
        let max_buffer_size = match maintenance4.max_buffer_size {
            0 => heaps.max().unwrap_or(0),
            limit => limit,
        };
        tracing::debug!(gpu = %identity.name, uuid = %identity.device, "Vulkan endpoint");
        let shared = Shared {
            instance: instance.clone(),
            device: device.clone(),
            physical_device: info.physical_device,
            memory_fd,
            semaphore_fd,
            timeline,
            features,
            identities: [identity],
            memory_properties,
            buffer_image_granularity: core.limits.buffer_image_granularity,
            max_buffer_size,
            workarounds: Workarounds::of(driver.driver_id, core.device_type),
            extensions: info.enabled_extensions.iter().map(|&name| name.into()).collect(),
            retired_fences: Mutex::default(),
            _owner: owner,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The user's device.
    pub fn device(&self) -> &ash::Device {
        &self.shared.device
    }

    /// The user's instance.
    pub fn instance(&self) -> &ash::Instance {
        &self.shared.instance
    }

    /// The physical device.
    pub fn physical_device(&self) -> vk::PhysicalDevice {
        self.shared.physical_device
    }

    /// The features that were enabled and that this library can make use of.
    pub fn features(&self) -> Features {
        self.shared.features
    }

    /// The GPU and driver: one entry.
    pub fn identities(&self) -> &[Identity] {
        &self.shared.identities
    }

    /// The memory types and heaps of the physical device.
    pub fn memory_properties(&self) -> &vk::PhysicalDeviceMemoryProperties {
        &self.shared.memory_properties
    }

    /// Whether both endpoints are over the same logical device.
    pub fn is_same_device(&self, other: &Endpoint) -> bool {
        self.shared.device.handle() == other.shared.device.handle()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let fences = self.retired_fences.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut leaked = 0u32;
        for fence in fences.drain(..) {
            // SAFETY: the fence is alive, of this device, and known to nobody else.
            if !matches!(unsafe { self.device.get_fence_status(fence) }, Ok(true)) {
                // A submit may still hold it (VUID-vkDestroyFence-fence-01120).
                leaked += 1;
                continue;
            }
            // SAFETY: signalled, so that no submit holds it any more.
            unsafe { self.device.destroy_fence(fence, None) };
        }
        if leaked > 0 {
            tracing::warn!(leaked, "fences that never signalled outlive their endpoint");
        }
    }
}

impl Shared {
    /// Destroys `fence` as soon as it is signalled, which may be now.
    pub(crate) fn retire_fence(&self, fence: vk::Fence) {
        let mut retired = self.retired_fences.lock().unwrap_or_else(PoisonError::into_inner);
        retired.push(fence);
        retired.retain(|&fence| {
            // SAFETY: the fence is alive, of this device, and known to nobody else.
            let done = matches!(unsafe { self.device.get_fence_status(fence) }, Ok(true));
            if done {
                // SAFETY: signalled, so that no submit holds it any more.
                unsafe { self.device.destroy_fence(fence, None) };
            }
            !done
        });
    }

    pub(crate) fn has_extension(&self, name: &CStr) -> bool {
        self.extensions.contains(name)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identities[0]
    }

    pub(crate) fn memory_fd(&self) -> Result<&ash::khr::external_memory_fd::Device> {
        self.memory_fd.as_ref().ok_or_else(|| {
            Missing::new(Api::Vulkan, "VK_KHR_external_memory_fd", "memory as a file descriptor")
                .help("enable the device extension and list it in DeviceInfo::enabled_extensions")
                .into()
        })
    }

    pub(crate) fn semaphore_fd(&self) -> Result<&ash::khr::external_semaphore_fd::Device> {
        self.semaphore_fd.as_ref().ok_or_else(|| missing_semaphore_fd().into())
    }

    fn timeline(&self) -> Result<&TimelineFns> {
        self.timeline.as_ref().ok_or_else(|| missing_timeline().into())
    }
}

pub(crate) fn missing_semaphore_fd() -> Missing {
    Missing::new(Api::Vulkan, "VK_KHR_external_semaphore_fd", "a semaphore as a file descriptor")
        .help("enable the device extension where the driver has it; else hand over by host wait")
}

pub(crate) fn missing_timeline() -> Missing {
    Missing::new(Api::Vulkan, "the feature timelineSemaphore", "a timeline semaphore")
        .help("enable it when the device is created and set it in DeviceInfo::features")
}

/// Whether the physical device has `VkPhysicalDeviceDriverProperties` as an extension.
fn offers_driver_properties(info: &DeviceInfo<'_>) -> Result<bool> {
    // SAFETY: the caller of `Endpoint::new` promises a valid instance and one of its devices.
    let found =
        unsafe { info.instance.enumerate_device_extension_properties(info.physical_device) }
            .of("vkEnumerateDeviceExtensionProperties")?;
    let name = ash::khr::driver_properties::NAME;
    Ok(found.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name)))
}

fn timeline_fns(info: &DeviceInfo<'_>) -> Option<TimelineFns> {
    if !info.features.timeline_semaphore {
        return None;
    }
    if info.api_version >= vk::API_VERSION_1_2 {
        return Some(TimelineFns::Core);
    }
    let khr = ash::khr::timeline_semaphore::NAME;
    info.enabled_extensions.contains(&khr).then(|| {
        TimelineFns::Khr(ash::khr::timeline_semaphore::Device::new(info.instance, info.device))
    })
}

impl Shared {
    /// The counter of a timeline semaphore.
    ///
    /// # Safety
    /// `semaphore` is a valid timeline semaphore of this device.
    pub(crate) unsafe fn timeline_value(&self, semaphore: vk::Semaphore) -> Result<u64> {
        // SAFETY: the caller's promise is the call's only rule.
        let value = unsafe {
            match self.timeline()? {
                TimelineFns::Core => self.device.get_semaphore_counter_value(semaphore),
                TimelineFns::Khr(khr) => khr.get_semaphore_counter_value(semaphore),
            }
        };
        value.of("vkGetSemaphoreCounterValue")
    }

    /// Waits until the counter reaches `value`; `false` when `timeout` nanoseconds go by before.
    ///
    /// # Safety
    /// `semaphore` is a valid timeline semaphore of this device.
    pub(crate) unsafe fn timeline_wait(
        &self,
        semaphore: vk::Semaphore,
        value: u64,
        timeout: u64,
    ) -> Result<bool> {
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the caller's promise; both arrays have one element and outlive the call.
        let waited = unsafe {
            match self.timeline()? {
                TimelineFns::Core => self.device.wait_semaphores(&info, timeout),
                TimelineFns::Khr(khr) => khr.wait_semaphores(&info, timeout),
            }
        };
        match waited {
            Err(vk::Result::TIMEOUT) => Ok(false),
            other => other.of("vkWaitSemaphores").map(|()| true),
        }
    }

    /// Sets the counter to `value`.
    ///
    /// # Safety
    /// `semaphore` is a valid timeline semaphore of this device, and `value` is greater than its
    /// counter and less than that of any pending signal (VUID-VkSemaphoreSignalInfo-value-03258
    /// and -03259).
    pub(crate) unsafe fn timeline_signal(
        &self,
        semaphore: vk::Semaphore,
        value: u64,
    ) -> Result<()> {
        let info = vk::SemaphoreSignalInfo::default().semaphore(semaphore).value(value);
        // SAFETY: the caller's promise.
        let signalled = unsafe {
            match self.timeline()? {
                TimelineFns::Core => self.device.signal_semaphore(&info),
                TimelineFns::Khr(khr) => khr.signal_semaphore(&info),
            }
        };
        signalled.of("vkSignalSemaphore")
    }
}

crate::peer::impl_peer! {
    Endpoint, Api::Vulkan, super::Memory, super::Buffer, super::Image, super::Semaphore,
    unsafe fn wait_idle(&self) -> Result<()> {
        // SAFETY: the device is alive; the caller keeps its queues to this thread during the call.
        unsafe { self.shared.device.device_wait_idle() }.of("vkDeviceWaitIdle")
    }
}

/// Refuses a memory type that the device doesn't have.
pub(crate) fn check_memory_type(
    properties: &vk::PhysicalDeviceMemoryProperties,
    index: u32,
) -> Result<()> {
    let count = properties.memory_type_count;
    if index < count {
        return Ok(());
    }
    Err(Invalid::new("memory_type_index", format!("{index}, but the device has {count} types"))
        .vuid("VUID-vkAllocateMemory-pAllocateInfo-01714")
        .into())
}
