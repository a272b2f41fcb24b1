//! Checks frames on the GPU, in the API that the consumer selects.

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
use super::frame_stats::FrameCheck;

/// Timeout for drawing a frame and checking it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The initial counts of the kernel `check`: right words, wrong words, and the first wrong one.
pub(super) const NOTHING_FOUND: [u32; 3] = [0, 0, u32::MAX];

/// Bytes of the frame that a checker runs its kernel over for the first time.
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
    /// Its name on the command line.
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

/// An API that has imported the slots of a ring.
pub(super) trait Checker: fmt::Debug {
    /// Waits until the frame is drawn, and checks every word of it against frame number `number`. Returns
    /// when the GPU is done with the slot.
    ///
    /// # Errors
    /// If the driver fails, takes too long, or the session ends meanwhile. Wrong words are part of the result.
    fn check(&mut self, frame: &Frame, number: u32) -> Result<FrameCheck>;

    /// Reads the bytes of a slot whose frame is drawn.
    ///
    /// # Errors
    /// If the driver fails.
    fn read(&mut self, slot: usize) -> Result<Vec<u8>>;
}

/// The parts of a ring.
pub(super) struct Parts {
    pub(super) shape: Shape,
    pub(super) buffers: Vec<BufferPayload>,
    pub(super) semaphore: Option<SemaphorePayload>,
}

impl Parts {
    fn new(ring: Ring, shape: Shape) -> Result<(Self, Uuid)> {
        let Ring { slots, mut semaphores, .. } = ring;
        let buffer = |slot: gpu_interop::payload::Payload| -> Result<BufferPayload> {
            let payload = slot.into_buffer()?;
            if payload.desc().size < shape.bytes() {
                bail!(
                    "a slot has {} bytes, but a frame has {}",
                    payload.desc().size,
                    shape.bytes()
                );
            }
            Ok(payload)
        };
        let buffers = slots.into_iter().map(buffer).collect::<Result<Vec<_>>>()?;
        if semaphores.len() > 1 {
            bail!("the ring has {} semaphores; this consumer supports one", semaphores.len());
        }
        let first = buffers.first().context("the ring has no slots")?;
        let device = first.memory().info().identity.device;
        Ok((Self { shape, buffers, semaphore: semaphores.pop() }, device))
    }
}

/// Opens `api` on the GPU that owns the ring's memory, and imports the ring.
///
/// # Errors
/// [`Missing`](gpu_interop::error::Missing) if the API is missing or can't import the memory or the
/// semaphore; otherwise if the driver fails.
pub(super) fn open(api: ConsumerApi, ring: Ring, shape: Shape) -> Result<Box<dyn Checker>> {
    let (parts, device) = Parts::new(ring, shape)?;
    let selector = GpuSelector::Uuid(device);
    Ok(match api {
        ConsumerApi::Vulkan => {
            let vulkan = gpu_interop::headless::Vulkan::open(&selector, &VulkanOptions::default())?;
            Box::new(VulkanChecker::new(&vulkan, parts)?)
        }
        ConsumerApi::Gl => Box::new(GlChecker::new(Gl::open(&selector)?, parts)?),
        ConsumerApi::Cuda => Box::new(CudaChecker::new(Cuda::open(&selector)?, parts)?),
    })
}
