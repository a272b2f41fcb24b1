//! The GPU to open, and the options of a Vulkan device.

use std::ffi::CStr;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ash::vk;

use super::messages::{Message, MessageHandler};
use crate::cuda::{self, Device};
use crate::error::{Api, Error, Invalid, Missing, Result};
use crate::identity::Uuid;

/// The GPU to open.
///
/// Prints and parses as `any`, as a UUID (with or without the `GPU-` of `nvidia-smi -L`) or as
/// `cuda:0`, for command lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GpuSelector {
    /// The first discrete GPU, otherwise an integrated one, otherwise a virtual one, otherwise the
    /// CPU. The default.
    #[default]
    Any,
    /// The GPU with this device UUID, which is the same in every API.
    Uuid(Uuid),
    /// The GPU with this CUDA ordinal, which depends on `CUDA_VISIBLE_DEVICES` and
    /// `CUDA_DEVICE_ORDER`. The other APIs open the same GPU by its UUID.
    CudaOrdinal(usize),
}

impl GpuSelector {
    /// Returns the selected UUID, or `None` for any GPU.
    ///
    /// # Errors
    /// [`Missing`] for a CUDA ordinal if CUDA or that GPU is absent.
    pub(super) fn device_uuid(&self) -> Result<Option<Uuid>> {
        match *self {
            Self::Any => Ok(None),
            Self::Uuid(uuid) => Ok(Some(uuid)),
            Self::CudaOrdinal(ordinal) => cuda_device(ordinal).map(|gpu| Some(gpu.identity.device)),
        }
    }
}

/// Returns the GPU with a CUDA ordinal.
pub(super) fn cuda_device(ordinal: usize) -> Result<Device> {
    let devices = cuda::devices()?;
    let count = devices.len();
    let mut with_ordinal = devices.into_iter().filter(|device| device.ordinal == ordinal);
    with_ordinal.next().ok_or_else(|| {
        Missing::new(Api::Cuda, format!("GPU cuda:{ordinal}"), "opening it by its ordinal")
            .help(format!(
                "use an ordinal below {count}, the number of GPUs that CUDA sees; \
                 CUDA_VISIBLE_DEVICES may hide others"
            ))
            .into()
    })
}

impl From<Uuid> for GpuSelector {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl fmt::Display for GpuSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
            Self::CudaOrdinal(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl FromStr for GpuSelector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("any") {
            return Ok(Self::Any);
        }
        let selector = match text.strip_prefix("cuda:") {
            Some(ordinal) => ordinal.parse().ok().map(Self::CudaOrdinal),
            None => text.parse().ok().map(Self::Uuid),
        };
        selector.ok_or_else(|| {
            Invalid::new("GPU", format!("'{text}' does not name a GPU"))
                .help("use 'any', 'cuda:0' or a UUID such as 6d657361-3232-2e33-2e36-000000000000")
                .into()
        })
    }
}

/// The kind of a GPU, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeviceType {
    /// Discrete: with memory of its own.
    Discrete,
    /// Integrated into the CPU.
    Integrated,
    /// Virtual: a share of a GPU in a virtual machine.
    Virtual,
    /// Software rasteriser.
    Cpu,
    /// Any other kind.
    Other,
}

impl DeviceType {
    pub(super) fn of(device_type: vk::PhysicalDeviceType) -> Self {
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

/// Whether to enable `VK_LAYER_KHRONOS_validation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Validation {
    /// No. The default.
    #[default]
    Off,
    /// Yes, if it is installed.
    IfInstalled,
    /// Yes. Opening fails if it is not installed.
    Required,
}

/// The family of the device's one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueuePreference {
    /// One with graphics and compute, else one with compute. The default.
    #[default]
    GraphicsAndCompute,
    /// One with compute and without graphics, else one with both.
    ComputeOnly,
}

/// The options of a Vulkan device. By default without validation, and with only the extensions and
/// features for sharing.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct VulkanOptions {
    /// Whether to enable the validation layer. [`Validation::Off`] by default.
    pub validation: Validation,
    /// Whether the validation layer, if enabled, also looks for hazards between commands. `false`
    /// by default.
    pub synchronisation_validation: bool,
    /// Receives each warning and error. By default they are `tracing` events.
    pub messages: Option<MessageHandler>,
    /// Device extensions to enable if the GPU has them, in addition to those for sharing. List what
    /// an extension depends on, too. Empty by default.
    pub extensions: Vec<&'static CStr>,
    /// Core features to enable if the GPU has them. None by default.
    pub core_features: vk::PhysicalDeviceFeatures,
    /// The queue family. [`QueuePreference::GraphicsAndCompute`] by default.
    pub queue: QueuePreference,
}

impl VulkanOptions {
    /// Sets whether to enable the validation layer.
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

    /// Sets the receiver of warnings and errors. See [`MessageHandler`] for what it may do.
    #[must_use]
    pub fn messages(mut self, handler: impl Fn(Message) + Send + Sync + 'static) -> Self {
        self.messages = Some(Arc::new(handler));
        self
    }

    /// Adds a device extension, such as `ash::khr::swapchain::NAME`, to enable if the GPU has it.
    #[must_use]
    pub fn extension(mut self, name: &'static CStr) -> Self {
        self.extensions.push(name);
        self
    }

    /// Sets the core features to enable if the GPU has them.
    #[must_use]
    pub fn core_features(mut self, features: vk::PhysicalDeviceFeatures) -> Self {
        self.core_features = features;
        self
    }

    /// Sets the queue family.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_parses_as_it_prints() {
        let uuid = Uuid::from_bytes(*b"mesa22.3.6\0\0\0\0\0\0");
        for gpu in [GpuSelector::Any, GpuSelector::Uuid(uuid), GpuSelector::CudaOrdinal(7)] {
            assert_eq!(gpu.to_string().parse::<GpuSelector>().unwrap(), gpu);
        }
        assert_eq!(format!("GPU-{uuid}").parse::<GpuSelector>().unwrap(), GpuSelector::Uuid(uuid));
        assert_eq!("ANY".parse::<GpuSelector>().unwrap(), GpuSelector::default());
    }

    #[test]
    fn text_that_names_no_gpu_is_refused_with_what_would() {
        for text in ["", "cuda", "cuda:", "cuda:-1", "cuda:x", "0", "GPU-12"] {
            let error = text.parse::<GpuSelector>().unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{text}: {error:?}");
            assert!(error.to_string().contains("cuda:0"), "{error}");
        }
    }
}
