//! Family B: the life of a file descriptor.

pub(super) mod exports;
pub(super) mod foreign;
pub(super) mod imports;
pub(super) mod inherited;
pub(super) mod limit;
pub(super) mod refused;
