//! What the demos' reports have in common: the GPU, and how a handoff is synchronised, in words.

use gpu_interop::capabilities::{Rejected, SyncMethod, SyncPlan};
use gpu_interop::headless::Vulkan;
use serde::Serialize;

/// The GPU as reports name it.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The name and version of its Vulkan driver.
    pub driver: String,
}

impl Device {
    /// The GPU that `vulkan` was opened on.
    pub fn of(vulkan: &Vulkan) -> Self {
        let identity = vulkan.identity();
        Self {
            name: identity.name.clone(),
            uuid: identity.device.to_string(),
            driver: vulkan.driver().to_owned(),
        }
    }
}

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
