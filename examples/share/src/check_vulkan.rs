//! Checking frames with Vulkan.

use anyhow::{Context, Result};
use gpu_interop::ash::vk;
use gpu_interop::headless::Vulkan;
use gpu_interop::session::Frame;
use gpu_interop::vulkan::{
    Buffer, BufferAccess, Endpoint, FencePool, Semaphore, SemaphoreWait, SubmitSync,
};

use super::checker::{Checker, NOTHING_FOUND, Parts, TIMEOUT, WARM_UP_BYTES};
use super::frame::Shape;
use super::frame_stats::FrameCheck;
use super::vulkan_kernel::{Bound, VulkanKernel};
use interop_gpu::vulkan::PrivateBuffer;

const CHECK: &[u8] = include_bytes!("../../../shaders/check.comp.spv");

/// Bytes of the kernel's counts, with padding.
const FOUND_BYTES: u64 = 16;

#[derive(Debug)]
pub(super) struct VulkanChecker {
    // Dropped in this order: the kernel waits for the device.
    kernel: VulkanKernel,
    slots: Vec<(Buffer, Bound)>,
    command: vk::CommandBuffer,
    /// The buffer that the kernel counts in, and the one that the host reads.
    counted: PrivateBuffer,
    found: PrivateBuffer,
    semaphore: Option<Semaphore>,
    fences: FencePool,
    shape: Shape,
    endpoint: Endpoint,
    vulkan: Vulkan,
}

impl VulkanChecker {
    pub(super) fn new(vulkan: &Vulkan, parts: Parts) -> Result<Self> {
        let Parts { shape, buffers, semaphore } = parts;
        let endpoint = vulkan.endpoint()?;
        let kernel = VulkanKernel::new(vulkan, CHECK, 2)?;
        let counted = PrivateBuffer::device(vulkan, FOUND_BYTES)?;
        let found = PrivateBuffer::host(vulkan, FOUND_BYTES)?;
        let import = |payload| -> Result<_> {
            let buffer = endpoint.import_buffer(payload)?;
            let bound = kernel.bind(buffer.handle(), shape.bytes(), Some(counted.buffer))?;
            Ok((buffer, bound))
        };
        let slots = buffers.into_iter().map(import).collect::<Result<_>>()?;
        let semaphore = semaphore.map(|payload| endpoint.import_semaphore(payload)).transpose()?;
        let fences = FencePool::new(&endpoint)?;
        let command = kernel.command_buffers(1)?[0];
        warm_up(vulkan, &kernel, command, counted.buffer)?;
        let vulkan = vulkan.clone();
        Ok(Self {
            kernel,
            slots,
            command,
            counted,
            found,
            semaphore,
            fences,
            shape,
            endpoint,
            vulkan,
        })
    }

    /// Acquires a slot, records commands by `record`, releases the slot and waits.
    fn run(
        &self,
        slot: usize,
        waits: Vec<SemaphoreWait>,
        record: impl FnOnce(vk::CommandBuffer, &Buffer, &Bound),
    ) -> Result<()> {
        let (buffer, bound) = self.slots.get(slot).context("the ring has no such slot")?;
        let (command, family) = (self.command, self.vulkan.queue_family());
        self.kernel.begin(command)?;
        let both = BufferAccess::compute(buffer) | BufferAccess::transfer(buffer);
        // SAFETY: recorded outside a render pass, for a queue of this family; the producer has released
        // the buffer, which the host or the submit has waited for.
        unsafe { self.endpoint.record_acquire(command, family, &[both]) }?;
        record(command, buffer, bound);
        // SAFETY: as above.
        unsafe {
            self.endpoint.record_release(command, family, &[both])?;
            self.vulkan.device().end_command_buffer(command)?;
        }
        let mut part = SubmitSync::new(waits, Vec::new());
        let fence = self.fences.next(&mut part)?;
        self.vulkan.with_queue(|queue| {
            // SAFETY: the queue is guarded and of this device; what was recorded lives as long as the
            // checker, which waits for the device when it is dropped.
            unsafe { part.submit(&self.endpoint, queue, &[command]) }
        })?;
        Ok(fence.wait(TIMEOUT)?)
    }

    fn barrier(&self, command: vk::CommandBuffer, to_host: bool) {
        let (shader, copy) =
            (vk::PipelineStageFlags::COMPUTE_SHADER, vk::PipelineStageFlags::TRANSFER);
        let writes = vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE;
        let (to, reads) = match to_host {
            true => (vk::PipelineStageFlags::HOST, vk::AccessFlags::HOST_READ),
            false => {
                let reads = vk::AccessFlags::SHADER_READ | vk::AccessFlags::TRANSFER_READ;
                (shader | copy, reads | writes)
            }
        };
        let barrier = vk::MemoryBarrier::default().src_access_mask(writes).dst_access_mask(reads);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the command buffer is being recorded.
        unsafe {
            let device = self.vulkan.device();
            device.cmd_pipeline_barrier(command, shader | copy, to, none, &[barrier], &[], &[]);
        }
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
            let device = self.vulkan.device();
            // SAFETY: the command buffer is being recorded; the buffers are long enough.
            unsafe {
                let begin = bytemuck::bytes_of(&NOTHING_FOUND);
                device.cmd_update_buffer(command, self.counted.buffer, 0, begin);
            }
            self.barrier(command, false);
            self.kernel.record(command, bound, self.shape, number);
            self.barrier(command, false);
            let region = vk::BufferCopy { src_offset: 0, dst_offset: 0, size: FOUND_BYTES };
            // SAFETY: as above.
            unsafe {
                let (from, to) = (self.counted.buffer, self.found.buffer);
                device.cmd_copy_buffer(command, from, to, &[region]);
            }
            self.barrier(command, true);
        })?;
        let mut found = NOTHING_FOUND;
        let bytes = bytemuck::bytes_of_mut(&mut found);
        self.found.with_bytes(bytes.len(), |there| bytes.copy_from_slice(there))?;
        Ok(verdict(found))
    }

    fn read(&mut self, slot: usize) -> Result<Vec<u8>> {
        let bytes = self.shape.bytes();
        let staging = PrivateBuffer::host(&self.vulkan, bytes)?;
        self.run(slot, Vec::new(), |command, buffer, _| {
            let region = vk::BufferCopy { src_offset: 0, dst_offset: 0, size: bytes };
            // SAFETY: the command buffer is being recorded; both buffers have that many bytes.
            unsafe {
                let device = self.vulkan.device();
                device.cmd_copy_buffer(command, buffer.handle(), staging.buffer, &[region]);
            }
            self.barrier(command, true);
        })?;
        let mut data = vec![0; usize::try_from(bytes)?];
        staging.with_bytes(data.len(), |there| data.copy_from_slice(there))?;
        Ok(data)
    }
}

/// Runs the kernel once over a private frame: some drivers compile it only then.
fn warm_up(
    vulkan: &Vulkan,
    kernel: &VulkanKernel,
    command: vk::CommandBuffer,
    counted: vk::Buffer,
) -> Result<()> {
    let shape = Shape::new(WARM_UP_BYTES)?;
    let frame = PrivateBuffer::device(vulkan, shape.bytes())?;
    let bound = kernel.bind(frame.buffer, shape.bytes(), Some(counted))?;
    kernel.begin(command)?;
    // SAFETY: the command buffer is being recorded; the buffer is as long. What is submitted is waited
    // for before the buffer goes.
    unsafe {
        vulkan.device().cmd_fill_buffer(command, frame.buffer, 0, vk::WHOLE_SIZE, 0);
        let (copy, shader) =
            (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::COMPUTE_SHADER);
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::SHADER_READ);
        let none = vk::DependencyFlags::empty();
        vulkan.device().cmd_pipeline_barrier(command, copy, shader, none, &[barrier], &[], &[]);
    }
    kernel.record(command, &bound, shape, 0);
    // SAFETY: recorded just now; the queue is guarded.
    unsafe { vulkan.device().end_command_buffer(command) }?;
    let part = SubmitSync::default();
    let endpoint = vulkan.endpoint()?;
    // SAFETY: as above.
    vulkan.with_queue(|queue| unsafe { part.submit(&endpoint, queue, &[command]) })?;
    Ok(vulkan.wait_idle()?)
}

/// Converts the counts of a kernel.
pub(super) fn verdict([right, wrong, first_wrong]: [u32; 3]) -> FrameCheck {
    FrameCheck { right: right.into(), wrong: wrong.into(), first_wrong }
}
