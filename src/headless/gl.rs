//! An OpenGL context, opened without a display on a GPU with a UUID.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::rc::Rc;

use glow::HasContext;
use glutin::api::egl::device::Device;
use glutin::api::egl::display::Display;
use glutin::prelude::*;

use super::egl::{self, Current};
use super::error::{self, OPEN_GL};
use super::instance::InitLock;
use super::options::GpuSelector;
use crate::error::{Api, Error, Missing, Result};
use crate::gl::Endpoint;
use crate::identity::{Identity, Uuid};

/// A surfaceless OpenGL core context on EGL's device platform. It belongs to one thread.
///
/// The context is destroyed when this and the last object created from its
/// [`endpoint`](Self::endpoint)s are dropped; if it is current then, it is released first. Any number
/// of contexts may be open, on one thread or on several.
///
/// # References
/// `EGL_EXT_device_enumeration`, `EGL_EXT_platform_device`, `EGL_KHR_surfaceless_context`.
pub struct Gl {
    context: Rc<Context>,
}

/// The context and its description. The glow context has no debug callback (setting one requires
/// unique access, which an `Rc` doesn't give), so dropping it makes no GL call.
struct Context {
    glow: Rc<glow::Context>,
    identities: Vec<Identity>,
    display: Display,
    egl: egl::Context,
}

impl Gl {
    /// Opens a context on the selected GPU and makes it current on this thread. If opening fails, the
    /// context that was current before is current again.
    ///
    /// EGL can't select a GPU by UUID, so its devices are tried until the `GL_DEVICE_UUID_EXT` of one
    /// matches. The context is of OpenGL 4.5 core or newer if the driver has it, else of 4.3 or 3.3.
    ///
    /// # Errors
    /// [`Missing`] if libEGL, one of its extensions or the GPU (the error lists the GPUs that OpenGL
    /// sees) is absent, or if OpenGL can't share memory at all; [`Driver`](Error::Driver) if EGL
    /// refuses a call.
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
        let egl = egl::Context::make_current_first(egl::create_context(&display)?)?;
        let loader = |name: &CStr| display.get_proc_address(name);
        // SAFETY: the context is current, and the loader is its own.
        let (glow, identities) = unsafe { describe(loader) }?;
        let context = Rc::new(Context { glow, identities, display, egl });
        let gl = Self { context };
        if selected.is_none_or(|uuid| gl.is_on(uuid)) {
            tracing::debug!(gpu = ?gl.identities(), "OpenGL context");
            Ok(Opened::Selected(gl))
        } else {
            Ok(Opened::Other(gl.identities().to_vec()))
        }
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

    /// Makes no context current on this thread if this one is; else does nothing.
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
    pub fn glow(&self) -> &Rc<glow::Context> {
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
    /// As [`make_current`](Self::make_current) and [`Endpoint::new`].
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.make_current()?;
        let mut loader = self.loader();
        // SAFETY: the context is current, the functions and the loader are its own, and the endpoint
        // keeps what destroys it.
        unsafe { Endpoint::new(self.glow().clone(), &mut loader, Some(self.context.clone())) }
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

/// Loads the functions of the current context and reads which GPUs it is on.
///
/// # Safety
/// A context is current and `loader` finds its functions.
unsafe fn describe(
    mut loader: impl FnMut(&CStr) -> *const c_void,
) -> Result<(Rc<glow::Context>, Vec<Identity>)> {
    // SAFETY: the caller's promises, here and below.
    unsafe { check_version(&mut loader) }?;
    // SAFETY: a context is current, and its GL_VERSION, which glow reads first, is readable.
    let glow = Rc::new(unsafe { glow::Context::from_loader_function_cstr(&mut loader) });
    // SAFETY: as above; the endpoint doesn't outlive this function.
    let endpoint = unsafe { Endpoint::new(glow.clone(), &mut loader, None) }?;
    Ok((glow, endpoint.identities().to_vec()))
}

/// Checks that `GL_VERSION` is readable: otherwise glow panics.
///
/// # Safety
/// A context is current and `loader` finds its functions.
unsafe fn check_version(loader: &mut dyn FnMut(&CStr) -> *const c_void) -> Result<()> {
    /// `GL_VERSION`.
    const VERSION: u32 = 0x1F02;
    type GetString = unsafe extern "system" fn(u32) -> *const u8;
    let unreadable = |what: &str| {
        Missing::new(Api::OpenGl, format!("a readable GL_VERSION ({what})"), OPEN_GL)
            .help("update the driver, or install one of desktop OpenGL")
    };
    let address = loader(c"glGetString");
    if address.is_null() {
        return Err(unreadable("no glGetString").into());
    }
    // SAFETY: this is the function's signature.
    let get_string = unsafe { std::mem::transmute::<*const c_void, GetString>(address) };
    // SAFETY: a context is current; the string is the driver's and static.
    let version = unsafe { egl::static_text(get_string(VERSION)) };
    let version = version.ok_or_else(|| unreadable("null or not UTF-8"))?;
    if is_desktop_version(version) { Ok(()) } else { Err(unreadable(version).into()) }
}

/// Returns whether `text` begins with "major.minor", as in desktop OpenGL.
fn is_desktop_version(text: &str) -> bool {
    let release = text.split(' ').next().unwrap_or_default();
    let mut numbers = release.split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(_)), Some(Ok(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_glow_cannot_read_is_refused() {
        for text in ["4.5 (Core Profile) Mesa 22.3.6", "4.6.0 NVIDIA 580.159", "3.3"] {
            assert!(is_desktop_version(text), "{text}");
        }
        for text in ["", "OpenGL ES 3.2 Mesa", "4", "4.", "x.y", "4.x Mesa"] {
            assert!(!is_desktop_version(text), "{text}");
        }
    }
}
