//! The endpoint: the application's device, borrowed.
//!
//! [`Endpoint`]'s methods return everything that the peer knows about the device. Every object
//! created from an endpoint holds a clone of it.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ash::vk::{self, Handle};

use super::device_info::{DeviceInfo, Features};
use super::physical_device::{Properties, SupportedExtensions};
use super::raw_device::RawDeviceInfo;
use super::workarounds::Workarounds;
use crate::error::{Api, Missing, Result};
use crate::identity::Identity;

/// A borrowed Vulkan device that exports and imports. Cheap to clone; `Send` and `Sync`.
///
/// The endpoint keeps what submitted handoffs use until the GPU is done with it. Dropping the last
/// clone waits up to 10 seconds for that. What is still in use then is leaked together with the
/// device, which `tracing` reports.
#[derive(Clone)]
pub struct Endpoint(
    Arc<Inner>,
    #[expect(dead_code, reason = "the last one to be dropped waits")] Option<Arc<UserClones>>,
);

/// The application's clones of an endpoint. The clones that objects hold don't count: otherwise an
/// endpoint would be kept alive by the objects that it keeps for the GPU.
struct UserClones(Arc<Inner>);

/// How long dropping the last clone of an endpoint waits for work.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);

impl Drop for UserClones {
    fn drop(&mut self) {
        if let Some(kept) = self.0.kept.get() {
            kept.finish(DROP_TIMEOUT);
        }
    }
}

/// What an endpoint keeps for the GPU. Defined above the objects that are kept, which hold an
/// [`Endpoint`].
pub(super) trait KeptForGpu: Any + Send + Sync {
    /// Waits for the GPU, at most `timeout`, and drops everything that it is done with.
    fn finish(&self, timeout: Duration);
}

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
    non_coherent_atom_size: u64,
    max_buffer_size: u64,
    workarounds: Workarounds,
    has_format_list: bool,
    extensions: BTreeSet<CString>,
    /// Set with the first submit.
    kept: OnceLock<Box<dyn KeptForGpu>>,
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
    /// None of them is required. Without `VK_KHR_external_memory_fd` no memory can be shared;
    /// without `VK_KHR_external_semaphore_fd` handoffs wait on the host. `VK_NVX_binary_import`,
    /// for CUDA kernels in a Vulkan queue, is not among them: enable it only if CUDA works on the
    /// machine. [`wanted_features`](Self::wanted_features) returns the features to enable.
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

    /// Returns the device features to enable: those that this library uses, that `physical_device`
    /// supports, and that a device of `api_version` with the
    /// [`wanted_extensions`](Self::wanted_extensions) can enable. None of them is required.
    ///
    /// # Safety
    /// `instance` is valid, and `physical_device` belongs to it.
    ///
    /// # Errors
    /// [`Missing`] for Vulkan 1.0; [`Driver`](crate::Error::Driver) if memory runs out.
    ///
    /// # Examples
    /// ```no_run
    /// # use gpu_interop::{ash::{self, vk}, vulkan::{DeviceInfo, Endpoint}};
    /// # fn open(instance: &ash::Instance, physical_device: vk::PhysicalDevice,
    /// #     queues: &[vk::DeviceQueueCreateInfo<'_>]) -> gpu_interop::Result<()> {
    /// let version = vk::API_VERSION_1_2;
    /// // SAFETY: the physical device belongs to the instance.
    /// let (extensions, features) = unsafe {
    ///     (
    ///         Endpoint::wanted_extensions(instance, physical_device, version)?,
    ///         Endpoint::wanted_features(instance, physical_device, version)?,
    ///     )
    /// };
    /// let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    /// let mut vulkan_1_2 = vk::PhysicalDeviceVulkan12Features::default()
    ///     .timeline_semaphore(features.timeline_semaphore)
    ///     .buffer_device_address(features.buffer_device_address);
    /// let create = vk::DeviceCreateInfo::default()
    ///     .queue_create_infos(queues)
    ///     .enabled_extension_names(&names)
    ///     .push_next(&mut vulkan_1_2);
    /// # let device = unsafe { instance.create_device(physical_device, &create, None) }.unwrap();
    /// // ... vkCreateDevice ...
    /// let info = DeviceInfo::new(instance, physical_device, &device, version)
    ///     .enabled_extensions(&extensions)
    ///     .features(features.storage_image_multisample(false));
    /// # drop(unsafe { Endpoint::new(&info, None) }?);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "vkGetPhysicalDeviceFeatures2")]
    pub unsafe fn wanted_features(
        instance: &ash::Instance,
        physical_device: vk::PhysicalDevice,
        api_version: u32,
    ) -> Result<Features> {
        check_version(api_version)?;
        // SAFETY: the caller's promise.
        unsafe { Features::supported(instance, physical_device, api_version) }
    }

    /// Creates an endpoint over the application's device.
    ///
    /// `owner` is kept until the endpoint and everything created from it are dropped. Pass the
    /// object that destroys the device, or pass `None` and keep the device alive yourself.
    ///
    /// # Safety
    /// - `info` is accurate: the handles are valid and belong together, and exactly the extensions
    ///   and features that it lists were enabled.
    /// - The device outlives the endpoint and everything created from it, unless `owner` ensures
    ///   that. When it is destroyed, all work that was submitted through the endpoint is done.
    ///
    /// # Errors
    /// [`Missing`] for Vulkan 1.0, which lacks the queries for external memory, and if the device
    /// lacks a function of an extension, feature or version that `info` describes;
    /// [`Driver`](crate::Error::Driver) if memory runs out.
    ///
    /// # References
    /// `vkGetDeviceProcAddr`, `VkPhysicalDeviceIDProperties`, `VkPhysicalDeviceDriverProperties`.
    pub unsafe fn new(
        info: &DeviceInfo<'_>,
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Self> {
        check_version(info.api_version)?;
        info.check_functions()?;
        let (instance, device) = (info.instance, info.device);
        let memory_fd = info
            .is_enabled(ash::khr::external_memory_fd::NAME)
            .then(|| ash::khr::external_memory_fd::Device::new(instance, device));
        let semaphore_fd = info
            .is_enabled(ash::khr::external_semaphore_fd::NAME)
            .then(|| ash::khr::external_semaphore_fd::Device::new(instance, device));
        let timeline = timeline_fns(info);
        let features = Features {
            timeline_semaphore: timeline.is_some(),
            // Only the function of Vulkan 1.2 is called.
            buffer_device_address: info.features.buffer_device_address && info.is_1_2(),
            ..info.features
        };
        // SAFETY: the caller promises a valid instance and one of its physical devices.
        let found = unsafe { Properties::query(info) }?;
        let identity = found.identity;
        tracing::debug!(gpu = %identity.name, uuid = %identity.device, "Vulkan endpoint");
        let inner = Arc::new(Inner {
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
            non_coherent_atom_size: found.non_coherent_atom_size,
            max_buffer_size: found.max_buffer_size,
            workarounds: found.workarounds,
            has_format_list: info.api_version >= vk::API_VERSION_1_2
                || info.is_enabled(ash::khr::image_format_list::NAME),
            extensions: info.enabled_extensions.iter().map(|&name| name.into()).collect(),
            kept: OnceLock::new(),
            _owner: owner,
        });
        Ok(Self(inner.clone(), Some(Arc::new(UserClones(inner)))))
    }

    /// Returns a clone for an object to hold.
    pub(super) fn for_object(&self) -> Self {
        Self(self.0.clone(), None)
    }

    /// Returns what the endpoint keeps for the GPU.
    pub(super) fn kept(&self) -> &OnceLock<Box<dyn KeptForGpu>> {
        &self.0.kept
    }

    /// Creates an endpoint over a device that is described by the address of its loader and integer
    /// handles, for bindings other than `ash` and for other languages. Otherwise like
    /// [`new`](Self::new).
    ///
    /// # Safety
    /// - The promises of [`new`](Self::new).
    /// - `raw.get_instance_proc_addr` is the address of `vkGetInstanceProcAddr` of the loader that
    ///   the instance was created with.
    ///
    /// # Errors
    /// Same as [`new`](Self::new); also [`Invalid`](crate::error::Invalid) for a null handle.
    #[doc(alias = "vkGetInstanceProcAddr")]
    pub unsafe fn from_raw(
        raw: &RawDeviceInfo<'_>,
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        let (instance, device) = unsafe { raw.load() }?;
        let physical_device = vk::PhysicalDevice::from_raw(raw.physical_device);
        let info = DeviceInfo::new(&instance, physical_device, &device, raw.api_version)
            .enabled_extensions(raw.enabled_extensions)
            .features(raw.features);
        // SAFETY: the caller's promise.
        unsafe { Self::new(&info, owner) }
    }

    /// Returns the application's device.
    pub fn device(&self) -> &ash::Device {
        &self.0.device
    }

    /// Returns the application's instance.
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

    /// Returns whether images may be created with a list of view formats.
    pub(super) fn has_format_list(&self) -> bool {
        self.0.has_format_list
    }

    pub(super) fn has_extension(&self, name: &CStr) -> bool {
        self.0.extensions.contains(name)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identities[0]
    }

    /// Returns the distance in bytes that a linear resource must keep from an optimal image in one
    /// allocation.
    pub(super) fn buffer_image_granularity(&self) -> u64 {
        self.0.buffer_image_granularity
    }

    /// Returns the unit in bytes in which mapped memory that is not coherent is flushed.
    pub(super) fn non_coherent_atom_size(&self) -> u64 {
        self.0.non_coherent_atom_size.max(1)
    }

    /// Returns the maximum size of a buffer in bytes.
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
}

/// Rejects a version without the queries for external memory.
fn check_version(api_version: u32) -> Result<(), Missing> {
    if api_version >= vk::API_VERSION_1_1 {
        return Ok(());
    }
    Err(Missing::new(Api::Vulkan, "Vulkan 1.1", "external memory")
        .help("set VkApplicationInfo::apiVersion to 1.1 or higher"))
}

/// The functions of timeline semaphores, if the feature is enabled.
fn timeline_fns(info: &DeviceInfo<'_>) -> Option<TimelineFns> {
    let khr = info.is_enabled(ash::khr::timeline_semaphore::NAME);
    match (info.features.timeline_semaphore, info.is_1_2()) {
        (true, true) => Some(TimelineFns::Core),
        (true, false) if khr => Some(TimelineFns::Khr(ash::khr::timeline_semaphore::Device::new(
            info.instance,
            info.device,
        ))),
        _ => None,
    }
}
