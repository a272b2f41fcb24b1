//! Hostile peers: a child process that corrupts the payload it passes on, and payloads whose description
//! is wrong.

pub(super) mod buffers;
pub(super) mod images;
pub(super) mod payload_fields;
mod peer;
pub(super) mod semaphores;
