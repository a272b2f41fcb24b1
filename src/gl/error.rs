//! `glGetError`: drained before a call, checked after it.
//!
//! OpenGL keeps an error until it is queried, so an older error, perhaps the application's, would be
//! attributed to the call.

use std::borrow::Cow;

use glow::HasContext as _;

use crate::error::{Api, DriverError, Result, Text};

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
    use super::*;
    use crate::error::Error;
    use std::cell::{Cell, RefCell};

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
