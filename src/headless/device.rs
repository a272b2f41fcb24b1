//! A logical device with everything for sharing enabled that the GPU has.

use std::ffi::{CStr, c_char};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ash::vk;

use super::error;
use super::init_lock::InitLock;
use super::instance::Instance;
use super::options::VulkanOptions;
use super::physical::{PhysicalDevice, queue_family};
use crate::error::Result;
use crate::vulkan::Features;

/// What shares memory, semaphores and fences by descriptor (the capability halves of these are part
/// of Vulkan 1.1), and runs CUDA kernels where that is built in.
const SHARING: &[&CStr] = &[
    ash::khr::external_memory_fd::NAME,
    ash::khr::external_semaphore_fd::NAME,
    ash::khr::external_fence_fd::NAME,
    ash::ext::external_memory_dma_buf::NAME,
    #[cfg(feature = "nvx")]
    ash::nvx::binary_import::NAME,
];

/// A logical device, its queue, and what they were made of.
pub(super) struct Device {
    pub(super) raw: ash::Device,
    pub(super) queue: vk::Queue,
    pub(super) queue_family: u32,
    pub(super) timestamp_valid_bits: u32,
    pub(super) extensions: Vec<&'static CStr>,
    pub(super) features: Features,
    pub(super) synchronization2: bool,
    pub(super) core_features: vk::PhysicalDeviceFeatures,
    pub(super) physical: Arc<PhysicalDevice>,
    pub(super) options: Arc<VulkanOptions>,
    // The queue must not be used by two threads at once.
    lock: Mutex<()>,
    // Last: the instance goes after the device.
    pub(super) instance: Arc<Instance>,
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.wait_idle() {
            // A lost device, most likely; it is destroyed all the same.
            tracing::error!(%error, "waiting for a Vulkan device before it is destroyed");
        }
        let _turn = InitLock::take();
        // SAFETY: whoever uses the device holds this object, so nothing does any more; its queue is
        // idle or lost (VUID-vkDestroyDevice-device-05137).
        unsafe { self.raw.destroy_device(None) };
    }
}

impl Device {
    pub(super) fn create(
        instance: Arc<Instance>,
        physical: Arc<PhysicalDevice>,
        options: Arc<VulkanOptions>,
    ) -> Result<Self> {
        // SAFETY: the handle is the instance's own, here and below.
        let families =
            unsafe { instance.raw.get_physical_device_queue_family_properties(physical.handle) };
        let family = queue_family(&families, options.queue)?;
        let supported = Supported::of(&instance, &physical);
        let extensions = extensions_to_enable(&physical, &options, &supported);
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
        // SAFETY: all that the info points to outlives the call; the extensions, the features and
        // the queue family are those that the physical device told it has.
        let raw = unsafe { instance.raw.create_device(physical.handle, &info, None) };
        let raw = raw.map_err(error::vulkan("vkCreateDevice"))?;
        // SAFETY: one queue of this family was asked for above.
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
            features: Features {
                timeline_semaphore: supported.timeline_semaphore,
                buffer_device_address: supported.buffer_device_address,
                storage_image_multisample: core_features.shader_storage_image_multisample
                    == vk::TRUE,
            },
            synchronization2: supported.synchronization2,
            core_features,
            physical,
            options,
            lock: Mutex::new(()),
            instance,
        })
    }

    /// Exclusive use of the queue, for as long as the guard lives.
    pub(super) fn lock_queue(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data of ours that a panic could leave half-written.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_idle(&self) -> Result<()> {
        let _queue = self.lock_queue();
        // SAFETY: the device is alive, and no other thread uses its only queue meanwhile
        // (vkDeviceWaitIdle wants host access to all queues externally synchronised).
        unsafe { self.raw.device_wait_idle() }.map_err(error::vulkan("vkDeviceWaitIdle"))
    }
}

/// The features that the GPU has, of those that are made use of.
struct Supported {
    timeline_semaphore: bool,
    buffer_device_address: bool,
    synchronization2: bool,
    core: vk::PhysicalDeviceFeatures,
}

impl Supported {
    fn of(instance: &Instance, physical: &PhysicalDevice) -> Self {
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
        let mut address = vk::PhysicalDeviceBufferDeviceAddressFeatures::default();
        let mut synchronization2 = vk::PhysicalDeviceSynchronization2Features::default();
        let mut features = vk::PhysicalDeviceFeatures2::default();
        if physical.has_since(vk::API_VERSION_1_2, ash::khr::timeline_semaphore::NAME) {
            features = features.push_next(&mut timeline);
        }
        // The extension's function has another name than the core one, which is what people call.
        if physical.api_version >= vk::API_VERSION_1_2 {
            features = features.push_next(&mut address);
        }
        if physical.has_since(vk::API_VERSION_1_3, ash::khr::synchronization2::NAME) {
            features = features.push_next(&mut synchronization2);
        }
        // SAFETY: the handle is the instance's own, and each structure is chained only where the
        // device knows it.
        unsafe { instance.raw.get_physical_device_features2(physical.handle, &mut features) };
        let core = features.features;
        Self {
            timeline_semaphore: timeline.timeline_semaphore == vk::TRUE,
            buffer_device_address: address.buffer_device_address == vk::TRUE,
            synchronization2: synchronization2.synchronization2 == vk::TRUE,
            core,
        }
    }
}

fn extensions_to_enable(
    physical: &PhysicalDevice,
    options: &VulkanOptions,
    supported: &Supported,
) -> Vec<&'static CStr> {
    let mut extensions = Vec::new();
    let mut enable = |name: &'static CStr| {
        if physical.has(name) && !extensions.contains(&name) {
            extensions.push(name);
        }
    };
    SHARING.iter().copied().for_each(&mut enable);
    // What a feature needs where it is not part of the version yet.
    for (supported, version, name) in [
        (supported.timeline_semaphore, vk::API_VERSION_1_2, ash::khr::timeline_semaphore::NAME),
        (supported.synchronization2, vk::API_VERSION_1_3, ash::khr::synchronization2::NAME),
    ] {
        if supported && physical.api_version < version {
            enable(name);
        }
    }
    options.extensions.iter().copied().for_each(&mut enable);
    extensions
}

/// The features that are both wanted and there.
fn both(
    wanted: &vk::PhysicalDeviceFeatures,
    there: &vk::PhysicalDeviceFeatures,
) -> vk::PhysicalDeviceFeatures {
    const COUNT: usize = size_of::<vk::PhysicalDeviceFeatures>() / size_of::<vk::Bool32>();
    type Flags = [vk::Bool32; COUNT];
    // SAFETY: VkPhysicalDeviceFeatures is `repr(C)` with nothing but VkBool32 members, so it has
    // the layout of an array of them, and any value of those is a valid one of these.
    let flags =
        |features| unsafe { std::mem::transmute::<vk::PhysicalDeviceFeatures, Flags>(features) };
    let (wanted, there) = (flags(*wanted), flags(*there));
    let both: Flags =
        std::array::from_fn(|at| u32::from(wanted[at] == vk::TRUE && there[at] == vk::TRUE));
    // SAFETY: as above.
    unsafe { std::mem::transmute::<Flags, vk::PhysicalDeviceFeatures>(both) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_features_that_are_wanted_and_there_are_enabled() {
        let features = vk::PhysicalDeviceFeatures::default;
        let wanted =
            features().robust_buffer_access(true).shader_int64(true).inherited_queries(true);
        let there = features().shader_int64(true).inherited_queries(true).shader_int16(true);
        let enabled = both(&wanted, &there);
        assert_eq!(enabled.robust_buffer_access, vk::FALSE, "the first member");
        assert_eq!(enabled.inherited_queries, vk::TRUE, "the last member");
        assert_eq!((enabled.shader_int64, enabled.shader_int16), (vk::TRUE, vk::FALSE));
    }
}
