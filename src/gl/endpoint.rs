//! The endpoint: the user's context, borrowed.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::fmt;
use std::rc::Rc;

use glow::HasContext as _;

use super::current::CurrentContext;
use super::deletion::Name;
use super::error::checked;
use super::features::Features;
use super::ffi::Functions;
use super::identity;
use super::workarounds::Workarounds;
use crate::error::{Api, Invalid, Missing, Result};
use crate::identity::Identity;

/// A borrowed OpenGL context, able to import. Cheap to clone; neither `Send` nor `Sync`, as the
/// context stays current on its thread.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) shared: Rc<Shared>,
}

pub(super) struct Shared {
    pub(super) gl: Rc<glow::Context>,
    pub(super) functions: Functions,
    pub(super) features: Features,
    pub(super) workarounds: Workarounds,
    pub(super) identities: Vec<Identity>,
    pub(super) current: CurrentContext,
    pub(super) deletions: RefCell<Vec<Name>>,
    // Last: what may destroy the context goes when nothing above is in use any more.
    _owner: Option<Rc<dyn Any>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("current", &self.current)
            .field("identities", &self.identities)
            .field("deletions", &self.deletions)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint over the user's context, which is current on this thread.
    ///
    /// `loader` is what `gl` was loaded with: `eglGetProcAddress` or its like. It is used here and
    /// not kept. Through it the library also finds `eglGetCurrentContext` or
    /// `glXGetCurrentContext`, with which it sees before each operation that the context is current.
    ///
    /// `owner` is kept until the endpoint and everything made from it is gone: give what destroys
    /// the context where there is such a thing, or `None` and keep the promise below yourself.
    ///
    /// # Safety
    /// - `loader` returns null or the address of the function of that name, and `gl` was loaded with
    ///   it in the context that is current.
    /// - The context outlives the endpoint and everything made from it, unless `owner` sees to it.
    ///   A later context at the same address would be taken for this one.
    /// - No other thread makes the context current while a method of the endpoint runs.
    ///
    /// # Errors
    /// [`Invalid`] where no context is current; [`Missing`] where the context has neither
    /// `GL_EXT_memory_object` nor `GL_EXT_semaphore`, for then it can't tell which GPU it is on.
    ///
    /// # References
    /// `GL_EXT_memory_object` and `GL_EXT_semaphore`: `glGetUnsignedBytevEXT`,
    /// `glGetUnsignedBytei_vEXT`, `GL_DEVICE_UUID_EXT`, `GL_DRIVER_UUID_EXT`.
    pub unsafe fn new(
        gl: Rc<glow::Context>,
        loader: &mut dyn FnMut(&CStr) -> *const c_void,
        owner: Option<Rc<dyn Any>>,
    ) -> Result<Self> {
        let extensions = gl.supported_extensions();
        let features = Features::of(gl.version(), extensions);
        let functions = Functions::load(loader, extensions, &features)?;
        let current = CurrentContext::remember(loader, functions.core)?;
        let uuid = *functions.uuid.as_ref().map_err(Missing::clone)?;
        let renderer = renderer(&gl, &functions)?;
        let identities = identity::read(&gl, &uuid, &renderer)?;
        let workarounds = Workarounds::of(&renderer);
        tracing::debug!(gpu = %renderer, ?current, ?features, ?workarounds, "OpenGL endpoint");
        let deletions = RefCell::default();
        Ok(Self {
            shared: Rc::new(Shared {
                gl,
                functions,
                features,
                workarounds,
                identities,
                current,
                deletions,
                _owner: owner,
            }),
        })
    }

    /// The user's context.
    pub fn gl(&self) -> &Rc<glow::Context> {
        &self.shared.gl
    }

    /// The GPUs and the driver of the context: mostly one entry, several where the driver spreads a
    /// context over several GPUs.
    pub fn identities(&self) -> &[Identity] {
        &self.shared.identities
    }

    /// Whether the context is current on this thread, as every other method needs it.
    pub fn is_current(&self) -> bool {
        self.shared.current.is_current()
    }

    /// Whether both endpoints are the same one: objects of one can't be used with another.
    pub fn is_same(&self, other: &Endpoint) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    /// Deletes the names of what was dropped while the context was not current, and says how many.
    /// Every operation does this too.
    ///
    /// # Errors
    /// [`Invalid`] where the context is not current.
    pub fn collect(&self) -> Result<usize> {
        self.shared.current.require()?;
        Ok(self.shared.delete_discarded())
    }

    /// Makes what another API has written, and the host has waited for, visible to the OpenGL
    /// commands that follow. Call it when the host wait is over and OpenGL goes on; after
    /// [`wait`](Self::wait) it isn't needed.
    ///
    /// OpenGL names no command for this: `glMemoryBarrier` with all bits makes drivers drop their
    /// texture, vertex and constant caches. Where it is missing (before OpenGL 4.2) a `glFlush`
    /// begins a new batch, which does the same.
    ///
    /// # Errors
    /// [`Invalid`] where the context is not current, [`Driver`](crate::Error::Driver) where OpenGL
    /// refuses.
    ///
    /// # References
    /// `glMemoryBarrier`, `GL_ALL_BARRIER_BITS`.
    pub fn memory_barrier(&self) -> Result<()> {
        self.shared.enter()?;
        self.shared.memory_barrier()
    }
}

impl Shared {
    /// What every operation begins with: the context is current, and old names are deleted.
    pub(super) fn enter(&self) -> Result<()> {
        self.current.require()?;
        self.delete_discarded();
        Ok(())
    }

    /// A barrier between what came before and all that follows. The context is current.
    pub(super) fn memory_barrier(&self) -> Result<()> {
        if self.features.memory_barrier {
            // SAFETY: the context is current and has the function (`Features`); all bits are valid.
            checked(&self.gl, "glMemoryBarrier", || unsafe {
                self.gl.memory_barrier(glow::ALL_BARRIER_BITS);
            })
        } else {
            self.flush()
        }
    }

    /// Sends what was recorded to the GPU. The context is current.
    pub(super) fn flush(&self) -> Result<()> {
        // SAFETY: the context is current, and glFlush takes nothing.
        checked(&self.gl, "glFlush", || unsafe { self.gl.flush() })
    }

    /// Refuses an object that another endpoint made: its name means something else here.
    pub(super) fn check_same(&self, other: &Shared, parameter: &'static str) -> Result<()> {
        if std::ptr::eq(self, other) {
            return Ok(());
        }
        Err(Invalid::new(parameter, "belongs to another OpenGL endpoint")
            .help("use it with the endpoint (or a clone of it) that imported it")
            .into())
    }
}

crate::peer::impl_peer! {
    Endpoint, Api::OpenGl, super::Memory, super::Buffer, super::Texture, super::Semaphore,
    unsafe fn wait_idle(&self) -> Result<()> {
        self.shared.enter()?;
        // SAFETY: the context is current, and glFinish takes nothing.
        checked(&self.shared.gl, "glFinish", || unsafe { self.shared.gl.finish() })
    }
}

/// `GL_RENDERER`. The context is current.
fn renderer(gl: &glow::Context, functions: &Functions) -> Result<String> {
    let get_string = functions.core.get_string;
    // SAFETY: the context is current, and GL_RENDERER is a valid name.
    let pointer =
        checked(gl, "glGetString(GL_RENDERER)", || unsafe { get_string(glow::RENDERER) })?;
    if pointer.is_null() {
        return Err(Missing::new(Api::OpenGl, "GL_RENDERER", "naming the GPU").into());
    }
    // SAFETY: a string that glGetString returns ends in a NUL and stays as it is while the context
    // lives; it is copied here.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}
