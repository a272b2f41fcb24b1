//! Family L: payloads that go to another process, alone and in sessions.

pub(super) mod attackers;
pub(super) mod attacks;
pub(super) mod hostile_producers;
pub(super) mod images;
mod kill_report;
pub(super) mod kills;
pub(super) mod kills_producers;
pub(super) mod payloads;
pub(super) mod peers;
pub(super) mod python;
pub(super) mod share;
pub(super) mod work;
