//! A buffer in shared memory, for cudarc's copies and kernel launches.

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, sys};

use super::endpoint::Endpoint;
use super::memory::Memory;
use super::tracked::TrackedSlice;
use crate::desc::BufferDesc;
use crate::error::{ImportError, ImportResult, Invalid, Result};
use crate::payload::BufferPayload;

/// What a view of shared memory may be made of.
///
/// Whatever another API, or another process, has left in the memory is read as this type.
///
/// # Safety
/// Every pattern of bits is a value of the type, which has no padding, no pointers and no interior
/// mutability, and means the same on the device.
pub unsafe trait Element: DeviceRepr + Copy + Send + Sync + 'static {}

macro_rules! elements {
    ($($ty:ty),*) => { $(
        // SAFETY: a number: every pattern of bits is one, and the device has the same.
        unsafe impl Element for $ty {}
    )* };
}
elements!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

// SAFETY: an array of numbers is numbers side by side.
unsafe impl<T: Element, const N: usize> Element for [T; N] {}

/// A buffer in shared memory, imported or created by CUDA.
///
/// [`as_view`](Self::as_view) and [`as_view_mut`](Self::as_view_mut) are cudarc's own views, for
/// its copies, its libraries' wrappers and `launch_builder(&f).arg(&mut view)`.
///
/// # Order
/// cudarc orders uses of one buffer in several streams of one context, as it does for its own
/// slices. It knows nothing of the other APIs that share the memory, nor of other `Buffer`s in the
/// same memory: those are ordered with semaphores or fences.
///
/// # Dropping
/// Synchronise the streams that use the buffer before dropping it. What cudarc knows of (views in
/// its copies and launches), and the default stream, are waited for, up to ten seconds; then the
/// memory is left mapped for ever and `CUDA_ERROR_NOT_READY` is recorded in the context. Of kernels
/// that were given the bare [`device_ptr`](Self::device_ptr), of streams that are dropped already,
/// and where cudarc's event tracking is off, nothing is known here; unmapping may wait for them
/// (`cuMemFree`) or make them fail.
#[derive(Debug)]
pub struct Buffer {
    bytes: TrackedSlice,
    address: sys::CUdeviceptr,
    offset: u64,
    desc: BufferDesc,
    // Last: the memory goes after the buffer in it.
    memory: Memory,
}

impl Endpoint {
    /// Imports a buffer. The memory it lies in is found at [`Buffer::memory`].
    ///
    /// # Errors
    /// As [`import_memory`](Self::import_memory) and [`Memory::buffer`]; the payload comes back.
    ///
    /// # References
    /// `cuImportExternalMemory`, `cuExternalMemoryGetMappedBuffer`.
    pub fn import_buffer(&self, payload: BufferPayload) -> ImportResult<Buffer, BufferPayload> {
        self.import_duplicate(payload.memory())
            .and_then(|memory| memory.buffer(payload.offset(), payload.desc()))
            .map_err(|error| ImportError::new(payload, error))
    }

    /// A buffer in memory that CUDA makes, to be exported with [`Buffer::export`]. Its content is
    /// undefined.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a description that no API takes,
    /// [`Error::Missing`](crate::Error::Missing) where the GPU's memory can't leave CUDA,
    /// [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuMemCreate` with `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, `cuMemAddressReserve`,
    /// `cuMemMap`, `cuMemSetAccess`.
    #[doc(alias = "cuMemCreate")]
    pub fn create_buffer(&self, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        self.create_memory(desc.size)?.buffer(0, desc)
    }
}

impl Buffer {
    /// `address` is `offset` bytes into `memory`, and `desc.size` bytes from there lie inside it.
    pub(crate) fn new(
        memory: Memory,
        address: sys::CUdeviceptr,
        offset: u64,
        desc: BufferDesc,
    ) -> Result<Self> {
        let len = usize::try_from(desc.size).map_err(|_| too_large(desc.size))?;
        // SAFETY: the bytes lie inside the memory, which this buffer holds until after `finish`.
        let bytes = unsafe { TrackedSlice::new(memory.endpoint(), address, len) }?;
        Ok(Self { bytes, address, offset, desc, memory })
    }

    /// The address on the GPU, valid for as long as the buffer lives. As a kernel's argument it is
    /// used behind cudarc's back, which then orders nothing; prefer a view.
    pub fn device_ptr(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Its size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a buffer has at least one byte")]
    pub fn len(&self) -> u64 {
        self.desc.size
    }

    /// What it is.
    pub fn desc(&self) -> &BufferDesc {
        &self.desc
    }

    /// Where in its memory it begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The memory it lies in.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// All of the buffer as `T`s to read.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) where the buffer is no whole number of `T`s, or
    /// its address is no multiple of `T`'s alignment.
    pub fn as_view<T: Element>(&self) -> Result<CudaView<'_, T>> {
        let len = elements::<T>(self.desc.size, self.address)?;
        // SAFETY: the memory has room for that many at that alignment (checked above), and any bits
        // are values of `T` (`Element`).
        let view = unsafe { self.bytes.slice().as_view().transmute::<T>(len) };
        view.ok_or_else(|| too_large(self.desc.size))
    }

    /// All of the buffer as `T`s to read and write.
    ///
    /// # Errors
    /// As [`as_view`](Self::as_view).
    pub fn as_view_mut<T: Element>(&mut self) -> Result<CudaViewMut<'_, T>> {
        let size = self.desc.size;
        let len = elements::<T>(size, self.address)?;
        // SAFETY: as in `as_view`; what is written as a `T` has no padding, so it is bytes again.
        let view = unsafe { self.bytes.slice_mut().transmute_mut::<T>(len) };
        view.ok_or_else(|| too_large(size))
    }

    /// A new payload of the buffer, each time with a descriptor of its own.
    ///
    /// # Errors
    /// As [`Memory::export`]: only what CUDA has made can be exported.
    ///
    /// # References
    /// `cuMemExportToShareableHandle`.
    pub fn export(&self) -> Result<BufferPayload> {
        Ok(BufferPayload::new(self.memory.export()?, self.offset, self.desc)?)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: once, here.
        let is_done = unsafe {
            self.bytes.finish(self.memory.endpoint(), "waiting for the last use of a buffer")
        };
        if !is_done {
            self.memory.abandon();
        }
    }
}

/// How many `T`s fill `size` bytes at `address`.
fn elements<T: Element>(size: u64, address: sys::CUdeviceptr) -> Result<usize> {
    let (each, align) = (size_of::<T>() as u64, align_of::<T>() as u64);
    let name = std::any::type_name::<T>();
    let refuse = |problem: String| Invalid::new("T", problem);
    if each == 0 {
        return Err(refuse(format!("{name} takes no bytes")).into());
    }
    if !size.is_multiple_of(each) {
        let problem = format!("{size} bytes are no whole number of {name}s of {each} bytes");
        return Err(refuse(problem).help("view the buffer as u8 and take a piece of it").into());
    }
    if !address.is_multiple_of(align) {
        let problem =
            format!("{name} wants a multiple of {align} for an address, not {address:#x}");
        return Err(refuse(problem)
            .help("place the buffer at an offset that is a multiple of T's alignment")
            .into());
    }
    usize::try_from(size / each).map_err(|_| too_large(size))
}

fn too_large(size: u64) -> crate::Error {
    Invalid::new("desc.size", format!("{size} bytes are more than can be addressed")).into()
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
    unsafe impl Element for Nothing {}

    fn refused<T: Element>(size: u64, address: u64) -> String {
        match elements::<T>(size, address) {
            Err(Error::Invalid(invalid)) => invalid.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_view_is_a_whole_number_of_aligned_elements() {
        assert_eq!(elements::<u8>(17, 3).unwrap(), 17);
        assert_eq!(elements::<[f32; 4]>(64, 4).unwrap(), 4);
        assert_eq!(elements::<f64>(64, 0x7f00_0000_0008).unwrap(), 8);
        assert!(refused::<u32>(17, 0).contains("whole number of u32s of 4 bytes"));
        assert!(refused::<u32>(16, 6).contains("multiple of 4"));
        assert!(refused::<Nothing>(16, 0).contains("no bytes"));
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
