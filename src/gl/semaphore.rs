//! Imported semaphores, binary and timeline.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU32;
use std::rc::Rc;

use super::deletion::Name;
use super::endpoint::{Endpoint, Shared};
use super::error::{checked, driver_error};
use super::ffi::{
    HANDLE_TYPE_OPAQUE_FD_EXT, SEMAPHORE_TYPE_NV, SEMAPHORE_TYPE_TIMELINE_NV, SemaphoreFns,
};
use crate::error::{Api, ImportError, ImportResult, Missing, Result};
use crate::fd::{SemaphoreHandleType, transfer_duplicate};
use crate::payload::{SemaphoreKind, SemaphorePayload};

/// A semaphore that another API made, as OpenGL sees it. Reference counted: clones are the same
/// semaphore. Used by [`Endpoint::wait`] and [`Endpoint::signal`].
#[derive(Clone, Debug)]
pub struct Semaphore {
    object: Rc<SemaphoreObject>,
}

struct SemaphoreObject {
    name: NonZeroU32,
    kind: SemaphoreKind,
    /// The last value that was signalled through this object; 0 before that.
    signalled: Cell<u64>,
    shared: Rc<Shared>,
}

impl fmt::Debug for SemaphoreObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreObject")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("signalled", &self.signalled)
            .finish_non_exhaustive()
    }
}

impl Drop for SemaphoreObject {
    fn drop(&mut self) {
        self.shared.discard(Name::Semaphore(self.name));
    }
}

impl Endpoint {
    /// Imports a semaphore. Success consumes the descriptor.
    ///
    /// Import a semaphore once and keep it: NVIDIA's driver imports one
    /// [`NVIDIA_IMPORTS_OF_ONE_SEMAPHORE`] times and no more.
    ///
    /// [`NVIDIA_IMPORTS_OF_ONE_SEMAPHORE`]: super::workarounds::NVIDIA_IMPORTS_OF_ONE_SEMAPHORE
    ///
    /// # Errors
    /// The payload comes back, still open, with
    /// [`Mismatch`](crate::Error::Mismatch) where it is another GPU's or driver's,
    /// [`Missing`] for a sync fd or where the extension for its kind is missing,
    /// [`Invalid`](crate::error::Invalid) for what can't be a semaphore or where the context is not
    /// current, [`Driver`](crate::Error::Driver) where OpenGL refuses.
    ///
    /// # References
    /// `glGenSemaphoresEXT`, `glImportSemaphoreFdEXT` (`GL_HANDLE_TYPE_OPAQUE_FD_EXT`);
    /// `GL_NV_timeline_semaphore`: `glCreateSemaphoresNV`, `glSemaphoreParameterivNV`
    /// (`GL_SEMAPHORE_TYPE_NV`, before the import).
    #[doc(alias = "glImportSemaphoreFdEXT")]
    pub fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Semaphore, SemaphorePayload> {
        self.try_import_semaphore(&payload).map_err(|error| ImportError::new(payload, error))
    }

    /// Imports a duplicate of the descriptor, so that the payload stays whole if this fails.
    fn try_import_semaphore(&self, payload: &SemaphorePayload) -> Result<Semaphore> {
        let functions = self.check_semaphore(payload)?;
        let kind = payload.info().kind;
        let object = self.create_semaphore(kind, &functions)?;
        transfer_duplicate(payload, |raw| {
            // SAFETY: the context is current, the semaphore's name exists and has no semaphore yet,
            // and `raw` is open. On success OpenGL owns it (GL_EXT_semaphore_fd, section 4.2.1).
            checked(&self.shared.gl, "glImportSemaphoreFdEXT", || unsafe {
                (functions.import_fd)(object.name.get(), HANDLE_TYPE_OPAQUE_FD_EXT, raw);
            })
        })?;
        tracing::debug!(semaphore = object.name, ?kind, "imported into OpenGL");
        Ok(Semaphore { object: Rc::new(object) })
    }

    /// All that can be known before a descriptor is handed over; the functions to go on with.
    fn check_semaphore(&self, payload: &SemaphorePayload) -> Result<SemaphoreFns> {
        payload.check(self.identities())?;
        let handle_type = payload.info().handle_type;
        if handle_type != SemaphoreHandleType::OpaqueFd {
            return Err(missing_handle_type(handle_type).into());
        }
        let functions = *self.shared.functions.semaphore.as_ref().map_err(Missing::clone)?;
        self.shared.workarounds.check_semaphore_fd(payload)?;
        self.shared.enter()?;
        Ok(functions)
    }

    /// A name without a semaphore, its type set: it can't be after the import.
    fn create_semaphore(
        &self,
        kind: SemaphoreKind,
        functions: &SemaphoreFns,
    ) -> Result<SemaphoreObject> {
        let gl = &self.shared.gl;
        let timeline = match kind {
            SemaphoreKind::Binary => None,
            SemaphoreKind::Timeline => {
                Some(self.shared.functions.timeline.as_ref().map_err(Missing::clone)?)
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
        let shared = self.shared.clone();
        let object = SemaphoreObject { name, kind, signalled: Cell::new(0), shared };
        if let Some(timeline) = timeline {
            let call = "glSemaphoreParameterivNV(GL_SEMAPHORE_TYPE_NV)";
            let ty = SEMAPHORE_TYPE_TIMELINE_NV;
            // SAFETY: the semaphore exists and nothing is imported yet; the parameter is one integer.
            checked(gl, call, || unsafe {
                (timeline.parameteriv)(name.get(), SEMAPHORE_TYPE_NV, &ty);
            })?;
        }
        Ok(object)
    }
}

impl Semaphore {
    /// The semaphore's name.
    #[doc(alias = "glGenSemaphoresEXT")]
    pub fn name(&self) -> u32 {
        self.object.name.get()
    }

    /// Binary or timeline.
    pub fn kind(&self) -> SemaphoreKind {
        self.object.kind
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.object.shared
    }

    pub(super) fn signalled(&self) -> &Cell<u64> {
        &self.object.signalled
    }
}

/// What to say of a semaphore that doesn't travel as an opaque fd.
pub(super) fn missing_handle_type(handle_type: SemaphoreHandleType) -> Missing {
    Missing::new(Api::OpenGl, format!("semaphores by {handle_type}"), "importing a semaphore")
        .help("export an opaque fd: GL_EXT_semaphore_fd knows no other handle type")
}
