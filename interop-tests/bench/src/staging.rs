//! Host memory that a device copies to and from, mapped once.

use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;
use gpu_interop::ash::vk;

use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

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
        // SAFETY: within the mapping, which has an address each byte of.
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
        // SAFETY: mapped once, by `new`; what copies from and to it was waited for.
        unsafe { self.gpu.device().unmap_memory(self.buffer.memory) };
    }
}
