//! What the context can import. It exports nothing.

use super::endpoint::{Endpoint, Shared};
use super::{memory, semaphore};
use crate::capabilities::{Capabilities, Dedicated, MemorySupport, SemaphoreSupport, Support};
use crate::desc::ResourceDesc;
use crate::error::{Api, Error, Missing, Result};
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::payload::SemaphoreKind;

const SEMAPHORES: [(SemaphoreKind, SemaphoreHandleType); 4] = [
    (SemaphoreKind::Timeline, SemaphoreHandleType::OpaqueFd),
    (SemaphoreKind::Binary, SemaphoreHandleType::OpaqueFd),
    (SemaphoreKind::Timeline, SemaphoreHandleType::SyncFd),
    (SemaphoreKind::Binary, SemaphoreHandleType::SyncFd),
];

impl Endpoint {
    /// What the context can do with `desc`, per handle type, and with semaphores.
    ///
    /// For an image the context is asked whether it makes such textures of imported memory: the
    /// format, the shape, the size, the tiling and the sample count. It must be current then; for a
    /// buffer it need not be. OpenGL's textures have no usage: whether OpenGL can also draw to the
    /// format, or store to it from a shader, is not part of the answer.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where `desc` is wrong in itself, or is an image and the
    /// context is not current; what the driver doesn't support is part of the result, not an error.
    ///
    /// # References
    /// `GL_EXT_memory_object_fd`, `GL_EXT_semaphore_fd`, `GL_NV_timeline_semaphore`;
    /// `glGetInternalformativ` (`GL_INTERNALFORMAT_SUPPORTED`, `GL_TILING_TYPES_EXT`, `GL_SAMPLES`).
    pub fn capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities> {
        desc.validate()?;
        let import = self.shared.memory_import(desc)?;
        let semaphores = SEMAPHORES
            .into_iter()
            .map(|(kind, handle_type)| SemaphoreSupport {
                kind,
                handle_type,
                export: Err(no_export("semaphores")),
                import: self.shared.semaphore_import(kind, handle_type),
            })
            .collect();
        Ok(Capabilities {
            api: Api::OpenGl,
            identities: self.identities().to_vec(),
            desc: *desc,
            memory: vec![
                memory_support(MemoryHandleType::OpaqueFd, import),
                memory_support(
                    MemoryHandleType::DmaBuf,
                    Err(memory::missing_handle_type(MemoryHandleType::DmaBuf)),
                ),
            ],
            semaphores,
        })
    }
}

impl Shared {
    fn memory_import(&self, desc: &ResourceDesc) -> Result<Support> {
        match desc {
            ResourceDesc::Buffer(_) => {
                Ok(self.functions.memory.as_ref().map(drop).map_err(Missing::clone))
            }
            ResourceDesc::Image(image) => {
                self.enter()?;
                match self.check_image(image) {
                    Ok(()) => Ok(Ok(())),
                    Err(Error::Missing(missing)) => Ok(Err(missing)),
                    Err(other) => Err(other),
                }
            }
        }
    }

    fn semaphore_import(&self, kind: SemaphoreKind, handle_type: SemaphoreHandleType) -> Support {
        if handle_type != SemaphoreHandleType::OpaqueFd {
            return Err(semaphore::missing_handle_type(handle_type));
        }
        match kind {
            SemaphoreKind::Binary => self.functions.semaphore.as_ref().map(drop),
            SemaphoreKind::Timeline => self.functions.timeline.as_ref().map(drop),
        }
        .map_err(Missing::clone)
    }
}

fn memory_support(handle_type: MemoryHandleType, import: Support) -> MemorySupport {
    MemorySupport {
        handle_type,
        export: Err(no_export("memory")),
        import,
        dedicated: Dedicated::NotNeeded,
    }
}

fn no_export(what: &str) -> Missing {
    Missing::new(Api::OpenGl, format!("exporting {what}"), "sharing what OpenGL made")
        .help("let Vulkan own it: OpenGL can only import")
}
