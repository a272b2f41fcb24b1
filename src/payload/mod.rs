//! Payloads: a file descriptor and *everything* that an importer needs to know about it.
//!
//! A payload owns its descriptor. It is neither `Copy` nor `Clone`: an import consumes it, as the
//! driver consumes the descriptor. To import twice, export twice or use
//! [`try_clone`](BufferPayload::try_clone), which duplicates the descriptor.
//!
//! A payload is validated once, when it is made: descriptions, ranges, sizes and kinds. If that
//! fails, what was given comes back in an [`ImportError`](crate::ImportError). An import then checks
//! the GPU, the driver and the descriptor, which only the importer can.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{ImportError, ImportResult, Mismatch, Result};
use crate::identity::Identity;

mod memory;
mod semaphore;

#[cfg_attr(
    not(any(feature = "vulkan", feature = "gl", feature = "cuda")),
    allow(unused_imports)
)]
pub(crate) use memory::check_range;
pub use memory::{BufferPayload, ImagePayload, LinearLayout, MemoryInfo, MemoryPayload};
pub use semaphore::{SemaphoreInfo, SemaphoreKind, SemaphorePayload};

#[cfg(test)]
mod tests;

/// Any payload: an allocation, a buffer, an image or a semaphore.
#[derive(Debug)]
#[non_exhaustive]
pub enum Payload {
    /// An allocation.
    Memory(MemoryPayload),
    /// A buffer.
    Buffer(BufferPayload),
    /// An image.
    Image(ImagePayload),
    /// A semaphore.
    Semaphore(SemaphorePayload),
}

macro_rules! each {
    ($payload:expr, $inner:ident => $value:expr) => {
        match $payload {
            Payload::Memory($inner) => $value,
            Payload::Buffer($inner) => $value,
            Payload::Image($inner) => $value,
            Payload::Semaphore($inner) => $value,
        }
    };
}

impl Payload {
    /// Returns the kind of payload in words: `memory`, `buffer`, `image` or `semaphore`.
    pub const fn kind_name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Buffer(_) => "buffer",
            Self::Image(_) => "image",
            Self::Semaphore(_) => "semaphore",
        }
    }

    /// Returns the GPU and the driver of the exporter.
    pub fn identity(&self) -> &Identity {
        match self.memory() {
            Ok(memory) => &memory.info().identity,
            Err(semaphore) => &semaphore.info().identity,
        }
    }

    /// Returns the allocation, which all but a semaphore have.
    fn memory(&self) -> Result<&MemoryPayload, &SemaphorePayload> {
        match self {
            Self::Memory(memory) => Ok(memory),
            Self::Buffer(buffer) => Ok(buffer.memory()),
            Self::Image(image) => Ok(image.memory()),
            Self::Semaphore(semaphore) => Err(semaphore),
        }
    }

    /// Returns a second payload of the same object, with a duplicate of the descriptor.
    /// FD_CLOEXEC is set.
    ///
    /// # Errors
    /// [`Error::Driver`](crate::Error::Driver) if the process is out of descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        each!(self, payload => payload.try_clone().map(Self::from))
    }
}

impl AsFd for Payload {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, payload => payload.as_fd())
    }
}

macro_rules! variants {
    ($( $(#[$doc:meta])* $into:ident: $variant:ident($inner:ident) = $name:literal; )*) => {
        $(
            impl From<$inner> for Payload {
                fn from(payload: $inner) -> Self {
                    Self::$variant(payload)
                }
            }

            impl TryFrom<Payload> for $inner {
                type Error = ImportError<Payload>;

                fn try_from(payload: Payload) -> ImportResult<Self, Payload> {
                    payload.$into()
                }
            }
        )*

        impl Payload {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`Error::Mismatch`](crate::Error::Mismatch) if it is something else; the payload
                /// comes back.
                pub fn $into(self) -> ImportResult<$inner, Self> {
                    match self {
                        Self::$variant(payload) => Ok(payload),
                        other => {
                            let error = Mismatch::new("payload kind", $name, other.kind_name())
                                .help("agree with the exporter on the kind and order of payloads");
                            Err(ImportError::new(other, error))
                        }
                    }
                }
            )*
        }
    };
}

variants! {
    /// Returns the allocation.
    into_memory: Memory(MemoryPayload) = "memory";
    /// Returns the buffer.
    into_buffer: Buffer(BufferPayload) = "buffer";
    /// Returns the image.
    into_image: Image(ImagePayload) = "image";
    /// Returns the semaphore.
    into_semaphore: Semaphore(SemaphorePayload) = "semaphore";
}
