//! OpenGL's errors: those of the library's calls become [`DriverError`]s, and those of the
//! application stay pending.
//!
//! `glGetError` returns a flag and clears it, and OpenGL can't attribute a flag to a call. So an
//! operation first takes what is pending ([`AppErrors`]). Each of its calls is then checked by
//! itself ([`checked`]). At the end, the application's errors are raised again, each by a call for
//! which the specification requires this error and allows no other effect.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::ptr;

use glow::HasContext as _;

use super::features::Features;
use super::ffi::CoreFns;
use crate::error::{Api, DriverError, Result, Text};
use crate::fd::explain;

/// More errors than can be pending. A context has one flag per kind of error, ten at most; a driver
/// that returns more than this would return them indefinitely.
const MAX_PENDING: usize = 32;

/// The errors of the application that were pending when an operation began. They are raised again
/// when this is dropped. Until then, `glGetError` returns errors of the operation only.
pub(super) struct AppErrors<'a> {
    gl: &'a glow::Context,
    core: CoreFns,
    has_gl_3_objects: bool,
    codes: Vec<u32>,
}

impl<'a> AppErrors<'a> {
    /// Takes the errors that are pending. The context must be current until this is dropped.
    ///
    /// # Errors
    /// [`Driver`](crate::Error::Driver) if the context is lost, or if there is no end to the
    /// errors.
    pub(super) fn take(gl: &'a glow::Context, core: CoreFns, features: &Features) -> Result<Self> {
        // SAFETY: glGetError takes nothing and is core in every version.
        let codes = pending(|| unsafe { gl.get_error() })?;
        Ok(Self { gl, core, has_gl_3_objects: features.gl_3_objects, codes })
    }

    /// Calls `queries`, some of which may generate errors. They are cleared, and not reported to
    /// the application's debug callback.
    pub(super) fn ignore<T>(&self, queries: impl FnOnce() -> T) -> T {
        let _silence = Silence::new(self.gl);
        let value = queries();
        // SAFETY: glGetError takes nothing and is core in every version.
        let _cleared = pending(|| unsafe { self.gl.get_error() });
        value
    }

    /// Raises `code` by calls without other effects, and returns whether there are such calls.
    fn raise(&self, code: u32) -> bool {
        const BUFFER: u32 = glow::ARRAY_BUFFER;
        const FRAMEBUFFER: u32 = glow::DRAW_FRAMEBUFFER;
        let gl = self.gl;
        // SAFETY: the context is current (`take`). Each call is valid in it, and is defined to
        // generate the error and to do nothing else; new objects are deleted, and bindings that
        // change are restored.
        unsafe {
            match code {
                // No capability has this value.
                glow::INVALID_ENUM => gl.enable(u32::MAX),
                glow::INVALID_VALUE => gl.viewport(0, 0, -1, -1),
                glow::INVALID_OPERATION if self.has_gl_3_objects => {
                    // Only names that glGenVertexArrays returned can be bound.
                    gl.bind_vertex_array(Some(glow::NativeVertexArray(NonZeroU32::MAX)));
                }
                glow::OUT_OF_MEMORY => {
                    let Ok(buffer) = gl.create_buffer() else { return false };
                    let before = gl.get_parameter_buffer(glow::ARRAY_BUFFER_BINDING);
                    gl.bind_buffer(BUFFER, Some(buffer));
                    // No driver can allocate a quarter of the address space.
                    (self.core.buffer_data)(BUFFER, 1 << 62, ptr::null(), glow::STREAM_DRAW);
                    gl.bind_buffer(BUFFER, before);
                    gl.delete_buffer(buffer);
                }
                glow::INVALID_FRAMEBUFFER_OPERATION if self.has_gl_3_objects => {
                    let Ok(framebuffer) = gl.create_framebuffer() else { return false };
                    let before = gl.get_parameter_framebuffer(glow::DRAW_FRAMEBUFFER_BINDING);
                    gl.bind_framebuffer(FRAMEBUFFER, Some(framebuffer));
                    // A framebuffer without attachments is incomplete.
                    gl.clear(glow::COLOR_BUFFER_BIT);
                    gl.bind_framebuffer(FRAMEBUFFER, before);
                    gl.delete_framebuffer(framebuffer);
                }
                glow::STACK_UNDERFLOW | glow::STACK_OVERFLOW if gl.supports_debug() => {
                    let depth = gl.get_parameter_i32(glow::DEBUG_GROUP_STACK_DEPTH);
                    let max = gl.get_parameter_i32(glow::MAX_DEBUG_GROUP_STACK_DEPTH);
                    if code == glow::STACK_OVERFLOW {
                        // Fill the stack, push one group more, and empty it again.
                        for _ in depth..=max {
                            gl.push_debug_group(glow::DEBUG_SOURCE_APPLICATION, 0, "");
                        }
                        for _ in depth..max {
                            gl.pop_debug_group();
                        }
                    } else if depth == 1 {
                        // The default group can't be popped.
                        gl.pop_debug_group();
                    } else {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        true
    }
}

impl Drop for AppErrors<'_> {
    fn drop(&mut self) {
        if self.codes.is_empty() {
            return;
        }
        // The debug callback has received these errors once.
        let _silence = Silence::new(self.gl);
        for &code in &self.codes {
            if !self.raise(code) {
                tracing::warn!(error = %name(code), "an OpenGL error of the application was cleared");
            }
        }
    }
}

/// While it lives, the application's debug callback receives nothing.
struct Silence<'a> {
    gl: &'a glow::Context,
    was_enabled: bool,
}

impl<'a> Silence<'a> {
    /// Disables debug output. The context must be current until this is dropped.
    fn new(gl: &'a glow::Context) -> Self {
        // SAFETY: the context is current (the caller's promise) and has the capability.
        let was_enabled = gl.supports_debug() && unsafe { gl.is_enabled(glow::DEBUG_OUTPUT) };
        if was_enabled {
            // SAFETY: as above.
            unsafe { gl.disable(glow::DEBUG_OUTPUT) };
        }
        Self { gl, was_enabled }
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if self.was_enabled {
            // SAFETY: as in `new`.
            unsafe { self.gl.enable(glow::DEBUG_OUTPUT) };
        }
    }
}

/// Returns the pending errors, and clears them.
fn pending(get_error: impl Fn() -> u32) -> Result<Vec<u32>> {
    let mut codes = Vec::new();
    while codes.len() < MAX_PENDING {
        match get_error() {
            glow::NO_ERROR => return Ok(codes),
            // A lost context does nothing, and may report that indefinitely.
            lost @ glow::CONTEXT_LOST => return Err(driver_error("glGetError", lost).into()),
            code => codes.push(code),
        }
    }
    Err(driver_error("glGetError", codes[0]).into())
}

/// Calls `f` and returns the error that it generated. The context must be current, and the
/// application's errors must have been taken ([`AppErrors`]).
pub(super) fn checked<T>(
    gl: &glow::Context,
    call: &'static str,
    f: impl FnOnce() -> T,
) -> Result<T> {
    let value = f();
    // SAFETY: glGetError takes nothing and is core in every version.
    match unsafe { gl.get_error() } {
        glow::NO_ERROR => Ok(value),
        code => {
            tracing::debug!(call, error = %name(code), "OpenGL error");
            Err(driver_error(call, code).into())
        }
    }
}

/// Describes the error `code` of `call`.
pub(super) fn driver_error(call: &'static str, code: u32) -> DriverError {
    explain(DriverError::new(Api::OpenGl, call, code, name(code)))
}

fn name(code: u32) -> Text {
    Cow::Borrowed(match code {
        glow::NO_ERROR => "GL_NO_ERROR but returned nothing",
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

    fn code(error: Error) -> (&'static str, i64) {
        match error {
            Error::Driver(driver) => (driver.call, driver.code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_pending_errors_are_taken() {
        let errors = RefCell::new(vec![glow::INVALID_ENUM, glow::INVALID_VALUE]);
        let get_error = || errors.borrow_mut().pop().unwrap_or(glow::NO_ERROR);
        assert_eq!(pending(get_error).unwrap(), [glow::INVALID_VALUE, glow::INVALID_ENUM]);
        assert_eq!(pending(get_error).unwrap(), []);
    }

    #[test]
    fn an_error_is_named() {
        let error = driver_error("glImportMemoryFdEXT", glow::INVALID_VALUE);
        assert_eq!(
            error.to_string(),
            "OpenGL: glImportMemoryFdEXT failed with GL_INVALID_VALUE (1281)"
        );
    }

    #[test]
    fn a_lost_context_and_endless_errors_are_errors() {
        let lost = pending(|| glow::CONTEXT_LOST).unwrap_err();
        assert_eq!(code(lost), ("glGetError", i64::from(glow::CONTEXT_LOST)));
        let queried = Cell::new(0);
        let endless = || {
            queried.set(queried.get() + 1);
            glow::INVALID_OPERATION
        };
        let error = pending(endless).unwrap_err();
        assert_eq!(code(error), ("glGetError", i64::from(glow::INVALID_OPERATION)));
        assert_eq!(queried.get(), MAX_PENDING);
    }
}
