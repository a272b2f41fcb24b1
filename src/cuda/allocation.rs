//! Memory of CUDA's own (`cuMemCreate`), which it can export.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, sys};

use super::capture::{Current, free};
use super::descriptors;
use super::library::{check, record};
use crate::error::{Api, Invalid, Mismatch, Result};
use crate::fd;

/// Memory created with `cuMemCreate`, here or by the application, which its own GPU can read and
/// write.
#[derive(Debug)]
pub(super) struct Allocation {
    context: Arc<CudaContext>,
    /// Owned; `None` until it is created or retained.
    handle: Option<sys::CUmemGenericAllocationHandle>,
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
    pub(super) fn new(context: &Arc<CudaContext>, size: u64) -> Result<Self> {
        let _current = Current::enter(context)?;
        let prop = descriptors::exportable_memory(context.cu_device());
        // A multiple of the minimum granularity, of which the size must be a multiple.
        let option = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED;
        let granularity = granularity(&prop, option)?;
        let size = padded(size, granularity)?;
        let mut handle = 0;
        // SAFETY: the context is current; `prop` is complete and `handle` is writable; the size is
        // a multiple of the granularity and the flags are 0, as required.
        check("cuMemCreate", unsafe { sys::cuMemCreate(&mut handle, size, prop.as_ptr(), 0) })?;
        // From here on, dropping it undoes the steps so far.
        let mut allocation = Self {
            context: context.clone(),
            handle: Some(handle),
            size,
            address: 0,
            is_mapped: false,
        };
        allocation.map(handle, granularity)?;
        Ok(allocation)
    }

    /// Maps memory of `size` bytes that the application created, and keeps it alive.
    ///
    /// # Safety
    /// `handle` is valid, and `size` is the size it was created with.
    ///
    /// # References
    /// `cuMemGetAllocationPropertiesFromHandle`, `cuMemRetainAllocationHandle`.
    pub(super) unsafe fn adopt(
        context: &Arc<CudaContext>,
        handle: sys::CUmemGenericAllocationHandle,
        size: u64,
    ) -> Result<Self> {
        let _current = Current::enter(context)?;
        let mut prop = descriptors::exportable_memory(context.cu_device());
        // SAFETY: the context is current, the handle is valid (the caller's promise), and `prop` is
        // writable.
        check("cuMemGetAllocationPropertiesFromHandle", unsafe {
            sys::cuMemGetAllocationPropertiesFromHandle(prop.as_mut_ptr(), handle)
        })?;
        check_adopted(&prop, context.cu_device())?;
        let option = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
        let granularity = granularity(&prop, option)?;
        if size == 0 || padded(size, granularity)? as u64 != size {
            let problem =
                format!("{size} bytes are not a multiple of {granularity}, the granularity");
            return Err(Invalid::new("size", problem)
                .help("pass the size that was passed to cuMemCreate")
                .into());
        }
        let size = padded(size, granularity)?;
        let mut allocation =
            Self { context: context.clone(), handle: None, size, address: 0, is_mapped: false };
        allocation.map(handle, granularity)?;
        let mut own = 0;
        let address = ptr::with_exposed_provenance_mut(allocation.address as usize);
        // SAFETY: `own` is writable, and the address was mapped just now.
        check("cuMemRetainAllocationHandle", unsafe {
            sys::cuMemRetainAllocationHandle(&mut own, address)
        })?;
        allocation.handle = Some(own);
        Ok(allocation)
    }

    /// Maps all of `handle` for reading and writing. The context must be current.
    fn map(&mut self, handle: sys::CUmemGenericAllocationHandle, granularity: usize) -> Result<()> {
        let (mut address, size) = (0, self.size);
        // SAFETY: `address` is writable; size and alignment are multiples of the granularity, the
        // driver chooses the address, and the flags are 0, as required.
        check("cuMemAddressReserve", unsafe {
            sys::cuMemAddressReserve(&mut address, size, granularity, 0, 0)
        })?;
        self.address = address;
        // SAFETY: the whole allocation is mapped to the whole range, which was reserved just now
        // and is of the same size; offset and flags are 0, as required.
        check("cuMemMap", unsafe { sys::cuMemMap(address, size, 0, handle, 0) })?;
        self.is_mapped = true;
        let access = descriptors::read_write(self.context.cu_device());
        // SAFETY: the range is the one that was mapped, and one description is given.
        check("cuMemSetAccess", unsafe { sys::cuMemSetAccess(address, size, &access, 1) })
    }

    /// Returns the handle, which this owns.
    pub(super) fn handle(&self) -> sys::CUmemGenericAllocationHandle {
        self.handle.unwrap_or_default()
    }

    /// Returns the size in bytes, including padding.
    pub(super) fn size(&self) -> u64 {
        self.size as u64
    }

    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Exports the memory; each call returns a new descriptor.
    ///
    /// # References
    /// `cuMemExportToShareableHandle`.
    pub(super) fn export(&self) -> Result<OwnedFd> {
        const CALL: &str = "cuMemExportToShareableHandle";
        let _current = Current::enter(&self.context)?;
        let mut raw: c_int = -1;
        let ty = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        // SAFETY: the memory was created with this handle type, for which the driver writes an int;
        // the flags are 0, as required.
        check(CALL, unsafe {
            sys::cuMemExportToShareableHandle((&raw mut raw).cast(), self.handle(), ty, 0)
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
        let Self { handle, size, address, is_mapped, .. } = *self;
        free(&self.context, move |context| {
            if is_mapped {
                // SAFETY: exactly the range that was mapped. Each buffer in it is gone and has
                // waited for its use (`Buffer::drop`).
                record(context, "cuMemUnmap", unsafe { sys::cuMemUnmap(address, size) });
            }
            if address != 0 {
                // SAFETY: address and size are those of the reservation, and nothing is mapped
                // there.
                record(context, "cuMemAddressFree", unsafe {
                    sys::cuMemAddressFree(address, size)
                });
            }
            if let Some(handle) = handle {
                // SAFETY: released once, here. The memory stays alive while an importer holds it.
                record(context, "cuMemRelease", unsafe { sys::cuMemRelease(handle) });
            }
        });
    }
}

/// Returns the granularity of memory with these properties. The context must be current.
fn granularity(
    prop: &MaybeUninit<sys::CUmemAllocationProp>,
    option: sys::CUmemAllocationGranularity_flags,
) -> Result<usize> {
    let mut granularity = 0;
    // SAFETY: the caller has made the context current; `prop` is complete and `granularity`
    // writable.
    check("cuMemGetAllocationGranularity", unsafe {
        sys::cuMemGetAllocationGranularity(&mut granularity, prop.as_ptr(), option)
    })?;
    Ok(granularity)
}

/// Rejects the application's memory if it can't be exported or is not on `device`.
fn check_adopted(
    prop: &MaybeUninit<sys::CUmemAllocationProp>,
    device: sys::CUdevice,
) -> Result<()> {
    let (handle_types, place) = descriptors::handle_types_and_place(prop);
    let descriptor = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    if handle_types & descriptor.0 == 0 {
        let problem = "was created without CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR";
        return Err(Invalid::new("allocation", problem)
            .help("set it in CUmemAllocationProp.requestedHandleTypes")
            .into());
    }
    if place != Some(device) {
        let found = place.map_or("the host".to_owned(), |place| format!("device {place}"));
        return Err(Mismatch::new("the allocation's location", format!("device {device}"), found)
            .help("adopt it with an endpoint of its own device")
            .into());
    }
    Ok(())
}

/// Returns `size`, rounded up to a multiple of `granularity`.
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
    use crate::error::Error;

    #[test]
    fn only_exportable_memory_of_the_device_is_adopted() {
        let prop = |device| descriptors::exportable_memory(device);
        check_adopted(&prop(3), 3).unwrap();
        let elsewhere = check_adopted(&prop(2), 3);
        assert!(matches!(elsewhere, Err(Error::Mismatch(_))), "{elsewhere:?}");
        let mut private = prop(3);
        // SAFETY: the structure is complete; the field is one of its integers.
        unsafe {
            (&raw mut (*private.as_mut_ptr()).requestedHandleTypes).cast::<u32>().write(0);
        }
        match check_adopted(&private, 3) {
            Err(Error::Invalid(refused)) => assert!(refused.help.is_some(), "{refused}"),
            other => panic!("{other:?}"),
        }
    }

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
