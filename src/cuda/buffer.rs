//! Buffers in shared memory, for cudarc's copies and kernel launches.

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, sys};

use super::endpoint::Endpoint;
use super::memory::Memory;
use super::uses::TrackedSlice;
use crate::desc::BufferDesc;
use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::payload::{BufferPayload, check_range};

/// A type that shared memory can be viewed as ("plain old data").
///
/// The memory holds whatever another API or process has written to it, so a type that is valid only
/// for some bit patterns can't be used. (cudarc's `ValidAsZeroBits` only promises that zero is
/// valid.)
///
/// # Safety
/// Every bit pattern is a value of the type. The type has no padding, no pointers and no interior
/// mutability, and its layout is the same on the device.
pub unsafe trait Pod: DeviceRepr + Copy + Send + Sync + 'static {}

macro_rules! pod {
    ($($ty:ty),*) => { $(
        // SAFETY: every bit pattern is a number, and the device represents it in the same way.
        unsafe impl Pod for $ty {}
    )* };
}
pod!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

// SAFETY: an array has no padding between its elements.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// A buffer in shared memory, imported or created by CUDA.
///
/// [`as_view`](Self::as_view) and [`as_view_mut`](Self::as_view_mut) return cudarc's own views, for
/// its copies, its libraries' wrappers and `launch_builder(&f).arg(&mut view)`. A buffer is not
/// `Clone`, because a mutable view borrows it exclusively; clone its [`memory`](Self::memory)
/// instead.
///
/// # Order
/// cudarc orders uses of one buffer in several streams of one context, as it does for its own
/// slices. It knows nothing of other APIs that share the memory, or other `Buffer`s in the same
/// memory: order those with semaphores or fences.
///
/// # Dropping
/// Synchronise the streams that use the buffer before dropping it. Dropping waits up to ten seconds
/// for the uses that cudarc knows of (views in its copies and launches) and for the default stream.
/// After that the memory is leaked, and `CUDA_ERROR_NOT_READY` is recorded in the context. Kernels
/// that use the bare [`device_ptr`](Self::device_ptr), streams that are dropped already, and all
/// uses if cudarc's event tracking is off, are not tracked: unmapping may wait for them
/// (`cuMemFree`) or make them fail.
#[derive(Debug)]
pub struct Buffer {
    bytes: TrackedSlice,
    address: sys::CUdeviceptr,
    offset: u64,
    desc: BufferDesc,
    // Last: the memory is dropped after the buffer in it.
    memory: Memory,
}

impl Endpoint {
    /// Imports a buffer and its memory.
    ///
    /// # Errors
    /// The errors of [`import_memory`](Self::import_memory) and [`Memory::buffer`]; the payload is
    /// returned.
    ///
    /// # References
    /// `cuImportExternalMemory`, `cuExternalMemoryGetMappedBuffer`.
    #[doc(alias = "cuImportExternalMemory")]
    pub fn import_buffer(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.import_duplicate(payload.memory())
            .and_then(|memory| memory.map_buffer(payload.offset(), payload.desc()))
            .map_err(|error| ImportError::new(payload, error))
    }

    /// Creates a buffer in memory that [`Buffer::export`] can export. Its content is undefined.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid,
    /// [`Error::Missing`](crate::Error::Missing) if CUDA can't export memory of this GPU, and
    /// [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuMemCreate` with `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, `cuMemAddressReserve`,
    /// `cuMemMap`, `cuMemSetAccess`.
    #[doc(alias = "cuMemCreate")]
    pub fn create_buffer(&self, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        self.create_memory(desc.size)?.map_buffer(0, desc)
    }
}

impl Memory {
    /// Creates a buffer of `desc` at `offset` bytes into the allocation.
    ///
    /// Imported memory is mapped once, as a whole, when its first buffer is created, and all
    /// buffers are ranges of that mapping. So two buffers that overlap have overlapping addresses
    /// and see each other's writes, which CUDA does not promise for separate mappings.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid or the buffer reaches past
    /// the end; [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuExternalMemoryGetMappedBuffer`.
    #[doc(alias = "cuExternalMemoryGetMappedBuffer")]
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        check_range(offset, desc.size, self.info().allocation_size)?;
        self.map_buffer(offset, desc)
    }

    /// Same as `buffer`, for a valid description that lies inside the allocation.
    fn map_buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        let address = self.address()? + offset;
        let len = usize::try_from(desc.size).map_err(|_| too_large(desc.size))?;
        // SAFETY: the bytes lie inside the memory, which the buffer holds until after `finish`.
        let bytes = unsafe { TrackedSlice::new(self.endpoint(), address, len) }?;
        Ok(Buffer { bytes, address, offset, desc: *desc, memory: self.clone() })
    }
}

impl Buffer {
    /// Returns the address on the GPU, valid as long as the buffer. Prefer a view as a kernel's
    /// argument: cudarc does not track uses of the bare address and does not order them.
    pub fn device_ptr(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Returns the size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a buffer has at least one byte")]
    pub fn len(&self) -> u64 {
        self.desc.size
    }

    /// Returns the buffer's description.
    pub fn desc(&self) -> &BufferDesc {
        &self.desc
    }

    /// Returns the buffer's offset in its memory, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the buffer's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns a view of the whole buffer as `T`s, for reading.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the buffer's size is not a multiple of `T`'s,
    /// or its address is not a multiple of `T`'s alignment.
    pub fn as_view<T: Pod>(&self) -> Result<CudaView<'_, T>> {
        let len = elements::<T>(self.desc.size, self.address)?;
        // SAFETY: the memory has room for that many at that alignment (checked above), and any bits
        // are values of `T` (`Pod`).
        let view = unsafe { self.bytes.slice().as_view().transmute::<T>(len) };
        view.ok_or_else(|| too_large(self.desc.size))
    }

    /// Returns a view of the whole buffer as `T`s, for reading and writing.
    ///
    /// # Errors
    /// Same as [`as_view`](Self::as_view).
    pub fn as_view_mut<T: Pod>(&mut self) -> Result<CudaViewMut<'_, T>> {
        let size = self.desc.size;
        let len = elements::<T>(size, self.address)?;
        // SAFETY: as in `as_view`; what is written as a `T` has no padding, so it is bytes again.
        let view = unsafe { self.bytes.slice_mut().transmute_mut::<T>(len) };
        view.ok_or_else(|| too_large(size))
    }

    /// Exports the buffer; each call returns a payload with a new descriptor.
    ///
    /// # Errors
    /// Same as [`Memory::export`]: CUDA exports only memory that it has created.
    ///
    /// # References
    /// `cuMemExportToShareableHandle`.
    pub fn export(&self) -> Result<BufferPayload> {
        Ok(BufferPayload::new(self.memory.export()?, self.offset, self.desc)?)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (endpoint, memory) = (self.memory.endpoint().clone(), self.memory.clone());
        // SAFETY: called once, here; `memory` keeps the bytes mapped until the uses are done.
        unsafe {
            self.bytes.finish(endpoint, "waiting for the last use of a buffer", move |is_done| {
                if !is_done {
                    memory.leak();
                }
            });
        }
    }
}

/// Returns the number of `T`s in `size` bytes at `address`.
fn elements<T: Pod>(size: u64, address: sys::CUdeviceptr) -> Result<usize> {
    let (each, align) = (size_of::<T>() as u64, align_of::<T>() as u64);
    let name = std::any::type_name::<T>();
    let refuse = |problem: String| Invalid::new("T", problem);
    if each == 0 {
        return Err(refuse(format!("{name} has a size of 0")).into());
    }
    if !size.is_multiple_of(each) {
        let problem = format!("{size} bytes are not a multiple of {name}'s {each} bytes");
        return Err(refuse(problem).help("view the buffer as u8 and slice the view").into());
    }
    if !address.is_multiple_of(align) {
        let problem = format!("{name} is aligned to {align} bytes, but {address:#x} is not");
        return Err(refuse(problem)
            .help("place the buffer at an offset that is a multiple of T's alignment")
            .into());
    }
    usize::try_from(size / each).map_err(|_| too_large(size))
}

fn too_large(size: u64) -> crate::Error {
    Invalid::new("desc.size", format!("{size} bytes exceed the address space")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use proptest::prelude::*;

    #[derive(Clone, Copy)]
    struct Nothing;
    // SAFETY: it has no bits.
    unsafe impl DeviceRepr for Nothing {}
    // SAFETY: as above.
    unsafe impl Pod for Nothing {}

    fn refused<T: Pod>(size: u64, address: u64) -> String {
        match elements::<T>(size, address) {
            Err(Error::Invalid(invalid)) => invalid.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_view_has_a_whole_number_of_aligned_elements() {
        assert_eq!(elements::<u8>(17, 3).unwrap(), 17);
        assert_eq!(elements::<[f32; 4]>(64, 4).unwrap(), 4);
        assert_eq!(elements::<f64>(64, 0x7f00_0000_0008).unwrap(), 8);
        assert!(refused::<u32>(17, 0).contains("multiple of u32's 4 bytes"));
        assert!(refused::<u32>(16, 6).contains("aligned to 4 bytes"));
        assert!(refused::<Nothing>(16, 0).contains("size of 0"));
    }

    proptest! {
        #[test]
        fn a_view_covers_the_buffer_exactly(size in 1u64..1 << 40, address: u64) {
            if let Ok(len) = elements::<u64>(size, address) {
                prop_assert_eq!(len as u64 * 8, size);
                prop_assert_eq!(address % 8, 0);
            } else {
                prop_assert!(size % 8 != 0 || address % 8 != 0);
            }
        }
    }
}
