//! The GPU that a report is about.

use gpu_interop::headless::Vulkan;
use serde::Serialize;

/// The GPU as reports name it.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The name and version of its Vulkan driver.
    pub driver: String,
}

impl Device {
    /// The GPU that `vulkan` was opened on.
    pub fn of(vulkan: &Vulkan) -> Self {
        let identity = vulkan.identity();
        Self {
            name: identity.name.clone(),
            uuid: identity.device.to_string(),
            driver: vulkan.driver().to_owned(),
        }
    }
}
