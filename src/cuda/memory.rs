//! An allocation: imported, or created by CUDA for export.

use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, sys};

use super::capture::{Current, free, sweep};
use super::descriptors;
use super::endpoint::Endpoint;
use super::library::{check, record};
use crate::capabilities::Support;
use crate::error::{Api, ImportError, ImportResult, Invalid, Missing, Result};
use crate::fd::{self, MemoryHandleType, transfer_duplicate};
use crate::payload::{MemoryInfo, MemoryPayload};

/// An allocation of GPU memory that CUDA shares with another API. Cheap to clone: clones are the same
/// allocation, which is freed with the last of them and of the resources in it.
#[derive(Clone, Debug)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    info: MemoryInfo,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Imported {
        external: External,
        /// The address of the whole allocation, mapped when its first buffer is created.
        mapping: Mutex<Option<sys::CUdeviceptr>>,
    },
    Created(Allocation),
}

#[derive(Debug)]
struct External(sys::CUexternalMemory);

impl External {
    /// Takes the handle out. (A closure that used the field would capture the bare pointer.)
    fn into_raw(self) -> sys::CUexternalMemory {
        self.0
    }
}

// SAFETY: external memory belongs to a context, not to a thread, and the driver API may be called
// from several threads at once.
unsafe impl Send for External {}
// SAFETY: as above.
unsafe impl Sync for External {}

impl Endpoint {
    /// Imports an allocation; [`Memory::buffer`] and [`Memory::array`] then create resources in it.
    ///
    /// # Errors
    /// Returns the payload with [`Error::Mismatch`](crate::Error::Mismatch) for another GPU,
    /// [`Error::Invalid`](crate::Error::Invalid) for a descriptor that is not GPU memory,
    /// [`Error::Missing`](crate::Error::Missing) for a dma-buf, and
    /// [`Error::Driver`](crate::Error::Driver). An allocation that is shorter than the payload states
    /// is detected when a resource is created in it, not here.
    ///
    /// # References
    /// `cuImportExternalMemory` with `CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD` and
    /// `CUDA_EXTERNAL_MEMORY_DEDICATED`.
    #[doc(alias = "cuImportExternalMemory")]
    pub fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory, MemoryPayload> {
        self.import_duplicate(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports a duplicate of the descriptor, so that the payload stays usable if this or a later step
    /// fails.
    pub(crate) fn import_duplicate(&self, payload: &MemoryPayload) -> Result<Memory> {
        self.check_memory(payload)?;
        self.import_checked(payload)
    }

    /// Checks everything that can be checked before the driver is called.
    pub(crate) fn check_memory(&self, payload: &MemoryPayload) -> Result<()> {
        payload.check(self.identities())?;
        match payload.info().handle_type {
            MemoryHandleType::OpaqueFd => self.workarounds().check_fd(payload),
            MemoryHandleType::DmaBuf => Err(no_dma_buf().into()),
        }
    }

    /// Same as `import_duplicate`, for a payload that `check_memory` has accepted.
    pub(crate) fn import_checked(&self, payload: &MemoryPayload) -> Result<Memory> {
        let info = payload.info();
        sweep();
        let _current = self.enter()?;
        let external = transfer_duplicate(payload, |raw| {
            let desc = descriptors::memory_handle(raw, info);
            let mut external = ptr::null_mut();
            // SAFETY: the context is current; the structure is complete, its descriptor is open
            // (`transfer_duplicate`), and the driver owns it once the call succeeds.
            let result = unsafe { sys::cuImportExternalMemory(&mut external, desc.as_ptr()) };
            check("cuImportExternalMemory", result).map(|()| External(external))
        })?;
        tracing::debug!(
            bytes = info.allocation_size,
            dedicated = info.dedicated,
            "imported memory into CUDA"
        );
        let backing = Backing::Imported { external, mapping: Mutex::new(None) };
        Ok(Memory::new(self, info.clone(), backing))
    }

    /// Creates at least `size` bytes for export.
    pub(crate) fn create_memory(&self, size: u64) -> Result<Memory> {
        export_of_buffers(self)?;
        sweep();
        let allocation = Allocation::new(self.context(), size)?;
        let info = MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size: allocation.size(),
            // CUDA has no memory types.
            memory_type_index: None,
            dedicated: false,
            identity: self.identity().clone(),
        };
        Ok(Memory::new(self, info, Backing::Created(allocation)))
    }
}

/// Whether memory that CUDA creates can be exported as an opaque fd.
pub(crate) fn export_of_buffers(endpoint: &Endpoint) -> Support {
    if endpoint.exports_fd() {
        return Ok(());
    }
    let what = "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED";
    Err(Missing::new(Api::Cuda, what, "exporting memory that CUDA creates")
        .help("create the memory in Vulkan and import it"))
}

/// The memory of CUDA's arrays can't be exported, and exportable memory can't hold arrays.
pub(crate) fn no_created_images() -> Missing {
    Missing::new(Api::Cuda, "images in memory that CUDA exports", "a shared resource")
        .help("create the image in Vulkan and import it")
}

/// CUDA 13 has `CU_EXTERNAL_MEMORY_HANDLE_TYPE_DMABUF_FD`, but "importing a dma_buf object is
/// supported only on Tegra Jetson platform starting with Thor series", which was never tested;
/// elsewhere driver 580 returns CUDA_ERROR_NOT_SUPPORTED.
pub(crate) fn no_dma_buf() -> Missing {
    Missing::new(Api::Cuda, "memory as dma-buf", "a shared resource")
        .help("export it as an opaque fd")
}

impl Memory {
    fn new(endpoint: &Endpoint, info: MemoryInfo, backing: Backing) -> Self {
        let endpoint = endpoint.clone();
        Self { shared: Arc::new(Shared { endpoint, info, backing }) }
    }

    /// Returns the endpoint that imported or created it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Returns what an importer must know about the allocation: size, exporter and other properties.
    pub fn info(&self) -> &MemoryInfo {
        &self.shared.info
    }

    /// Exports the allocation; each call returns a payload with a new descriptor.
    ///
    /// # Errors
    /// [`Error::Missing`](crate::Error::Missing) for imported memory: CUDA exports only its own.
    /// [`Error::Driver`](crate::Error::Driver), for example when the process is out of descriptors.
    ///
    /// # References
    /// `cuMemExportToShareableHandle` with `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
    #[doc(alias = "cuMemExportToShareableHandle")]
    pub fn export(&self) -> Result<MemoryPayload> {
        match &self.shared.backing {
            Backing::Created(allocation) => {
                Ok(MemoryPayload::new(allocation.export()?, self.info().clone())?)
            }
            Backing::Imported { .. } => Err(Missing::new(
                Api::Cuda,
                "export of imported memory",
                "sharing it further",
            )
            .help("export it from the API that created it, or duplicate its payload before the import")
            .into()),
        }
    }

    /// The imported memory that arrays are mapped from. Memory created by CUDA can hold none.
    pub(crate) fn external(&self) -> Result<sys::CUexternalMemory> {
        match &self.shared.backing {
            Backing::Imported { external, .. } => Ok(external.0),
            Backing::Created(_) => Err(no_created_images().into()),
        }
    }

    /// The address of the allocation's first byte.
    pub(crate) fn address(&self) -> Result<sys::CUdeviceptr> {
        let (external, mapping) = match &self.shared.backing {
            Backing::Created(allocation) => return Ok(allocation.address()),
            Backing::Imported { external, mapping } => (external, mapping),
        };
        // The value is valid even if a thread panicked while it held the lock.
        let mut mapping = mapping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = *mapping {
            return Ok(address);
        }
        let _current = self.endpoint().enter()?;
        let desc = descriptors::mapped_buffer(0, self.info().allocation_size);
        let mut address = 0;
        // SAFETY: the context is current, the external memory is alive, the range is all of it, and
        // `address` is writable.
        check("cuExternalMemoryGetMappedBuffer", unsafe {
            sys::cuExternalMemoryGetMappedBuffer(&mut address, external.0, &desc)
        })?;
        *mapping = Some(address);
        Ok(address)
    }

    /// Leaks the allocation: the GPU still uses it, and unmapping it would cause a GPU fault after
    /// which every call in the context fails.
    pub(crate) fn leak(&self) {
        std::mem::forget(self.clone());
    }
}

impl Drop for Shared {
    /// Unmaps the memory, then frees it. [`Allocation`] does the same for its own.
    fn drop(&mut self) {
        let Backing::Imported { external, mapping } = &mut self.backing else {
            return;
        };
        let external = External(external.0);
        let mapping = mapping.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        free(self.endpoint.context(), move |context| {
            if let Some(address) = mapping {
                // SAFETY: mapped by cuExternalMemoryGetMappedBuffer, freed once, here. All buffers in
                // it are gone (each holds this memory) and have waited for their last use.
                record(context, "cuMemFree", unsafe { sys::cuMemFree_v2(address) });
            }
            // SAFETY: imported once, destroyed once, here, and no mapping of it is left: each array
            // holds this memory and is destroyed before it.
            let result = unsafe { sys::cuDestroyExternalMemory(external.into_raw()) };
            record(context, "cuDestroyExternalMemory", result);
        });
    }
}

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
        let Self { handle, size, address, is_mapped, .. } = *self;
        free(&self.context, move |context| {
            if is_mapped {
                // SAFETY: exactly the range that was mapped. Each buffer in it is gone and has waited
                // for its use (`Buffer::drop`).
                record(context, "cuMemUnmap", unsafe { sys::cuMemUnmap(address, size) });
            }
            if address != 0 {
                // SAFETY: address and size are those of the reservation, and nothing is mapped there.
                record(context, "cuMemAddressFree", unsafe {
                    sys::cuMemAddressFree(address, size)
                });
            }
            // SAFETY: released once, here. The memory stays alive while an importer holds it.
            record(context, "cuMemRelease", unsafe { sys::cuMemRelease(handle) });
        });
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
