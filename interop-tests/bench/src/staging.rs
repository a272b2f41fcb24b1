//! Memory of the host that a device copies from and to, mapped permanently.

use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;
use gpu_interop::ash::vk;

use interop_gpu::vulkan::{PrivateBuffer, VulkanContext};

/// A piece of a payload that is copied by itself, so that one is read back while the one before it is
/// uploaded.
const PIECE_BYTES: u64 = 4 << 20;

/// As large as the payload, cut into pieces.
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

    /// If the bytes at `offset` are in this process.
    pub(crate) fn at(&self, offset: u64) -> *mut u8 {
        assert!(offset <= self.bytes());
        // SAFETY: within the mapping, which has an address each byte of.
        unsafe { self.mapped.add(offset as usize) }
    }

    /// Which of the pieces `range` is.
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
