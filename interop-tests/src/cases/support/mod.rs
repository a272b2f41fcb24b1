//! What the cases of several folders use.

pub(super) mod contexts;
pub(super) mod driver;
pub(super) mod fds;
pub(super) mod importers;
pub(super) mod payload_user;
mod recorder;
pub(super) mod routes;
pub(super) mod stalled_queue;
pub(super) mod views;
