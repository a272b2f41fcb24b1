//! A device that is described by addresses and integers.

use std::ffi::{CStr, c_void};
use std::mem;

use ash::vk::{self, Handle};

use super::device_info::Features;
use crate::error::{Api, Invalid, Missing, Result};

/// A Vulkan device as the address of its loader and integer handles, for bindings other than `ash`
/// (vulkanalia, for example) and for other languages. Otherwise like
/// [`DeviceInfo`](super::DeviceInfo).
///
/// # Examples
/// A C function that creates an endpoint. A Rust application that uses vulkanalia fills in the same
/// fields: `instance.handle().as_raw() as u64`, and likewise for the devices.
/// ```no_run
/// use std::ffi::c_void;
///
/// use gpu_interop::ash::{self, vk};
/// use gpu_interop::vulkan::{Endpoint, Features, RawDeviceInfo};
///
/// /// Returns null on failure.
/// ///
/// /// # Safety
/// /// The handles belong together, VK_KHR_external_memory_fd and VK_KHR_external_semaphore_fd are
/// /// enabled, and the device outlives the endpoint.
/// #[unsafe(no_mangle)]
/// unsafe extern "C" fn interop_open(
///     get_instance_proc_addr: *const c_void,
///     instance: u64,
///     physical_device: u64,
///     device: u64,
/// ) -> *mut Endpoint {
///     let raw = RawDeviceInfo {
///         get_instance_proc_addr,
///         instance,
///         physical_device,
///         device,
///         api_version: vk::API_VERSION_1_1,
///         enabled_extensions: &[
///             ash::khr::external_memory_fd::NAME,
///             ash::khr::external_semaphore_fd::NAME,
///         ],
///         features: Features::default(),
///     };
///     // SAFETY: the caller's promise.
///     match unsafe { Endpoint::from_raw(&raw, None) } {
///         Ok(endpoint) => Box::into_raw(Box::new(endpoint)),
///         Err(error) => {
///             eprintln!("{error}");
///             std::ptr::null_mut()
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RawDeviceInfo<'a> {
    /// The address of `vkGetInstanceProcAddr`.
    pub get_instance_proc_addr: *const c_void,
    /// The `VkInstance`.
    pub instance: u64,
    /// The `VkPhysicalDevice`.
    pub physical_device: u64,
    /// The `VkDevice`.
    pub device: u64,
    /// Same as [`DeviceInfo::api_version`](super::DeviceInfo::api_version).
    pub api_version: u32,
    /// Same as
    /// [`DeviceInfo::enabled_extensions`](super::DeviceInfo#structfield.enabled_extensions).
    pub enabled_extensions: &'a [&'a CStr],
    /// Same as [`DeviceInfo::features`](super::DeviceInfo#structfield.features).
    pub features: Features,
}

impl RawDeviceInfo<'_> {
    /// Loads the functions of the instance and of the device.
    ///
    /// # Safety
    /// The address is that of `vkGetInstanceProcAddr`, and the handles are valid and belong
    /// together.
    pub(super) unsafe fn load(&self) -> Result<(ash::Instance, ash::Device)> {
        for (field, is_null) in [
            ("raw.get_instance_proc_addr", self.get_instance_proc_addr.is_null()),
            ("raw.instance", self.instance == 0),
            ("raw.physical_device", self.physical_device == 0),
            ("raw.device", self.device == 0),
        ] {
            if is_null {
                return Err(Invalid::new(field, "is null").into());
            }
        }
        // SAFETY: the caller's promise: the address, which is not null, is that of such a function.
        let get_instance_proc_addr = unsafe {
            mem::transmute::<*const c_void, vk::PFN_vkGetInstanceProcAddr>(
                self.get_instance_proc_addr,
            )
        };
        let handle = vk::Instance::from_raw(self.instance);
        for name in INSTANCE {
            // SAFETY: the caller's promise, and the name is terminated.
            if unsafe { get_instance_proc_addr(handle, name.as_ptr()) }.is_none() {
                let what = format!("the function {}", name.to_string_lossy());
                return Err(Missing::new(Api::Vulkan, what, "external memory")
                    .help("create the instance with VkApplicationInfo::apiVersion of 1.1 or higher")
                    .into());
            }
        }
        // SAFETY: the caller's promise.
        unsafe {
            let instance = ash::Instance::load(&ash::StaticFn { get_instance_proc_addr }, handle);
            let device = ash::Device::load(instance.fp_v1_0(), vk::Device::from_raw(self.device));
            Ok((instance, device))
        }
    }
}

/// The instance functions that are called, some of them of Vulkan 1.1.
const INSTANCE: [&CStr; 8] = [
    c"vkGetDeviceProcAddr",
    c"vkEnumerateDeviceExtensionProperties",
    c"vkGetPhysicalDeviceMemoryProperties",
    c"vkGetPhysicalDeviceProperties2",
    c"vkGetPhysicalDeviceFeatures2",
    c"vkGetPhysicalDeviceImageFormatProperties2",
    c"vkGetPhysicalDeviceExternalBufferProperties",
    c"vkGetPhysicalDeviceExternalSemaphoreProperties",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::vulkan::{Endpoint, fake};

    fn valid() -> RawDeviceInfo<'static> {
        RawDeviceInfo {
            get_instance_proc_addr: fake::get_instance_proc_addr(),
            instance: 1,
            physical_device: 1,
            device: 7,
            api_version: vk::API_VERSION_1_2,
            enabled_extensions: &[],
            features: Features::default(),
        }
    }

    #[test]
    fn an_endpoint_is_over_the_device_with_that_handle() {
        // SAFETY: the fake driver dereferences no handle.
        let endpoint = unsafe { Endpoint::from_raw(&valid(), None) }.unwrap();
        assert_eq!(endpoint.device().handle().as_raw(), 7);
    }

    #[test]
    fn null_handles_are_refused() {
        for (field, raw) in [
            (
                "raw.get_instance_proc_addr",
                RawDeviceInfo { get_instance_proc_addr: std::ptr::null(), ..valid() },
            ),
            ("raw.instance", RawDeviceInfo { instance: 0, ..valid() }),
            ("raw.physical_device", RawDeviceInfo { physical_device: 0, ..valid() }),
            ("raw.device", RawDeviceInfo { device: 0, ..valid() }),
        ] {
            // SAFETY: a null handle is refused before it is used.
            match unsafe { raw.load() } {
                Err(Error::Invalid(refused)) => assert_eq!(refused.parameter, field),
                other => panic!("{field}: {:?}", other.err()),
            }
        }
    }

    #[test]
    fn an_instance_that_lacks_a_function_is_refused() {
        for function in INSTANCE {
            fake::set_lacking(Some(function));
            // SAFETY: the fake driver dereferences no handle.
            let refused = unsafe { valid().load() }.err();
            fake::set_lacking(None);
            assert!(matches!(refused, Some(Error::Missing(_))), "{function:?}: {refused:?}");
        }
    }
}
