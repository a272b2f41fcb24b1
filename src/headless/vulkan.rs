//! A Vulkan instance and device, opened with everything for sharing that the GPU has.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ash::vk;

use super::error;
use super::instance::{InitLock, Instance};
use super::options::{DeviceType, GpuSelector, VulkanOptions};
use super::physical::{
    PhysicalDevice, Supported, both, choose, extensions_to_enable, queue_family,
};
use crate::cuda;
use crate::error::Result;
use crate::identity::Identity;
use crate::vulkan::{DeviceInfo, Endpoint, Features};

/// A Vulkan instance, device and queue. Cheap to clone; `Send` and `Sync`.
///
/// The device is destroyed when the last clone and the last object created from its
/// [`endpoint`](Self::endpoint)s are dropped, the instance after the last of its devices. That drop
/// waits up to 5 seconds for submitted work. A device whose work does not end by then, for example
/// because a semaphore is never signalled, is leaked, which `tracing` reports.
///
/// # References
/// `vkCreateInstance`, `vkCreateDevice`, `VK_EXT_debug_utils`.
#[derive(Clone)]
pub struct Vulkan {
    device: Arc<Device>,
}

impl Vulkan {
    /// Opens a new instance, and a device on the selected GPU.
    ///
    /// Enables what the GPU has of `VK_KHR_external_memory_fd`, `VK_KHR_external_semaphore_fd`,
    /// `VK_KHR_external_fence_fd`, `VK_EXT_external_memory_dma_buf`, with the cargo feature `nvx`
    /// also `VK_NVX_binary_import` (if CUDA sees the GPU: NVIDIA's driver crashes otherwise), and
    /// of the features `timelineSemaphore`, `bufferDeviceAddress` and `synchronization2`.
    /// [`enabled_extensions`](Self::enabled_extensions) and [`features`](Self::features) return
    /// what was enabled. The version is 1.1 to 1.3.
    ///
    /// # Errors
    /// [`Missing`](crate::Error::Missing) if the loader, the GPU (the error lists the GPUs that
    /// Vulkan sees) or a required validation layer is absent;
    /// [`Driver`](crate::Error::Driver) if the loader or the driver refuses a call.
    #[doc(alias = "vkCreateInstance")]
    #[doc(alias = "vkCreateDevice")]
    pub fn open(gpu: &GpuSelector, options: &VulkanOptions) -> Result<Self> {
        let _lock = InitLock::take();
        let uuid = gpu.device_uuid()?;
        let instance = Instance::create(options)?;
        let physical = choose(PhysicalDevice::all(&instance)?, uuid)?;
        let options = Arc::new(options.clone());
        let device = Device::create(Arc::new(instance), Arc::new(physical), options)?;
        Ok(Self { device: Arc::new(device) })
    }

    /// Opens another logical device with the same instance, GPU and options.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if the driver refuses.
    #[doc(alias = "vkCreateDevice")]
    pub fn second_device(&self) -> Result<Self> {
        let _lock = InitLock::take();
        let Device { instance, physical, options, .. } = &*self.device;
        let device = Device::create(instance.clone(), physical.clone(), options.clone())?;
        Ok(Self { device: Arc::new(device) })
    }

    /// Creates an endpoint over the device, which it keeps alive.
    ///
    /// # Errors
    /// Same as [`Endpoint::new`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        let info = DeviceInfo::new(
            self.instance(),
            self.physical_device(),
            self.device(),
            self.api_version(),
        )
        .enabled_extensions(self.enabled_extensions())
        .features(self.features());
        // SAFETY: the handles belong together, the extensions and features are those that the
        // device was created with, and the endpoint keeps what destroys the device.
        unsafe { Endpoint::new(&info, Some(self.device.clone())) }
    }

    /// Returns the loader's entry points.
    pub fn entry(&self) -> &ash::Entry {
        &self.device.instance.entry
    }

    /// Returns the instance. Don't destroy it.
    pub fn instance(&self) -> &ash::Instance {
        &self.device.instance.raw
    }

    /// Returns the physical device.
    pub fn physical_device(&self) -> vk::PhysicalDevice {
        self.device.physical.handle
    }

    /// Returns the device. Don't destroy it.
    pub fn device(&self) -> &ash::Device {
        &self.device.raw
    }

    /// Returns the device's one queue.
    ///
    /// Two threads must not use it at once: use it within [`with_queue`](Self::with_queue), or use
    /// this device on one thread only.
    pub fn queue(&self) -> vk::Queue {
        self.device.queue
    }

    /// Calls `use_queue` with the queue locked, for `vkQueueSubmit` or `vkQueueWaitIdle`.
    ///
    /// Don't nest: a call within `use_queue` for the same device waits indefinitely.
    pub fn with_queue<R>(&self, use_queue: impl FnOnce(vk::Queue) -> R) -> R {
        let _queue = self.device.lock_queue();
        use_queue(self.device.queue)
    }

    /// Waits until the device has completed all submitted work, with the queue locked.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver), for example for a lost device.
    #[doc(alias = "vkDeviceWaitIdle")]
    pub fn wait_idle(&self) -> Result<()> {
        self.device.wait_idle()
    }

    /// Waits up to 5 seconds for all submitted work, and returns whether it is done.
    pub(super) fn is_done_soon(&self) -> bool {
        self.device.is_done_soon()
    }

    /// Returns the index of the queue's family.
    pub fn queue_family(&self) -> u32 {
        self.device.queue_family
    }

    /// Returns the number of valid bits of a timestamp on this queue; 0 if it has no timestamps.
    pub fn timestamp_valid_bits(&self) -> u32 {
        self.device.timestamp_valid_bits
    }

    /// Returns the nanoseconds per tick of a timestamp.
    pub fn timestamp_period(&self) -> f32 {
        self.device.physical.timestamp_period
    }

    /// Returns the Vulkan version of the device: the lower of `VkApplicationInfo::apiVersion` and
    /// the physical device's.
    pub fn api_version(&self) -> u32 {
        self.device.physical.api_version
    }

    /// Returns the GPU and driver.
    pub fn identity(&self) -> &Identity {
        &self.device.physical.identity
    }

    /// Returns the driver's name and version, to be displayed.
    pub fn driver(&self) -> &str {
        &self.device.physical.driver
    }

    /// Returns the kind of the GPU.
    pub fn device_type(&self) -> DeviceType {
        self.device.physical.device_type
    }

    /// Returns the device extensions that were enabled.
    pub fn enabled_extensions(&self) -> &[&'static CStr] {
        &self.device.extensions
    }

    /// Returns the features for sharing that were enabled.
    pub fn features(&self) -> Features {
        self.device.features
    }

    /// Returns whether `synchronization2` was enabled: part of Vulkan 1.3, before that of
    /// `VK_KHR_synchronization2`.
    pub fn has_synchronization2(&self) -> bool {
        self.device.synchronization2
    }

    /// Returns the core features that were enabled: those of [`VulkanOptions::core_features`] that
    /// the GPU has.
    pub fn core_features(&self) -> &vk::PhysicalDeviceFeatures {
        &self.device.core_features
    }

    /// Returns whether the validation layer is enabled.
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

/// How long a drop waits for submitted work.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A logical device, its queue, and what they were created from.
struct Device {
    raw: ash::Device,
    queue: vk::Queue,
    queue_family: u32,
    timestamp_valid_bits: u32,
    extensions: Vec<&'static CStr>,
    features: Features,
    synchronization2: bool,
    core_features: vk::PhysicalDeviceFeatures,
    physical: Arc<PhysicalDevice>,
    options: Arc<VulkanOptions>,
    // The queue must not be used by two threads at once.
    lock: Mutex<()>,
    // Last: the instance goes after the device.
    instance: Arc<Instance>,
}

impl Drop for Device {
    fn drop(&mut self) {
        if !self.is_done_soon() {
            tracing::warn!("the work of a Vulkan device does not end; the device is leaked");
            return std::mem::forget(self.instance.clone());
        }
        let _lock = InitLock::take();
        // SAFETY: everything that uses the device holds this object, so nothing does any more; its
        // queue is idle or lost (VUID-vkDestroyDevice-device-05137).
        unsafe { self.raw.destroy_device(None) };
    }
}

impl Device {
    fn create(
        instance: Arc<Instance>,
        physical: Arc<PhysicalDevice>,
        options: Arc<VulkanOptions>,
    ) -> Result<Self> {
        // SAFETY: the handle is the instance's own, here and below.
        let families =
            unsafe { instance.raw.get_physical_device_queue_family_properties(physical.handle) };
        let family = queue_family(&families, options.queue)?;
        let supported = Supported::of(&instance, &physical);
        let cuda_sees =
            |uuid| Ok(cuda::devices()?.iter().any(|device| device.identity.device == uuid));
        let extensions = extensions_to_enable(&physical, &options, &supported, cuda_sees);
        let core_features = both(&options.core_features, &supported.core);

        let mut timeline =
            vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let mut address =
            vk::PhysicalDeviceBufferDeviceAddressFeatures::default().buffer_device_address(true);
        let mut synchronization2 =
            vk::PhysicalDeviceSynchronization2Features::default().synchronization2(true);
        let mut features = vk::PhysicalDeviceFeatures2::default().features(core_features);
        if supported.timeline_semaphore {
            features = features.push_next(&mut timeline);
        }
        if supported.buffer_device_address {
            features = features.push_next(&mut address);
        }
        if supported.synchronization2 {
            features = features.push_next(&mut synchronization2);
        }
        let names: Vec<*const c_char> = extensions.iter().map(|name| name.as_ptr()).collect();
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(family)
            .queue_priorities(&[1.0])];
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&names)
            .push_next(&mut features);
        // SAFETY: all that the info points to outlives the call; the physical device has the
        // extensions, the features and the queue family.
        let raw = unsafe { instance.raw.create_device(physical.handle, &info, None) };
        let raw = raw.map_err(error::vulkan("vkCreateDevice"))?;
        // SAFETY: one queue of this family was requested above.
        let queue = unsafe { raw.get_device_queue(family, 0) };
        tracing::debug!(gpu = %physical.identity.name, uuid = %physical.identity.device, ?extensions,
            "Vulkan device");
        Ok(Self {
            raw,
            queue,
            queue_family: family,
            timestamp_valid_bits: families
                .get(family as usize)
                .map_or(0, |family| family.timestamp_valid_bits),
            extensions,
            features: Features::default()
                .timeline_semaphore(supported.timeline_semaphore)
                .buffer_device_address(supported.buffer_device_address)
                .storage_image_multisample(
                    core_features.shader_storage_image_multisample == vk::TRUE,
                ),
            synchronization2: supported.synchronization2,
            core_features,
            physical,
            options,
            lock: Mutex::new(()),
            instance,
        })
    }

    /// Locks the queue until the guard is dropped.
    fn lock_queue(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data of ours that a panic could leave half-written.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits up to [`IDLE_TIMEOUT`] for all submitted work, and returns whether it is done. Other
    /// threads can use the queue meanwhile.
    fn is_done_soon(&self) -> bool {
        let info = vk::FenceCreateInfo::default();
        // SAFETY: the device is alive, here and below.
        let Ok(fence) = (unsafe { self.raw.create_fence(&info, None) }) else { return false };
        let submitted = {
            let _queue = self.lock_queue();
            // SAFETY: the lock keeps other threads from the queue, and the fence is new. Its signal
            // waits for everything that was submitted before.
            unsafe { self.raw.queue_submit(self.queue, &[], fence) }
        };
        let timeout = IDLE_TIMEOUT.as_nanos() as u64;
        // SAFETY: the fence is alive.
        let wait = |()| unsafe { self.raw.wait_for_fences(&[fence], true, timeout) };
        let result = submitted.and_then(wait);
        // Only then a submit may still use the fence.
        if result != Err(vk::Result::TIMEOUT) {
            // SAFETY: created above, and in use by no submit: it is signalled, was not submitted,
            // or the device is lost.
            unsafe { self.raw.destroy_fence(fence, None) };
        }
        // A lost device executes nothing any more.
        matches!(result, Ok(()) | Err(vk::Result::ERROR_DEVICE_LOST))
    }

    fn wait_idle(&self) -> Result<()> {
        let _queue = self.lock_queue();
        // SAFETY: the device is alive, and the lock keeps other threads from its only queue
        // (vkDeviceWaitIdle requires host access to all queues to be externally synchronised).
        unsafe { self.raw.device_wait_idle() }.map_err(error::vulkan("vkDeviceWaitIdle"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_may_be_used_by_several_threads() {
        fn check<T: Send + Sync + Clone>() {}
        check::<Vulkan>();
        check::<super::super::Cuda>();
    }
}
