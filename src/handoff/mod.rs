//! Handoffs: a payload goes from one peer to the next, and each waits for the other.
//!
//! [`open`] connects two endpoints one way, with the best synchronisation both have: a timeline
//! semaphore, else a binary semaphore, else the host waits. Which one was chosen, and why not a
//! better one, is in [`Handoff::plan`]. The releasing side makes a [`Ticket`], which is
//! passed on once its work is submitted; the acquiring side takes it and goes on when that work is
//! done.
//!
//! Vulkan's half is recorded into the user's own command buffer, with the release to and the acquire
//! from `VK_QUEUE_FAMILY_EXTERNAL`, and says what to add to the user's submit. OpenGL's half lists
//! the buffers and textures; CUDA's half is enqueued on the user's stream.
//!
//! Images are handed over with their layouts, which travel in the ticket: the acquiring side lists
//! the images in the order of the releasing side, and one that goes on from another layout is
//! refused ([`ImageAccess`](crate::vulkan::ImageAccess) says which side names which).
//!
//! A [`Route`] is a way for payloads to go, and says what it needs. [`ring`] keeps several payloads
//! under way, and a [`calibration`] measures which route and how many payloads are best.
//!
//! The semaphores belong to a Vulkan device, their owner: OpenGL and CUDA can only import them.

pub(crate) mod channel;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "gl")]
mod gl;
mod in_flight;
mod layouts;
mod peer;
mod semaphore_ops;
mod ticket;
mod vulkan;

pub use channel::{Acquirer, Handoff, HandoffOptions, Releaser, open};
pub use peer::HandoffPeer;
pub use ticket::{AcquireError, Ticket, WaitMode};
