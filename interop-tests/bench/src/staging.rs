//! Host memory that a device copies to and from, mapped once.

use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;
use gpu_interop::ash::vk;

use interop_gpu::Kernel;
use interop_gpu::vulkan::{Bound, PrivateBuffer, VulkanContext};
use ping_pong::Recorded;

/// Size of the pieces that a payload is copied in.
const PIECE_BYTES: u64 = 4 << 20;

/// A staging buffer as large as the payload, divided into pieces.
#[derive(Debug)]
pub(crate) struct Staging {
    gpu: Rc<VulkanContext>,
    buffer: PrivateBuffer,
    mapped: *mut u8,
}

impl Staging {
    pub(crate) fn new(gpu: &Rc<VulkanContext>, bytes: u64) -> Result<Self> {
        let buffer = PrivateBuffer::host(&gpu.vulkan, bytes)?;
        let flags = vk::MemoryMapFlags::empty();
        // SAFETY: the memory is host-visible, and not mapped.
        let mapped = unsafe { gpu.device().map_memory(buffer.memory, 0, vk::WHOLE_SIZE, flags) }?;
        Ok(Self { gpu: gpu.clone(), buffer, mapped: mapped.cast() })
    }

    pub(crate) fn buffer(&self) -> vk::Buffer {
        self.buffer.buffer
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.buffer.bytes
    }

    /// The address of the bytes at `offset`.
    pub(crate) fn at(&self, offset: u64) -> *mut u8 {
        assert!(offset <= self.bytes());
        // SAFETY: within the mapping, each byte of which has an address.
        unsafe { self.mapped.add(offset as usize) }
    }

    /// The index of the piece `range`.
    pub(crate) fn index(&self, range: &Range<u64>) -> usize {
        (range.start / PIECE_BYTES) as usize
    }

    /// The pieces.
    pub(crate) fn pieces(&self) -> Vec<Range<u64>> {
        let bytes = self.bytes();
        let step = PIECE_BYTES as usize;
        (0..bytes).step_by(step).map(|at| at..bytes.min(at + PIECE_BYTES)).collect()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: mapped once, by `new`; all copies from and to it were waited for.
        unsafe { self.gpu.device().unmap_memory(self.buffer.memory) };
    }
}

/// Records `kernel` over `bound`, ordered after all earlier work of the queue.
pub(crate) fn record_kernel(
    gpu: &Rc<VulkanContext>,
    bound: Bound,
    kernel: Kernel,
    groups: u32,
) -> Result<Recorded> {
    let recorded = Recorded::new(gpu, |command| {
        gpu.record_barrier(command);
        gpu.record(command, kernel, &bound, groups);
        Ok(())
    })?;
    Ok(recorded.with(vec![bound]))
}

/// Records a copy of `range`, ordered after all earlier work of the queue and visible to the host.
pub(crate) fn record_copy(
    gpu: &Rc<VulkanContext>,
    from: vk::Buffer,
    to: vk::Buffer,
    range: &Range<u64>,
) -> Result<Recorded> {
    let (start, size) = (range.start, range.end - range.start);
    let region = vk::BufferCopy { src_offset: start, dst_offset: start, size };
    let visible = vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ);
    let (copy, host) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
    let none = vk::DependencyFlags::empty();
    let device = gpu.device();
    Recorded::new(gpu, |command| {
        gpu.record_barrier(command);
        // SAFETY: the command buffer is being recorded, and both buffers are as long as the range.
        unsafe {
            device.cmd_copy_buffer(command, from, to, &[region]);
            device.cmd_pipeline_barrier(command, copy, host, none, &[visible], &[], &[]);
        }
        Ok(())
    })
}
