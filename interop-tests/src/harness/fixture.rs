//! What cases run on, and what they require of it.

use anyhow::{Result, bail};
use gpu_interop::{Api, ImageDesc, SemaphoreKind};
use serde::{Deserialize, Serialize};

/// A requirement of a case. If it is missing, the case is skipped with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// OpenGL with memory objects.
    Gl,
    /// CUDA.
    Cuda,
    /// A semaphore of this kind that Vulkan exports and this API imports, as opaque fd.
    Semaphore(Api, SemaphoreKind),
    /// Such an image, which Vulkan exports and this API imports, as opaque fd.
    Image(Api, ImageDesc),
    /// Memory as dma-buf, exported by Vulkan.
    DmaBufExport,
    /// Memory that the host can map, exported by Vulkan as opaque fd.
    HostVisibleExport,
    /// Such an image in memory that the host can map, exported by Vulkan as opaque fd.
    HostVisibleImage(ImageDesc),
    /// This many bytes of memory, free on the host and present on the GPU.
    MemoryBytes(u64),
    /// CUDA kernels in a Vulkan queue (`VK_NVX_binary_import`).
    SameQueue,
    /// A device with the timeline semaphore feature; they need not be exportable.
    TimelineFeature,
    /// A driver that runs work asynchronously on a GPU.
    Hardware,
    /// The Khronos validation layer.
    Validation,
    /// Mesa's lavapipe, whose memory a process can map without a GPU API.
    Lavapipe,
    /// `python3`.
    Python,
}

/// What the cases of a process run on, one after the other: a GPU, except in the tests of this harness.
pub trait Fixture: Sized {
    /// Opens it.
    ///
    /// # Errors
    /// If no case can run.
    fn open() -> Result<Self>;

    /// Describes it for the report.
    fn about(&self) -> About;

    /// The driver's name and version.
    fn driver(&self) -> &str;

    /// Returns why a requirement is not met, or `None` if it is.
    ///
    /// # Errors
    /// If a driver fails: never a reason to skip.
    fn lacks(&self, need: Need) -> Result<Option<String>>;

    /// Frees what is kept for work that is done by now.
    fn free_finished(&self);
}

/// What the report states about a fixture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The GPU.
    pub device: Device,
    /// The APIs.
    pub apis: Vec<ApiState>,
    /// Whether the validation layer is installed and enabled.
    pub validated: bool,
    /// Whether the driver runs on a GPU, not on the CPU.
    pub hardware: bool,
}

/// The GPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The Vulkan driver's name and version.
    pub driver: String,
}

/// Whether an API is available.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApiState {
    /// `vulkan`, `gl` or `cuda`.
    pub api: String,
    /// Why it is absent; `None` if it is available.
    pub absent: Option<String>,
}

impl About {
    /// Fails if an API that `INTEROP_REQUIRE` names is absent.
    pub(super) fn require(&self) -> Result<()> {
        let Ok(required) = std::env::var("INTEROP_REQUIRE") else { return Ok(()) };
        for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match self.apis.iter().find(|state| state.api == name) {
                Some(ApiState { absent: None, .. }) => {}
                Some(ApiState { absent: Some(reason), .. }) => {
                    bail!("INTEROP_REQUIRE names {name}, which is absent: {reason}")
                }
                None => bail!("INTEROP_REQUIRE takes vulkan, gl and cuda, not '{name}'"),
            }
        }
        Ok(())
    }
}
