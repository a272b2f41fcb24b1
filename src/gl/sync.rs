//! Synchronisation: semaphores that OpenGL waits for and signals on the GPU, and fences for the
//! host.

use std::time::Duration;

use glow::HasContext as _;

use super::deletion::Owned;
use super::endpoint::Endpoint;
use super::errors::{AppErrors, checked, driver_error};
use super::ffi::{SemaphoreFns, TIMELINE_SEMAPHORE_VALUE_NV};
use super::memory::{Buffer, Memory};
use super::names::FenceName;
#[cfg(feature = "vulkan")]
use super::names::Name;
use super::semaphore::{Semaphore, token};
use super::texture::Texture;
use crate::desc::ImageLayout;
use crate::error::{Api, Error, Invalid, Missing, Result};

impl Endpoint {
    /// Makes later OpenGL commands wait on the GPU until `semaphore` is signalled, or until a
    /// timeline semaphore reaches `value`. Returns at once.
    ///
    /// List *every* shared buffer and texture that the other API wrote, and give each texture the
    /// layout in which the other API left it: only what is listed becomes visible.
    ///
    /// For a binary semaphore, the signal must have been submitted to the other API's queue before
    /// this call, and each signal is waited for once. A timeline semaphore may be waited for before
    /// its signal is submitted.
    ///
    /// # Errors
    /// [`Invalid`] if `value` is missing for a timeline semaphore or present for a binary one, if
    /// an object belongs to another endpoint, or if the context is not current;
    /// [`Driver`](Error::Driver) if the call fails. After an error OpenGL doesn't wait.
    ///
    /// # References
    /// `glWaitSemaphoreEXT`; `GL_NV_timeline_semaphore`: `GL_TIMELINE_SEMAPHORE_VALUE_NV`.
    #[doc(alias = "glWaitSemaphoreEXT")]
    pub fn wait(
        &self,
        semaphore: &Semaphore,
        value: Option<u64>,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, ImageLayout)],
    ) -> Result<()> {
        let operation = self.prepare(semaphore, value, buffers, textures)?;
        operation.set_value(self, value)?;
        operation.run(self, "glWaitSemaphoreEXT", operation.functions.wait)
    }

    /// Signals `semaphore`, or sets a timeline semaphore to `value`, on the GPU once the OpenGL
    /// commands issued so far are done. Also flushes, so no further call is needed.
    ///
    /// List *every* shared buffer and texture that OpenGL wrote, and give each texture the layout
    /// in which the other API will acquire it: only what is listed becomes visible there.
    ///
    /// # Errors
    /// [`Invalid`] if `value` is missing for a timeline semaphore, present for a binary one, or not
    /// greater than the last one signalled here, if an object belongs to another endpoint, or if
    /// the context is not current; [`Driver`](Error::Driver) if the call fails.
    ///
    /// # References
    /// `glSignalSemaphoreEXT`, `glFlush`; `GL_NV_timeline_semaphore`:
    /// `GL_TIMELINE_SEMAPHORE_VALUE_NV`; VUID-VkSemaphoreSignalInfo-value-03258.
    #[doc(alias = "glSignalSemaphoreEXT")]
    pub fn signal(
        &self,
        semaphore: &Semaphore,
        value: Option<u64>,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, ImageLayout)],
    ) -> Result<()> {
        let operation = self.prepare(semaphore, value, buffers, textures)?;
        let mut last = semaphore.signalled();
        if let Some(value) = value {
            check_increase(*last, value)?;
        }
        // Shader writes to buffers and images are not ordered without a barrier.
        self.barrier()?;
        operation.set_value(self, value)?;
        operation.run(self, "glSignalSemaphoreEXT", operation.functions.signal)?;
        if let Some(value) = value {
            *last = value;
        }
        // The signal is already recorded. Returning this error would make the caller signal twice.
        if let Err(error) = self.flush() {
            tracing::error!(%error, "after glSignalSemaphoreEXT: the signal may be delayed");
        }
        Ok(())
    }

    fn prepare(
        &self,
        semaphore: &Semaphore,
        value: Option<u64>,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, ImageLayout)],
    ) -> Result<Operation<'_>> {
        semaphore.kind().check_value(value)?;
        self.check_same(semaphore.endpoint(), "semaphore")?;
        for buffer in buffers {
            self.check_same(buffer.memory().endpoint(), "buffers")?;
        }
        let functions = *self.0.functions.semaphore.as_ref().map_err(Missing::clone)?;
        Ok(Operation {
            _errors: self.enter()?,
            functions,
            semaphore: semaphore.name(),
            buffers: buffers.iter().map(|buffer| buffer.name().0.get()).collect(),
            textures: textures.iter().map(|(texture, _)| texture.0.get()).collect(),
            layouts: textures.iter().map(|(_, layout)| token(*layout)).collect::<Result<_>>()?,
        })
    }

    /// Creates a fence after the OpenGL commands issued so far. Also flushes, so no further call is
    /// needed.
    ///
    /// # Errors
    /// [`Missing`] if the context has no sync objects, [`Invalid`] if it is not current,
    /// [`Driver`](Error::Driver) if the call fails.
    ///
    /// # References
    /// `glFenceSync` (`GL_SYNC_GPU_COMMANDS_COMPLETE`), `glFlush`.
    #[doc(alias = "glFenceSync")]
    pub fn fence(&self) -> Result<Fence> {
        let _errors = self.enter()?;
        Ok(Fence(Owned::new(self, self.create_fence()?)))
    }

    /// Creates a fence. The context must be current.
    fn create_fence(&self) -> Result<FenceName> {
        self.0.functions.sync.as_ref().map_err(Missing::clone)?;
        // Shader writes to buffers and images are not ordered without a barrier.
        self.barrier()?;
        let gl = &self.0.gl;
        // SAFETY: the context is current and has glFenceSync (`Features`); the condition is the
        // only one defined, and there are no flags.
        let sync = checked(gl, "glFenceSync", || unsafe {
            gl.fence_sync(glow::SYNC_GPU_COMMANDS_COMPLETE, 0)
        })?;
        let sync = sync
            .ok()
            .and_then(FenceName::new)
            .ok_or_else(|| driver_error("glFenceSync", glow::NO_ERROR))?;
        self.flush().inspect_err(|_| self.0.delete(sync.into()))?;
        Ok(sync)
    }
}

#[cfg(feature = "vulkan")]
impl Endpoint {
    /// Creates a fence, calls `wait` with it, and deletes it. The context is checked once, which is
    /// what takes the time: `eglGetCurrentContext` is slow.
    pub(crate) fn with_fence(
        &self,
        wait: impl FnOnce(&CurrentFence<'_>) -> Result<()>,
    ) -> Result<()> {
        let _errors = self.enter()?;
        let fence = CurrentFence { endpoint: self, sync: self.create_fence()? };
        let result = wait(&fence);
        self.0.delete(fence.sync.into());
        result
    }

    /// Returns the first name that isn't a texture.
    pub(crate) fn find_no_texture(
        &self,
        mut names: impl Iterator<Item = glow::Texture>,
    ) -> Result<Option<glow::Texture>> {
        self.0.current.check()?;
        self.0.delete_dropped(false);
        // SAFETY: the context is current, and any name may be queried.
        Ok(names.find(|&name| !unsafe { self.0.gl.is_texture(name) }))
    }

    /// Records that `handoff` releases these resources.
    ///
    /// # Errors
    /// [`Invalid`] if one of them is released already; then none is recorded.
    pub(crate) fn mark_released(
        &self,
        buffers: &[&Buffer],
        textures: impl Iterator<Item = glow::Texture> + Clone,
        handoff: u64,
    ) -> Result<()> {
        self.group().release(listed(buffers, textures), handoff)
    }

    /// Records that these resources were acquired.
    pub(crate) fn mark_acquired(
        &self,
        buffers: &[&Buffer],
        textures: impl Iterator<Item = glow::Texture> + Clone,
    ) {
        self.group().acquire(listed(buffers, textures));
    }
}

/// The names of resources, and the parameter that lists each.
#[cfg(feature = "vulkan")]
fn listed(
    buffers: &[&Buffer],
    textures: impl Iterator<Item = glow::Texture> + Clone,
) -> impl Iterator<Item = (Name, &'static str)> + Clone {
    let buffers = buffers.iter().map(|buffer| (buffer.name().into(), "buffers"));
    buffers.chain(textures.map(|texture| (texture.into(), "textures")))
}

crate::peer::impl_peer! {
    Endpoint, Api::OpenGl, Memory, Buffer, Texture, Semaphore,
    unsafe fn wait_idle(&self) -> Result<()> {
        let _errors = self.enter()?;
        // SAFETY: the context is current, and glFinish takes nothing.
        checked(&self.0.gl, "glFinish", || unsafe { self.0.gl.finish() })
    }
}

/// A wait or a signal, in OpenGL's names.
struct Operation<'a> {
    _errors: AppErrors<'a>,
    functions: SemaphoreFns,
    semaphore: u32,
    buffers: Vec<u32>,
    textures: Vec<u32>,
    layouts: Vec<u32>,
}

type WaitOrSignal = unsafe extern "system" fn(u32, u32, *const u32, u32, *const u32, *const u32);

impl Operation<'_> {
    /// Sets the value that the next wait for, or signal of, a timeline semaphore uses.
    fn set_value(&self, endpoint: &Endpoint, value: Option<u64>) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let call = "glSemaphoreParameterui64vEXT(GL_TIMELINE_SEMAPHORE_VALUE_NV)";
        // SAFETY: the context is current, the semaphore is a timeline semaphore of it
        // (`check_value`), and the parameter is one 64-bit integer.
        checked(&endpoint.0.gl, call, || unsafe {
            let set = self.functions.parameterui64v;
            set(self.semaphore, TIMELINE_SEMAPHORE_VALUE_NV, &value);
        })
    }

    fn run(&self, endpoint: &Endpoint, call: &'static str, function: WaitOrSignal) -> Result<()> {
        let count = |names: &[u32], parameter| {
            u32::try_from(names.len())
                .map_err(|_| Invalid::new(parameter, "lists too many objects"))
        };
        let buffers = count(&self.buffers, "buffers")?;
        let textures = count(&self.textures, "textures")?;
        // SAFETY: the context is current and the semaphore one of its own; the arrays have the
        // lengths of the counts, with one layout per texture, and outlive the call. OpenGL refuses
        // a name that isn't a texture or, on NVIDIA's driver, ignores it.
        checked(&endpoint.0.gl, call, || unsafe {
            function(
                self.semaphore,
                buffers,
                self.buffers.as_ptr(),
                textures,
                self.textures.as_ptr(),
                self.layouts.as_ptr(),
            );
        })
    }
}

/// Rejects a value for a timeline semaphore that isn't greater than the last one.
fn check_increase(last: u64, value: u64) -> Result<()> {
    if value > last {
        return Ok(());
    }
    Err(Invalid::new("value", format!("{value}, but {last} was signalled before"))
        .vuid("VUID-VkSemaphoreSignalInfo-value-03258")
        .help("use a greater value: a timeline semaphore's values strictly increase")
        .into())
}

/// A fence that is signalled when the OpenGL commands before it are done. The host waits for it if
/// the APIs share no semaphore.
#[derive(Debug)]
pub struct Fence(Owned<FenceName>);

impl Fence {
    /// Waits on the host until the fence is signalled, at most `timeout`.
    ///
    /// # Errors
    /// [`Timeout`](Error::Timeout) if it was not signalled in time; the wait can be repeated.
    /// [`Invalid`] if the context is not current, [`Driver`](Error::Driver) if the call fails.
    ///
    /// # References
    /// `glClientWaitSync`.
    #[doc(alias = "glClientWaitSync")]
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let _errors = self.0.endpoint.enter()?;
        self.current().wait(timeout)
    }

    /// Returns whether the fence is signalled, without waiting.
    ///
    /// # Errors
    /// [`Invalid`] if the context is not current, [`Driver`](Error::Driver) if the call fails.
    ///
    /// # References
    /// `glClientWaitSync`.
    #[doc(alias = "glClientWaitSync")]
    pub fn is_signaled(&self) -> Result<bool> {
        let _errors = self.0.endpoint.enter()?;
        self.current().is_signaled()
    }

    /// Returns the fence in its context, which must be current.
    fn current(&self) -> CurrentFence<'_> {
        CurrentFence { endpoint: &self.0.endpoint, sync: self.0.name }
    }
}

/// A fence while its context is current, within an operation.
pub(crate) struct CurrentFence<'a> {
    endpoint: &'a Endpoint,
    sync: FenceName,
}

impl CurrentFence<'_> {
    /// As [`Fence::wait`].
    pub(crate) fn wait(&self, timeout: Duration) -> Result<()> {
        if self.poll(timeout)? {
            return Ok(());
        }
        Err(Error::Timeout { what: "the OpenGL fence".into(), waited: timeout })
    }

    /// As [`Fence::is_signaled`].
    pub(crate) fn is_signaled(&self) -> Result<bool> {
        self.poll(Duration::ZERO)
    }

    fn poll(&self, timeout: Duration) -> Result<bool> {
        let Self { endpoint, sync } = self;
        let functions = endpoint.0.functions.sync.as_ref().map_err(Missing::clone)?;
        // SAFETY: the context is current, and the sync object is one of its own and lives as long
        // as `self`. The commands were flushed with the fence, so no flag is needed.
        let status = checked(&endpoint.0.gl, "glClientWaitSync", || unsafe {
            (functions.client_wait_sync)(sync.pointer(), 0, nanoseconds(timeout))
        })?;
        match status {
            glow::ALREADY_SIGNALED | glow::CONDITION_SATISFIED => Ok(true),
            glow::TIMEOUT_EXPIRED => Ok(false),
            _ => Err(driver_error("glClientWaitSync", glow::NO_ERROR).into()),
        }
    }
}

/// Converts a timeout to nanoseconds, at most 292 years: drivers add it to a signed clock.
fn nanoseconds(timeout: Duration) -> u64 {
    const MAX: u64 = i64::MAX as u64;
    u64::try_from(timeout.as_nanos()).unwrap_or(MAX).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_strictly_increase() {
        check_increase(0, 1).unwrap();
        check_increase(7, u64::MAX).unwrap();
        for (last, value) in [(0, 0), (7, 7), (7, 6)] {
            assert!(check_increase(last, value).is_err(), "{last} then {value}");
        }
    }

    #[test]
    fn a_timeout_never_overflows() {
        assert_eq!(nanoseconds(Duration::ZERO), 0);
        assert_eq!(nanoseconds(Duration::from_millis(3)), 3_000_000);
        assert_eq!(nanoseconds(Duration::MAX), i64::MAX as u64);
    }
}
