//! Family G: several APIs at once.

pub(super) mod round_trips;
pub(super) mod teardown;
