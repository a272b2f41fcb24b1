//! An allocation: imported, or created by CUDA for export.

use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys;

use super::allocation::Allocation;
use super::capture::{free, sweep};
use super::descriptors;
use super::endpoint::Endpoint;
use super::library::{check, record};
use crate::capabilities::Support;
use crate::error::{Api, ImportError, ImportResult, Missing, Result};
use crate::fd::{MemoryHandleType, transfer_duplicate};
use crate::payload::{MemoryInfo, MemoryPayload};

/// An allocation of GPU memory that CUDA shares with another API. Cheap to clone: clones are the
/// same allocation, which is freed with the last of them and of the resources in it.
///
/// Host writes through a mapping of the memory are visible to CUDA only after a release by Vulkan,
/// submitted after the write, and its acquire by CUDA (`vulkan::Mapping`).
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
    /// Returns the handle. (A closure that used the field would capture the bare pointer.)
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
    /// [`Error::Driver`](crate::Error::Driver). An allocation that is shorter than the payload's
    /// description is detected when a resource is created in it.
    ///
    /// # Examples
    /// Several suballocations of one allocation, imported once; the buffers keep the memory:
    /// ```no_run
    /// use gpu_interop::cuda::{Buffer, Endpoint};
    /// use gpu_interop::{BufferDesc, MemoryPayload, Result};
    ///
    /// fn import(
    ///     cuda: &Endpoint,
    ///     block: MemoryPayload,
    ///     parts: &[(u64, BufferDesc)],
    /// ) -> Result<Vec<Buffer>> {
    ///     let memory = cuda.import_memory(block)?;
    ///     parts.iter().map(|(offset, desc)| memory.buffer(*offset, desc)).collect()
    /// }
    /// ```
    ///
    /// # References
    /// `cuImportExternalMemory` with `CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD` and
    /// `CUDA_EXTERNAL_MEMORY_DEDICATED`.
    #[doc(alias = "cuImportExternalMemory")]
    pub fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory, MemoryPayload> {
        self.import_duplicate(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports a duplicate of the descriptor, so that the payload can be returned if this or a
    /// later step fails.
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
        Ok(self.own_memory(Allocation::new(self.context(), size)?))
    }

    /// Adopts memory that the application created with `cuMemCreate`, so that it can be exported.
    ///
    /// The allocation is mapped a second time, for the buffers that [`Memory::buffer`] creates. The
    /// application still owns its handle and its mappings, and may release them at any time.
    /// Accesses through different mappings must be ordered: one kernel must not use both.
    ///
    /// # Safety
    /// `allocation` is a valid handle, and `size` is the size in bytes that was passed to
    /// `cuMemCreate`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if the memory was created without
    /// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, or `size` is 0 or not a multiple of the device's
    /// granularity; [`Error::Mismatch`](crate::Error::Mismatch) for memory of another device;
    /// [`Error::Missing`](crate::Error::Missing) if CUDA can't export memory of this GPU;
    /// [`Error::Driver`](crate::Error::Driver) if a CUDA call fails.
    ///
    /// # References
    /// `cuMemGetAllocationPropertiesFromHandle`, `cuMemMap`, `cuMemRetainAllocationHandle`.
    #[doc(alias = "cuMemMap")]
    #[doc(alias = "cuMemRetainAllocationHandle")]
    pub unsafe fn adopt_memory(
        &self,
        allocation: sys::CUmemGenericAllocationHandle,
        size: u64,
    ) -> Result<Memory> {
        export_of_buffers(self)?;
        sweep();
        // SAFETY: the caller's promise.
        Ok(self.own_memory(unsafe { Allocation::adopt(self.context(), allocation, size) }?))
    }

    fn own_memory(&self, allocation: Allocation) -> Memory {
        let info = MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size: allocation.size(),
            // CUDA has no memory types.
            memory_type_index: None,
            dedicated: false,
            identity: self.identity().clone(),
        };
        Memory::new(self, info, Backing::Created(allocation))
    }
}

/// Returns whether memory that CUDA creates can be exported as an opaque fd.
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

    /// Returns the endpoint that imported or created the memory.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Returns the CUDA handle of imported memory, valid as long as this, a clone of it or a
    /// resource in it; `None` for memory that CUDA created.
    pub fn handle(&self) -> Option<sys::CUexternalMemory> {
        match &self.shared.backing {
            Backing::Imported { external, .. } => Some(external.0),
            Backing::Created(_) => None,
        }
    }

    /// Returns the CUDA handle of memory that was created or adopted, valid as long as this, a
    /// clone of it or a resource in it; `None` for imported memory.
    pub fn allocation_handle(&self) -> Option<sys::CUmemGenericAllocationHandle> {
        match &self.shared.backing {
            Backing::Imported { .. } => None,
            Backing::Created(allocation) => Some(allocation.handle()),
        }
    }

    /// Returns the allocation's description for importers: size, exporter and other properties.
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
                "sharing it again",
            )
            .help("export it from the API that created it, or duplicate its payload before the import")
            .into()),
        }
    }

    /// Returns the imported memory from which arrays are mapped. Memory created by CUDA can hold no
    /// arrays.
    pub(crate) fn external(&self) -> Result<sys::CUexternalMemory> {
        self.handle().ok_or_else(|| no_created_images().into())
    }

    /// Returns the address of the allocation's first byte.
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
                // SAFETY: mapped by cuExternalMemoryGetMappedBuffer, freed once, here. All buffers
                // in it are gone (each holds this memory) and have waited for their last use.
                record(context, "cuMemFree", unsafe { sys::cuMemFree_v2(address) });
            }
            // SAFETY: imported once, destroyed once, here, and no mapping of it is left: each array
            // holds this memory and is destroyed before it.
            let result = unsafe { sys::cuDestroyExternalMemory(external.into_raw()) };
            record(context, "cuDestroyExternalMemory", result);
        });
    }
}
