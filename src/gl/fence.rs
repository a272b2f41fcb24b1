//! The host-wait route: a fence behind the OpenGL commands so far.

use std::ffi::c_void;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use glow::HasContext as _;

use super::deletion::Name;
use super::endpoint::{Endpoint, Shared};
use super::error::{checked, driver_error};
use crate::error::{Error, Missing, Result};

/// Signalled when the OpenGL commands before it are done. With it the host waits where the APIs
/// share no semaphore.
pub struct Fence {
    sync: glow::Fence,
    shared: Rc<Shared>,
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fence").field(&self.sync.0).finish()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.shared.discard(Name::Fence(self.sync));
    }
}

impl Endpoint {
    /// A fence behind the commands so far, flushed: it will be signalled without further calls.
    ///
    /// # Errors
    /// [`Missing`] where the context has no sync objects, [`Invalid`](crate::error::Invalid) where
    /// it is not current, [`Driver`](crate::Error::Driver) where OpenGL refuses.
    ///
    /// # References
    /// `glFenceSync` (`GL_SYNC_GPU_COMMANDS_COMPLETE`), `glFlush`.
    #[doc(alias = "glFenceSync")]
    pub fn fence(&self) -> Result<Fence> {
        let shared = &self.shared;
        shared.functions.sync.as_ref().map_err(Missing::clone)?;
        shared.enter()?;
        // Writes of shaders to buffers and images are not ordered by themselves.
        shared.memory_barrier()?;
        // SAFETY: the context is current and has glFenceSync (`Features`); there is one condition,
        // and no flags.
        let sync = checked(&shared.gl, "glFenceSync", || unsafe {
            shared.gl.fence_sync(glow::SYNC_GPU_COMMANDS_COMPLETE, 0)
        })?;
        let sync = sync
            .ok()
            .filter(|sync| !sync.0.is_null())
            .ok_or_else(|| driver_error("glFenceSync", glow::NO_ERROR))?;
        let fence = Fence { sync, shared: shared.clone() };
        shared.flush()?;
        Ok(fence)
    }
}

impl Fence {
    /// Waits on the host until the fence is signalled, `timeout` at most.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it was not signalled in time: it may be waited for again.
    /// [`Invalid`](crate::error::Invalid) where the context is not current,
    /// [`Driver`](crate::Error::Driver) where OpenGL refuses.
    ///
    /// # References
    /// `glClientWaitSync`.
    #[doc(alias = "glClientWaitSync")]
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        if self.poll(timeout)? {
            return Ok(());
        }
        Err(Error::Timeout { what: "the OpenGL fence".into(), waited: timeout })
    }

    /// Whether the fence is signalled, without waiting.
    ///
    /// # Errors
    /// [`Invalid`](crate::error::Invalid) where the context is not current,
    /// [`Driver`](crate::Error::Driver) where OpenGL refuses.
    pub fn is_signaled(&self) -> Result<bool> {
        self.poll(Duration::ZERO)
    }

    fn poll(&self, timeout: Duration) -> Result<bool> {
        let functions = self.shared.functions.sync.as_ref().map_err(Missing::clone)?;
        self.shared.enter()?;
        let sync: *const c_void = self.sync.0.cast_const().cast();
        // SAFETY: the context is current and the sync object one of its own, alive as long as
        // `self`. The commands were flushed with the fence, so no flag is needed.
        let status = checked(&self.shared.gl, "glClientWaitSync", || unsafe {
            (functions.client_wait_sync)(sync, 0, nanoseconds(timeout))
        })?;
        match status {
            glow::ALREADY_SIGNALED | glow::CONDITION_SATISFIED => Ok(true),
            glow::TIMEOUT_EXPIRED => Ok(false),
            _ => Err(driver_error("glClientWaitSync", glow::NO_ERROR).into()),
        }
    }
}

/// Nanoseconds as OpenGL takes them, 292 years at most: drivers add them to a signed clock.
fn nanoseconds(timeout: Duration) -> u64 {
    const MAX: u64 = i64::MAX as u64;
    u64::try_from(timeout.as_nanos()).unwrap_or(MAX).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_never_overflows() {
        assert_eq!(nanoseconds(Duration::ZERO), 0);
        assert_eq!(nanoseconds(Duration::from_millis(3)), 3_000_000);
        assert_eq!(nanoseconds(Duration::MAX), i64::MAX as u64);
    }
}
