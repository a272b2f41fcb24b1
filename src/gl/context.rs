//! The application's context: whether it is current on this thread, its version and its GPUs.
//!
//! A call into OpenGL without a context does nothing and reports nothing under libglvnd
//! (`glGetError` returns `GL_NO_ERROR`, an out parameter stays as it was), and may crash elsewhere.
//! A call into another context is worse: names refer to other objects there. So EGL or GLX is
//! queried before each operation.

use std::any::Any;
use std::ffi::{CStr, c_void};
use std::fmt;
use std::thread::{self, ThreadId};

use glow::HasContext as _;

use super::errors::checked;
use super::ffi::{
    CoreFns, DEVICE_UUID_EXT, DRIVER_UUID_EXT, Loader, NUM_DEVICE_UUIDS_EXT, UUID_SIZE_EXT,
    UuidFns, resolve,
};
use crate::error::{Api, Invalid, Missing, Result};
use crate::identity::{Identity, Uuid};

/// What keeps the context alive.
pub(super) struct Owner(#[expect(dead_code, reason = "dropped")] pub(super) Option<Box<dyn Any>>);

// SAFETY: an owner is only dropped, once; the caller of `Endpoint::new` promised that any thread
// may do that.
unsafe impl Send for Owner {}
// SAFETY: nothing is accessed through a shared reference.
unsafe impl Sync for Owner {}

type GetCurrentContext = unsafe extern "system" fn() -> *const c_void;

const EGL: &CStr = c"eglGetCurrentContext";
const GLX: &CStr = c"glXGetCurrentContext";

/// The context that was current when the endpoint was created, and how to find out whether it is
/// current now.
pub(super) struct CurrentContext {
    query: ContextQuery,
    core: CoreFns,
}

#[derive(Clone, Copy)]
enum ContextQuery {
    /// EGL or GLX, which return the context: its address.
    WindowSystem { get: GetCurrentContext, context: usize },
    /// `glGetString(GL_VERSION)`, which shows only whether any context is current. So the context
    /// must stay on its thread.
    Version { on: ThreadId },
}

impl fmt::Debug for CurrentContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.query {
            ContextQuery::WindowSystem { context, .. } => write!(f, "CurrentContext({context:#x})"),
            ContextQuery::Version { .. } => f.write_str("CurrentContext(by GL_VERSION)"),
        }
    }
}

impl CurrentContext {
    /// Remembers the context that is current on this thread.
    ///
    /// # Errors
    /// [`Invalid`] if no context is current.
    pub(super) fn remember(loader: &mut Loader<'_>, core: CoreFns) -> Result<Self> {
        for get in window_systems(loader) {
            // SAFETY: the function of that name takes nothing, may be called at any time on any
            // thread, and returns null if no context is current.
            let context = unsafe { get() };
            if !context.is_null() {
                let query = ContextQuery::WindowSystem { get, context: context.addr() };
                return Ok(Self { query, core });
            }
        }
        // Neither has a current context: no context is current, or it is of another kind (OSMesa).
        let current = Self { query: ContextQuery::Version { on: thread::current().id() }, core };
        current.check()?;
        tracing::debug!("neither EGL nor GLX has a current context; checking GL_VERSION instead");
        Ok(current)
    }

    /// Returns whether the remembered context is current on this thread.
    pub(super) fn is_current(&self) -> bool {
        match self.query {
            // SAFETY: as in `remember`.
            ContextQuery::WindowSystem { get, context } => unsafe { get() }.addr() == context,
            ContextQuery::Version { on } => {
                // SAFETY: GL_VERSION is a valid name in every context. Without a context libglvnd
                // and Mesa return null; a platform on which the call is not allowed has EGL or GLX,
                // which were tried first.
                on == thread::current().id()
                    && !unsafe { (self.core.get_string)(glow::VERSION) }.is_null()
            }
        }
    }

    /// Returns an error unless the context is current.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(Invalid::new("context", "the endpoint's OpenGL context is not current on this thread")
            .help("make it current (eglMakeCurrent, glXMakeCurrent) before calling")
            .into())
    }
}

/// The functions that return the current context, in the order in which to try them.
///
/// `glXGetCurrentContext` comes from the loader only if `eglGetCurrentContext` doesn't: libglvnd's
/// `eglGetProcAddress` takes any name that begins with `gl` for an OpenGL function and returns a
/// stub, which returns garbage (measured with libglvnd 1.6).
fn window_systems(loader: &mut Loader<'_>) -> Vec<GetCurrentContext> {
    let egl = resolve!(loader, EGL, GetCurrentContext);
    let glx = match egl {
        Some(_) => None,
        None => resolve!(loader, GLX, GetCurrentContext),
    };
    let linked = |name: &CStr| {
        let mut global = |name: &CStr| {
            // SAFETY: the name ends in a NUL; RTLD_DEFAULT searches what is already loaded.
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.cast_const().cast()
        };
        let loader: &mut Loader<'_> = &mut global;
        resolve!(loader, name, GetCurrentContext)
    };
    [egl, glx, linked(EGL), linked(GLX)].into_iter().flatten().collect()
}

/// Returns `GL_RENDERER`. The context must be current.
pub(super) fn renderer(gl: &glow::Context, core: CoreFns) -> Result<String> {
    let pointer = checked(gl, "glGetString(GL_RENDERER)", || {
        // SAFETY: the context is current, and GL_RENDERER is a valid name.
        unsafe { (core.get_string)(glow::RENDERER) }
    })?;
    if pointer.is_null() {
        return Err(Missing::new(Api::OpenGl, "GL_RENDERER", "identifying the GPU")
            .help("update the driver: glGetString(GL_RENDERER) returned null")
            .into());
    }
    // SAFETY: a string that glGetString returns ends in a NUL and stays unchanged while the context
    // lives; it is copied here.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// Returns one identity per GPU of the context, all with the context's driver UUID and `name`. The
/// context must be current.
///
/// # Errors
/// [`Missing`] if the driver reports no GPU, [`Driver`](crate::Error::Driver) if a call fails.
pub(super) fn identities(gl: &glow::Context, uuid: &UuidFns, name: &str) -> Result<Vec<Identity>> {
    /// More GPUs than a context can be on: a larger count is a driver error.
    const MAX_DEVICES: u32 = 64;
    // SAFETY: the context is current, and GL_NUM_DEVICE_UUIDS_EXT has one integer.
    let count = checked(gl, "glGetIntegerv(GL_NUM_DEVICE_UUIDS_EXT)", || unsafe {
        gl.get_parameter_i32(NUM_DEVICE_UUIDS_EXT)
    })?;
    let count = u32::try_from(count).unwrap_or(0);
    if !(1..=MAX_DEVICES).contains(&count) {
        let help = format!(
            "GL_NUM_DEVICE_UUIDS_EXT is {count}; open the context on a driver that can share memory"
        );
        return Err(Missing::new(Api::OpenGl, "a device UUID", "identifying the context's GPU")
            .help(help)
            .into());
    }
    let driver = read_uuid(gl, "glGetUnsignedBytevEXT(GL_DRIVER_UUID_EXT)", |data| {
        // SAFETY: the context is current; GL_DRIVER_UUID_EXT fills GL_UUID_SIZE_EXT bytes, and
        // `data` has as many.
        unsafe { (uuid.get_unsigned_bytev)(DRIVER_UUID_EXT, data) }
    })?;
    (0..count)
        .map(|index| {
            let device = read_uuid(gl, "glGetUnsignedBytei_vEXT(GL_DEVICE_UUID_EXT)", |data| {
                // SAFETY: as above, for GL_DEVICE_UUID_EXT and an index below the count.
                unsafe { (uuid.get_unsigned_bytei_v)(DEVICE_UUID_EXT, index, data) }
            })?;
            Ok(Identity { device, driver: Some(driver), name: name.to_owned() })
        })
        .collect()
}

fn read_uuid(gl: &glow::Context, call: &'static str, get: impl FnOnce(*mut u8)) -> Result<Uuid> {
    let mut data = [0u8; UUID_SIZE_EXT];
    checked(gl, call, || get(data.as_mut_ptr()))?;
    Ok(Uuid::from_bytes(data))
}

/// Checks that glow can read `GL_VERSION`: it panics otherwise.
///
/// # Errors
/// [`Missing`] if no context is current, or if its version is not readable.
pub(super) fn check_version(core: CoreFns) -> Result<()> {
    // SAFETY: GL_VERSION is a valid name in every context; without a context, drivers return null.
    // The string ends in a NUL, and is used at once.
    let text = unsafe {
        let text = (core.get_string)(glow::VERSION);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
    };
    let text = text.ok_or_else(|| {
        Invalid::new("context", "no OpenGL context is current on this thread")
            .help("make it current (eglMakeCurrent, glXMakeCurrent) before calling")
    })?;
    if is_version(&text) {
        return Ok(());
    }
    Err(Missing::new(Api::OpenGl, format!("a readable GL_VERSION ({text})"), "an endpoint")
        .help("update the driver, or install one of desktop OpenGL")
        .into())
}

/// Returns whether `text` begins with "major.minor", after "OpenGL ES " in OpenGL ES.
fn is_version(text: &str) -> bool {
    let release = text.strip_prefix("OpenGL ES ").unwrap_or(text).split(' ').next();
    let mut numbers = release.unwrap_or_default().split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(_)), Some(Ok(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_glow_cannot_read_is_refused() {
        for text in ["4.5 (Core Profile) Mesa 22.3.6", "4.6.0 NVIDIA 580.159", "3.3"] {
            assert!(is_version(text), "{text}");
        }
        assert!(is_version("OpenGL ES 3.2 Mesa 22.3.6"));
        for text in ["", "OpenGL ES", "4", "4.", "x.y", "4.x Mesa"] {
            assert!(!is_version(text), "{text}");
        }
    }
}
