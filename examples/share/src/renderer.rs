//! Draws frames with Vulkan: the ring's buffers, and a kernel that fills one.

use std::time::Duration;

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::capabilities::SyncMethod;
use gpu_interop::headless::Vulkan;
use gpu_interop::session::{Ring, TimelinePoint};
use gpu_interop::vulkan::{
    Buffer, BufferAccess, BufferOptions, Fence, FencePool, Semaphore, SemaphoreSignal, SubmitSync,
};
use gpu_interop::{BufferDesc, Error, SemaphoreKind};

use super::frame::{Announced, Shape};
use interop_gpu::vulkan::{Bound, ShaderLayout, VulkanContext};

const DRAW: &[u8] = include_bytes!("../../../shaders/draw.comp.spv");

/// Timeout for drawing a frame.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Draws frames into the buffers of a ring.
#[derive(Debug)]
pub struct FrameRenderer {
    layout: ShaderLayout,
    pipeline: vk::Pipeline,
    slots: Vec<Slot>,
    fences: FencePool,
    /// Signalled with a frame's number plus one when the frame is drawn; `None` if the host waits.
    timeline: Option<Semaphore>,
    shape: Shape,
    gpu: VulkanContext,
}

#[derive(Debug)]
struct Slot {
    buffer: Buffer,
    bound: Bound,
    command: vk::CommandBuffer,
    /// Whether it has been released by this device before.
    was_away: bool,
    drawn: Option<Fence>,
}

impl FrameRenderer {
    /// Creates `slots` buffers for frames of `shape` on `vulkan`'s device.
    ///
    /// # Errors
    /// [`Missing`](gpu_interop::error::Missing) if `sync` is a timeline semaphore and the driver can't export
    /// one. Also for [`SyncMethod::Binary`], as a binary signal has only one waiter, and if the driver fails.
    pub fn new(
        vulkan: &Vulkan,
        shape: Shape,
        slots: usize,
        sync: Option<SyncMethod>,
    ) -> Result<Self> {
        let gpu = VulkanContext::new(vulkan.clone())?;
        let endpoint = &gpu.endpoint;
        let timeline = match sync {
            Some(SyncMethod::HostWait) => None,
            Some(SyncMethod::Timeline) => Some(endpoint.create_semaphore(SemaphoreKind::Timeline)?),
            Some(other) => {
                anyhow::bail!("frames have several readers, which {other:?} does not support")
            }
            None => match endpoint.create_semaphore(SemaphoreKind::Timeline) {
                Ok(semaphore) => Some(semaphore),
                Err(Error::Missing(_)) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let mut layout = Shape::layout(vulkan, 1)?;
        let pipeline = layout.compute(DRAW)?;
        let make = |command| -> Result<Slot> {
            let desc = BufferDesc::storage(shape.bytes());
            let buffer = endpoint.create_buffer(&desc, BufferOptions::default())?;
            let bound = layout.bind_windows(buffer.handle(), shape.bytes(), None)?;
            Ok(Slot { buffer, bound, command, was_away: false, drawn: None })
        };
        let commands = gpu.command_buffers(u32::try_from(slots)?)?;
        let slots = commands.into_iter().map(make).collect::<Result<_>>()?;
        let fences = FencePool::new(endpoint)?;
        Ok(Self { layout, pipeline, slots, fences, timeline, shape, gpu })
    }

    /// Returns what is announced: the buffers, the semaphore, and the format of the frames.
    ///
    /// # Errors
    /// If the driver can't export.
    pub fn ring(&self, frames: u32) -> Result<Ring> {
        let announced = Announced { shape: self.shape, frames };
        let mut ring = Ring::new("gpu-interop share", announced.to_string());
        for slot in &self.slots {
            ring = ring.slot(slot.buffer.export()?);
        }
        if let Some(timeline) = &self.timeline {
            ring = ring.semaphore(timeline.export()?);
        }
        Ok(ring)
    }

    /// Returns how consumers wait for a frame to be drawn.
    pub fn sync(&self) -> SyncMethod {
        self.timeline.as_ref().map_or(SyncMethod::HostWait, |_| SyncMethod::Timeline)
    }

    /// Submits the drawing of frame number `frame` into a slot that no consumer holds. Frames are drawn in
    /// the order of their numbers.
    ///
    /// Returns what consumers must wait for; `None` if the host must
    /// [`wait`](Self::wait) before the frame is published.
    ///
    /// # Errors
    /// If the driver fails.
    pub fn draw(&mut self, slot: usize, frame: u32) -> Result<Option<TimelinePoint>> {
        // The command buffer of the frame that was drawn here before.
        self.wait(slot)?;
        let slot = self.slots.get_mut(slot).context("the ring has no such slot")?;
        let (command, family) = (slot.command, self.gpu.vulkan.queue_family());
        self.gpu.begin(command)?;
        let used = [BufferAccess::compute(&slot.buffer)];
        if slot.was_away {
            // SAFETY: recorded outside a render pass, for a queue of this family; the hosts of the
            // consumers have released the slot.
            unsafe { self.gpu.endpoint.record_acquire(command, family, &used) }?;
        }
        self.shape.record(&self.layout, self.pipeline, command, &slot.bound, frame);
        // SAFETY: as above; the buffer is this queue family's, and lives as long as the renderer,
        // which waits for the device when it is dropped.
        unsafe { self.gpu.endpoint.record_release(command, family, &used) }?;
        let value = u64::from(frame) + 1;
        let signal = |semaphore: &Semaphore| SemaphoreSignal {
            semaphore: semaphore.clone(),
            value: Some(value),
        };
        let mut part = SubmitSync::new(Vec::new(), self.timeline.iter().map(signal).collect());
        slot.drawn = Some(self.fences.next(&mut part)?);
        self.gpu.submit(command, part)?;
        slot.was_away = true;
        Ok(self.timeline.as_ref().map(|_| TimelinePoint { semaphore: 0, value }))
    }

    /// Waits on the host until the last frame of a slot is drawn.
    ///
    /// # Errors
    /// If the driver fails, or takes too long.
    pub fn wait(&mut self, slot: usize) -> Result<()> {
        let slot = self.slots.get_mut(slot).context("the ring has no such slot")?;
        slot.drawn.take().map_or(Ok(()), |fence| fence.wait(TIMEOUT)).context("drawing a frame")
    }

    /// The buffer of a slot.
    pub fn buffer(&self, slot: usize) -> Option<&Buffer> {
        self.slots.get(slot).map(|slot| &slot.buffer)
    }
}

impl Drop for FrameRenderer {
    fn drop(&mut self) {
        // Waits before the fields that the work uses are dropped. A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
    }
}
