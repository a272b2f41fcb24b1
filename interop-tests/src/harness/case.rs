//! One case of the conformance matrix.

use std::fmt;

use anyhow::Result;
use gpu_interop::{Api, ImageDesc, SemaphoreKind};

use super::machine::TestGpu;

/// What a case can't do without. Where it is missing, the case is skipped with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// OpenGL with memory objects.
    Gl,
    /// CUDA.
    Cuda,
    /// A semaphore of this kind that Vulkan exports and this API imports, by opaque fd.
    Semaphore(Api, SemaphoreKind),
    /// Such an image, that Vulkan exports and this API imports, by opaque fd.
    Image(Api, ImageDesc),
    /// Memory as dma-buf, exported by Vulkan.
    DmaBufExport,
    /// Memory that the host can map, exported by Vulkan as opaque fd.
    HostVisibleExport,
    /// Such an image in memory that the host can map, exported by Vulkan as opaque fd.
    HostVisibleImage(ImageDesc),
    /// This many bytes of memory, free on the host and present on the GPU.
    MemoryBytes(u64),
    /// CUDA kernels in a Vulkan queue, linked by CUDA.
    SameQueue,
    /// A driver that runs work asynchronously, on a GPU.
    Hardware,
    /// The Khronos validation layer.
    Validation,
}

/// A driver's bug that makes a case fail.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedFailure {
    /// Part of the driver's name and version, as [`TestGpu::driver`] tells it.
    pub driver: &'static str,
    /// What the driver does wrong.
    pub why: &'static str,
}

/// What a case does. An error fails it.
pub(super) type CaseFn = Box<dyn Fn(&TestGpu) -> Result<()> + Send>;

/// One case of the conformance matrix.
pub struct Case {
    pub(super) name: String,
    pub(super) needs: Vec<Need>,
    pub(super) expected_failures: Vec<ExpectedFailure>,
    pub(super) run: CaseFn,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish()
    }
}

impl Case {
    /// A case with a name like `vulkan→gl/opaque_fd/buffer/aliases`, ending in the number of its row
    /// in the conformance matrix.
    pub fn new(
        name: impl Into<String>,
        run: impl Fn(&TestGpu) -> Result<()> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            needs: Vec::new(),
            expected_failures: Vec::new(),
            run: Box::new(run),
        }
    }

    /// Adds what the case can't do without.
    #[must_use]
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// Adds a driver on which the case fails, and why. Where it passes there all the same, the run
    /// fails, so that the note doesn't outlive the bug.
    #[must_use]
    pub fn expected_failure(mut self, driver: &'static str, why: &'static str) -> Self {
        self.expected_failures.push(ExpectedFailure { driver, why });
        self
    }
}
