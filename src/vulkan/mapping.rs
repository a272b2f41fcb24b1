//! Memory that the host reads and writes directly.

use std::fmt;
use std::ops::Range;

use ash::vk;

use super::buffer::Buffer;
use super::conv::VkResultExt;
use super::memory::Memory;
use crate::error::{Invalid, Result};

/// Shared memory, mapped into the address space of this process. Keeps the memory alive.
///
/// # Visibility
/// Vulkan commands that are submitted after a write by the host see it: `vkQueueSubmit` makes host
/// writes available. **Only such a submit makes them visible to another API or process.** With
/// NVIDIA's driver (580.159), a CUDA kernel saw the host's first write, but not its second one
/// without a Vulkan submit in between.
///
/// - After a write, record a release into a command buffer, even if it contains nothing else,
///   submit it, and acquire the payload on the other side ([`handoff`](crate::handoff)).
/// - Before a read, let Vulkan acquire the payload, and wait for that submit. The acquire's access
///   must include `VK_PIPELINE_STAGE_HOST_BIT` and `VK_ACCESS_HOST_READ_BIT`
///   ([`BufferAccess::stage`](super::BufferAccess#structfield.stage)).
///
/// # References
/// "Host Write Ordering Guarantees" of the Vulkan specification.
pub struct Mapping {
    address: *mut u8,
    /// The mapped bytes, counted from the start of the memory.
    range: Range<u64>,
    memory: Memory,
}

// SAFETY: the address is that of memory which the mapping keeps alive and mapped, on whichever
// thread it is. Only unsafe methods access the bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("address", &self.address)
            .field("range", &self.range)
            .field("memory", &self.memory)
            .finish()
    }
}

impl Memory {
    /// Maps the whole allocation. It is mapped once, and remains mapped until it is freed.
    ///
    /// # Errors
    /// [`Invalid`] for memory whose type is not host-visible
    /// ([`MemoryLocation::HostVisible`](super::MemoryLocation::HostVisible)), and for adopted
    /// memory, which its owner maps; [`Driver`](crate::Error::Driver) if the driver can't map it.
    ///
    /// # References
    /// `vkMapMemory`.
    #[doc(alias = "vkMapMemory")]
    pub fn map(&self) -> Result<Mapping> {
        Mapping::new(self, 0..self.info().allocation_size)
    }
}

impl Buffer {
    /// Maps the bytes of the buffer.
    ///
    /// # Errors
    /// Same as [`Memory::map`].
    #[doc(alias = "vkMapMemory")]
    pub fn map(&self) -> Result<Mapping> {
        Mapping::new(self.memory(), self.offset()..self.offset() + self.desc().size)
    }
}

impl Mapping {
    /// Maps `range`, which lies within the memory.
    fn new(memory: &Memory, range: Range<u64>) -> Result<Self> {
        let start = memory.map_whole()?;
        let offset = usize::try_from(range.start).map_err(|_| {
            Invalid::new("memory", format!("the host can't address byte {}", range.start))
        })?;
        // SAFETY: the whole allocation is mapped at `start`, and the offset lies within it.
        let address = unsafe { start.add(offset) };
        Ok(Self { address, range, memory: memory.clone() })
    }

    /// Returns the address of the first byte. It is valid as long as this object.
    pub fn as_ptr(&self) -> *mut u8 {
        self.address
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        // The host has mapped as many bytes.
        (self.range.end - self.range.start) as usize
    }

    /// Returns false: a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `data` to `offset` bytes after the start, and flushes it.
    ///
    /// # Safety
    /// During the call neither a GPU nor another thread or process accesses these bytes. Afterwards
    /// the type's rules of [visibility](Self#visibility) apply.
    ///
    /// # Errors
    /// [`Invalid`] if the bytes reach past the end; the errors of [`flush`](Self::flush).
    pub unsafe fn write(&self, offset: usize, data: &[u8]) -> Result<()> {
        let at = self.at(offset, data.len())?;
        // SAFETY: the bytes lie within the mapping (`at`), and `data` is a reference to other
        // memory. The caller promises that nothing else accesses them.
        unsafe { at.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        self.flush()
    }

    /// Copies bytes from `offset` after the start into `data`, as far as they are visible to the
    /// host.
    ///
    /// # Safety
    /// During the call neither a GPU nor another thread or process writes these bytes.
    ///
    /// # Errors
    /// [`Invalid`] if the bytes reach past the end; the errors of [`invalidate`](Self::invalidate).
    pub unsafe fn read(&self, offset: usize, data: &mut [u8]) -> Result<()> {
        let at = self.at(offset, data.len())?;
        self.invalidate()?;
        // SAFETY: the bytes lie within the mapping (`at`), and `data` is a reference to other
        // memory. The caller promises that nothing else writes them.
        unsafe { at.copy_to_nonoverlapping(data.as_mut_ptr(), data.len()) };
        Ok(())
    }

    /// Makes what the host wrote through [`as_ptr`](Self::as_ptr) available to the device. Needed
    /// only for memory that is not coherent, which only
    /// [`MemoryLocation::Type`](super::MemoryLocation::Type) can select; otherwise it does nothing.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if memory runs out.
    ///
    /// # References
    /// `vkFlushMappedMemoryRanges`.
    #[doc(alias = "vkFlushMappedMemoryRanges")]
    pub fn flush(&self) -> Result<()> {
        let Some(range) = self.incoherent() else { return Ok(()) };
        let device = self.memory.endpoint().device();
        // SAFETY: the memory is alive and mapped, and the range lies within it, in units of
        // nonCoherentAtomSize.
        unsafe { device.flush_mapped_memory_ranges(&[range]) }.context("vkFlushMappedMemoryRanges")
    }

    /// Makes what the device wrote, and made available to the host, visible to reads through
    /// [`as_ptr`](Self::as_ptr). Needed only for memory that is not coherent, like
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if memory runs out.
    ///
    /// # References
    /// `vkInvalidateMappedMemoryRanges`.
    #[doc(alias = "vkInvalidateMappedMemoryRanges")]
    pub fn invalidate(&self) -> Result<()> {
        let Some(range) = self.incoherent() else { return Ok(()) };
        let device = self.memory.endpoint().device();
        // SAFETY: as in `flush`.
        unsafe { device.invalidate_mapped_memory_ranges(&[range]) }
            .context("vkInvalidateMappedMemoryRanges")
    }

    /// The range to flush or to invalidate; `None` for coherent memory.
    fn incoherent(&self) -> Option<vk::MappedMemoryRange<'static>> {
        if self.memory.properties().contains(vk::MemoryPropertyFlags::HOST_COHERENT) {
            return None;
        }
        let atom = self.memory.endpoint().non_coherent_atom_size();
        let Range { start, end } = atoms(&self.range, atom, self.memory.info().allocation_size);
        let range = vk::MappedMemoryRange::default().memory(self.memory.handle());
        Some(range.offset(start).size(end - start))
    }

    /// Returns the address of `len` bytes at `offset`.
    fn at(&self, offset: usize, len: usize) -> Result<*mut u8> {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            let problem = format!("{len} bytes at {offset} reach past the {} bytes", self.len());
            return Err(Invalid::new("offset", problem)
                .help("the offset counts from the start of the mapping")
                .into());
        }
        // SAFETY: the offset lies within the mapping.
        Ok(unsafe { self.address.add(offset) })
    }
}

/// Returns `range`, extended to multiples of `atom` or to the end of the memory.
///
/// # References
/// VUID-VkMappedMemoryRange-offset-00687, VUID-VkMappedMemoryRange-size-01390.
fn atoms(range: &Range<u64>, atom: u64, memory: u64) -> Range<u64> {
    let end = range.end.checked_next_multiple_of(atom).unwrap_or(memory);
    range.start - range.start % atom..end.min(memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::vulkan::fake;

    #[test]
    fn a_flushed_range_has_whole_atoms_or_ends_with_the_memory() {
        assert_eq!(atoms(&(0..64), 64, 1000), 0..64);
        assert_eq!(atoms(&(65..66), 64, 1000), 64..128);
        assert_eq!(atoms(&(63..961), 64, 1000), 0..1000);
        assert_eq!(atoms(&(0..u64::MAX), 64, u64::MAX), 0..u64::MAX);
    }

    #[test]
    fn the_owner_of_adopted_memory_maps_it() {
        let refused = fake::buffer(&fake::endpoint(), 1).map();
        let Err(Error::Invalid(refused)) = refused else { panic!("{refused:?}") };
        assert!(refused.problem.contains("adopted"), "{refused}");
    }
}
