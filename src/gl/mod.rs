//! The OpenGL peer, over the user's own `glow` context.
//!
//! [`Endpoint`] borrows a context that is current on the calling thread and stays there: it is
//! neither `Send` nor `Sync`. OpenGL only imports: [`Memory`], [`Buffer`]s and [`Texture`]s that lie
//! in it, and [`Semaphore`]s. [`Endpoint::wait`] and [`Endpoint::signal`] synchronise on the GPU,
//! [`Endpoint::fence`] and [`Endpoint::memory_barrier`] where only the host can wait.
//!
//! An operation while another context (or none) is current is an error, never a call into the wrong
//! context. What is dropped then is deleted later: by the next operation, or by
//! [`Endpoint::collect`].
//!
//! # References
//! `GL_EXT_memory_object`, `GL_EXT_memory_object_fd`, `GL_EXT_semaphore`, `GL_EXT_semaphore_fd`,
//! `GL_NV_timeline_semaphore`.

mod buffer;
mod capabilities;
mod current;
mod deletion;
mod endpoint;
mod error;
mod features;
mod fence;
mod ffi;
mod identity;
mod layout;
mod memory;
mod semaphore;
mod sync;
mod texture;
mod texture_storage;
mod texture_support;
mod texture_target;
pub mod workarounds;

pub use buffer::Buffer;
pub use endpoint::Endpoint;
pub use fence::Fence;
pub use layout::texture_layouts;
pub use memory::Memory;
pub use semaphore::Semaphore;
pub use texture::Texture;
