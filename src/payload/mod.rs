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

mod any;
mod buffer;
mod image;
mod memory;
mod semaphore;

pub use any::Payload;
pub use buffer::BufferPayload;
pub use image::{ImagePayload, LinearLayout};
#[cfg_attr(
    not(any(feature = "vulkan", feature = "gl", feature = "cuda")),
    allow(unused_imports)
)]
pub(crate) use memory::check_range;
pub use memory::{MemoryInfo, MemoryPayload};
pub use semaphore::{SemaphoreInfo, SemaphoreKind, SemaphorePayload};

#[cfg(test)]
mod tests;
