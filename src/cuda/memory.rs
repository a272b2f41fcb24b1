//! An allocation: imported, or made by CUDA to be exported.

use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys;

use super::allocation::Allocation;
use super::buffer::Buffer;
use super::endpoint::Endpoint;
use super::error::{check, record};
use super::{capabilities, descriptors};
use crate::desc::BufferDesc;
use crate::error::{Api, ImportError, ImportResult, Missing, Result};
use crate::fd::{MemoryHandleType, transfer_duplicate};
use crate::payload::{MemoryInfo, MemoryPayload, check_range};

/// An allocation of GPU memory that CUDA shares with somebody. Cheap to clone: clones are the same
/// allocation, which goes when the last of them and of the resources in it goes.
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
        /// Where all of it is mapped as a buffer, once a buffer was asked for.
        mapping: Mutex<Option<sys::CUdeviceptr>>,
    },
    Created(Allocation),
}

#[derive(Debug)]
struct External(sys::CUexternalMemory);

// SAFETY: external memory belongs to a context, not to a thread, and the driver API may be called
// from several threads at once.
unsafe impl Send for External {}
// SAFETY: as above.
unsafe impl Sync for External {}

impl Endpoint {
    /// Imports an allocation, to place resources in it with [`Memory::buffer`] and
    /// [`Memory::array`].
    ///
    /// # Errors
    /// The payload comes back with [`Error::Mismatch`](crate::Error::Mismatch) for another GPU,
    /// [`Error::Invalid`](crate::Error::Invalid) for a descriptor that is no GPU memory,
    /// [`Error::Missing`](crate::Error::Missing) for a dma-buf, and
    /// [`Error::Driver`](crate::Error::Driver). An allocation that is shorter than the payload says
    /// is found out when a resource is placed in it, not here.
    ///
    /// # References
    /// `cuImportExternalMemory` with `CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD` and
    /// `CUDA_EXTERNAL_MEMORY_DEDICATED`.
    #[doc(alias = "cuImportExternalMemory")]
    pub fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Memory, MemoryPayload> {
        self.import_duplicate(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports a duplicate of the descriptor, so that the payload stays whole if this or a later step
    /// fails.
    pub(crate) fn import_duplicate(&self, payload: &MemoryPayload) -> Result<Memory> {
        payload.check(self.identities())?;
        let info = payload.info();
        check_import(info.handle_type)?;
        self.workarounds().check_fd(payload)?;
        let _current = self.enter()?;
        let external = transfer_duplicate(payload, |raw| {
            let desc = descriptors::memory_handle(raw, info);
            let mut external = ptr::null_mut();
            // SAFETY: the context is current; the description is complete, its descriptor is open
            // (`transfer_duplicate`) and is the driver's from the moment the call succeeds.
            let result = unsafe { sys::cuImportExternalMemory(&mut external, &desc) };
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

    /// At least `size` bytes made by CUDA, to be exported.
    pub(crate) fn create_memory(&self, size: u64) -> Result<Memory> {
        capabilities::export_of_buffers(self)?;
        let allocation = Allocation::new(self.context(), size)?;
        let info = MemoryInfo {
            handle_type: MemoryHandleType::OpaqueFd,
            allocation_size: allocation.size(),
            // CUDA has no such numbers.
            memory_type_index: None,
            dedicated: false,
            identity: self.identity().clone(),
        };
        Ok(Memory::new(self, info, Backing::Created(allocation)))
    }
}

fn check_import(handle_type: MemoryHandleType) -> Result<()> {
    match handle_type {
        MemoryHandleType::OpaqueFd => Ok(()),
        MemoryHandleType::DmaBuf => Err(capabilities::no_dma_buf().into()),
    }
}

impl Memory {
    fn new(endpoint: &Endpoint, info: MemoryInfo, backing: Backing) -> Self {
        let endpoint = endpoint.clone();
        Self { shared: Arc::new(Shared { endpoint, info, backing }) }
    }

    /// The endpoint it was imported to or created by.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Its size, where it came from, and what else an importer must know.
    pub fn info(&self) -> &MemoryInfo {
        &self.shared.info
    }

    /// A buffer of `desc` at `offset` bytes into the allocation.
    ///
    /// Imported memory is mapped once, as a whole, when the first buffer in it is asked for, and
    /// buffers are pieces of that mapping: two that overlap are then at overlapping addresses and
    /// see each other's writes, which CUDA does not promise of separate mappings.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a description that no API takes and for a
    /// buffer that reaches past the end; [`Error::Driver`](crate::Error::Driver).
    ///
    /// # References
    /// `cuExternalMemoryGetMappedBuffer`.
    #[doc(alias = "cuExternalMemoryGetMappedBuffer")]
    pub fn buffer(&self, offset: u64, desc: &BufferDesc) -> Result<Buffer> {
        desc.validate()?;
        check_range(offset, desc.size, self.info().allocation_size)?;
        let address = self.address()? + offset;
        Buffer::new(self.clone(), address, offset, *desc)
    }

    /// A new payload of the allocation, each time with a descriptor of its own.
    ///
    /// # Errors
    /// [`Error::Missing`](crate::Error::Missing) for memory that was imported: CUDA exports its own
    /// only. [`Error::Driver`](crate::Error::Driver), for want of descriptors for example.
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
                "export of memory that was imported",
                "sharing it further",
            )
            .help("export it where it was made, or duplicate its payload before the import")
            .into()),
        }
    }

    /// What arrays are mapped from: not memory that CUDA has made, which holds none.
    pub(crate) fn external(&self) -> Result<sys::CUexternalMemory> {
        match &self.shared.backing {
            Backing::Imported { external, .. } => Ok(external.0),
            Backing::Created(_) => Err(capabilities::no_created_images().into()),
        }
    }

    /// Where the allocation begins.
    pub(crate) fn address(&self) -> Result<sys::CUdeviceptr> {
        let (external, mapping) = match &self.shared.backing {
            Backing::Created(allocation) => return Ok(allocation.address()),
            Backing::Imported { external, mapping } => (external, mapping),
        };
        // What it guards is right even if a thread panicked with it.
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

    /// Never unmaps or frees the allocation: somebody still works in it, and unmapping it then would
    /// be a fault on the GPU that no later call of the context survives.
    pub(crate) fn abandon(&self) {
        std::mem::forget(self.clone());
    }
}

impl Drop for Shared {
    /// Mapping first, then the memory; [`Allocation`] does the same for its own.
    fn drop(&mut self) {
        let Backing::Imported { external, mapping } = &mut self.backing else {
            return;
        };
        let context = self.endpoint.context();
        let current = self.endpoint.enter();
        let mapping = mapping.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = mapping.take() {
            // SAFETY: mapped by cuExternalMemoryGetMappedBuffer, freed once, here. All buffers in
            // it are gone (each holds this memory) and have waited for their use.
            record(context, "cuMemFree", unsafe { sys::cuMemFree_v2(address) });
        }
        // SAFETY: imported once, destroyed once, here, and nothing is mapped onto it any more: each
        // array holds this memory and goes before it.
        let result = unsafe { sys::cuDestroyExternalMemory(external.0) };
        record(context, "cuDestroyExternalMemory", result);
        drop(current);
    }
}
