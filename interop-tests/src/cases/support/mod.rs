//! What several groups of cases use.

pub(crate) mod exporters;
pub(crate) mod importers;
pub(crate) mod payload_users;
