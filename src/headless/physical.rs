//! The physical devices that Vulkan sees, and the choice among them.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fmt;

use ash::vk;

use super::error;
use super::instance::{Instance, Version};
use super::options::QueuePreference;
use crate::error::{Api, Missing, Result};
use crate::identity::{Identity, Uuid};

/// What kind of GPU it is; the better kind first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeviceType {
    /// On a card of its own.
    Discrete,
    /// Part of the CPU's chip.
    Integrated,
    /// A virtual machine's share of one.
    Virtual,
    /// None at all: the driver computes on the CPU.
    Cpu,
    /// Something else.
    Other,
}

impl DeviceType {
    fn of(device_type: vk::PhysicalDeviceType) -> Self {
        match device_type {
            vk::PhysicalDeviceType::DISCRETE_GPU => Self::Discrete,
            vk::PhysicalDeviceType::INTEGRATED_GPU => Self::Integrated,
            vk::PhysicalDeviceType::VIRTUAL_GPU => Self::Virtual,
            vk::PhysicalDeviceType::CPU => Self::Cpu,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Cpu => "CPU",
            Self::Other => "other",
        })
    }
}

/// A physical device and what it tells of itself.
pub(super) struct PhysicalDevice {
    pub(super) handle: vk::PhysicalDevice,
    pub(super) identity: Identity,
    pub(super) device_type: DeviceType,
    /// The version it is used with: the lower of the instance's and its own.
    pub(super) api_version: u32,
    /// Nanoseconds a tick of a timestamp query.
    pub(super) timestamp_period: f32,
    /// The driver's name and version.
    pub(super) driver: String,
    pub(super) extensions: BTreeSet<CString>,
}

impl PhysicalDevice {
    /// All physical devices of Vulkan 1.1 or newer, in the driver's order.
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
            tracing::debug!(gpu = %name, "passed over: it has Vulkan 1.0");
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

        let tells_driver = api_version >= vk::API_VERSION_1_2
            || extensions.contains(ash::khr::driver_properties::NAME);
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        if tells_driver {
            properties = properties.push_next(&mut driver);
        }
        // SAFETY: as above; each structure is chained only where the device knows it.
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

    pub(super) fn has(&self, extension: &CStr) -> bool {
        self.extensions.contains(extension)
    }

    /// Whether the device has what came into core with `version` and before that with `extension`.
    pub(super) fn has_since(&self, version: u32, extension: &CStr) -> bool {
        self.api_version >= version || self.has(extension)
    }
}

fn driver_text(driver: &vk::PhysicalDeviceDriverProperties<'_>, version: u32) -> String {
    let name = driver.driver_name_as_c_str().map(CStr::to_string_lossy).unwrap_or_default();
    let info = driver.driver_info_as_c_str().map(CStr::to_string_lossy).unwrap_or_default();
    match (name.is_empty(), info.is_empty()) {
        (false, false) => format!("{name} ({info})"),
        (false, true) => name.into_owned(),
        // Vendors pack this number each in their own way.
        (true, _) => format!("version {version:#x} ({})", Version(version)),
    }
}

/// Picks the GPU with the UUID `wanted`, else the first of the best kind there is.
pub(super) fn choose(devices: Vec<PhysicalDevice>, wanted: Option<Uuid>) -> Result<PhysicalDevice> {
    if devices.is_empty() {
        return Err(Missing::new(Api::Vulkan, "a GPU of Vulkan 1.1 or newer", "a device")
            .help(
                "install a driver (Debian: mesa-vulkan-drivers, which brings one for the CPU too; \
                 scripts/drivers.sh does it), or name its manifest in VK_DRIVER_FILES",
            )
            .into());
    }
    let at = match wanted {
        Some(uuid) => devices.iter().position(|device| device.identity.device == uuid),
        // The first of those of the best kind.
        None => (0..devices.len()).min_by_key(|&at| devices[at].device_type),
    };
    match (at, wanted) {
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

/// Picks the queue family.
pub(super) fn queue_family(
    families: &[vk::QueueFamilyProperties],
    wish: QueuePreference,
) -> Result<u32> {
    let both = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
    let suits_graphics = |flags: vk::QueueFlags| flags.contains(both);
    let compute_only = |flags: vk::QueueFlags| {
        flags.contains(vk::QueueFlags::COMPUTE) && !flags.contains(vk::QueueFlags::GRAPHICS)
    };
    let first = |suits: &dyn Fn(vk::QueueFlags) -> bool| {
        families.iter().position(|family| family.queue_count > 0 && suits(family.queue_flags))
    };
    let found = match wish {
        QueuePreference::GraphicsAndCompute => {
            first(&suits_graphics).or_else(|| first(&compute_only))
        }
        QueuePreference::ComputeOnly => first(&compute_only).or_else(|| first(&suits_graphics)),
    };
    let index = found.and_then(|index| u32::try_from(index).ok());
    index.ok_or_else(|| {
        Missing::new(Api::Vulkan, "a queue family with VK_QUEUE_COMPUTE_BIT", "a device").into()
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
    fn any_gpu_is_the_first_of_the_best_kind() {
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
    fn a_wanted_uuid_is_that_gpu_or_an_error() {
        let all = || (0..3).map(|n| device(n, DeviceType::Cpu)).collect();
        let wanted = |n: u8| Some(Uuid::from_bytes([n; 16]));
        assert_eq!(choose(all(), wanted(1)).unwrap().identity.name, "GPU 1");
        let Err(error) = choose(all(), wanted(9)) else { panic!("there is no such GPU") };
        assert!(matches!(error, Error::Missing(_)), "{error:?}");
        assert!(error.to_string().contains("GPU 2"), "{error}");
        assert!(matches!(choose(vec![], wanted(1)), Err(Error::Missing(_))));
    }

    #[test]
    fn the_queue_family_is_as_wished_where_there_is_a_choice() {
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
}
