//! An OpenGL context, opened without a display on a GPU selected by UUID.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::sync::Arc;

use glow::HasContext;
use glutin::api::egl::context::NotCurrentContext;
use glutin::api::egl::device::Device;
use glutin::api::egl::display::Display;
use glutin::prelude::*;

use super::egl::{self, Current};
use super::error;
use super::instance::InitLock;
use super::options::GpuSelector;
use crate::error::{Api, Error, Missing, Result};
use crate::gl::Endpoint;
use crate::identity::{Identity, Uuid};

/// A surfaceless OpenGL core context on EGL's device platform.
///
/// The context is current on at most one thread at a time: to move it to another thread, call
/// [`release_current`](Self::release_current), and [`make_current`](Self::make_current) there. It
/// is destroyed when this and the last object created from its [`endpoint`](Self::endpoint)s are
/// dropped; if it is current then, it is released first. Any number of contexts may be open.
///
/// # References
/// `EGL_EXT_device_enumeration`, `EGL_EXT_platform_device`, `EGL_KHR_surfaceless_context`.
pub struct Gl {
    context: Arc<Context>,
}

/// The context and its description. The glow context has no debug callback (setting one requires
/// unique access, which an `Arc` doesn't give), so dropping it makes no GL call.
struct Context {
    glow: Arc<glow::Context>,
    identities: Vec<Identity>,
    display: Display,
    egl: egl::Context,
}

impl Gl {
    /// Opens a context on the selected GPU and makes it current on this thread. If opening fails,
    /// the context that was current before is current again.
    ///
    /// EGL can't select a GPU by UUID, so its devices are tried until the `GL_DEVICE_UUID_EXT` of
    /// one matches. The context has OpenGL 4.5 core or newer if the driver supports it, otherwise
    /// 4.3 or 3.3.
    ///
    /// # Errors
    /// [`Missing`] if libEGL, one of its extensions or the GPU (the error lists the GPUs that
    /// OpenGL sees) is absent, or if OpenGL can't share memory at all; [`Driver`](Error::Driver) if
    /// EGL refuses a call.
    #[doc(alias = "eglCreateContext")]
    pub fn open(gpu: &GpuSelector) -> Result<Self> {
        let _lock = InitLock::take();
        let selected = gpu.device_uuid()?;
        let mut devices = egl::devices()?;
        if let Some(selected) = selected {
            // The likely one first, then those without a UUID in EGL.
            devices.sort_by_key(|device| match egl::device_uuid(device) {
                Some(uuid) if uuid == selected => 0,
                None => 1,
                Some(_) => 2,
            });
        }
        let mut seen = Vec::new();
        let mut refusals = Vec::new();
        for device in &devices {
            match Self::on(device, selected) {
                Ok(Opened::Selected(gl)) => return Ok(gl),
                Ok(Opened::Other(identities)) => seen.extend(identities),
                Err(error) => {
                    tracing::debug!(device = device.name(), %error, "an EGL device was rejected");
                    refusals.push(error);
                }
            }
        }
        match (selected, refusals.into_iter().next()) {
            (Some(uuid), None) => Err(error::no_such_gpu(Api::OpenGl, uuid, seen.iter()).into()),
            (Some(uuid), Some(refusal)) => Err(refused(uuid, &seen, &refusal).into()),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Err(error::missing_in_egl("a device")),
        }
    }

    /// Opens another context on the same GPU, which shares its objects with this one, and makes it
    /// current on this thread. If opening fails, the context that was current before is current
    /// again.
    ///
    /// Create its endpoint with [`Endpoint::new_shared`].
    ///
    /// # Errors
    /// Same as [`open`](Self::open).
    #[doc(alias = "eglCreateContext")]
    pub fn open_shared(&self) -> Result<Self> {
        let _lock = InitLock::take();
        let Context { display, egl, .. } = &*self.context;
        let before = Current::remember(display);
        let opened = egl::create_context(display, Some(egl))
            .and_then(|context| Self::describe(display.clone(), context));
        if opened.is_err() {
            before.restore();
        }
        opened
    }

    /// Opens a context on `device`, and keeps it if it is on the selected GPU.
    fn on(device: &Device, selected: Option<Uuid>) -> Result<Opened> {
        let display = egl::display_of(device)?;
        let before = Current::remember(&display);
        let opened = Self::on_display(display, selected);
        if !matches!(opened, Ok(Opened::Selected(_))) {
            before.restore();
        }
        opened
    }

    fn on_display(display: Display, selected: Option<Uuid>) -> Result<Opened> {
        let context = egl::create_context(&display, None)?;
        let gl = Self::describe(display, context)?;
        if selected.is_none_or(|uuid| gl.is_on(uuid)) {
            tracing::debug!(gpu = ?gl.identities(), "OpenGL context");
            Ok(Opened::Selected(gl))
        } else {
            Ok(Opened::Other(gl.identities().to_vec()))
        }
    }

    /// Makes a new context current, loads its functions and reads which GPUs it is on.
    fn describe(display: Display, context: NotCurrentContext) -> Result<Self> {
        let egl = egl::Context::make_current_first(context)?;
        let mut loader = |name: &CStr| display.get_proc_address(name);
        // SAFETY: the context is current, the loader is its own, and the endpoint is dropped here.
        let endpoint = unsafe { Endpoint::load(&mut loader, None) }?;
        let (glow, identities) = (endpoint.gl().clone(), endpoint.identities().to_vec());
        drop(endpoint);
        Ok(Self { context: Arc::new(Context { glow, identities, display, egl }) })
    }

    /// Returns the GPUs of EGL's devices, by opening a context on each.
    pub(super) fn gpus() -> Result<Vec<Identity>> {
        let _lock = InitLock::take();
        let mut seen = Vec::new();
        for device in egl::devices()? {
            match Self::on(&device, None) {
                Ok(Opened::Selected(gl)) => seen.extend(gl.identities().iter().cloned()),
                Ok(Opened::Other(identities)) => seen.extend(identities),
                Err(error) => tracing::debug!(device = device.name(), %error, "not opened"),
            }
        }
        Ok(seen)
    }

    fn is_on(&self, uuid: Uuid) -> bool {
        self.identities().iter().any(|identity| identity.device == uuid)
    }

    /// Makes the context current on this thread, instead of any other.
    ///
    /// # Errors
    /// [`Driver`](Error::Driver) if EGL refuses, for example because a context of GLX is current.
    #[doc(alias = "eglMakeCurrent")]
    pub fn make_current(&self) -> Result<()> {
        self.context.egl.make_current()
    }

    /// Returns whether the context is current on this thread.
    #[doc(alias = "eglGetCurrentContext")]
    pub fn is_current(&self) -> bool {
        self.context.egl.is_current()
    }

    /// Makes no context current on this thread if this one is; otherwise does nothing.
    ///
    /// # Errors
    /// [`Driver`](Error::Driver) if EGL refuses.
    #[doc(alias = "eglMakeCurrent")]
    pub fn release_current(&self) -> Result<()> {
        self.context.egl.release_current()
    }

    /// Returns the GPUs and the driver of the context; several GPUs if they are linked.
    pub fn identities(&self) -> &[Identity] {
        &self.context.identities
    }

    /// Returns the OpenGL functions. The context must be current.
    pub fn glow(&self) -> &Arc<glow::Context> {
        &self.context.glow
    }

    /// Returns the loader of OpenGL functions, for those that `glow` lacks.
    #[doc(alias = "eglGetProcAddress")]
    pub fn loader(&self) -> impl Fn(&CStr) -> *const c_void + 'static {
        let display = self.context.display.clone();
        move |name| display.get_proc_address(name)
    }

    /// Creates an endpoint over the context, which it keeps alive. Makes the context current.
    ///
    /// # Errors
    /// Same as [`make_current`](Self::make_current) and [`Endpoint::new`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.make_current()?;
        let mut loader = self.loader();
        let owner = Box::new(self.context.clone());
        // SAFETY: the context is current, the functions and the loader are its own, and the
        // endpoint keeps what destroys it, which any thread may drop.
        unsafe { Endpoint::new(self.glow().clone(), &mut loader, Some(owner)) }
    }
}

impl fmt::Debug for Gl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gl")
            .field("identities", &self.identities())
            .field("version", self.glow().version())
            .finish_non_exhaustive()
    }
}

/// A context on the selected GPU, or the GPUs of another one.
enum Opened {
    Selected(Gl),
    Other(Vec<Identity>),
}

/// Reports that the GPU was not found, though it may be on a device that could not be opened.
fn refused(uuid: Uuid, seen: &[Identity], refusal: &Error) -> Missing {
    let mut missing = error::no_such_gpu(Api::OpenGl, uuid, seen.iter());
    let help = missing.help.take().unwrap_or_default();
    missing.help(format!("{help}; another device could not be opened: {refusal}"))
}
