//! The trait that every peer's endpoint implements, for code that works with any of them.

use std::fmt;

use crate::capabilities::Capabilities;
use crate::desc::{ImageDesc, ImageFlags, ResourceDesc};
use crate::error::{Api, ImportResult, Result};
use crate::fd::MemoryHandleType;
use crate::identity::Identity;
use crate::payload::{BufferPayload, ImagePayload, MemoryPayload, SemaphorePayload};

/// An endpoint of any API: a borrowed context of the application, which imports payloads.
///
/// Implemented by `vulkan::Endpoint`, `gl::Endpoint` and `cuda::Endpoint`. Endpoints are cheap to
/// clone, and so are the semaphores. Each method does the same as the endpoint's own method of that
/// name.
///
/// # Examples
/// Code for every API:
/// ```
/// use gpu_interop::{ImagePayload, Peer, Result, capabilities::Capabilities};
///
/// /// Imports `payload` if the endpoint supports it; otherwise returns what is missing.
/// fn import_image<P: Peer>(peer: &P, payload: ImagePayload) -> Result<P::Image> {
///     let capabilities: Capabilities = peer.capabilities(&(*payload.desc()).into())?;
///     let handle_type = payload.memory().info().handle_type;
///     capabilities.memory(handle_type)?.import.clone()?;
///     println!("{} imports an image of {:?}", peer.api(), payload.desc().extent);
///     Ok(peer.import_image(payload)?)
/// }
/// ```
pub trait Peer: Clone + fmt::Debug {
    /// Imported memory.
    type Memory: fmt::Debug;
    /// An imported buffer.
    type Buffer: fmt::Debug;
    /// An imported image: `vulkan::Image`, `gl::Texture` or `cuda::Array`.
    type Image: fmt::Debug;
    /// An imported semaphore.
    type Semaphore: Clone + fmt::Debug;

    /// Returns the API of the endpoint.
    fn api(&self) -> Api;

    /// Returns the GPUs and the driver of the endpoint: one entry, or several for an OpenGL context
    /// that spans several GPUs.
    fn identities(&self) -> &[Identity];

    /// Returns what the endpoint can export and import for `desc`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if `desc` is invalid, or if an OpenGL context is
    /// not current; [`Error::Driver`](crate::Error::Driver) if a query fails.
    fn capabilities(&self, desc: &ResourceDesc) -> Result<Capabilities>;

    /// Imports an allocation that is not dedicated to a resource.
    ///
    /// # Errors
    /// The payload is returned with [`Error::Mismatch`](crate::Error::Mismatch) for another GPU or
    /// driver, [`Error::Missing`](crate::Error::Missing) for what the API lacks,
    /// [`Error::Invalid`](crate::Error::Invalid) for what is wrong with the payload, or
    /// [`Error::Driver`](crate::Error::Driver) if the driver rejects it.
    fn import_memory(&self, payload: MemoryPayload) -> ImportResult<Self::Memory, MemoryPayload>;

    /// Imports a buffer together with its memory.
    ///
    /// # Errors
    /// Same as [`import_memory`](Self::import_memory).
    fn import_buffer(&self, payload: BufferPayload) -> ImportResult<Self::Buffer, BufferPayload>;

    /// Imports an image together with its memory.
    ///
    /// # Errors
    /// Same as [`import_memory`](Self::import_memory).
    fn import_image(&self, payload: ImagePayload) -> ImportResult<Self::Image, ImagePayload>;

    /// Imports a semaphore.
    ///
    /// # Errors
    /// Same as [`import_memory`](Self::import_memory).
    fn import_semaphore(
        &self,
        payload: SemaphorePayload,
    ) -> ImportResult<Self::Semaphore, SemaphorePayload>;

    /// Waits on the host, without a timeout, until all work submitted to the device or context is
    /// done.
    ///
    /// # Safety
    /// No other thread uses a queue of a Vulkan endpoint's device during the call
    /// (`vkDeviceWaitIdle`, host synchronization). OpenGL and CUDA endpoints require nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if an OpenGL context is not current, or a CUDA
    /// stream that synchronises with the default stream is being captured into a graph (a capture
    /// of another stream of the context is invalidated); [`Error::Driver`](crate::Error::Driver) if
    /// the work failed or the device is lost.
    ///
    /// # References
    /// `vkDeviceWaitIdle`, `glFinish`, `cuCtxSynchronize`.
    #[doc(alias = "vkDeviceWaitIdle")]
    #[doc(alias = "glFinish")]
    #[doc(alias = "cuCtxSynchronize")]
    unsafe fn wait_idle(&self) -> Result<()>;
}

/// Returns `desc` with every usage of [`ImageDesc::for_gl`] with which `exporter` can export the
/// image as an opaque fd: the image to create for sharing with OpenGL.
///
/// The usages in `desc` are kept, whether or not the exporter supports them.
///
/// # Errors
/// Same as [`Peer::capabilities`].
///
/// # References
/// `GL_EXT_memory_object`, issues 13 and 17.
pub fn widest_for_gl<P: Peer>(exporter: &P, desc: &ImageDesc) -> Result<ImageDesc> {
    let mut widest = ImageDesc { flags: desc.flags | ImageFlags::MUTABLE_FORMAT, ..*desc };
    for usage in ImageDesc::gl_usages(desc.format).into_iter().flatten() {
        if widest.usage.contains(usage) {
            continue;
        }
        let wider = ImageDesc { usage: widest.usage | usage, ..widest };
        let capabilities = exporter.capabilities(&wider.into())?;
        if capabilities.memory(MemoryHandleType::OpaqueFd).is_ok_and(|entry| entry.export.is_ok()) {
            widest = wider;
        }
    }
    Ok(widest)
}

/// The error for a resource, listed by `parameter`, that `handoff` has released already.
#[cfg(feature = "vulkan")]
pub(crate) fn released_already(parameter: &'static str, handoff: u64) -> crate::Error {
    crate::error::Invalid::new(
        parameter,
        format!("one of them is released already, through handoff {handoff}"),
    )
    .help("acquire it first, or call its `reclaim`, after which its content is undefined")
    .into()
}

/// Implements [`Peer`] with the endpoint's own methods, and `wait_idle` with the given body.
#[cfg(any(feature = "vulkan", feature = "gl", feature = "cuda"))]
macro_rules! impl_peer {
    ($endpoint:ty, $api:expr, $memory:ty, $buffer:ty, $image:ty, $semaphore:ty, $wait_idle:item) => {
        impl $crate::peer::Peer for $endpoint {
            type Memory = $memory;
            type Buffer = $buffer;
            type Image = $image;
            type Semaphore = $semaphore;

            fn api(&self) -> $crate::Api {
                $api
            }

            fn identities(&self) -> &[$crate::Identity] {
                <$endpoint>::identities(self)
            }

            fn capabilities(
                &self,
                desc: &$crate::ResourceDesc,
            ) -> $crate::Result<$crate::capabilities::Capabilities> {
                <$endpoint>::capabilities(self, desc)
            }

            fn import_memory(
                &self,
                payload: $crate::MemoryPayload,
            ) -> $crate::ImportResult<$memory, $crate::MemoryPayload> {
                <$endpoint>::import_memory(self, payload)
            }

            fn import_buffer(
                &self,
                payload: $crate::BufferPayload,
            ) -> $crate::ImportResult<$buffer, $crate::BufferPayload> {
                <$endpoint>::import_buffer(self, payload)
            }

            fn import_image(
                &self,
                payload: $crate::ImagePayload,
            ) -> $crate::ImportResult<$image, $crate::ImagePayload> {
                <$endpoint>::import_image(self, payload)
            }

            fn import_semaphore(
                &self,
                payload: $crate::SemaphorePayload,
            ) -> $crate::ImportResult<$semaphore, $crate::SemaphorePayload> {
                <$endpoint>::import_semaphore(self, payload)
            }

            $wait_idle
        }
    };
}

#[cfg(any(feature = "vulkan", feature = "gl", feature = "cuda"))]
pub(crate) use impl_peer;
