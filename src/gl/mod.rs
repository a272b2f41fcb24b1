//! The OpenGL peer, over the application's own `glow` context.
//!
//! [`Endpoint`] borrows a context. OpenGL can only import: [`Memory`], the [`Buffer`]s and
//! [`Texture`]s in it, and [`Semaphore`]s. [`Endpoint::wait`] and [`Endpoint::signal`] synchronise
//! on the GPU. If the APIs share no semaphore, the host waits: see [`Endpoint::fence`] and
//! [`Endpoint::memory_barrier`].
//!
//! # The application's state
//! - If the context is not current on the calling thread, an operation returns an error and never
//!   calls into another context. An object that is dropped meanwhile is deleted by the next
//!   operation, or by [`Endpoint::delete_dropped`].
//! - Bindings are restored: after each call, the same buffers and textures are bound as before.
//! - The application's errors stay pending: `glGetError` returns them after an operation as it
//!   would have before. The library's own errors are returned only as [`Error`](crate::Error).
//!
//! # Threads and share groups
//! An endpoint and its objects are `Send` and `Sync`, and an endpoint follows its context to the
//! thread on which it is current. A context that shares objects with another gets its endpoint from
//! [`Endpoint::new_shared`]; the two accept each other's objects.
//!
//! # References
//! `GL_EXT_memory_object`, `GL_EXT_memory_object_fd`, `GL_EXT_semaphore`, `GL_EXT_semaphore_fd`,
//! `GL_NV_timeline_semaphore`.

mod capabilities;
mod context;
mod deletion;
mod endpoint;
mod errors;
mod features;
mod ffi;
mod holders;
mod memory;
mod names;
mod semaphore;
mod storage;
mod sync;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod texture;
pub mod workarounds;

pub use endpoint::Endpoint;
pub use memory::{Buffer, Memory};
pub use semaphore::{Semaphore, texture_layouts};
pub use sync::Fence;
pub use texture::Texture;
