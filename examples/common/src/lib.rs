//! What the demos have in common: one scheme of exit statuses, the GPU that a report names, progress of long
//! work, and the names of handoffs.

mod device;
mod exit;
mod handoff;
mod progress;

pub use device::Device;
pub use exit::{Outcome, UsageError, run};
pub use handoff::{handoff_name, rejected_methods};
pub use progress::Progress;
