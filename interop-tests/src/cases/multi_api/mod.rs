//! Family G: several APIs at once.

pub(super) mod round_trips;
pub(in crate::cases) mod teardown;
