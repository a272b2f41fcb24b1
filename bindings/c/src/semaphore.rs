//! Semaphores, for apps that synchronise without handoffs.

use std::mem::MaybeUninit;
use std::time::Duration;

use gpu_interop::ash::vk::Handle as _;
use gpu_interop::error::Invalid;
use gpu_interop::{ImageLayout, Result, SemaphoreKind, cuda, gl, glow, vulkan};

use crate::args::{consume, handle, required};
use crate::buffer::unknown;
use crate::commands::{Commands, gi_commands};
use crate::endpoint::{Endpoint, gi_endpoint};
use crate::error::{gi_result, guard, guard_value};
use crate::payload::gi_payload;

/// The kind of a semaphore.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum gi_semaphore_kind {
    /// Signalled or not.
    #[default]
    Binary = 0,
    /// A number that only grows.
    Timeline = 1,
}

/// A semaphore of any API.
pub struct gi_semaphore(Semaphore);

#[derive(Debug)]
enum Semaphore {
    Vulkan(vulkan::Semaphore),
    Gl(gl::Semaphore),
    Cuda(cuda::Semaphore),
}

impl gi_semaphore {
    pub(crate) fn vulkan(&self) -> Result<&vulkan::Semaphore> {
        match &self.0 {
            Semaphore::Vulkan(semaphore) => Ok(semaphore),
            _ => Err(Invalid::new("semaphore", "is not a Vulkan semaphore").into()),
        }
    }

    fn kind(&self) -> SemaphoreKind {
        match &self.0 {
            Semaphore::Vulkan(semaphore) => semaphore.kind(),
            Semaphore::Gl(semaphore) => semaphore.kind(),
            Semaphore::Cuda(semaphore) => semaphore.kind(),
        }
    }

    /// Returns the value of an operation; binary semaphores have none.
    fn value(&self, value: u64) -> Option<u64> {
        (self.kind() == SemaphoreKind::Timeline).then_some(value)
    }
}

/// Creates a semaphore that can be exported, by Vulkan. `kind` is a `gi_semaphore_kind`. A timeline
/// semaphore starts at 0.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_create(
    endpoint: Option<&gi_endpoint>,
    kind: u32,
    semaphore: Option<&mut MaybeUninit<Option<Box<gi_semaphore>>>>,
) -> gi_result {
    guard(|| {
        let vulkan = required(endpoint, "endpoint")?.vulkan("endpoint")?;
        let out = required(semaphore, "semaphore")?;
        let kind = match kind {
            0 => SemaphoreKind::Binary,
            1 => SemaphoreKind::Timeline,
            other => return Err(unknown("kind", other, "gi_semaphore_kind")),
        };
        let created = vulkan.create_semaphore(kind)?;
        out.write(Some(Box::new(gi_semaphore(Semaphore::Vulkan(created)))));
        Ok(())
    })
}

/// Imports a semaphore. If it succeeds, it consumes the payload and sets `*payload` to null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_import(
    endpoint: Option<&gi_endpoint>,
    payload: Option<&mut Option<Box<gi_payload>>>,
    semaphore: Option<&mut MaybeUninit<Option<Box<gi_semaphore>>>>,
) -> gi_result {
    guard(|| {
        let endpoint = required(endpoint, "endpoint")?;
        let out = required(semaphore, "semaphore")?;
        let import = |gi_payload(payload)| {
            payload.into_semaphore().and_then(|payload| {
                let imported = match &endpoint.0 {
                    Endpoint::Vulkan(peer) => peer.import_semaphore(payload).map(Semaphore::Vulkan),
                    Endpoint::Gl(peer) => peer.import_semaphore(payload).map(Semaphore::Gl),
                    Endpoint::Cuda(peer) => peer.import_semaphore(payload).map(Semaphore::Cuda),
                };
                imported.map_err(|error| error.map(Into::into))
            })
        };
        let imported = consume(handle(payload, "payload")?, import, gi_payload)?;
        out.write(Some(Box::new(gi_semaphore(imported))));
        Ok(())
    })
}

/// Exports a semaphore of Vulkan, with a new descriptor each time.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_export(
    semaphore: Option<&gi_semaphore>,
    payload: Option<&mut MaybeUninit<Option<Box<gi_payload>>>>,
) -> gi_result {
    guard(|| {
        let out = required(payload, "payload")?;
        let exported = required(semaphore, "semaphore")?.vulkan()?.export()?;
        out.write(gi_payload::new(exported));
        Ok(())
    })
}

/// Returns the API's own handle: a `VkSemaphore`, an OpenGL name, or a `CUexternalSemaphore`; 0 for
/// null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_handle(semaphore: Option<&gi_semaphore>) -> u64 {
    guard_value(|| match semaphore.map(|semaphore| &semaphore.0) {
        None => 0,
        Some(Semaphore::Vulkan(semaphore)) => semaphore.handle().as_raw(),
        Some(Semaphore::Gl(semaphore)) => semaphore.name().into(),
        Some(Semaphore::Cuda(semaphore)) => semaphore.handle() as usize as u64,
    })
}

/// Returns the kind of a semaphore; binary for null.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_get_kind(semaphore: Option<&gi_semaphore>) -> gi_semaphore_kind {
    match semaphore.map(gi_semaphore::kind) {
        Some(SemaphoreKind::Timeline) => gi_semaphore_kind::Timeline,
        _ => gi_semaphore_kind::Binary,
    }
}

/// Writes the value of a timeline semaphore of Vulkan.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_value(
    semaphore: Option<&gi_semaphore>,
    value: Option<&mut MaybeUninit<u64>>,
) -> gi_result {
    guard(|| {
        let (semaphore, out) = (required(semaphore, "semaphore")?, required(value, "value")?);
        out.write(semaphore.vulkan()?.value()?);
        Ok(())
    })
}

/// Waits on the host until a timeline semaphore of Vulkan has the value, at most `timeout_ns`
/// nanoseconds. `GI_RESULT_TIMEOUT` if it does not.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_wait(
    semaphore: Option<&gi_semaphore>,
    value: u64,
    timeout_ns: u64,
) -> gi_result {
    guard(|| {
        let semaphore = required(semaphore, "semaphore")?.vulkan()?;
        semaphore.wait(value, Duration::from_nanos(timeout_ns))
    })
}

/// Signals a timeline semaphore of Vulkan on the host.
///
/// Required: `value` is greater than the semaphore's value and less than that of any pending signal
/// (`vkSignalSemaphore`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_semaphore_signal(
    semaphore: Option<&gi_semaphore>,
    value: u64,
) -> gi_result {
    guard(|| {
        let semaphore = required(semaphore, "semaphore")?.vulkan()?;
        // SAFETY: the caller's promise.
        unsafe { semaphore.signal(value) }
    })
}

/// Enqueues a wait for a semaphore of OpenGL or CUDA: later commands of the context, or later work
/// on `commands->stream`, execute after it. `value` is for timeline semaphores. Vulkan waits in the
/// application's submit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_semaphore_enqueue_wait(
    endpoint: Option<&gi_endpoint>,
    semaphore: Option<&gi_semaphore>,
    value: u64,
    commands: *const gi_commands,
) -> gi_result {
    // SAFETY: the caller's promise.
    unsafe { enqueue(endpoint, semaphore, value, commands, false) }
}

/// Enqueues a signal of a semaphore of OpenGL or CUDA, after the commands and the work so far.
/// Otherwise like `gi_semaphore_enqueue_wait`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gi_semaphore_enqueue_signal(
    endpoint: Option<&gi_endpoint>,
    semaphore: Option<&gi_semaphore>,
    value: u64,
    commands: *const gi_commands,
) -> gi_result {
    // SAFETY: the caller's promise.
    unsafe { enqueue(endpoint, semaphore, value, commands, true) }
}

/// # Safety
/// The crate's contract.
unsafe fn enqueue(
    endpoint: Option<&gi_endpoint>,
    semaphore: Option<&gi_semaphore>,
    value: u64,
    commands: *const gi_commands,
    is_signal: bool,
) -> gi_result {
    guard(|| {
        let endpoint = required(endpoint, "endpoint")?;
        let semaphore = required(semaphore, "semaphore")?;
        let value = semaphore.value(value);
        // SAFETY: the caller's promise.
        let commands = unsafe { Commands::new(commands) }?;
        match (&endpoint.0, &semaphore.0) {
            (Endpoint::Gl(gl), Semaphore::Gl(semaphore)) => {
                let (buffers, textures) = commands.gl()?;
                let textures: Vec<(glow::Texture, ImageLayout)> = textures
                    .iter()
                    .map(|used| (used.texture, used.layout.unwrap_or(ImageLayout::GENERAL)))
                    .collect();
                if is_signal {
                    gl.signal(semaphore, value, &buffers, &textures)
                } else {
                    gl.wait(semaphore, value, &buffers, &textures)
                }
            }
            (Endpoint::Cuda(cuda), Semaphore::Cuda(semaphore)) => {
                let stream = commands.stream(cuda);
                if is_signal {
                    cuda.signal(&stream, semaphore, value)
                } else {
                    cuda.wait(&stream, semaphore, value)
                }
            }
            (Endpoint::Vulkan(_), Semaphore::Vulkan(_)) => {
                Err(Invalid::new("endpoint", "is Vulkan, which has no such operation")
                    .help("add the semaphore to a submit, or use gi_semaphore_wait and _signal")
                    .into())
            }
            _ => Err(Invalid::new("semaphore", "is of another API than the endpoint").into()),
        }
    })
}

/// Destroys a semaphore; null is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn gi_semaphore_destroy(semaphore: Option<Box<gi_semaphore>>) {
    guard_value(|| drop(semaphore));
}
