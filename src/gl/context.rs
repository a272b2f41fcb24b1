//! The application's context: whether it is current on this thread, which GPUs it is on, and its
//! errors.
//!
//! A call into OpenGL without a context does nothing and reports nothing under libglvnd (`glGetError`
//! returns `GL_NO_ERROR`, an out parameter stays as it was), and may crash elsewhere. A call into
//! another context is worse: names refer to other objects there. So EGL or GLX is queried before each
//! operation.

use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::fmt;

use glow::HasContext as _;

use super::ffi::{
    CoreFns, DEVICE_UUID_EXT, DRIVER_UUID_EXT, Loader, NUM_DEVICE_UUIDS_EXT, UUID_SIZE_EXT,
    UuidFns, resolve,
};
use crate::error::{Api, DriverError, Invalid, Missing, Result, Text};
use crate::identity::{Identity, Uuid};

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
    /// EGL or GLX, which return the context.
    WindowSystem { get: GetCurrentContext, context: *const c_void },
    /// `glGetString(GL_VERSION)`, which shows only whether any context is current.
    Version,
}

impl fmt::Debug for CurrentContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.query {
            ContextQuery::WindowSystem { context, .. } => write!(f, "CurrentContext({context:p})"),
            ContextQuery::Version => f.write_str("CurrentContext(by GL_VERSION)"),
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
                return Ok(Self { query: ContextQuery::WindowSystem { get, context }, core });
            }
        }
        // Neither has a current context: there is no context, or it is of a third kind (OSMesa).
        let current = Self { query: ContextQuery::Version, core };
        current.check()?;
        tracing::debug!("neither EGL nor GLX knows the context; using GL_VERSION instead");
        Ok(current)
    }

    /// Whether the remembered context is current on this thread.
    pub(super) fn is_current(&self) -> bool {
        match self.query {
            // SAFETY: as in `remember`.
            ContextQuery::WindowSystem { get, context } => unsafe { get() == context },
            ContextQuery::Version => {
                // SAFETY: GL_VERSION is a valid name in every context. Without a context libglvnd
                // and Mesa return null; a platform on which the call is not allowed has EGL or GLX,
                // which were tried first.
                !unsafe { (self.core.get_string)(glow::VERSION) }.is_null()
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

/// Errors that may be pending. A context keeps one flag per kind of error, ten at most. A driver that
/// returns more than this returns them indefinitely.
const MAX_PENDING: usize = 32;

/// Calls `f` and returns the error that it generated. Errors that were pending before are logged and
/// cleared. The context must be current.
pub(super) fn checked<T>(
    gl: &glow::Context,
    call: &'static str,
    f: impl FnOnce() -> T,
) -> Result<T> {
    // SAFETY: glGetError takes nothing and is core in every version.
    checked_by(&|| unsafe { gl.get_error() }, call, f)
}

fn checked_by<T>(
    get_error: &impl Fn() -> u32,
    call: &'static str,
    f: impl FnOnce() -> T,
) -> Result<T> {
    for _ in 0..MAX_PENDING {
        match get_error() {
            glow::NO_ERROR => return run(get_error, call, f),
            // A lost context does nothing any more, and may report so indefinitely.
            glow::CONTEXT_LOST => return Err(driver_error(call, glow::CONTEXT_LOST).into()),
            older => tracing::warn!(error = %name(older), before = call, "an older OpenGL error"),
        }
    }
    Err(driver_error("glGetError", get_error()).into())
}

fn run<T>(get_error: &impl Fn() -> u32, call: &'static str, f: impl FnOnce() -> T) -> Result<T> {
    let value = f();
    match get_error() {
        glow::NO_ERROR => Ok(value),
        code => {
            tracing::debug!(call, error = %name(code), "OpenGL error");
            Err(driver_error(call, code).into())
        }
    }
}

/// Describes the error `code` of `call`.
pub(super) fn driver_error(call: &'static str, code: u32) -> DriverError {
    DriverError::new(Api::OpenGl, call, code, name(code))
}

fn name(code: u32) -> Text {
    Cow::Borrowed(match code {
        glow::NO_ERROR => "GL_NO_ERROR, but no result",
        glow::INVALID_ENUM => "GL_INVALID_ENUM",
        glow::INVALID_VALUE => "GL_INVALID_VALUE",
        glow::INVALID_OPERATION => "GL_INVALID_OPERATION",
        glow::STACK_OVERFLOW => "GL_STACK_OVERFLOW",
        glow::STACK_UNDERFLOW => "GL_STACK_UNDERFLOW",
        glow::OUT_OF_MEMORY => "GL_OUT_OF_MEMORY",
        glow::INVALID_FRAMEBUFFER_OPERATION => "GL_INVALID_FRAMEBUFFER_OPERATION",
        glow::CONTEXT_LOST => "GL_CONTEXT_LOST",
        other => return Cow::Owned(format!("the unknown error {other:#06x}")),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::error::Error;

    /// glGetError over a list of pending errors.
    fn pending(errors: &RefCell<Vec<u32>>) -> impl Fn() -> u32 + '_ {
        || errors.borrow_mut().pop().unwrap_or(glow::NO_ERROR)
    }

    fn code(error: Error) -> (&'static str, i64) {
        match error {
            Error::Driver(driver) => (driver.call, driver.code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_older_error_is_not_attributed_to_the_call() {
        let errors = RefCell::new(vec![glow::INVALID_ENUM, glow::INVALID_VALUE]);
        assert_eq!(checked_by(&pending(&errors), "glFlush", || 7).unwrap(), 7);
    }

    #[test]
    fn an_error_of_the_call_is_named() {
        let errors = RefCell::new(vec![glow::INVALID_ENUM]);
        let call = || errors.borrow_mut().push(glow::INVALID_VALUE);
        let error = checked_by(&pending(&errors), "glImportMemoryFdEXT", call).unwrap_err();
        assert_eq!(
            error.to_string(),
            "OpenGL: glImportMemoryFdEXT failed with GL_INVALID_VALUE (1281)"
        );
    }

    #[test]
    fn a_lost_context_skips_the_call() {
        let called = Cell::new(false);
        let lost = || glow::CONTEXT_LOST;
        let error = checked_by(&lost, "glFlush", || called.set(true)).unwrap_err();
        assert_eq!(code(error), ("glFlush", i64::from(glow::CONTEXT_LOST)));
        assert!(!called.get());
    }

    #[test]
    fn endless_errors_are_not_cleared_indefinitely() {
        let queried = Cell::new(0usize);
        let endless = || {
            queried.set(queried.get() + 1);
            glow::INVALID_OPERATION
        };
        let error = checked_by(&endless, "glFlush", || ()).unwrap_err();
        assert_eq!(code(error), ("glGetError", i64::from(glow::INVALID_OPERATION)));
        assert_eq!(queried.get(), MAX_PENDING + 1);
    }
}
