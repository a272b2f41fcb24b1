//! What CUDA can export and import.
//!
//! CUDA can't be asked per format and usage as Vulkan can. What follows is what its documentation
//! says, and the device's attributes.

use super::endpoint::Endpoint;
use crate::capabilities::{Capabilities, Dedicated, MemorySupport, SemaphoreSupport, Support};
use crate::desc::{ImageDesc, ResourceDesc};
use crate::error::{Api, Error, Missing, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::payload::SemaphoreKind;

const RESOURCE: &str = "a shared resource";
const HANDOFF: &str = "a handoff on the GPU";

impl Endpoint {
    /// What CUDA can do with `desc`, per handle type, and with semaphores.
    ///
    /// The allocation may be dedicated or not, as the exporter likes. CUDA can't be asked what a format
    /// is used for; images are imported if it has their format and they are within its limits.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) where `desc` is wrong in itself; what CUDA doesn't
    /// support is part of the result, not an error.
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
            ResourceDesc::Image(desc) => (Err(no_created_images()), import_of_images(self, desc)?),
        };
        let semaphore = |kind, handle_type| SemaphoreSupport {
            kind,
            handle_type,
            export: export_of_semaphores(),
            import: import_of_semaphores(self, kind, handle_type),
        };
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
            semaphores: vec![
                semaphore(SemaphoreKind::Timeline, SemaphoreHandleType::OpaqueFd),
                semaphore(SemaphoreKind::Binary, SemaphoreHandleType::OpaqueFd),
                semaphore(SemaphoreKind::Timeline, SemaphoreHandleType::SyncFd),
                semaphore(SemaphoreKind::Binary, SemaphoreHandleType::SyncFd),
            ],
        })
    }
}

/// Whether memory that CUDA makes can leave it as an opaque fd.
pub(crate) fn export_of_buffers(endpoint: &Endpoint) -> Support {
    if endpoint.exports_fd() {
        return Ok(());
    }
    let what = "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED";
    Err(Missing::new(Api::Cuda, what, "exporting memory that CUDA makes")
        .help("make the memory in Vulkan and import it"))
}

/// CUDA's arrays have no memory of their own that could be exported, and exportable memory holds no
/// arrays.
pub(crate) fn no_created_images() -> Missing {
    Missing::new(Api::Cuda, "images in memory that it exports", RESOURCE)
        .help("make the image in Vulkan and import it")
}

/// Whether an image can be imported: its format, samples and size. An error is a driver's.
fn import_of_images(endpoint: &Endpoint, desc: &ImageDesc) -> Result<Support> {
    match endpoint.check_image(desc) {
        Ok(_) => Ok(Ok(())),
        Err(Error::Missing(missing)) => Ok(Err(missing)),
        Err(error) => Err(error),
    }
}

/// CUDA's semaphores are always somebody else's.
fn export_of_semaphores() -> Support {
    Err(Missing::new(Api::Cuda, "export of semaphores", HANDOFF)
        .help("make the semaphore in Vulkan and import it"))
}

/// Whether semaphores of `kind` can be imported by `handle_type`.
pub(crate) fn import_of_semaphores(
    endpoint: &Endpoint,
    kind: SemaphoreKind,
    handle_type: SemaphoreHandleType,
) -> Support {
    match (handle_type, kind) {
        (SemaphoreHandleType::OpaqueFd, SemaphoreKind::Binary) => Ok(()),
        (SemaphoreHandleType::OpaqueFd, SemaphoreKind::Timeline) if endpoint.has_timeline() => {
            Ok(())
        }
        (SemaphoreHandleType::OpaqueFd, SemaphoreKind::Timeline) => {
            let what = "CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED";
            Err(Missing::new(Api::Cuda, what, HANDOFF).help("use binary semaphores"))
        }
        (SemaphoreHandleType::SyncFd, _) => {
            Err(Missing::new(Api::Cuda, "semaphores by sync fd", HANDOFF)
                .help("export the semaphore as an opaque fd"))
        }
    }
}

/// CUDA 13 has `CU_EXTERNAL_MEMORY_HANDLE_TYPE_DMABUF_FD`, but "importing a dma_buf object is
/// supported only on Tegra Jetson platform starting with Thor series", where this was never tried;
/// elsewhere driver 580 answers CUDA_ERROR_NOT_SUPPORTED.
pub(crate) fn no_dma_buf() -> Missing {
    Missing::new(Api::Cuda, "memory by dma-buf", RESOURCE).help("export it as an opaque fd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_would_help() {
        for missing in [no_created_images(), no_dma_buf(), export_of_semaphores().unwrap_err()] {
            assert!(missing.api == Api::Cuda && missing.help.is_some(), "{missing}");
        }
    }
}
