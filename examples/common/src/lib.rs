//! What the demos have in common: one scheme of exit statuses, the GPU that a report names, progress of long
//! work, and the names of handoffs.

mod exit;
mod progress;
mod report;

pub use exit::{Outcome, UsageError, run};
pub use progress::Progress;
pub use report::{Device, handoff_name, rejected_methods};
