//! What CUDA can export and import.
//!
//! Unlike Vulkan, CUDA has no query per format and usage. The answers come from its documentation
//! and the device's attributes.

use std::ptr;

use cudarc::driver::sys;

use super::capture::refuse_captured;
use super::endpoint::Endpoint;
use super::library::check;
use super::memory::{export_of_buffers, no_created_images, no_dma_buf};
use super::semaphore::import_of_semaphores;
use crate::capabilities::{
    Capabilities, Dedicated, MemorySupport, SemaphoreSupport, Support, each_semaphore, supported,
};
use crate::desc::ResourceDesc;
use crate::error::{Api, Missing, Result};
use crate::fd::MemoryHandleType;

impl Endpoint {
    /// Returns what CUDA can do with `desc`, per handle type, and with semaphores.
    ///
    /// The allocation may be dedicated or not. CUDA has no query for a format's usages; an image
    /// can be imported if CUDA has its format and its kind of array.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid. What CUDA doesn't support is
    /// part of the result, not an error.
    ///
    /// # References
    /// `cuImportExternalMemory`, `cuImportExternalSemaphore`, `cuMemExportToShareableHandle`,
    /// `cuMipmappedArrayCreate`;
    /// `CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED`,
    /// `CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED`.
    pub fn capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities> {
        desc.validate()?;
        let (export, import) = match desc {
            ResourceDesc::Buffer(_) => (export_of_buffers(self), Ok(())),
            ResourceDesc::Image(desc) => {
                (Err(no_created_images()), supported(self.check_image(desc))?)
            }
        };
        let semaphores = each_semaphore(|kind, handle_type| SemaphoreSupport {
            kind,
            handle_type,
            export: export_of_semaphores(),
            import: import_of_semaphores(self, kind, handle_type),
        });
        Ok(Capabilities {
            api: Api::Cuda,
            identities: self.identities().to_vec(),
            desc: *desc,
            memory: vec![
                MemorySupport {
                    handle_type: MemoryHandleType::OpaqueFd,
                    export,
                    import,
                    dedicated: Dedicated::NotNeeded,
                },
                MemorySupport {
                    handle_type: MemoryHandleType::DmaBuf,
                    export: Err(no_dma_buf()),
                    import: Err(no_dma_buf()),
                    dedicated: Dedicated::NotNeeded,
                },
            ],
            semaphores,
        })
    }
}

/// CUDA only imports semaphores.
fn export_of_semaphores() -> Support {
    Err(Missing::new(Api::Cuda, "export of semaphores", "a handoff on the GPU")
        .help("create the semaphore in Vulkan and import it"))
}

crate::peer::impl_peer! {
    Endpoint, Api::Cuda, super::Memory, super::Buffer, super::Array, super::Semaphore,
    unsafe fn wait_idle(&self) -> Result<()> {
        let _current = self.enter()?;
        // Otherwise this would invalidate the capture of a stream that synchronises with the
        // default one.
        refuse_captured(ptr::null_mut())?;
        // SAFETY: libcuda is loaded, and the endpoint's context is current.
        check("cuCtxSynchronize", unsafe { sys::cuCtxSynchronize() })
    }
}
