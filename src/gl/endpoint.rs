//! The endpoint: the application's context, borrowed.

use std::any::Any;
use std::ffi::{CStr, c_void};
use std::fmt;
use std::sync::{Arc, Mutex};

use glow::HasContext as _;

use super::context::{self, CurrentContext, Owner};
use super::errors::{AppErrors, checked};
use super::features::Features;
use super::ffi::{CoreFns, Functions, Loader};
use super::holders::Found;
use super::names::ShareGroup;
use super::workarounds::Workarounds;
use crate::error::{Invalid, Missing, Result};
use crate::identity::Identity;

/// A borrowed OpenGL context, which imports payloads. Cheap to clone.
///
/// An endpoint and its objects can be sent to other threads and used from several: each operation
/// checks that the context is current on its thread, which is true of at most one thread at a time.
#[derive(Clone)]
pub struct Endpoint(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) gl: Arc<glow::Context>,
    pub(super) functions: Functions,
    pub(super) features: Features,
    pub(super) workarounds: Workarounds,
    identities: Vec<Identity>,
    pub(super) current: CurrentContext,
    pub(super) group: Arc<ShareGroup>,
    pub(super) found: Mutex<Found>,
    // Last, since it may destroy the context: it must be dropped after everything that uses it.
    _owner: Owner,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("current", &self.0.current)
            .field("identities", &self.0.identities)
            .field("group", &self.0.group)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Creates an endpoint over the application's context, which must be current on this thread.
    ///
    /// `loader` is what `gl` was loaded with, such as `eglGetProcAddress`. It is used only during
    /// this call. The endpoint also gets `eglGetCurrentContext` or `glXGetCurrentContext` from it,
    /// to check before each operation that the context is current. If neither has a current
    /// context, as with OSMesa, the endpoint works only on this thread.
    ///
    /// `owner` is kept until the endpoint and everything created from it are dropped. Pass the
    /// object that destroys the context, or pass `None` and keep the context alive yourself.
    ///
    /// # Safety
    /// - `loader` returns null or the address of the function of that name, and `gl` was loaded
    ///   with it in the context that is current.
    /// - The context outlives the endpoint and everything created from it, unless `owner` ensures
    ///   that. A later context at the same address would be mistaken for this one.
    /// - `owner` may be dropped on any thread to which the endpoint or an object created from it is
    ///   sent.
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
        gl: Arc<glow::Context>,
        loader: &mut dyn FnMut(&CStr) -> *const c_void,
        owner: Option<Box<dyn Any>>,
    ) -> Result<Self> {
        Self::in_group(gl, loader, owner, Arc::default())
    }

    /// Creates an endpoint over the context that is current on this thread, and loads the functions
    /// that it needs with `loader`, such as `eglGetProcAddress`.
    ///
    /// The parameters are those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```no_run
    /// # unsafe extern "C" fn get_proc_address(_: *const std::ffi::c_char) -> *const std::ffi::c_void {
    /// #     std::ptr::null()
    /// # }
    /// use gpu_interop::gl::Endpoint;
    ///
    /// // SAFETY: the application's context is current here, and lives longer than the endpoint.
    /// let endpoint = unsafe {
    ///     Endpoint::load(&mut |name| get_proc_address(name.as_ptr()), None)?
    /// };
    /// println!("{:?}", endpoint.identities());
    /// # Ok::<(), gpu_interop::Error>(())
    /// ```
    ///
    /// # Safety
    /// Same as [`new`](Self::new).
    ///
    /// # Errors
    /// Same as [`new`](Self::new), and [`Missing`] if `GL_VERSION` is not readable.
    pub unsafe fn load(
        loader: &mut dyn FnMut(&CStr) -> *const c_void,
        owner: Option<Box<dyn Any>>,
    ) -> Result<Self> {
        context::check_version(CoreFns::find(loader)?)?;
        // SAFETY: a context is current, and its version is readable (`check_version`).
        let gl = Arc::new(unsafe { glow::Context::from_loader_function_cstr(&mut *loader) });
        // SAFETY: `gl` was loaded here, with the same loader; the rest are the caller's promises.
        unsafe { Self::new(gl, loader, owner) }
    }

    /// Creates an endpoint over another context, which shares its objects with this endpoint's
    /// context and is current on this thread. Each of the two accepts the other's buffers, textures
    /// and semaphores.
    ///
    /// The parameters are those of [`new`](Self::new). A memory barrier or a wait by one context
    /// has no effect on the other: synchronise the contexts with each other as OpenGL requires
    /// (chapter 5, "Shared Objects and Multiple Contexts").
    ///
    /// # Safety
    /// Same as [`new`](Self::new), and the two contexts are in one share group (the `share_context`
    /// of `eglCreateContext`).
    ///
    /// # Errors
    /// Same as [`new`](Self::new).
    #[doc(alias = "eglCreateContext")]
    pub unsafe fn new_shared(
        &self,
        gl: Arc<glow::Context>,
        loader: &mut dyn FnMut(&CStr) -> *const c_void,
        owner: Option<Box<dyn Any>>,
    ) -> Result<Self> {
        Self::in_group(gl, loader, owner, self.0.group.clone())
    }

    fn in_group(
        gl: Arc<glow::Context>,
        loader: &mut Loader<'_>,
        owner: Option<Box<dyn Any>>,
        group: Arc<ShareGroup>,
    ) -> Result<Self> {
        let (version, extensions) = (gl.version(), gl.supported_extensions());
        let features = Features::of(version, extensions);
        let functions = Functions::load(loader, version, extensions, &features)?;
        let current = CurrentContext::remember(loader, functions.core)?;
        let uuid = *functions.uuid.as_ref().map_err(Missing::clone)?;
        let (renderer, identities) = {
            let _errors = AppErrors::take(&gl, functions.core, &features)?;
            let renderer = context::renderer(&gl, functions.core)?;
            let identities = context::identities(&gl, &uuid, &renderer)?;
            (renderer, identities)
        };
        let workarounds = Workarounds::of(&renderer, version);
        tracing::debug!(gpu = %renderer, ?current, ?features, ?workarounds, "OpenGL endpoint");
        Ok(Self(Arc::new(Inner {
            gl,
            functions,
            features,
            workarounds,
            identities,
            current,
            group,
            found: Mutex::default(),
            _owner: Owner(owner),
        })))
    }

    /// Returns the application's context.
    pub fn gl(&self) -> &Arc<glow::Context> {
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

    /// Returns whether both are the same endpoint.
    pub fn is_same(&self, other: &Endpoint) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns whether an object of one endpoint can be used with the other: they are the same, or
    /// one was created by the other's [`new_shared`](Self::new_shared).
    pub fn shares_with(&self, other: &Endpoint) -> bool {
        Arc::ptr_eq(&self.0.group, &other.0.group)
    }

    /// Deletes the objects that were dropped while the context was not current, and returns their
    /// number. Every other operation does this first.
    ///
    /// With [`LLVMPIPE_FREES_HELD_MEMORY`](super::workarounds::LLVMPIPE_FREES_HELD_MEMORY), also
    /// frees all dropped memory that the application's objects don't hold.
    ///
    /// # Errors
    /// [`Invalid`] if the context is not current.
    pub fn delete_dropped(&self) -> Result<usize> {
        self.0.current.check()?;
        Ok(self.0.delete_dropped(true))
    }

    /// Makes what another API wrote visible to the OpenGL commands that follow. Call it after a
    /// host wait for the other API; it isn't needed after [`wait`](Self::wait).
    ///
    /// OpenGL has no command for exactly this, but `glMemoryBarrier` with all bits makes drivers
    /// invalidate their texture, vertex and constant caches. Before OpenGL 4.2, which introduced
    /// it, `glFlush` is used: it begins a new batch, with the same effect.
    ///
    /// # Errors
    /// [`Invalid`] if the context is not current, [`Driver`](crate::Error::Driver) if the call
    /// fails.
    ///
    /// # References
    /// `glMemoryBarrier`, `GL_ALL_BARRIER_BITS`.
    #[doc(alias = "glMemoryBarrier")]
    pub fn memory_barrier(&self) -> Result<()> {
        let _errors = self.enter()?;
        self.barrier()
    }

    /// Begins an operation: the context must be current, and dropped objects are deleted. The
    /// operation ends when the returned value is dropped.
    pub(super) fn enter(&self) -> Result<AppErrors<'_>> {
        self.0.current.check()?;
        self.0.delete_dropped(false);
        AppErrors::take(&self.0.gl, self.0.functions.core, &self.0.features)
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

    /// The contexts that share the names of objects.
    pub(super) fn group(&self) -> &ShareGroup {
        &self.0.group
    }

    /// Rejects an object of another endpoint, whose name refers to a different object here.
    pub(super) fn check_same(&self, other: &Endpoint, parameter: &'static str) -> Result<()> {
        if self.shares_with(other) {
            return Ok(());
        }
        Err(Invalid::new(parameter, "belongs to another OpenGL endpoint")
            .help(
                "use it with the endpoint that imported it, or create the endpoint of a context that \
                 shares objects with Endpoint::new_shared",
            )
            .into())
    }
}
