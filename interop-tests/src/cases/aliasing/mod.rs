//! Family C: memory aliasing between Vulkan devices.

pub(super) mod adopted;
pub(super) mod import_order;
pub(super) mod mapped;
pub(super) mod memory;
pub(super) mod offsets;
