//! Whether CUDA kernels can run in the device's queues.

use super::endpoint::Endpoint;
use crate::capabilities::Support;
use crate::error::{Api, Missing};

/// What all of this is needed for.
const NEEDED_FOR: &str = "CUDA kernels in a Vulkan queue";

impl Endpoint {
    /// Whether CUDA kernels can be recorded into command buffers of this device, between its own
    /// commands: no handoff between two APIs is as fast as none.
    ///
    /// Asks no driver: what was enabled decides. There in every build, so that a choice of routes
    /// needs no cargo feature; the calls themselves come with `nvx`.
    ///
    /// # Errors
    /// What is missing: the cargo feature, `VK_NVX_binary_import` or `bufferDeviceAddress`.
    pub fn supports_cuda_launch(&self) -> Support {
        if !cfg!(feature = "nvx") {
            let what = "gpu-interop's cargo feature nvx";
            return Err(Missing::new(Api::Vulkan, what, NEEDED_FOR).help("build with it"));
        }
        if !self.shared.has_extension(ash::nvx::binary_import::NAME) {
            return Err(Missing::new(Api::Vulkan, "VK_NVX_binary_import", NEEDED_FOR).help(
                "enable the device extension, which NVIDIA's driver has, and list it in \
                 DeviceInfo::enabled_extensions",
            ));
        }
        if !self.shared.features.buffer_device_address {
            let what = "the feature bufferDeviceAddress of Vulkan 1.2";
            return Err(Missing::new(Api::Vulkan, what, NEEDED_FOR)
                .help("enable it when the device is created and set it in DeviceInfo::features"));
        }
        Ok(())
    }
}
