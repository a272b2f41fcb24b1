//! Whether the endpoint's context is the one that is current on this thread.
//!
//! A call into OpenGL without a context does nothing and reports nothing under libglvnd (`glGetError`
//! says `GL_NO_ERROR`, an out parameter stays as it was), and may crash elsewhere. A call into another
//! context is worse: names mean other things there. So EGL or GLX is asked before each operation.

use std::ffi::{CStr, c_void};
use std::fmt;

use super::ffi::{CoreFns, Loader, resolve};
use crate::error::{Invalid, Result};

type GetCurrentContext = unsafe extern "system" fn() -> *const c_void;

const EGL: &CStr = c"eglGetCurrentContext";
const GLX: &CStr = c"glXGetCurrentContext";

/// The context that was current when the endpoint was made, and who tells.
pub(super) struct CurrentContext {
    asked: ContextQuery,
    core: CoreFns,
}

#[derive(Clone, Copy)]
enum ContextQuery {
    /// EGL or GLX, which name a context.
    WindowSystem { get: GetCurrentContext, context: *const c_void },
    /// `glGetString(GL_VERSION)`, which tells only that there is some context.
    Version,
}

impl fmt::Debug for CurrentContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.asked {
            ContextQuery::WindowSystem { context, .. } => write!(f, "CurrentContext({context:p})"),
            ContextQuery::Version => f.write_str("CurrentContext(by GL_VERSION)"),
        }
    }
}

impl CurrentContext {
    /// Remembers the context that is current on this thread.
    ///
    /// # Errors
    /// [`Invalid`] where none is.
    pub(super) fn remember(loader: &mut Loader<'_>, core: CoreFns) -> Result<Self> {
        for get in window_systems(loader) {
            // SAFETY: the function of that name takes nothing, may be called at any time on any
            // thread, and returns null where there is no current context.
            let context = unsafe { get() };
            if !context.is_null() {
                return Ok(Self { asked: ContextQuery::WindowSystem { get, context }, core });
            }
        }
        // Neither knows of a context: there is none, or it is of a third kind (OSMesa).
        let current = Self { asked: ContextQuery::Version, core };
        current.require()?;
        tracing::debug!("neither EGL nor GLX knows the context; asking for GL_VERSION instead");
        Ok(current)
    }

    /// Whether the remembered context is current on this thread.
    pub(super) fn is_current(&self) -> bool {
        match self.asked {
            // SAFETY: as in `remember`.
            ContextQuery::WindowSystem { get, context } => unsafe { get() == context },
            ContextQuery::Version => {
                // SAFETY: GL_VERSION is a valid name in every context. Without a context libglvnd
                // and Mesa return null; a platform where this is no call to make has EGL or GLX,
                // which were asked first.
                !unsafe { (self.core.get_string)(glow::VERSION) }.is_null()
            }
        }
    }

    /// Refuses to go on where another context is current, or none.
    pub(super) fn require(&self) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(Invalid::new("context", "the endpoint's OpenGL context is not current on this thread")
            .help("make it current (eglMakeCurrent, glXMakeCurrent) before calling")
            .into())
    }
}

/// The functions that tell the current context, in the order they are to be asked.
///
/// `glXGetCurrentContext` comes from the loader only where `eglGetCurrentContext` doesn't:
/// libglvnd's `eglGetProcAddress` takes any name that begins with `gl` for an OpenGL function and
/// returns a stub, and the stub returns nonsense (measured with libglvnd 1.6).
fn window_systems(loader: &mut Loader<'_>) -> Vec<GetCurrentContext> {
    let egl = resolve!(loader, EGL, GetCurrentContext);
    let glx = match egl {
        Some(_) => None,
        None => resolve!(loader, GLX, GetCurrentContext),
    };
    let linked = |name: &CStr| {
        let mut global = |name: &CStr| {
            // SAFETY: the name ends in a NUL; RTLD_DEFAULT looks through what is loaded already.
            unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.cast_const().cast()
        };
        let loader: &mut Loader<'_> = &mut global;
        resolve!(loader, name, GetCurrentContext)
    };
    [egl, glx, linked(EGL), linked(GLX)].into_iter().flatten().collect()
}
