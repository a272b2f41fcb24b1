//! How a Vulkan device is to be opened.

use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use ash::vk;

use super::messages::{Message, MessageHandler};

/// Whether `VK_LAYER_KHRONOS_validation` watches every call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Validation {
    /// No.
    #[default]
    Off,
    /// Where it is installed.
    IfInstalled,
    /// Yes; opening fails where it is not installed.
    Required,
}

/// Which queue family the device's one queue comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueuePreference {
    /// One that does graphics and compute, else compute.
    #[default]
    GraphicsAndCompute,
    /// One that does compute and no graphics, else one that does both.
    ComputeOnly,
}

/// How a Vulkan device is to be opened. The default has no validation and no additions.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct VulkanOptions {
    /// Whether the validation layer watches.
    pub validation: Validation,
    /// Where the validation layer watches, let it look for hazards between commands too.
    pub synchronisation_validation: bool,
    /// Gets each warning and error; without it they are `tracing` events.
    pub messages: Option<MessageHandler>,
    /// Device extensions beyond those for sharing, enabled where the GPU has them. What an
    /// extension depends on is the caller's to list.
    pub extensions: Vec<&'static CStr>,
    /// Core features, enabled where the GPU has them.
    pub core_features: vk::PhysicalDeviceFeatures,
    /// Which queue family.
    pub queue: QueuePreference,
}

impl VulkanOptions {
    /// Sets whether the validation layer watches.
    #[must_use]
    pub fn validation(mut self, validation: Validation) -> Self {
        self.validation = validation;
        self
    }

    /// Sets whether the validation layer looks for hazards between commands.
    #[must_use]
    pub fn synchronisation_validation(mut self, on: bool) -> Self {
        self.synchronisation_validation = on;
        self
    }

    /// Sets what gets each warning and error. See [`MessageHandler`] for what it may do.
    #[must_use]
    pub fn messages(mut self, handler: impl Fn(Message) + Send + Sync + 'static) -> Self {
        self.messages = Some(Arc::new(handler));
        self
    }

    /// Adds a device extension, enabled where the GPU has it (`ash::khr::swapchain::NAME`, say).
    #[must_use]
    pub fn extension(mut self, name: &'static CStr) -> Self {
        self.extensions.push(name);
        self
    }

    /// Sets the core features, enabled where the GPU has them.
    #[must_use]
    pub fn core_features(mut self, features: vk::PhysicalDeviceFeatures) -> Self {
        self.core_features = features;
        self
    }

    /// Sets which queue family.
    #[must_use]
    pub fn queue(mut self, queue: QueuePreference) -> Self {
        self.queue = queue;
        self
    }
}

impl fmt::Debug for VulkanOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VulkanOptions")
            .field("validation", &self.validation)
            .field("synchronisation_validation", &self.synchronisation_validation)
            .field("messages", &self.messages.is_some())
            .field("extensions", &self.extensions)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
