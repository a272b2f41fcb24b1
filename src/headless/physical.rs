//! The physical devices that Vulkan sees, their features, and the choice among them.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};

use ash::vk;

use super::error::{self, OPEN_VULKAN};
use super::instance::{Instance, Version};
use super::options::{DeviceType, QueuePreference, VulkanOptions};
use crate::error::{Api, Missing, Result};
use crate::identity::{Identity, Uuid};

/// A physical device and its properties.
pub(super) struct PhysicalDevice {
    pub(super) handle: vk::PhysicalDevice,
    pub(super) identity: Identity,
    pub(super) device_type: DeviceType,
    /// The version to use it with: the lower of the instance's and its own.
    pub(super) api_version: u32,
    /// Nanoseconds per tick of a timestamp query.
    pub(super) timestamp_period: f32,
    /// The driver's name and version.
    pub(super) driver: String,
    pub(super) extensions: BTreeSet<CString>,
}

impl PhysicalDevice {
    /// Returns all physical devices of Vulkan 1.1 or newer, in the driver's order.
    pub(super) fn all(instance: &Instance) -> Result<Vec<Self>> {
        // SAFETY: the instance is alive.
        let handles = unsafe { instance.raw.enumerate_physical_devices() }
            .map_err(error::vulkan("vkEnumeratePhysicalDevices"))?;
        let mut devices = Vec::with_capacity(handles.len());
        for handle in handles {
            devices.extend(Self::of(instance, handle)?);
        }
        Ok(devices)
    }

    fn of(instance: &Instance, handle: vk::PhysicalDevice) -> Result<Option<Self>> {
        // SAFETY: the handle is the instance's own, here and below.
        let core = unsafe { instance.raw.get_physical_device_properties(handle) };
        let api_version = core.api_version.min(instance.api_version);
        let name = core.device_name_as_c_str().map(CStr::to_string_lossy).unwrap_or_default();
        if api_version < vk::API_VERSION_1_1 {
            tracing::debug!(gpu = %name, "ignored: it has Vulkan 1.0");
            return Ok(None);
        }
        // SAFETY: as above.
        let extensions = unsafe { instance.raw.enumerate_device_extension_properties(handle) }
            .map_err(error::vulkan("vkEnumerateDeviceExtensionProperties"))?;
        let extensions: BTreeSet<CString> = extensions
            .iter()
            .filter_map(|extension| extension.extension_name_as_c_str().ok())
            .map(CStr::to_owned)
            .collect();

        let has_driver_properties = api_version >= vk::API_VERSION_1_2
            || extensions.contains(ash::khr::driver_properties::NAME);
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        if has_driver_properties {
            properties = properties.push_next(&mut driver);
        }
        // SAFETY: as above; each structure is chained only if the device knows it.
        unsafe { instance.raw.get_physical_device_properties2(handle, &mut properties) };
        Ok(Some(Self {
            handle,
            identity: Identity {
                device: Uuid::from_bytes(id.device_uuid),
                driver: Some(Uuid::from_bytes(id.driver_uuid)),
                name: name.into_owned(),
            },
            device_type: DeviceType::of(core.device_type),
            api_version,
            timestamp_period: core.limits.timestamp_period,
            driver: driver_text(&driver, core.driver_version),
            extensions,
        }))
    }

    /// Returns whether the device has `extension`.
    pub(super) fn has(&self, extension: &CStr) -> bool {
        self.extensions.contains(extension)
    }

    /// Returns whether the device has what is core since `version` and was in `extension` before.
    pub(super) fn has_since(&self, version: u32, extension: &CStr) -> bool {
        self.api_version >= version || self.has(extension)
    }
}

/// The extensions that share memory, semaphores and fences by descriptor (their `_capabilities`
/// counterparts are part of Vulkan 1.1), and with the feature `nvx` the one that runs CUDA kernels.
const SHARING: &[&CStr] = &[
    ash::khr::external_memory_fd::NAME,
    ash::khr::external_semaphore_fd::NAME,
    ash::khr::external_fence_fd::NAME,
    ash::ext::external_memory_dma_buf::NAME,
    #[cfg(feature = "nvx")]
    NVIDIA_BINARY_IMPORT_NEEDS_CUDA,
];

/// `VK_NVX_binary_import`, which is enabled only on a GPU that CUDA sees.
///
/// With it, NVIDIA's `vkCreateDevice` (580.159) calls libcuda, and crashes (SIGSEGV) if `cuInit`
/// fails: for example, if `CUDA_VISIBLE_DEVICES` hides every GPU.
const NVIDIA_BINARY_IMPORT_NEEDS_CUDA: &CStr = ash::nvx::binary_import::NAME;

/// Which of the features that are used here a GPU supports.
#[derive(Default)]
pub(super) struct Supported {
    pub(super) timeline_semaphore: bool,
    pub(super) buffer_device_address: bool,
    pub(super) synchronization2: bool,
    pub(super) core: vk::PhysicalDeviceFeatures,
}

impl Supported {
    pub(super) fn of(instance: &Instance, physical: &PhysicalDevice) -> Self {
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
        let mut address = vk::PhysicalDeviceBufferDeviceAddressFeatures::default();
        let mut synchronization2 = vk::PhysicalDeviceSynchronization2Features::default();
        let mut features = vk::PhysicalDeviceFeatures2::default();
        if physical.has_since(vk::API_VERSION_1_2, ash::khr::timeline_semaphore::NAME) {
            features = features.push_next(&mut timeline);
        }
        // Only from core: the extension's function has another name, which nothing here loads.
        if physical.api_version >= vk::API_VERSION_1_2 {
            features = features.push_next(&mut address);
        }
        if physical.has_since(vk::API_VERSION_1_3, ash::khr::synchronization2::NAME) {
            features = features.push_next(&mut synchronization2);
        }
        // SAFETY: the handle is the instance's own, and each structure is chained only if the
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

/// Returns the device extensions to enable, of those that the GPU has: for sharing, for the
/// features, and from the options.
pub(super) fn extensions_to_enable(
    physical: &PhysicalDevice,
    options: &VulkanOptions,
    supported: &Supported,
    cuda_sees: impl Fn(Uuid) -> Result<bool>,
) -> Vec<&'static CStr> {
    let mut extensions = Vec::new();
    let can_enable = |name: &CStr| {
        // CUDA is queried only for a GPU that has the extension.
        name != NVIDIA_BINARY_IMPORT_NEEDS_CUDA
            || {
                let uuid = physical.identity.device;
                let seen = cuda_sees(uuid);
                if !matches!(seen, Ok(true)) {
                    tracing::debug!(%uuid, ?seen, "VK_NVX_binary_import is left out: CUDA lacks this GPU");
                }
                seen.unwrap_or(false)
            }
    };
    let mut enable = |name: &'static CStr| {
        if physical.has(name) && !extensions.contains(&name) && can_enable(name) {
            extensions.push(name);
        }
    };
    SHARING.iter().copied().for_each(&mut enable);
    // A feature needs its extension before it is core.
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

/// Returns the features that are in both sets.
pub(super) fn both(
    one: &vk::PhysicalDeviceFeatures,
    other: &vk::PhysicalDeviceFeatures,
) -> vk::PhysicalDeviceFeatures {
    const COUNT: usize = size_of::<vk::PhysicalDeviceFeatures>() / size_of::<vk::Bool32>();
    type Flags = [vk::Bool32; COUNT];
    // SAFETY: VkPhysicalDeviceFeatures is `repr(C)` with nothing but VkBool32 members, so it has
    // the layout of an array of them, and any value of those is a valid one of these.
    let flags =
        |features| unsafe { std::mem::transmute::<vk::PhysicalDeviceFeatures, Flags>(features) };
    let (one, other) = (flags(*one), flags(*other));
    let both: Flags =
        std::array::from_fn(|at| u32::from(one[at] == vk::TRUE && other[at] == vk::TRUE));
    // SAFETY: as above.
    unsafe { std::mem::transmute::<Flags, vk::PhysicalDeviceFeatures>(both) }
}

fn driver_text(driver: &vk::PhysicalDeviceDriverProperties<'_>, version: u32) -> String {
    let name = driver.driver_name_as_c_str().map(CStr::to_string_lossy).unwrap_or_default();
    let info = driver.driver_info_as_c_str().map(CStr::to_string_lossy).unwrap_or_default();
    match (name.is_empty(), info.is_empty()) {
        (false, false) => format!("{name} ({info})"),
        (false, true) => name.into_owned(),
        // Each vendor packs this number in its own way.
        (true, _) => format!("version {version:#x} ({})", Version(version)),
    }
}

/// Chooses the GPU with this UUID or, without a UUID, the first of the best kind.
pub(super) fn choose(devices: Vec<PhysicalDevice>, uuid: Option<Uuid>) -> Result<PhysicalDevice> {
    if devices.is_empty() {
        return Err(Missing::new(Api::Vulkan, "a GPU of Vulkan 1.1 or newer", OPEN_VULKAN)
            .help(
                "install a driver (Debian: mesa-vulkan-drivers, which includes one for the CPU; \
                 scripts/drivers.sh does it), or name its manifest in VK_DRIVER_FILES",
            )
            .into());
    }
    let at = match uuid {
        Some(uuid) => devices.iter().position(|device| device.identity.device == uuid),
        None => (0..devices.len()).min_by_key(|&at| devices[at].device_type),
    };
    match (at, uuid) {
        (None, Some(uuid)) => {
            let seen = devices.iter().map(|device| &device.identity);
            Err(error::no_such_gpu(Api::Vulkan, uuid, seen).into())
        }
        (at, _) => {
            let mut devices = devices;
            Ok(devices.swap_remove(at.unwrap_or(0)))
        }
    }
}

/// Chooses the queue family.
pub(super) fn queue_family(
    families: &[vk::QueueFamilyProperties],
    preference: QueuePreference,
) -> Result<u32> {
    let both = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
    let graphics_and_compute = |flags: vk::QueueFlags| flags.contains(both);
    let compute_only = |flags: vk::QueueFlags| {
        flags.contains(vk::QueueFlags::COMPUTE) && !flags.contains(vk::QueueFlags::GRAPHICS)
    };
    let first = |suits: &dyn Fn(vk::QueueFlags) -> bool| {
        families.iter().position(|family| family.queue_count > 0 && suits(family.queue_flags))
    };
    let found = match preference {
        QueuePreference::GraphicsAndCompute => {
            first(&graphics_and_compute).or_else(|| first(&compute_only))
        }
        QueuePreference::ComputeOnly => {
            first(&compute_only).or_else(|| first(&graphics_and_compute))
        }
    };
    let index = found.and_then(|index| u32::try_from(index).ok());
    index.ok_or_else(|| {
        Missing::new(Api::Vulkan, "a queue family with VK_QUEUE_COMPUTE_BIT", OPEN_VULKAN)
            .help("select another GPU")
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn device(number: u8, device_type: DeviceType) -> PhysicalDevice {
        PhysicalDevice {
            handle: vk::PhysicalDevice::null(),
            identity: Identity {
                device: Uuid::from_bytes([number; 16]),
                driver: None,
                name: format!("GPU {number}"),
            },
            device_type,
            api_version: vk::API_VERSION_1_1,
            timestamp_period: 1.0,
            driver: String::new(),
            extensions: BTreeSet::new(),
        }
    }

    #[test]
    fn by_default_the_first_of_the_best_kind_is_chosen() {
        use DeviceType as Type;
        let chosen = |types: &[Type]| {
            let devices = (0u8..).zip(types).map(|(number, &ty)| device(number, ty)).collect();
            choose(devices, None).unwrap().identity.name
        };
        assert_eq!(chosen(&[Type::Cpu]), "GPU 0");
        assert_eq!(chosen(&[Type::Cpu, Type::Discrete, Type::Discrete]), "GPU 1");
        assert_eq!(chosen(&[Type::Other, Type::Cpu, Type::Virtual]), "GPU 2");
        assert_eq!(chosen(&[Type::Virtual, Type::Integrated]), "GPU 1");
    }

    #[test]
    fn a_uuid_selects_that_gpu_or_none() {
        let all = || (0..3).map(|n| device(n, DeviceType::Cpu)).collect();
        let uuid = |n: u8| Some(Uuid::from_bytes([n; 16]));
        assert_eq!(choose(all(), uuid(1)).unwrap().identity.name, "GPU 1");
        let Err(error) = choose(all(), uuid(9)) else { panic!("no GPU has that UUID") };
        assert!(matches!(error, Error::Missing(_)), "{error:?}");
        assert!(error.to_string().contains("GPU 2"), "{error}");
        assert!(matches!(choose(vec![], uuid(1)), Err(Error::Missing(_))));
    }

    #[test]
    fn binary_import_is_enabled_only_on_a_gpu_that_cuda_sees() {
        let name = ash::nvx::binary_import::NAME;
        let (memory, options) =
            (ash::khr::external_memory_fd::NAME, VulkanOptions::default().extension(name));
        let mut gpu = device(1, DeviceType::Discrete);
        gpu.extensions = [name, memory].map(CStr::to_owned).into();
        let enabled = |cuda_sees: fn(Uuid) -> Result<bool>| {
            extensions_to_enable(&gpu, &options, &Supported::default(), cuda_sees)
        };
        assert_eq!(enabled(|_| Ok(false)), [memory]);
        assert_eq!(
            enabled(|_| Err(Missing::new(Api::Cuda, "a visible device", "").into())),
            [memory]
        );
        let with_cuda = enabled(|uuid| Ok(uuid == Uuid::from_bytes([1; 16])));
        assert!(with_cuda.contains(&name) && with_cuda.contains(&memory), "{with_cuda:?}");
    }

    #[test]
    fn the_preferred_queue_family_is_chosen_if_present() {
        use vk::QueueFlags as Flags;
        let families = |flags: &[Flags]| {
            let family = |&flags| vk::QueueFamilyProperties {
                queue_flags: flags,
                queue_count: 1,
                ..Default::default()
            };
            flags.iter().map(family).collect::<Vec<_>>()
        };
        let (graphics, compute) =
            (QueuePreference::GraphicsAndCompute, QueuePreference::ComputeOnly);
        let both = families(&[Flags::TRANSFER, Flags::COMPUTE, Flags::GRAPHICS | Flags::COMPUTE]);
        assert_eq!(queue_family(&both, graphics).unwrap(), 2);
        assert_eq!(queue_family(&both, compute).unwrap(), 1);
        let one = families(&[Flags::GRAPHICS | Flags::COMPUTE]);
        assert_eq!(queue_family(&one, compute).unwrap(), 0);
        assert_eq!(queue_family(&families(&[Flags::COMPUTE]), graphics).unwrap(), 0);
        assert!(queue_family(&families(&[Flags::TRANSFER]), graphics).is_err());
        let mut empty = families(&[Flags::COMPUTE]);
        empty[0].queue_count = 0;
        assert!(queue_family(&empty, compute).is_err());
    }

    #[test]
    fn only_features_in_both_sets_are_enabled() {
        let features = vk::PhysicalDeviceFeatures::default;
        let one = features().robust_buffer_access(true).shader_int64(true).inherited_queries(true);
        let other = features().shader_int64(true).inherited_queries(true).shader_int16(true);
        let enabled = both(&one, &other);
        assert_eq!(enabled.robust_buffer_access, vk::FALSE, "the first member");
        assert_eq!(enabled.inherited_queries, vk::TRUE, "the last member");
        assert_eq!((enabled.shader_int64, enabled.shader_int16), (vk::TRUE, vk::FALSE));
    }
}
