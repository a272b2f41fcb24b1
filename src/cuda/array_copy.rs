//! Copies between a level of an array and memory of the host or the device.

use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, sys};

use super::array::Array;
use super::image_descriptors::{self, CopyMemory, CopySize};
use super::library::check;
use super::uses::UsedStream;
use crate::desc::{ImageDesc, ImageKind};
use crate::error::{Invalid, Result};

/// In memory, a copy has the level's texels as they are stored, in rows without gaps: row after
/// row, then slice after slice, layer after layer or face after face. A row of a compressed format
/// is a row of blocks.
impl Array {
    /// Returns the size of a copy of a level, in bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the level doesn't exist or the image is linear.
    pub fn level_bytes(&self, level: u32) -> Result<usize> {
        self.level(level)?;
        Ok(copy_size(self.desc(), level).bytes())
    }

    /// Returns a level's bytes, after all work enqueued on `stream` so far. Blocks until the copy
    /// is done; there is no timeout.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the level doesn't exist, the image is linear
    /// (read [`buffer`](Self::buffer)), or the stream is being captured;
    /// [`Error::Mismatch`](crate::Error::Mismatch) for a stream of another context;
    /// [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuMemcpy3DAsync`, `cuStreamSynchronize`.
    #[doc(alias = "cuMemcpy3DAsync")]
    pub fn read(&self, stream: &CudaStream, level: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.level_bytes(level)?];
        let host = CopyMemory::Host(bytes.as_mut_ptr().cast());
        // SAFETY: the vector has room for the level, and is not touched until the copy is done.
        unsafe { self.copy_host(stream, level, false, host) }?;
        Ok(bytes)
    }

    /// Writes a level's bytes, after all work enqueued on `stream` so far. Blocks until the copy is
    /// done; there is no timeout.
    ///
    /// # Errors
    /// Same as [`read`](Self::read); also [`Error::Invalid`](crate::Error::Invalid) if the number
    /// of bytes is not [`level_bytes`](Self::level_bytes).
    ///
    /// # References
    /// `cuMemcpy3DAsync`, `cuStreamSynchronize`.
    #[doc(alias = "cuMemcpy3DAsync")]
    pub fn write(&self, stream: &CudaStream, level: u32, bytes: &[u8]) -> Result<()> {
        self.check_length(level, bytes.len())?;
        let host = CopyMemory::Host(bytes.as_ptr().cast_mut().cast());
        // SAFETY: the slice is as long as the level, is only read, and is borrowed until the copy
        // is done.
        unsafe { self.copy_host(stream, level, true, host) }
    }

    /// Copies a level into memory on the device, in order with the work on `stream`: into a view of
    /// a [`Buffer`](super::Buffer), or into memory of cudarc's own.
    ///
    /// # Errors
    /// Same as [`read`](Self::read); also [`Error::Invalid`](crate::Error::Invalid) if the memory
    /// does not have [`level_bytes`](Self::level_bytes) bytes, and
    /// [`Error::Mismatch`](crate::Error::Mismatch) for memory of another context.
    ///
    /// # References
    /// `cuMemcpy3DAsync`.
    #[doc(alias = "cuMemcpy3DAsync")]
    pub fn copy_to(
        &self,
        stream: &CudaStream,
        level: u32,
        to: &mut impl DevicePtrMut<u8>,
    ) -> Result<()> {
        self.check_length(level, to.len())?;
        self.check_memory(to.stream())?;
        let current = self.memory().endpoint().enter_stream(stream)?;
        let used = UsedStream::new(&current, stream);
        self.uses().prepare(&current, &used)?;
        // cudarc orders the copy after other uses of the memory, and records it when `_use` is
        // dropped.
        let (address, _use) = to.device_ptr_mut(stream);
        // SAFETY: the memory has room for the level, and belongs to this context (checked above);
        // cudarc does not free it before the copy is done.
        unsafe { self.copy(stream, level, false, CopyMemory::Device(address)) }?;
        self.uses().note(&current, &used);
        Ok(())
    }

    /// Copies memory on the device into a level, in order with the work on `stream`: from a view of
    /// a [`Buffer`](super::Buffer), or from memory of cudarc's own.
    ///
    /// # Errors
    /// Same as [`copy_to`](Self::copy_to).
    ///
    /// # References
    /// `cuMemcpy3DAsync`.
    #[doc(alias = "cuMemcpy3DAsync")]
    pub fn copy_from(
        &self,
        stream: &CudaStream,
        level: u32,
        from: &impl DevicePtr<u8>,
    ) -> Result<()> {
        self.check_length(level, from.len())?;
        self.check_memory(from.stream())?;
        let current = self.memory().endpoint().enter_stream(stream)?;
        let used = UsedStream::new(&current, stream);
        self.uses().prepare(&current, &used)?;
        let (address, _use) = from.device_ptr(stream);
        // SAFETY: as in `copy_to`; the memory is only read.
        unsafe { self.copy(stream, level, true, CopyMemory::Device(address)) }?;
        self.uses().note(&current, &used);
        Ok(())
    }

    fn check_length(&self, level: u32, found: usize) -> Result<()> {
        let expected = self.level_bytes(level)?;
        if found == expected {
            return Ok(());
        }
        Err(Invalid::new("bytes", format!("are {found}, but level {level} has {expected}"))
            .help("pass as many as Array::level_bytes returns")
            .into())
    }

    fn check_memory(&self, stream: &CudaStream) -> Result<()> {
        self.memory().endpoint().check_context("the memory's CUDA context", stream.context())
    }

    /// Copies to or from the host, and waits until it is done.
    ///
    /// # Safety
    /// The memory has as many bytes as the level, and nothing else uses them during the call.
    unsafe fn copy_host(
        &self,
        stream: &CudaStream,
        level: u32,
        to_array: bool,
        host: CopyMemory,
    ) -> Result<()> {
        let _current = self.memory().endpoint().enter_stream(stream)?;
        // SAFETY: the caller's promise; the memory outlives the wait below.
        unsafe { self.copy(stream, level, to_array, host) }?;
        // SAFETY: the context is current and the stream alive.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(stream.cu_stream()) })
    }

    /// Enqueues a copy. The context must be current, and the stream of it.
    ///
    /// # Safety
    /// The memory has as many bytes as the level, and is used by nothing else until the copy is
    /// done.
    unsafe fn copy(
        &self,
        stream: &CudaStream,
        level: u32,
        to_array: bool,
        memory: CopyMemory,
    ) -> Result<()> {
        let size = copy_size(self.desc(), level);
        let copy = image_descriptors::copy(self.level(level)?, to_array, memory, size);
        // SAFETY: the structure is complete and is read before the call returns; the copy stays
        // within the level and, as the caller promises, within the memory; the array lives until
        // the copy is done (`Shared::drop`).
        check("cuMemcpy3DAsync", unsafe {
            sys::cuMemcpy3DAsync_v2(copy.as_ptr(), stream.cu_stream())
        })
    }
}

/// Returns the size of a level of a valid description.
fn copy_size(desc: &ImageDesc, level: u32) -> CopySize {
    let extent = desc.extent.at_level(level);
    let slices = if desc.kind == ImageKind::D3 { extent.depth } else { desc.layers };
    CopySize {
        row: desc.format.row_bytes(extent.width) as usize,
        rows: desc.format.rows(extent.height) as usize,
        slices: slices as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{Extent, ImageUsage};
    use crate::format::Format;

    #[test]
    fn a_level_is_copied_with_all_its_slices_layers_or_faces() {
        let plain = ImageDesc::d2(Format::Rgba8Unorm, 7, 5, ImageUsage::SAMPLED);
        let d1 = Extent { width: 7, height: 1, depth: 1 };
        let d3 = Extent { width: 7, height: 5, depth: 6 };
        let cube = Extent { width: 8, height: 8, depth: 1 };
        for (desc, level, size) in [
            (plain, 0, (28, 5, 1)),
            (ImageDesc { levels: 3, ..plain }, 1, (12, 2, 1)),
            (ImageDesc { levels: 3, ..plain }, 2, (4, 1, 1)),
            (ImageDesc { layers: 3, ..plain }, 0, (28, 5, 3)),
            (ImageDesc { format: Format::Bc1RgbaUnorm, ..plain }, 0, (2 * 8, 2, 1)),
            (ImageDesc { kind: ImageKind::D1, extent: d1, layers: 4, ..plain }, 0, (28, 1, 4)),
            (ImageDesc { kind: ImageKind::D3, extent: d3, levels: 3, ..plain }, 1, (12, 2, 3)),
            (ImageDesc { kind: ImageKind::Cube, extent: cube, layers: 6, ..plain }, 0, (32, 8, 6)),
        ] {
            desc.validate().unwrap();
            let (row, rows, slices) = size;
            assert_eq!(copy_size(&desc, level), CopySize { row, rows, slices }, "{desc:?}");
        }
    }
}
