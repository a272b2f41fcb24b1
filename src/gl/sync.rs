//! Waiting for a semaphore and signalling one, on the GPU.

use super::buffer::Buffer;
use super::endpoint::Endpoint;
use super::error::checked;
use super::ffi::{SemaphoreFns, TIMELINE_SEMAPHORE_VALUE_NV};
use super::layout::token;
use super::semaphore::Semaphore;
use crate::desc::ImageLayout;
use crate::error::{Invalid, Missing, Result};

impl Endpoint {
    /// Makes the OpenGL commands that follow wait on the GPU until `semaphore` is signalled, or a
    /// timeline semaphore has reached `value`. Returns at once.
    ///
    /// List *every* shared buffer and texture that the other API has written, a texture with the
    /// layout that it was left in: only what is listed becomes visible.
    ///
    /// The signal that a binary semaphore is waited for must have been submitted to the other API's
    /// queue before this call; each signal is waited for once. A timeline semaphore may be waited
    /// for first.
    ///
    /// # Errors
    /// [`Invalid`] where `value` is missing for a timeline semaphore or given for a binary one,
    /// where something belongs to another endpoint, or where the context is not current;
    /// [`Driver`](crate::Error::Driver) where OpenGL refuses. OpenGL doesn't wait then.
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

    /// Signals `semaphore`, or sets a timeline semaphore to `value`, on the GPU when the OpenGL
    /// commands so far are done. Flushes, so that the signal is on its way when this returns.
    ///
    /// List *every* shared buffer and texture that OpenGL has written, a texture with the layout
    /// that the other API will take it over from: only what is listed becomes visible there.
    ///
    /// # Errors
    /// [`Invalid`] where `value` is missing for a timeline semaphore, given for a binary one, or not
    /// greater than the last one signalled here, where something belongs to another endpoint, or
    /// where the context is not current; [`Driver`](crate::Error::Driver) where OpenGL refuses.
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
        if let Some(value) = value {
            check_increase(semaphore.signalled().get(), value)?;
        }
        // Writes of shaders to buffers and images are not ordered by themselves.
        self.shared.memory_barrier()?;
        operation.set_value(self, value)?;
        operation.run(self, "glSignalSemaphoreEXT", operation.functions.signal)?;
        if let Some(value) = value {
            semaphore.signalled().set(value);
        }
        // The signal stands, whatever becomes of the flush: who was told of a failure would signal
        // again.
        if let Err(error) = self.shared.flush() {
            tracing::error!(%error, "after glSignalSemaphoreEXT: the signal may come late");
        }
        Ok(())
    }

    fn prepare(
        &self,
        semaphore: &Semaphore,
        value: Option<u64>,
        buffers: &[&Buffer],
        textures: &[(glow::Texture, ImageLayout)],
    ) -> Result<Operation> {
        semaphore.kind().check_value(value)?;
        self.shared.check_same(semaphore.shared(), "semaphore")?;
        for buffer in buffers {
            self.shared.check_same(buffer.memory().shared(), "buffers")?;
        }
        let functions = *self.shared.functions.semaphore.as_ref().map_err(Missing::clone)?;
        self.shared.enter()?;
        Ok(Operation {
            functions,
            semaphore: semaphore.name(),
            buffers: buffers.iter().map(|buffer| buffer.name().0.get()).collect(),
            textures: textures.iter().map(|(texture, _)| texture.0.get()).collect(),
            layouts: textures.iter().map(|(_, layout)| token(*layout)).collect::<Result<_>>()?,
        })
    }
}

/// A wait or a signal, in OpenGL's names.
struct Operation {
    functions: SemaphoreFns,
    semaphore: u32,
    buffers: Vec<u32>,
    textures: Vec<u32>,
    layouts: Vec<u32>,
}

type WaitOrSignal = unsafe extern "system" fn(u32, u32, *const u32, u32, *const u32, *const u32);

impl Operation {
    /// Sets the value that a timeline semaphore is next waited for, or signalled with.
    fn set_value(&self, endpoint: &Endpoint, value: Option<u64>) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let call = "glSemaphoreParameterui64vEXT(GL_TIMELINE_SEMAPHORE_VALUE_NV)";
        // SAFETY: the context is current, the semaphore is a timeline semaphore of it
        // (`check_value`), and the parameter is one 64-bit integer.
        checked(&endpoint.shared.gl, call, || unsafe {
            let set = self.functions.parameterui64v;
            set(self.semaphore, TIMELINE_SEMAPHORE_VALUE_NV, &value);
        })
    }

    fn run(&self, endpoint: &Endpoint, call: &'static str, function: WaitOrSignal) -> Result<()> {
        let count = |names: &[u32]| {
            u32::try_from(names.len()).map_err(|_| Invalid::new("buffers", "are too many"))
        };
        let (buffers, textures) = (count(&self.buffers)?, count(&self.textures)?);
        // SAFETY: the context is current and the semaphore one of its own; the arrays are as long as
        // the counts say, the layouts as many as the textures, and they outlive the call. A name that
        // is no texture is OpenGL's to refuse or, as NVIDIA's does, to ignore.
        checked(&endpoint.shared.gl, call, || unsafe {
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

/// A timeline semaphore's counter only grows.
fn check_increase(last: u64, value: u64) -> Result<()> {
    if value > last {
        return Ok(());
    }
    Err(Invalid::new("value", format!("{value}, but {last} was signalled before"))
        .vuid("VUID-VkSemaphoreSignalInfo-value-03258")
        .help("a timeline semaphore's values strictly increase")
        .into())
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
}
