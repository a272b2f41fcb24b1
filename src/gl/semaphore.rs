//! Imported semaphores, binary and timeline, and the image layouts that their operations name.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::deletion::Owned;
use super::endpoint::Endpoint;
use super::errors::{AppErrors, checked, driver_error};
use super::ffi::{
    HANDLE_TYPE_OPAQUE_FD_EXT, SEMAPHORE_TYPE_NV, SEMAPHORE_TYPE_TIMELINE_NV, SemaphoreFns,
};
use super::names::SemaphoreName;
use crate::desc::ImageLayout;
use crate::error::{Api, ImportError, ImportResult, Invalid, Missing, Result};
use crate::fd::{SemaphoreHandleType, check_no_file, transfer_duplicate};
use crate::payload::{SemaphoreKind, SemaphorePayload};

/// A semaphore that another API created, imported into OpenGL. Cheap to clone: clones are the same
/// semaphore. [`Endpoint::wait`] and [`Endpoint::signal`] use it.
#[derive(Clone, Debug)]
pub struct Semaphore(Arc<SemaphoreObject>);

#[derive(Debug)]
struct SemaphoreObject {
    name: Owned<SemaphoreName>,
    kind: SemaphoreKind,
    /// The value last signalled through this object; 0 at first.
    signalled: Mutex<u64>,
}

impl Endpoint {
    /// Imports a semaphore. Success consumes the descriptor.
    ///
    /// Import a semaphore once and keep it: NVIDIA's driver limits the number of imports
    /// ([`NVIDIA_IMPORTS_OF_ONE_SEMAPHORE`]).
    ///
    /// [`NVIDIA_IMPORTS_OF_ONE_SEMAPHORE`]: super::workarounds::NVIDIA_IMPORTS_OF_ONE_SEMAPHORE
    ///
    /// # Errors
    /// On failure the payload is returned, still open, with [`Mismatch`](crate::Error::Mismatch) if
    /// it is from another GPU or driver, [`Missing`] for a sync fd or without the extension for its
    /// kind, [`Invalid`](crate::Error::Invalid) if the descriptor can't be a semaphore or the
    /// context is not current, [`Driver`](crate::Error::Driver) if OpenGL rejects the import.
    ///
    /// # References
    /// `glGenSemaphoresEXT`, `glImportSemaphoreFdEXT` (`GL_HANDLE_TYPE_OPAQUE_FD_EXT`);
    /// `GL_NV_timeline_semaphore`: `glCreateSemaphoresNV`, `glSemaphoreParameterivNV`
    /// (`GL_SEMAPHORE_TYPE_NV`, before the import).
    #[doc(alias = "glGenSemaphoresEXT")]
    #[doc(alias = "glCreateSemaphoresNV")]
    #[doc(alias = "glImportSemaphoreFdEXT")]
    pub fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore, SemaphorePayload> {
        self.try_import_semaphore(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports a duplicate of the descriptor, so that the payload can be returned if this fails.
    fn try_import_semaphore(&self, payload: &SemaphorePayload) -> Result<Semaphore> {
        let (functions, _errors) = self.check_semaphore(payload)?;
        let kind = payload.info().kind;
        let name = self.create_semaphore(kind, &functions)?;
        transfer_duplicate(payload, |fd| {
            // SAFETY: the context is current, the semaphore's name exists and has no semaphore yet,
            // and `fd` is open. On success OpenGL owns it (GL_EXT_semaphore_fd, section 4.2.1), for
            // which `transfer_duplicate` gives it up.
            checked(&self.0.gl, "glImportSemaphoreFdEXT", || unsafe {
                (functions.import_fd)(name.name.0.get(), HANDLE_TYPE_OPAQUE_FD_EXT, fd);
            })
        })?;
        tracing::debug!(semaphore = name.name.0, ?kind, "imported a semaphore into OpenGL");
        Ok(Semaphore(Arc::new(SemaphoreObject { name, kind, signalled: Mutex::new(0) })))
    }

    /// Checks all that can be checked before the driver gets a descriptor, and begins the
    /// operation.
    fn check_semaphore(&self, payload: &SemaphorePayload) -> Result<(SemaphoreFns, AppErrors<'_>)> {
        payload.check(self.identities())?;
        let handle_type = payload.info().handle_type;
        if handle_type != SemaphoreHandleType::OpaqueFd {
            return Err(missing_handle_type(handle_type).into());
        }
        let functions = *self.0.functions.semaphore.as_ref().map_err(Missing::clone)?;
        check_no_file(payload)?;
        self.0.workarounds.check_semaphore_fd(payload)?;
        Ok((functions, self.enter()?))
    }

    /// Creates a name without a semaphore. Its type can't be set after the import.
    fn create_semaphore(
        &self,
        kind: SemaphoreKind,
        functions: &SemaphoreFns,
    ) -> Result<Owned<SemaphoreName>> {
        let gl = &self.0.gl;
        let timeline = match kind {
            SemaphoreKind::Binary => None,
            SemaphoreKind::Timeline => {
                Some(self.0.functions.timeline.as_ref().map_err(Missing::clone)?)
            }
        };
        let (call, create) = match timeline {
            None => ("glGenSemaphoresEXT", functions.generate),
            Some(timeline) => ("glCreateSemaphoresNV", timeline.create),
        };
        let mut name = 0;
        // SAFETY: the context is current (`check_semaphore`), and there is room for one name.
        checked(gl, call, || unsafe { create(1, &mut name) })?;
        let name = NonZeroU32::new(name).ok_or_else(|| driver_error(call, glow::NO_ERROR))?;
        let owned = Owned::new(self, SemaphoreName(name));
        if let Some(timeline) = timeline {
            let call = "glSemaphoreParameterivNV(GL_SEMAPHORE_TYPE_NV)";
            let ty = SEMAPHORE_TYPE_TIMELINE_NV;
            // SAFETY: the name exists and nothing is imported yet; the parameter is one integer.
            checked(gl, call, || unsafe {
                (timeline.parameteriv)(name.get(), SEMAPHORE_TYPE_NV, &ty);
            })?;
        }
        Ok(owned)
    }
}

impl Semaphore {
    /// Returns the semaphore's name.
    #[doc(alias = "glGenSemaphoresEXT")]
    pub fn name(&self) -> u32 {
        self.0.name.name.0.get()
    }

    /// Returns whether the semaphore is binary or a timeline.
    pub fn kind(&self) -> SemaphoreKind {
        self.0.kind
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.name.endpoint
    }

    /// Locks and returns the value last signalled. No other thread signals the semaphore until it
    /// is unlocked.
    pub(super) fn signalled(&self) -> MutexGuard<'_, u64> {
        self.0.signalled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for a semaphore that isn't an opaque fd.
pub(super) fn missing_handle_type(handle_type: SemaphoreHandleType) -> Missing {
    Missing::new(Api::OpenGl, format!("semaphores as {handle_type}"), "importing a semaphore")
        .help("export an opaque fd: GL_EXT_semaphore_fd has no other handle type")
}

/// The layouts that OpenGL has a token for, and the tokens.
const TOKENS: [(ImageLayout, u32); 10] = [
    (ImageLayout::UNDEFINED, glow::NONE),
    (ImageLayout::GENERAL, 0x958D),
    (ImageLayout::COLOR_ATTACHMENT_OPTIMAL, 0x958E),
    (ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL, 0x958F),
    (ImageLayout::DEPTH_STENCIL_READ_ONLY_OPTIMAL, 0x9590),
    (ImageLayout::SHADER_READ_ONLY_OPTIMAL, 0x9591),
    (ImageLayout::TRANSFER_SRC_OPTIMAL, 0x9592),
    (ImageLayout::TRANSFER_DST_OPTIMAL, 0x9593),
    (ImageLayout::DEPTH_READ_ONLY_STENCIL_ATTACHMENT_OPTIMAL, 0x9530),
    (ImageLayout::DEPTH_ATTACHMENT_STENCIL_READ_ONLY_OPTIMAL, 0x9531),
];

/// Returns the layouts that OpenGL has a token for: those in which a texture can be handed over.
///
/// # References
/// `GL_EXT_semaphore`, table 4.4: texture layouts and the corresponding Vulkan image layouts.
pub fn texture_layouts() -> impl ExactSizeIterator<Item = ImageLayout> {
    TOKENS.iter().map(|(layout, _)| *layout)
}

/// Returns the token of `layout`.
pub(super) fn token(layout: ImageLayout) -> Result<u32> {
    let row = TOKENS.iter().find(|(known, _)| *known == layout);
    row.map(|(_, token)| *token).ok_or_else(|| {
        Invalid::new("textures.layout", format!("{layout} has no OpenGL token"))
            .help("hand the image over in VK_IMAGE_LAYOUT_GENERAL")
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the registry's `GL_EXT_semaphore`: each `GL_LAYOUT_*_EXT`, its value, and the
    /// value of the `VkImageLayout` that it corresponds to.
    #[test]
    fn each_token_is_the_registrys() {
        let registry = [
            ("NONE", 0, 0),
            ("LAYOUT_GENERAL", 0x958D, 1),
            ("LAYOUT_COLOR_ATTACHMENT", 0x958E, 2),
            ("LAYOUT_DEPTH_STENCIL_ATTACHMENT", 0x958F, 3),
            ("LAYOUT_DEPTH_STENCIL_READ_ONLY", 0x9590, 4),
            ("LAYOUT_SHADER_READ_ONLY", 0x9591, 5),
            ("LAYOUT_TRANSFER_SRC", 0x9592, 6),
            ("LAYOUT_TRANSFER_DST", 0x9593, 7),
            ("LAYOUT_DEPTH_READ_ONLY_STENCIL_ATTACHMENT", 0x9530, 1_000_117_000),
            ("LAYOUT_DEPTH_ATTACHMENT_STENCIL_READ_ONLY", 0x9531, 1_000_117_001),
        ];
        assert_eq!(texture_layouts().len(), registry.len());
        for (name, value, vulkan) in registry {
            assert_eq!(token(ImageLayout::from_raw(vulkan)), Ok(value), "GL_{name}_EXT");
        }
    }

    #[test]
    fn a_layout_without_a_token_is_refused_by_name() {
        for layout in [ImageLayout::PREINITIALIZED, ImageLayout::PRESENT_SRC_KHR] {
            let refused = token(layout).unwrap_err().to_string();
            assert!(refused.contains(&layout.to_string()), "{refused}");
        }
    }
}
