//! A Vulkan instance and device, opened without a display.

use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use ash::vk;

use super::device::Device;
use super::init_lock::InitLock;
use super::instance::Instance;
use super::options::VulkanOptions;
use super::physical::{DeviceType, PhysicalDevice, choose};
use super::selector::GpuSelector;
use crate::error::Result;
use crate::identity::Identity;
use crate::vulkan::{DeviceInfo, Endpoint, Features};

/// A Vulkan instance, device and queue. Cheap to clone; `Send` and `Sync`.
///
/// The device is destroyed, after it has become idle, when the last clone and the last thing made
/// from its [`endpoint`](Self::endpoint)s are gone; the instance after the last of its devices. So a
/// submit that waits for what nobody will signal keeps the last drop waiting too.
///
/// # References
/// `vkCreateInstance`, `vkCreateDevice`, `VK_EXT_debug_utils`.
#[derive(Clone)]
pub struct Vulkan {
    device: Arc<Device>,
}

impl Vulkan {
    /// Opens an instance of its own and a device on the GPU that is wished for.
    ///
    /// All of `VK_KHR_external_memory_fd`, `VK_KHR_external_semaphore_fd`,
    /// `VK_KHR_external_fence_fd`, `VK_EXT_external_memory_dma_buf` and the features
    /// `timelineSemaphore`, `bufferDeviceAddress` and `synchronization2` that the GPU has are
    /// enabled, and `VK_NVX_binary_import` where the cargo feature `nvx` is; what they
    /// are is recorded. Vulkan 1.3 is used where it is there, and at least 1.1.
    ///
    /// # Errors
    /// [`Missing`](crate::Error::Missing) where the loader, a GPU, the GPU that is wished for (the
    /// error lists those there are) or a validation layer that is required is not there;
    /// [`Driver`](crate::Error::Driver) where the loader or the driver refuses a call.
    pub fn open(wish: &GpuSelector, options: &VulkanOptions) -> Result<Self> {
        let _turn = InitLock::take();
        let wanted = wish.device_uuid()?;
        let instance = Instance::create(options)?;
        let physical = choose(PhysicalDevice::all(&instance)?, wanted)?;
        let options = Arc::new(options.clone());
        let device = Device::create(Arc::new(instance), Arc::new(physical), options)?;
        Ok(Self { device: Arc::new(device) })
    }

    /// Opens another logical device of the same instance, GPU and options.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) where the driver refuses.
    #[doc(alias = "vkCreateDevice")]
    pub fn second_device(&self) -> Result<Self> {
        let _turn = InitLock::take();
        let Device { instance, physical, options, .. } = &*self.device;
        let device = Device::create(instance.clone(), physical.clone(), options.clone())?;
        Ok(Self { device: Arc::new(device) })
    }

    /// A sharing endpoint over the device, which it keeps alive.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        let info = DeviceInfo {
            instance: self.instance(),
            physical_device: self.physical_device(),
            device: self.device(),
            api_version: self.api_version(),
            enabled_extensions: self.enabled_extensions(),
            features: self.features(),
        };
        // SAFETY: the handles belong together, the extensions and features are those the device was
        // created with, and the endpoint keeps what destroys the device.
        unsafe { Endpoint::new(&info, Some(self.device.clone())) }
    }

    /// The loader's entry points.
    pub fn entry(&self) -> &ash::Entry {
        &self.device.instance.entry
    }

    /// The instance. Don't destroy it.
    pub fn instance(&self) -> &ash::Instance {
        &self.device.instance.raw
    }

    /// The physical device.
    pub fn physical_device(&self) -> vk::PhysicalDevice {
        self.device.physical.handle
    }

    /// The device. Don't destroy it.
    pub fn device(&self) -> &ash::Device {
        &self.device.raw
    }

    /// The device's one queue.
    ///
    /// Vulkan wants that no two threads use it at once: use it within
    /// [`with_queue`](Self::with_queue), or keep this device to one thread.
    pub fn queue(&self) -> vk::Queue {
        self.device.queue
    }

    /// Lets `use_queue` use the queue (`vkQueueSubmit`, `vkQueueWaitIdle`) while no other thread
    /// that does the same can.
    ///
    /// Don't nest: a call within `use_queue` for the same device waits for ever.
    pub fn with_queue<R>(&self, use_queue: impl FnOnce(vk::Queue) -> R) -> R {
        let _queue = self.device.lock_queue();
        use_queue(self.device.queue)
    }

    /// Waits until the device has done all that was submitted. No other thread can be within
    /// [`with_queue`](Self::with_queue) meanwhile.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver), a lost device say.
    #[doc(alias = "vkDeviceWaitIdle")]
    pub fn wait_idle(&self) -> Result<()> {
        self.device.wait_idle()
    }

    /// The index of the queue's family.
    pub fn queue_family(&self) -> u32 {
        self.device.queue_family
    }

    /// Bits of a timestamp that count on this queue; 0 where it has no timestamps.
    pub fn timestamp_valid_bits(&self) -> u32 {
        self.device.timestamp_valid_bits
    }

    /// Nanoseconds a tick of a timestamp.
    pub fn timestamp_period(&self) -> f32 {
        self.device.physical.timestamp_period
    }

    /// The Vulkan version the device is used with: the lower of `VkApplicationInfo::apiVersion` and
    /// the physical device's.
    pub fn api_version(&self) -> u32 {
        self.device.physical.api_version
    }

    /// The GPU and driver.
    pub fn identity(&self) -> &Identity {
        &self.device.physical.identity
    }

    /// The driver's name and version, for people.
    pub fn driver(&self) -> &str {
        &self.device.physical.driver
    }

    /// Discrete, integrated, virtual or CPU.
    pub fn device_type(&self) -> DeviceType {
        self.device.physical.device_type
    }

    /// The device extensions that were enabled.
    pub fn enabled_extensions(&self) -> &[&'static CStr] {
        &self.device.extensions
    }

    /// The features for sharing that were enabled.
    pub fn features(&self) -> Features {
        self.device.features
    }

    /// Whether `synchronization2` was enabled: part of Vulkan 1.3, before that of
    /// `VK_KHR_synchronization2`.
    pub fn has_synchronization2(&self) -> bool {
        self.device.synchronization2
    }

    /// The core features that were enabled: those of [`VulkanOptions::core_features`] that the GPU
    /// has.
    pub fn core_features(&self) -> &vk::PhysicalDeviceFeatures {
        &self.device.core_features
    }

    /// Whether the validation layer watches.
    pub fn is_validated(&self) -> bool {
        self.device.instance.validated
    }
}

impl fmt::Debug for Vulkan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vulkan")
            .field("identity", self.identity())
            .field("driver", &self.driver())
            .field("device", &self.device().handle())
            .field("enabled_extensions", &self.enabled_extensions())
            .field("features", &self.features())
            .finish_non_exhaustive()
    }
}
