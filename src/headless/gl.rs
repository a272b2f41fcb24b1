//! An OpenGL context, opened without a display.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::rc::Rc;

use glow::HasContext;
use glutin::api::egl::device::Device;
use glutin::api::egl::display::Display;
use glutin::prelude::*;

use super::egl::{self, Current};
use super::error;
use super::init_lock::InitLock;
use super::selector::GpuSelector;
use crate::error::{Api, Error, Missing, Result};
use crate::gl::Endpoint;
use crate::identity::{Identity, Uuid};

/// A surfaceless OpenGL core context, through EGL's device platform. Belongs to one thread.
///
/// The context is destroyed when this and the last thing made from its
/// [`endpoint`](Self::endpoint)s are gone; where it is current then, it is released first. Any number
/// of contexts may be open, on one thread or on several.
///
/// # References
/// `EGL_EXT_device_enumeration`, `EGL_EXT_platform_device`, `EGL_KHR_surfaceless_context`.
pub struct Gl {
    context: Rc<Context>,
}

/// The context and what tells of it. The glow context has no debug callback (nobody has the unique
/// access that setting one takes), so dropping it makes no GL call.
struct Context {
    glow: Rc<glow::Context>,
    identities: Vec<Identity>,
    display: Display,
    egl: egl::Context,
}

impl Gl {
    /// Opens a context on the GPU that is wished for. It is current on this thread afterwards; where
    /// opening fails, what was current before is again.
    ///
    /// Without a display there is no way to ask for a GPU, so EGL's devices are tried in turn until
    /// one's `GL_DEVICE_UUID_EXT` is the wanted one. The context is of OpenGL 4.5 core or newer where
    /// the driver has it, else of 4.3 or 3.3.
    ///
    /// # Errors
    /// [`Error::Missing`] where libEGL, one of its extensions or the GPU (the error lists those
    /// there are) is not there, or where OpenGL can't share memory at all; [`Error::Driver`] where
    /// EGL refuses a call.
    pub fn open(wish: &GpuSelector) -> Result<Self> {
        let _turn = InitLock::take();
        let wanted = wish.device_uuid()?;
        let mut devices = egl::devices()?;
        if let Some(wanted) = wanted {
            // The likely one first, then those that don't tell.
            devices.sort_by_key(|device| match egl::device_uuid(device) {
                Some(uuid) if uuid == wanted => 0,
                None => 1,
                Some(_) => 2,
            });
        }
        let mut seen = Vec::new();
        let mut refusals = Vec::new();
        for device in &devices {
            match Self::on(device, wanted) {
                Ok(Opened::Wanted(gl)) => return Ok(gl),
                Ok(Opened::Other(identities)) => seen.extend(identities),
                Err(error) => {
                    tracing::debug!(device = device.name(), %error, "an EGL device was passed over");
                    refusals.push(error);
                }
            }
        }
        match (wanted, refusals.into_iter().next()) {
            (Some(wanted), None) => {
                Err(error::no_such_gpu(Api::OpenGl, wanted, seen.iter()).into())
            }
            (Some(wanted), Some(refusal)) => Err(refused(wanted, &seen, &refusal).into()),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Err(error::missing_in_egl("a device")),
        }
    }

    /// Opens a context on `device`, which is kept where it is on the GPU `wanted`.
    fn on(device: &Device, wanted: Option<Uuid>) -> Result<Opened> {
        let display = egl::display_of(device)?;
        let before = Current::remember(&display);
        let opened = Self::on_display(display, wanted);
        if !matches!(opened, Ok(Opened::Wanted(_))) {
            before.restore();
        }
        opened
    }

    fn on_display(display: Display, wanted: Option<Uuid>) -> Result<Opened> {
        let egl = egl::Context::make_current_first(egl::create_context(&display)?)?;
        let loader = |name: &CStr| display.get_proc_address(name);
        // SAFETY: the context is current, and the loader is its own.
        let (glow, identities) = unsafe { describe(loader) }?;
        let context = Rc::new(Context { glow, identities, display, egl });
        let gl = Self { context };
        if wanted.is_none_or(|wanted| gl.is_on(wanted)) {
            tracing::debug!(gpu = ?gl.identities(), "OpenGL context");
            Ok(Opened::Wanted(gl))
        } else {
            Ok(Opened::Other(gl.identities().to_vec()))
        }
    }

    /// The GPUs that EGL has, each opened for a moment.
    pub(super) fn gpus() -> Result<Vec<Identity>> {
        let _turn = InitLock::take();
        let mut seen = Vec::new();
        for device in egl::devices()? {
            match Self::on(&device, None) {
                Ok(Opened::Wanted(gl)) => seen.extend(gl.identities().iter().cloned()),
                Ok(Opened::Other(identities)) => seen.extend(identities),
                Err(error) => tracing::debug!(device = device.name(), %error, "not opened"),
            }
        }
        Ok(seen)
    }

    fn is_on(&self, uuid: Uuid) -> bool {
        self.identities().iter().any(|identity| identity.device == uuid)
    }

    /// Makes the context current on this thread, in place of any other.
    ///
    /// # Errors
    /// [`Error::Driver`] where EGL refuses: a context of GLX is current, say.
    #[doc(alias = "eglMakeCurrent")]
    pub fn make_current(&self) -> Result<()> {
        self.context.egl.make_current()
    }

    /// Whether the context is current on this thread.
    #[doc(alias = "eglGetCurrentContext")]
    pub fn is_current(&self) -> bool {
        self.context.egl.is_current()
    }

    /// Makes no context current on this thread where this one is; else does nothing.
    ///
    /// # Errors
    /// [`Error::Driver`] where EGL refuses.
    #[doc(alias = "eglMakeCurrent")]
    pub fn release_current(&self) -> Result<()> {
        self.context.egl.release_current()
    }

    /// The GPUs and drivers the context stands for; more than one where GPUs are linked.
    pub fn identities(&self) -> &[Identity] {
        &self.context.identities
    }

    /// The GL functions. Using them takes that the context is current.
    pub fn glow(&self) -> &Rc<glow::Context> {
        &self.context.glow
    }

    /// Finds GL functions by name, for those that `glow` lacks.
    #[doc(alias = "eglGetProcAddress")]
    pub fn loader(&self) -> impl Fn(&CStr) -> *const c_void + 'static {
        let display = self.context.display.clone();
        move |name| display.get_proc_address(name)
    }

    /// A sharing endpoint over the context, which it keeps alive. Makes the context current.
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

/// A device that was tried.
enum Opened {
    Wanted(Gl),
    Other(Vec<Identity>),
}

/// The GPU may be one of those that EGL has and could not open.
fn refused(wanted: Uuid, seen: &[Identity], refusal: &Error) -> Missing {
    let mut missing = error::no_such_gpu(Api::OpenGl, wanted, seen.iter());
    let sees = missing.help.take().unwrap_or_default();
    missing.help(format!("{sees}; another device could not be opened: {refusal}"))
}

/// The functions of the current context, and the GPUs it is on.
///
/// # Safety
/// A context is current and `loader` finds its functions.
unsafe fn describe(
    mut loader: impl FnMut(&CStr) -> *const c_void,
) -> Result<(Rc<glow::Context>, Vec<Identity>)> {
    // SAFETY: the caller's promises, here and below.
    unsafe { check_version(&mut loader) }?;
    // SAFETY: glow asks for GL_VERSION first, which was found to be readable.
    let glow = Rc::new(unsafe { glow::Context::from_loader_function_cstr(&mut loader) });
    // SAFETY: as above; the endpoint doesn't outlive this function.
    let endpoint = unsafe { Endpoint::new(glow.clone(), &mut loader, None) }?;
    Ok((glow, endpoint.identities().to_vec()))
}

/// Reads `GL_VERSION` as glow does, which panics where it can't.
///
/// # Safety
/// A context is current and `loader` finds its functions.
unsafe fn check_version(loader: &mut dyn FnMut(&CStr) -> *const c_void) -> Result<()> {
    /// `GL_VERSION`.
    const VERSION: u32 = 0x1F02;
    type GetString = unsafe extern "system" fn(u32) -> *const u8;
    let unreadable = |what: &str| {
        Missing::new(Api::OpenGl, format!("a readable GL_VERSION ({what})"), error::NEED_GL)
    };
    let address = loader(c"glGetString");
    if address.is_null() {
        return Err(unreadable("there is no glGetString").into());
    }
    // SAFETY: this is the function's signature.
    let get_string = unsafe { std::mem::transmute::<*const c_void, GetString>(address) };
    // SAFETY: a context is current; the string is the driver's and static.
    let version = unsafe { egl::static_text(get_string(VERSION)) };
    let version = version.ok_or_else(|| unreadable("null, or no UTF-8"))?;
    if is_desktop_version(version) { Ok(()) } else { Err(unreadable(version).into()) }
}

/// Whether `text` begins with "major.minor", as desktop OpenGL's does.
fn is_desktop_version(text: &str) -> bool {
    let release = text.split(' ').next().unwrap_or_default();
    let mut numbers = release.split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(_)), Some(Ok(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_that_glow_can_read_gets_to_it() {
        for text in ["4.5 (Core Profile) Mesa 22.3.6", "4.6.0 NVIDIA 580.159", "3.3"] {
            assert!(is_desktop_version(text), "{text}");
        }
        for text in ["", "OpenGL ES 3.2 Mesa", "4", "4.", "x.y", "4.x Mesa"] {
            assert!(!is_desktop_version(text), "{text}");
        }
    }
}
