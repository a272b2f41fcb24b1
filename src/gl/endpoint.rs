//! The endpoint: the application's context, borrowed, and the objects to delete in it.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::{fmt, mem};

use glow::HasContext as _;

use super::context::{self, CurrentContext, checked};
use super::ffi::{Features, Functions};
use super::workarounds::Workarounds;
use crate::error::{Invalid, Missing, Result};
use crate::identity::Identity;

/// A borrowed OpenGL context that imports. Cheap to clone; neither `Send` nor `Sync`, since the
/// context stays current on its thread.
#[derive(Clone)]
pub struct Endpoint(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) gl: Rc<glow::Context>,
    pub(super) functions: Functions,
    pub(super) features: Features,
    pub(super) workarounds: Workarounds,
    identities: Vec<Identity>,
    current: CurrentContext,
    /// In the order in which the objects were dropped.
    dropped: RefCell<Vec<Name>>,
    // Last: what may destroy the context is dropped after everything that uses it.
    _owner: Option<Rc<dyn Any>>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("current", &self.0.current)
            .field("identities", &self.0.identities)
            .field("dropped", &self.0.dropped)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Creates an endpoint over the application's context, which must be current on this thread.
    ///
    /// `loader` is what `gl` was loaded with, such as `eglGetProcAddress`. It is not kept. Through
    /// it the endpoint also finds `eglGetCurrentContext` or `glXGetCurrentContext`, with which it
    /// checks before each operation that the context is current.
    ///
    /// `owner` is kept until the endpoint and everything created from it are dropped. Pass the object
    /// that destroys the context, or pass `None` and keep the context alive yourself.
    ///
    /// # Safety
    /// - `loader` returns null or the address of the function of that name, and `gl` was loaded with
    ///   it in the context that is current.
    /// - The context outlives the endpoint and everything created from it, unless `owner` ensures
    ///   that. A later context at the same address would be mistaken for this one.
    /// - No other thread makes the context current while a method of the endpoint runs.
    ///
    /// # Errors
    /// [`Invalid`] if no context is current; [`Missing`] if the context has neither
    /// `GL_EXT_memory_object` nor `GL_EXT_semaphore`, without which its GPU can't be identified.
    ///
    /// # References
    /// `GL_EXT_memory_object` and `GL_EXT_semaphore`: `glGetUnsignedBytevEXT`,
    /// `glGetUnsignedBytei_vEXT`, `GL_DEVICE_UUID_EXT`, `GL_DRIVER_UUID_EXT`.
    #[doc(alias = "glGetUnsignedBytevEXT")]
    #[doc(alias = "glGetUnsignedBytei_vEXT")]
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
        let renderer = context::renderer(&gl, functions.core)?;
        let identities = context::identities(&gl, &uuid, &renderer)?;
        let workarounds = Workarounds::of(&renderer);
        tracing::debug!(gpu = %renderer, ?current, ?features, ?workarounds, "OpenGL endpoint");
        Ok(Self(Rc::new(Inner {
            gl,
            functions,
            features,
            workarounds,
            identities,
            current,
            dropped: RefCell::default(),
            _owner: owner,
        })))
    }

    /// Returns the application's context.
    pub fn gl(&self) -> &Rc<glow::Context> {
        &self.0.gl
    }

    /// Returns the GPUs and the driver of the context: one entry, or several if the driver spreads
    /// the context over several GPUs.
    pub fn identities(&self) -> &[Identity] {
        &self.0.identities
    }

    /// Returns whether the context is current on this thread, as the other methods require.
    #[doc(alias = "eglGetCurrentContext")]
    #[doc(alias = "glXGetCurrentContext")]
    pub fn is_current(&self) -> bool {
        self.0.current.is_current()
    }

    /// Returns whether both are the same endpoint. An object of one endpoint can't be used with
    /// another.
    pub fn is_same(&self, other: &Endpoint) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Deletes the objects that were dropped while the context was not current, and returns their
    /// number. Every other operation does this too.
    ///
    /// # Errors
    /// [`Invalid`] if the context is not current.
    pub fn delete_dropped(&self) -> Result<usize> {
        self.0.current.check()?;
        Ok(self.0.delete_dropped())
    }

    /// Makes what another API wrote visible to the OpenGL commands that follow. Call it after a host
    /// wait for the other API; it isn't needed after [`wait`](Self::wait).
    ///
    /// OpenGL has no command for this: `glMemoryBarrier` with all bits makes drivers drop their
    /// texture, vertex and constant caches. Before OpenGL 4.2, which lacks it, a `glFlush` begins a
    /// new batch, with the same effect.
    ///
    /// # Errors
    /// [`Invalid`] if the context is not current, [`Driver`](crate::Error::Driver) if the call fails.
    ///
    /// # References
    /// `glMemoryBarrier`, `GL_ALL_BARRIER_BITS`.
    #[doc(alias = "glMemoryBarrier")]
    pub fn memory_barrier(&self) -> Result<()> {
        self.enter()?;
        self.barrier()
    }

    /// Begins an operation: the context must be current, and dropped objects are deleted.
    pub(super) fn enter(&self) -> Result<()> {
        self.delete_dropped().map(drop)
    }

    /// Orders the commands so far before all that follow. The context must be current.
    pub(super) fn barrier(&self) -> Result<()> {
        if self.0.features.memory_barrier {
            // SAFETY: the context is current and has the function (`Features`); all bits are valid.
            checked(&self.0.gl, "glMemoryBarrier", || unsafe {
                self.0.gl.memory_barrier(glow::ALL_BARRIER_BITS);
            })
        } else {
            self.flush()
        }
    }

    /// Sends the commands so far to the GPU. The context must be current.
    pub(super) fn flush(&self) -> Result<()> {
        // SAFETY: the context is current, and glFlush takes nothing.
        checked(&self.0.gl, "glFlush", || unsafe { self.0.gl.flush() })
    }

    /// Rejects an object of another endpoint, whose name refers to a different object here.
    pub(super) fn check_same(&self, other: &Endpoint, parameter: &'static str) -> Result<()> {
        if self.is_same(other) {
            return Ok(());
        }
        Err(Invalid::new(parameter, "belongs to another OpenGL endpoint")
            .help("use it with the endpoint (or a clone of it) that imported it")
            .into())
    }
}

/// A memory object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryName(pub(super) NonZeroU32);

/// A semaphore's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SemaphoreName(pub(super) NonZeroU32);

/// The name of an object of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Buffer(glow::Buffer),
    Texture(glow::Texture),
    Memory(MemoryName),
    Semaphore(SemaphoreName),
    Fence(glow::Fence),
}

macro_rules! name_from {
    ($($kind:ident($name:ty)),*) => {$(
        impl From<$name> for Name {
            fn from(name: $name) -> Self {
                Self::$kind(name)
            }
        }
    )*};
}
name_from!(
    Buffer(glow::NativeBuffer),
    Texture(glow::NativeTexture),
    Memory(MemoryName),
    Semaphore(SemaphoreName),
    Fence(glow::NativeFence)
);

/// An object of the endpoint's context. Dropping it deletes the name: at once if the context is
/// current, else with the next operation.
pub(super) struct Owned<N: Copy + Into<Name>> {
    pub(super) name: N,
    pub(super) endpoint: Endpoint,
}

impl<N: Copy + Into<Name>> Owned<N> {
    pub(super) fn new(endpoint: &Endpoint, name: N) -> Self {
        Self { name, endpoint: endpoint.clone() }
    }
}

impl<N: Copy + Into<Name>> fmt::Debug for Owned<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.into().fmt(f)
    }
}

impl<N: Copy + Into<Name>> Drop for Owned<N> {
    fn drop(&mut self) {
        let inner = &self.endpoint.0;
        inner.dropped.borrow_mut().push(self.name.into());
        if inner.current.is_current() {
            inner.delete_dropped();
        }
    }
}

impl Inner {
    /// Deletes the dropped objects in order and returns their number. The context must be current.
    fn delete_dropped(&self) -> usize {
        let names = mem::take(&mut *self.dropped.borrow_mut());
        let frees_memory = names.iter().any(|name| matches!(name, Name::Memory(_)));
        if frees_memory && self.workarounds.finish_before_freeing {
            // SAFETY: the context is current, and glFinish takes nothing.
            unsafe { self.gl.finish() };
        }
        for &name in &names {
            self.delete(name);
        }
        names.len()
    }

    /// Deletes one object. That generates no error, and none is queried: a pending error is the
    /// application's.
    fn delete(&self, name: Name) {
        match name {
            // SAFETY: the context is current; the name is a buffer that this endpoint created, and
            // it is deleted once, here.
            Name::Buffer(buffer) => unsafe { self.gl.delete_buffer(buffer) },
            // SAFETY: as above, for a texture.
            Name::Texture(texture) => unsafe { self.gl.delete_texture(texture) },
            // SAFETY: as above, for a sync object.
            Name::Fence(fence) => unsafe { self.gl.delete_sync(fence) },
            Name::Memory(memory) => {
                let Ok(functions) = &self.functions.memory else { return };
                // SAFETY: as above, for a memory object: the array has one name.
                unsafe { (functions.delete)(1, &memory.0.get()) };
            }
            Name::Semaphore(semaphore) => {
                let Ok(functions) = &self.functions.semaphore else { return };
                // SAFETY: as above, for a semaphore: the array has one name.
                unsafe { (functions.delete)(1, &semaphore.0.get()) };
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let names = self.dropped.get_mut().len();
        if names == 0 {
            return;
        }
        if self.current.is_current() {
            self.delete_dropped();
        } else {
            // The context frees its objects when it is destroyed.
            tracing::warn!(names, "an OpenGL endpoint ended while its context was not current");
        }
    }
}
