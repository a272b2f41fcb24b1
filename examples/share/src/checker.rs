//! What checks frames on the GPU, in the API of the consumer's choice.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gpu_interop::headless::{Cuda, Gl, GpuSelector, VulkanOptions};
use gpu_interop::session::{Frame, Ring};
use gpu_interop::{BufferPayload, SemaphorePayload, Uuid};

use super::check_cuda::CudaChecker;
use super::check_gl::GlChecker;
use super::check_vulkan::VulkanChecker;
use super::frame::Shape;
use super::tally::FrameCheck;

/// How long a frame's drawing and its check take at most.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// What `check` begins its counts with: right, wrong, and the first wrong word.
pub(super) const NOTHING_FOUND: [u32; 3] = [0, 0, u32::MAX];

/// Bytes of a frame that a checker makes for itself, to run its kernel for the first time.
pub(super) const WARM_UP_BYTES: u64 = 4096;

/// The API that a consumer reads frames with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsumerApi {
    /// Vulkan.
    Vulkan,
    /// OpenGL.
    Gl,
    /// CUDA.
    Cuda,
}

impl ConsumerApi {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Gl => "gl",
            Self::Cuda => "cuda",
        }
    }

    /// Checks what can be checked before a ring is known: whether CUDA is installed.
    ///
    /// # Errors
    /// [`Missing`](gpu_interop::error::Missing) if it is not.
    pub fn check_installed(self) -> Result<()> {
        if self == Self::Cuda {
            gpu_interop::cuda::require()?;
        }
        Ok(())
    }

    /// Checks that the API can be opened on a GPU, by opening and closing it.
    ///
    /// # Errors
    /// [`Missing`](gpu_interop::error::Missing) if the machine lacks the API.
    pub fn check(self, device: Uuid) -> Result<()> {
        let gpu = GpuSelector::Uuid(device);
        match self {
            // The producer has opened it.
            Self::Vulkan => {}
            Self::Gl => drop(Gl::open(&gpu)?),
            Self::Cuda => drop(Cuda::open(&gpu)?),
        }
        Ok(())
    }
}

impl fmt::Display for ConsumerApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The frames of a ring, imported.
pub(super) trait Checker: fmt::Debug {
    /// Looks at every word of the frame, which is said to be number `number`, once its drawing is done.
    /// Returns when the GPU is done with the slot.
    ///
    /// # Errors
    /// If the driver fails, takes too long, or the session ends meanwhile. What the frame's words
    /// are is no error, but the verdict.
    fn check(&mut self, frame: &Frame, number: u32) -> Result<FrameCheck>;

    /// The bytes of a slot, whose frame's drawing is done.
    ///
    /// # Errors
    /// If the driver fails.
    fn read(&mut self, slot: usize) -> Result<Vec<u8>>;
}

/// What a ring has, taken apart.
pub(super) struct Parts {
    pub(super) shape: Shape,
    pub(super) buffers: Vec<BufferPayload>,
    pub(super) semaphore: Option<SemaphorePayload>,
}

impl Parts {
    fn new(ring: Ring, shape: Shape) -> Result<(Self, Uuid)> {
        let Ring { slots, mut semaphores, .. } = ring;
        let buffer = |slot: gpu_interop::session::SlotPayload| -> Result<BufferPayload> {
            let payload = slot.into_buffer()?;
            if payload.desc().size < shape.bytes() {
                bail!(
                    "a slot of {} bytes, where frames have {}",
                    payload.desc().size,
                    shape.bytes()
                );
            }
            Ok(payload)
        };
        let buffers = slots.into_iter().map(buffer).collect::<Result<Vec<_>>>()?;
        if semaphores.len() > 1 {
            bail!("{} semaphores, where one is enough", semaphores.len());
        }
        let first = buffers.first().context("a ring without slots")?;
        let device = first.memory().info().identity.device;
        Ok((Self { shape, buffers, semaphore: semaphores.pop() }, device))
    }
}

/// Opens `api` on the GPU that the ring's memory is of, and imports the ring.
///
/// # Errors
/// [`Missing`](gpu_interop::error::Missing) if the API is not there or can't import the memory or
/// the semaphore; and if the driver refuses.
pub(super) fn open(api: ConsumerApi, ring: Ring, shape: Shape) -> Result<Box<dyn Checker>> {
    let (parts, device) = Parts::new(ring, shape)?;
    let wish = GpuSelector::Uuid(device);
    Ok(match api {
        ConsumerApi::Vulkan => {
            let vulkan = gpu_interop::headless::Vulkan::open(&wish, &VulkanOptions::default())?;
            Box::new(VulkanChecker::new(&vulkan, parts)?)
        }
        ConsumerApi::Gl => Box::new(GlChecker::new(Gl::open(&wish)?, parts)?),
        ConsumerApi::Cuda => Box::new(CudaChecker::new(Cuda::open(&wish)?, parts)?),
    })
}
