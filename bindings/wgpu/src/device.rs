//! Opening a wgpu device with the extensions that sharing needs.

use std::error::Error;
use std::fmt;

use gpu_interop::ash::vk;
use gpu_interop::error::{Api, Invalid, Missing};
use gpu_interop::vulkan;
use wgpu::hal;

/// Why [`request_device`] failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestDeviceError {
    /// The adapter lacks something, or a parameter is wrong.
    Interop(gpu_interop::Error),
    /// `vkCreateDevice` failed.
    Hal(hal::DeviceError),
    /// wgpu could not use the device.
    Wgpu(wgpu::RequestDeviceError),
}

impl fmt::Display for RequestDeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interop(error) => error.fmt(f),
            Self::Hal(error) => write!(f, "vkCreateDevice: {error}"),
            Self::Wgpu(error) => error.fmt(f),
        }
    }
}

impl Error for RequestDeviceError {}

impl<E: Into<gpu_interop::Error>> From<E> for RequestDeviceError {
    fn from(error: E) -> Self {
        Self::Interop(error.into())
    }
}

/// Opens a device and its queue like [`wgpu::Adapter::request_device`], and enables the extensions
/// for sharing memory and semaphores that the GPU has.
///
/// # Errors
/// [`Interop`](RequestDeviceError::Interop) if the adapter is not on the Vulkan backend, or lacks a
/// feature or limit of `desc`; [`Hal`](RequestDeviceError::Hal) if `vkCreateDevice` fails;
/// [`Wgpu`](RequestDeviceError::Wgpu) if wgpu can't use the device.
///
/// # References
/// `vkCreateDevice`, `VK_KHR_external_memory_fd`, `VK_KHR_external_semaphore_fd`.
#[doc(alias = "vkCreateDevice")]
pub fn request_device(
    adapter: &wgpu::Adapter,
    desc: &wgpu::DeviceDescriptor<'_>,
) -> Result<(wgpu::Device, wgpu::Queue), RequestDeviceError> {
    check(adapter, desc)?;
    // SAFETY: the guard's adapter is not destroyed through it.
    let raw = unsafe { adapter.as_hal::<hal::api::Vulkan>() }.ok_or_else(not_vulkan)?;
    let instance = raw.shared_instance();
    let version = api_version(&raw);
    // SAFETY: the instance is valid, and the physical device belongs to it.
    let wanted = unsafe {
        vulkan::Endpoint::wanted_extensions(
            instance.raw_instance(),
            raw.raw_physical_device(),
            version,
        )
    }?;
    let add = move |device: hal::vulkan::CreateDeviceCallbackArgs<'_, '_, '_>| {
        for name in wanted {
            if !device.extensions.contains(&name) {
                device.extensions.push(name);
            }
        }
    };
    // SAFETY: the adapter has the features and limits (`check`). The callback only adds extensions
    // that the physical device supports.
    let open = unsafe {
        raw.open_with_callback(
            desc.required_features,
            &desc.required_limits,
            &desc.memory_hints,
            Some(Box::new(add)),
        )
    }
    .map_err(RequestDeviceError::Hal)?;
    // SAFETY: the device was opened from this adapter with the features of `desc`.
    unsafe { adapter.create_device_from_hal(open, desc) }.map_err(RequestDeviceError::Wgpu)
}

/// Checks what `wgpu::Adapter::request_device` checks, and wgpu-hal takes for granted.
fn check(
    adapter: &wgpu::Adapter,
    desc: &wgpu::DeviceDescriptor<'_>,
) -> Result<(), RequestDeviceError> {
    let lacking = desc.required_features - adapter.features();
    if !lacking.is_empty() {
        let what = format!("wgpu's {lacking:?}");
        return Err(Missing::new(Api::Vulkan, what, "the device's required_features").into());
    }
    let experimental = desc.required_features.intersection(wgpu::Features::all_experimental_mask());
    if !experimental.is_empty() && !desc.experimental_features.is_enabled() {
        return Err(Invalid::new(
            "desc.experimental_features",
            format!("is not enabled, but {experimental:?} is required"),
        )
        .into());
    }
    let mut exceeded = None;
    desc.required_limits.check_limits_with_fail_fn(&adapter.limits(), true, |name, want, have| {
        exceeded = Some(format!("{name} is {want}, but the adapter has {have}"));
    });
    match exceeded {
        Some(problem) => Err(Invalid::new("desc.required_limits", problem)
            .help("request Adapter::limits, or less")
            .into()),
        None => Ok(()),
    }
}

/// The Vulkan version that wgpu uses a device of `adapter` with.
pub(crate) fn api_version(adapter: &hal::vulkan::Adapter) -> u32 {
    // wgpu-hal 30 sets VkApplicationInfo::apiVersion to at most 1.3.
    let newest = vk::API_VERSION_1_3;
    let physical_device = adapter.physical_device_capabilities().properties();
    adapter.shared_instance().instance_api_version().min(physical_device.api_version).min(newest)
}

/// The error for an adapter, a device or a queue of another backend.
pub(crate) fn not_vulkan() -> Invalid {
    Invalid::new("adapter", "is not on wgpu's Vulkan backend")
        .help("create the instance with wgpu::Backends::VULKAN")
}
