//! Sessions: a producer publishes frames to consumers in other processes.

mod consumer;
mod producer;

pub use consumer::*;
pub use producer::*;

use std::slice;

use gpu_interop::error::Invalid;
use gpu_interop::session::PeerPolicy;
use gpu_interop::{Result, vulkan};

use crate::args::list;
use crate::buffer::unknown;

/// The users whose processes may take part in a session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gi_peer_policy {
    /// Only the effective user of this process.
    OwnUser = 0,
    /// The users of a list. Your own must be listed too.
    Users = 1,
    /// All. Nothing is checked.
    Anyone = 2,
}

/// # Safety
/// `users` is null or valid for `count` elements.
unsafe fn policy(allowed: u32, users: *const u32, count: usize) -> Result<PeerPolicy> {
    // SAFETY: the caller's promise.
    let users = unsafe { list(users, count, "options.users") }?;
    match allowed {
        0 => Ok(PeerPolicy::OwnUser),
        1 => Ok(PeerPolicy::Users(users.to_vec())),
        2 => Ok(PeerPolicy::Anyone),
        other => Err(unknown("options.allowed", other, "gi_peer_policy")),
    }
}

/// Returns the imported semaphore of a frame's point.
fn nth(semaphores: &[vulkan::Semaphore], index: u32) -> Result<&vulkan::Semaphore> {
    semaphores.get(index as usize).ok_or_else(|| {
        let problem = format!("{} are given, but the frame needs number {index}", semaphores.len());
        Invalid::new("semaphores", problem).into()
    })
}

/// A list that may be empty, of handles that C owns.
///
/// # Safety
/// `start` is null, or valid for `count` elements that no other reference reaches.
unsafe fn handles<'a, T>(
    start: *mut Option<Box<T>>,
    count: usize,
    name: &'static str,
) -> Result<&'a mut [Option<Box<T>>]> {
    if count == 0 {
        return Ok(&mut []);
    }
    if start.is_null() {
        return Err(Invalid::new(name, format!("is null, but {count} are counted")).into());
    }
    // SAFETY: the caller's promise.
    let handles = unsafe { slice::from_raw_parts_mut(start, count) };
    if handles.iter().any(Option::is_none) {
        return Err(Invalid::new(name, "has a null handle").into());
    }
    Ok(handles)
}
