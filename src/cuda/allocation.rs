//! Memory that CUDA creates for export.

use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use cudarc::driver::{CudaContext, sys};

use super::context::{Current, check, record};
use super::descriptors;
use crate::error::{Api, Invalid, Result};
use crate::fd;

/// Memory created with `cuMemCreate`, which its own GPU can read and write.
#[derive(Debug)]
pub(crate) struct Allocation {
    context: Arc<CudaContext>,
    handle: sys::CUmemGenericAllocationHandle,
    /// In bytes, padded to the granularity.
    size: usize,
    /// The mapped address; 0 until the addresses are reserved.
    address: sys::CUdeviceptr,
    is_mapped: bool,
}

impl Allocation {
    /// Creates and maps at least `size` bytes.
    ///
    /// # References
    /// `cuMemGetAllocationGranularity`, `cuMemCreate`, `cuMemAddressReserve`, `cuMemMap`,
    /// `cuMemSetAccess`.
    pub(crate) fn new(context: &Arc<CudaContext>, size: u64) -> Result<Self> {
        let _current = Current::enter(context)?;
        let device = context.cu_device();
        let prop = descriptors::exportable_memory(device);

        let mut granularity = 0usize;
        // A multiple of the minimum granularity, of which the size must be a multiple.
        let option = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED;
        // SAFETY: the context is current; `prop` is complete and `granularity` is writable.
        check("cuMemGetAllocationGranularity", unsafe {
            sys::cuMemGetAllocationGranularity(&mut granularity, prop.as_ptr(), option)
        })?;
        let size = padded(size, granularity)?;

        let mut handle = 0;
        // SAFETY: as above; the size is a multiple of the granularity and the flags are 0, as required.
        check("cuMemCreate", unsafe { sys::cuMemCreate(&mut handle, size, prop.as_ptr(), 0) })?;
        // From here on, dropping it undoes the steps so far.
        let mut allocation =
            Self { context: context.clone(), handle, size, address: 0, is_mapped: false };

        let mut address = 0;
        // SAFETY: `address` is writable; size and alignment are multiples of the granularity, the
        // driver chooses the address, and the flags are 0, as required.
        check("cuMemAddressReserve", unsafe {
            sys::cuMemAddressReserve(&mut address, size, granularity, 0, 0)
        })?;
        allocation.address = address;
        // SAFETY: the whole allocation is mapped to the whole range, which was reserved just now and
        // is of the same size; offset and flags are 0, as required.
        check("cuMemMap", unsafe { sys::cuMemMap(address, size, 0, handle, 0) })?;
        allocation.is_mapped = true;
        let access = descriptors::read_write(device);
        // SAFETY: the range is the one that was mapped, and one description is given.
        check("cuMemSetAccess", unsafe { sys::cuMemSetAccess(address, size, &access, 1) })?;
        Ok(allocation)
    }

    /// The size in bytes, padding included.
    pub(crate) fn size(&self) -> u64 {
        self.size as u64
    }

    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Exports the memory; each call returns a new descriptor.
    ///
    /// # References
    /// `cuMemExportToShareableHandle`.
    pub(crate) fn export(&self) -> Result<OwnedFd> {
        const CALL: &str = "cuMemExportToShareableHandle";
        let _current = Current::enter(&self.context)?;
        let mut raw: c_int = -1;
        let ty = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        // SAFETY: the memory was created with this handle type, for which the driver writes an int;
        // the flags are 0, as required.
        check(CALL, unsafe {
            sys::cuMemExportToShareableHandle((&raw mut raw).cast(), self.handle, ty, 0)
        })?;
        let raw = fd::check_descriptor(Api::Cuda, CALL, raw)?;
        // SAFETY: a shareable handle of this type is a new file descriptor that belongs to the
        // caller ("once all shareable handles are closed and the allocation is released ...").
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        fd::close_on_exec(fd)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let current = Current::enter(&self.context);
        if self.is_mapped {
            // SAFETY: exactly the range that was mapped. Each buffer in it is gone and has waited for its
            // use (`Buffer::drop`).
            let result = unsafe { sys::cuMemUnmap(self.address, self.size) };
            record(&self.context, "cuMemUnmap", result);
        }
        if self.address != 0 {
            // SAFETY: address and size are those of the reservation, and nothing is mapped there.
            let result = unsafe { sys::cuMemAddressFree(self.address, self.size) };
            record(&self.context, "cuMemAddressFree", result);
        }
        // SAFETY: released once, here. The memory stays alive while an importer holds it.
        let result = unsafe { sys::cuMemRelease(self.handle) };
        record(&self.context, "cuMemRelease", result);
        drop(current);
    }
}

/// `size` rounded up to a multiple of `granularity`.
fn padded(size: u64, granularity: usize) -> Result<usize> {
    usize::try_from(size)
        .ok()
        .and_then(|size| size.checked_next_multiple_of(granularity))
        .ok_or_else(|| {
            Invalid::new("desc.size", format!("{size} bytes exceed the address space")).into()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_padded_to_the_granularity() {
        const MIB: usize = 1 << 20;
        assert_eq!(padded(1, 2 * MIB).unwrap(), 2 * MIB);
        assert_eq!(padded(2 * MIB as u64, 2 * MIB).unwrap(), 2 * MIB);
        assert_eq!(padded(2 * MIB as u64 + 1, 2 * MIB).unwrap(), 4 * MIB);
        assert!(padded(u64::MAX, 2 * MIB).is_err());
        assert!(padded(1, 0).is_err(), "a granularity of 0 is an error, not a panic");
    }
}
