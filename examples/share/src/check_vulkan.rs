//! Checking frames with Vulkan.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;
use gpu_interop::session::Frame;
use gpu_interop::vulkan::{Buffer, BufferAccess, FencePool, Semaphore, SemaphoreWait, SubmitSync};

use super::checker::{Checker, NOTHING_FOUND, Parts, TIMEOUT, WARM_UP_BYTES};
use super::frame::Shape;
use super::frame_stats::FrameCheck;
use interop_gpu::vulkan::{Bound, PrivateBuffer, ShaderLayout, VulkanContext, record_host_barrier};

const CHECK: &[u8] = include_bytes!("../../../shaders/check.comp.spv");

/// Bytes of the kernel's counts, with padding.
const FOUND_BYTES: u64 = 16;

#[derive(Debug)]
pub(super) struct VulkanChecker {
    layout: ShaderLayout,
    pipeline: vk::Pipeline,
    slots: Vec<(Buffer, Bound)>,
    command: vk::CommandBuffer,
    /// The buffer that the kernel counts in, and the one that the host reads.
    counted: PrivateBuffer,
    found: PrivateBuffer,
    semaphore: Option<Semaphore>,
    fences: FencePool,
    shape: Shape,
    gpu: VulkanContext,
}

impl VulkanChecker {
    pub(super) fn new(vulkan: &Vulkan, parts: Parts) -> Result<Self> {
        let Parts { shape, buffers, semaphore } = parts;
        let gpu = VulkanContext::new(vulkan.clone())?;
        let mut layout = Shape::layout(vulkan, 2)?;
        let pipeline = layout.compute(CHECK)?;
        let counted = PrivateBuffer::device(vulkan, FOUND_BYTES)?;
        let found = PrivateBuffer::host(vulkan, FOUND_BYTES)?;
        let import = |payload| -> Result<_> {
            let buffer = gpu.endpoint.import_buffer(payload)?;
            let bound =
                layout.bind_windows(buffer.handle(), shape.bytes(), Some(counted.buffer))?;
            Ok((buffer, bound))
        };
        let slots = buffers.into_iter().map(import).collect::<Result<_>>()?;
        let import = |payload| gpu.endpoint.import_semaphore(payload);
        let semaphore = semaphore.map(import).transpose()?;
        let fences = FencePool::new(&gpu.endpoint)?;
        let command = gpu.command_buffers(1)?[0];
        let made = Self {
            layout,
            pipeline,
            slots,
            command,
            counted,
            found,
            semaphore,
            fences,
            shape,
            gpu,
        };
        made.warm_up()?;
        Ok(made)
    }

    /// Runs the kernel once over a private frame: some drivers compile it only then.
    fn warm_up(&self) -> Result<()> {
        let shape = Shape::new(WARM_UP_BYTES)?;
        let frame = PrivateBuffer::device(&self.gpu.vulkan, shape.bytes())?;
        let bound =
            self.layout.bind_windows(frame.buffer, shape.bytes(), Some(self.counted.buffer))?;
        self.gpu.run(|command| {
            // SAFETY: the command buffer is being recorded, and the buffer lives until `run` has waited.
            unsafe {
                self.gpu.device().cmd_fill_buffer(command, frame.buffer, 0, vk::WHOLE_SIZE, 0);
            }
            self.gpu.record_barrier(command);
            shape.record(&self.layout, self.pipeline, command, &bound, 0);
            Ok(())
        })?;
        let sets: Vec<_> = bound.sets.iter().map(|(_, set)| *set).collect();
        self.layout.free(&sets);
        Ok(())
    }

    /// Acquires a slot, records commands by `record`, releases the slot and waits.
    fn run(
        &self,
        slot: usize,
        waits: Vec<SemaphoreWait>,
        record: impl FnOnce(vk::CommandBuffer, &Buffer, &Bound),
    ) -> Result<()> {
        let (buffer, bound) = self.slots.get(slot).context("the ring has no such slot")?;
        let (command, family) = (self.command, self.gpu.vulkan.queue_family());
        self.gpu.begin(command)?;
        let both = BufferAccess::compute(buffer) | BufferAccess::transfer(buffer);
        // SAFETY: recorded outside a render pass, for a queue of this family; the producer has released
        // the buffer, which the host or the submit has waited for.
        unsafe { self.gpu.endpoint.record_acquire(command, family, &[both]) }?;
        record(command, buffer, bound);
        // SAFETY: as above; what was recorded lives as long as the checker, which waits for the device when
        // it is dropped.
        unsafe { self.gpu.endpoint.record_release(command, family, &[both]) }?;
        let mut part = SubmitSync::new(waits, Vec::new());
        let fence = self.fences.next(&mut part)?;
        self.gpu.submit(command, part)?;
        Ok(fence.wait(TIMEOUT)?)
    }
}

impl Checker for VulkanChecker {
    fn check(&mut self, frame: &Frame, number: u32) -> Result<FrameCheck> {
        let mut waits = Vec::new();
        if let (Some(point), Some(semaphore)) = (frame.point(), &self.semaphore) {
            // On the host first: the signal of a producer that died would block the queue indefinitely.
            frame.wait(TIMEOUT, |point, time| semaphore.wait(point.value, time))?;
            let (semaphore, value) = (semaphore.clone(), Some(point.value));
            let stage = vk::PipelineStageFlags::ALL_COMMANDS;
            waits.push(SemaphoreWait { semaphore, value, stage });
        }
        self.run(frame.slot(), waits, |command, _, bound| {
            let device = self.gpu.device();
            // SAFETY: the command buffer is being recorded; the buffers are long enough.
            unsafe {
                let begin = bytemuck::bytes_of(&NOTHING_FOUND);
                device.cmd_update_buffer(command, self.counted.buffer, 0, begin);
            }
            self.gpu.record_barrier(command);
            self.shape.record(&self.layout, self.pipeline, command, bound, number);
            self.gpu.record_barrier(command);
            let region = vk::BufferCopy { src_offset: 0, dst_offset: 0, size: FOUND_BYTES };
            // SAFETY: as above.
            unsafe {
                let (from, to) = (self.counted.buffer, self.found.buffer);
                device.cmd_copy_buffer(command, from, to, &[region]);
            }
            record_host_barrier(device, command);
        })?;
        let mut found = NOTHING_FOUND;
        let bytes = bytemuck::bytes_of_mut(&mut found);
        self.found.with_bytes(bytes.len(), |there| bytes.copy_from_slice(there))?;
        Ok(verdict(found))
    }

    fn read(&mut self, slot: usize) -> Result<Vec<u8>> {
        let bytes = self.shape.bytes();
        let staging = PrivateBuffer::host(&self.gpu.vulkan, bytes)?;
        self.run(slot, Vec::new(), |command, buffer, _| {
            let region = vk::BufferCopy { src_offset: 0, dst_offset: 0, size: bytes };
            let device = self.gpu.device();
            // SAFETY: the command buffer is being recorded; both buffers have that many bytes.
            unsafe {
                device.cmd_copy_buffer(command, buffer.handle(), staging.buffer, &[region]);
            }
            record_host_barrier(device, command);
        })?;
        let mut data = vec![0; usize::try_from(bytes)?];
        staging.with_bytes(data.len(), |there| data.copy_from_slice(there))?;
        Ok(data)
    }
}

impl Drop for VulkanChecker {
    fn drop(&mut self) {
        // Waits before the fields that the work uses are dropped. A lost device has nothing in flight.
        let _ = self.gpu.vulkan.wait_idle();
    }
}

/// Converts the counts of a kernel.
pub(super) fn verdict([right, wrong, first_wrong]: [u32; 3]) -> FrameCheck {
    FrameCheck { right: right.into(), wrong: wrong.into(), first_wrong }
}
