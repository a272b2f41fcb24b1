//! How a handoff is synchronised, in words.

use gpu_interop::capabilities::{Rejected, SyncMethod, SyncPlan};

/// The name of the synchronisation method of `plan`.
pub fn handoff_name(plan: &SyncPlan) -> &'static str {
    method_name(plan.method)
}

/// Why better methods were not chosen, one line per reason; empty if the best were.
pub fn rejected_methods(plans: &[SyncPlan]) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for (method, rejected) in plans.iter().flat_map(|plan| &plan.rejected) {
        let Rejected::Missing(missing) = rejected else { continue };
        let (reason, name) = (missing.to_string(), method_name(*method));
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let line =
        |(reason, names): (String, Vec<&str>)| format!("no {}: {reason}", names.join(" and no "));
    reasons.into_iter().map(line).collect()
}

fn method_name(method: SyncMethod) -> &'static str {
    match method {
        SyncMethod::Timeline => "timeline semaphore",
        SyncMethod::Binary => "binary semaphore",
        SyncMethod::HostWait => "host wait",
        _ => "another method",
    }
}
