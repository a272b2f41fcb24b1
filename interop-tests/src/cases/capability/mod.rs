//! Family A: what the endpoints report as supported, and what as missing.

pub(super) mod answers;
pub(super) mod devices;
pub(super) mod proof;
