//! The Vulkan loader, an instance with its messenger, and the lock under which contexts are opened
//! and closed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use ash::vk;

use super::error::{self, OPEN_VULKAN};
use super::messages::DebugMessenger;
use super::options::{Validation, VulkanOptions};
use crate::error::{Api, Missing, Result};

const VALIDATION_LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

/// The newest version that this module uses.
const NEWEST: u32 = vk::API_VERSION_1_3;

/// An instance and what must outlive it.
pub(super) struct Instance {
    pub(super) entry: ash::Entry,
    pub(super) raw: ash::Instance,
    /// `VkApplicationInfo::apiVersion`.
    pub(super) api_version: u32,
    /// Whether the validation layer is enabled.
    pub(super) validated: bool,
    messenger: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    // Dropped after the instance, which sends messages until it is destroyed.
    _receiver: Box<DebugMessenger>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _lock = InitLock::take();
        // SAFETY: everything that uses the instance or its devices holds this object, so nothing
        // does any more. The messenger is a child of the instance and is destroyed first
        // (VUID-vkDestroyInstance-instance-00629).
        unsafe {
            if let Some((debug_utils, messenger)) = self.messenger.take() {
                debug_utils.destroy_debug_utils_messenger(messenger, None);
            }
            self.raw.destroy_instance(None);
        }
    }
}

impl Instance {
    pub(super) fn create(options: &VulkanOptions) -> Result<Self> {
        let entry = loaded_entry()?;
        let api_version = supported_version(&entry)?.min(NEWEST);
        let layers = if use_validation(&entry, options)? { vec![VALIDATION_LAYER] } else { vec![] };
        let validated = !layers.is_empty();
        let supported = supported_extensions(&entry, validated)?;
        let mut extensions = Vec::new();
        let receives = options.messages.is_some() || validated;
        if receives && supported.contains(ash::ext::debug_utils::NAME) {
            extensions.push(ash::ext::debug_utils::NAME);
        }
        if validated && options.synchronisation_validation {
            let name = ash::ext::validation_features::NAME;
            if supported.contains(name) {
                extensions.push(name);
            } else if options.validation == Validation::Required {
                let what = "VK_EXT_validation_features";
                return Err(Missing::new(Api::Vulkan, what, "synchronisation validation")
                    .help("install a validation layer of version 1.2 or newer")
                    .into());
            }
        }

        let receiver = DebugMessenger::new(options.messages.clone());
        let sends = extensions.contains(&ash::ext::debug_utils::NAME);
        let checks_hazards = extensions.contains(&ash::ext::validation_features::NAME);
        let names = |names: &[&CStr]| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
        let (layer_names, extension_names): (Vec<*const c_char>, Vec<*const c_char>) =
            (names(&layers), names(&extensions));
        let application = vk::ApplicationInfo::default()
            .application_name(c"gpu-interop")
            .api_version(api_version);
        let mut messenger_info = receiver.create_info();
        let hazards = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
        let mut features =
            vk::ValidationFeaturesEXT::default().enabled_validation_features(&hazards);
        let mut info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_layer_names(&layer_names)
            .enabled_extension_names(&extension_names);
        if sends {
            // For messages during vkCreateInstance and vkDestroyInstance.
            info = info.push_next(&mut messenger_info);
        }
        if checks_hazards {
            info = info.push_next(&mut features);
        }
        // SAFETY: every name and structure that the info points to outlives the call, and the
        // layers and extensions are supported.
        let raw = unsafe { entry.create_instance(&info, None) };
        let raw = raw.map_err(error::vulkan("vkCreateInstance"))?;
        keep_drivers_loaded(&entry);
        // From here on, an error destroys the instance.
        let mut instance =
            Self { entry, raw, api_version, validated, messenger: None, _receiver: receiver };
        if sends {
            let debug_utils = ash::ext::debug_utils::Instance::new(&instance.entry, &instance.raw);
            let info = instance._receiver.create_info();
            // SAFETY: the extension is enabled; the receiver stays in its box until after the
            // instance.
            let messenger = unsafe { debug_utils.create_debug_utils_messenger(&info, None) }
                .map_err(error::vulkan("vkCreateDebugUtilsMessengerEXT"))?;
            instance.messenger = Some((debug_utils, messenger));
        }
        tracing::debug!(version = %Version(api_version), validated, "Vulkan instance");
        Ok(instance)
    }
}

/// Loads the loader, which stays loaded for the rest of the process: drivers leave threads and
/// thread-local destructors behind, which must not return into unmapped code.
fn loaded_entry() -> Result<ash::Entry> {
    static ENTRY: Mutex<Option<ash::Entry>> = Mutex::new(None);
    let mut loaded = ENTRY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(entry) = &*loaded {
        return Ok(entry.clone());
    }
    // SAFETY: libvulkan.so.1 is the system's Vulkan loader, whose initialisers may run at any time.
    let entry = unsafe { ash::Entry::load() }.map_err(error::no_vulkan_loader)?;
    Ok(loaded.insert(entry).clone())
}

/// Keeps the drivers loaded for the rest of the process, by one instance that is never destroyed.
///
/// The loader unloads the drivers with the last instance, which NVIDIA's doesn't survive (580.159):
/// every OpenGL context of the process then stops working (it is no longer current, and
/// `eglChooseConfig` fails), and after about 30 times the driver can't be loaded again
/// (`VK_ERROR_INCOMPATIBLE_DRIVER`). It also makes opening faster, with Mesa by a factor of 4.
fn keep_drivers_loaded(entry: &ash::Entry) {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: what the info points to outlives the call; no layer or extension is enabled.
        if let Err(error) = unsafe { entry.create_instance(&info, None) } {
            tracing::warn!(%error, "the Vulkan drivers will be unloaded between instances");
        }
    });
}

/// Returns the loader's version, which must be at least 1.1: Vulkan 1.0 has no UUIDs.
fn supported_version(entry: &ash::Entry) -> Result<u32> {
    // SAFETY: vkEnumerateInstanceVersion has no preconditions.
    let version = unsafe { entry.try_enumerate_instance_version() };
    // A loader without the function is of Vulkan 1.0.
    let version = version.map_err(error::vulkan("vkEnumerateInstanceVersion"))?;
    let version = version.unwrap_or(vk::API_VERSION_1_0);
    if version < vk::API_VERSION_1_1 {
        return Err(Missing::new(Api::Vulkan, "Vulkan 1.1", OPEN_VULKAN)
            .help(format!("install a newer loader than version {}", Version(version)))
            .into());
    }
    Ok(version)
}

/// Returns whether to enable the validation layer.
fn use_validation(entry: &ash::Entry, options: &VulkanOptions) -> Result<bool> {
    if options.validation == Validation::Off {
        return Ok(false);
    }
    // SAFETY: the entry's functions are the loader's; the call has no other preconditions.
    let layers = unsafe { entry.enumerate_instance_layer_properties() }
        .map_err(error::vulkan("vkEnumerateInstanceLayerProperties"))?;
    let installed = layers.iter().any(|layer| layer.layer_name_as_c_str() == Ok(VALIDATION_LAYER));
    if !installed && options.validation == Validation::Required {
        return Err(Missing::new(Api::Vulkan, "VK_LAYER_KHRONOS_validation", "validation")
            .help("install the validation layer (Debian: vulkan-validationlayers)")
            .into());
    }
    Ok(installed)
}

/// Returns the instance extensions of the loader, the drivers and, if enabled, the validation
/// layer.
fn supported_extensions(entry: &ash::Entry, validated: bool) -> Result<BTreeSet<CString>> {
    let mut supported = BTreeSet::new();
    for layer in [None, validated.then_some(VALIDATION_LAYER)] {
        // SAFETY: the layer's name is null-terminated and the layer is installed.
        let extensions = unsafe { entry.enumerate_instance_extension_properties(layer) }
            .map_err(error::vulkan("vkEnumerateInstanceExtensionProperties"))?;
        supported.extend(
            extensions.iter().filter_map(|e| e.extension_name_as_c_str().ok()).map(CStr::to_owned),
        );
    }
    Ok(supported)
}

/// A Vulkan version that can be displayed.
pub(super) struct Version(pub(super) u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.0;
        let (major, minor) = (vk::api_version_major(version), vk::api_version_minor(version));
        write!(f, "{major}.{minor}.{}", vk::api_version_patch(version))
    }
}

static OPENING_OR_CLOSING: Mutex<()> = Mutex::new(());

thread_local! {
    /// How many guards this thread has, one within the other.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Held while an instance, a device or a context is opened or closed, by one thread at a time. A
/// thread may lock it again, to close what it opened if the next step fails.
///
/// Drivers are poorly tested against concurrent initialisation and teardown across APIs. The `drop`
/// of an EGL context describes a deadlock of NVIDIA's.
pub(super) struct InitLock {
    _lock: Option<MutexGuard<'static, ()>>,
}

impl InitLock {
    /// Waits for the lock.
    pub(super) fn take() -> Self {
        let held = HELD.get();
        // The mutex guards no data that a panic could leave half-written.
        let lock = || OPENING_OR_CLOSING.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = (held == 0).then(lock);
        HELD.set(held + 1);
        Self { _lock: lock }
    }
}

impl Drop for InitLock {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_nests_and_is_released() {
        let outer = InitLock::take();
        drop(InitLock::take());
        assert!(OPENING_OR_CLOSING.try_lock().is_err());
        drop(outer);
        std::thread::spawn(|| drop(InitLock::take())).join().unwrap();
    }
}
