//! This process and its children: open descriptors, mapped memory, and the test binary run again.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::RawFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How many descriptors an error names.
const NAMED: usize = 16;

/// Open descriptors and what they refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptors(BTreeMap<RawFd, String>);

/// Waits until no thread of the library closes descriptors that a peer has sent, at most for some seconds.
fn wait_for_closes() {
    let closes = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim_end() == "interop-close")
    };
    // A thread that has just started does not have its name yet, so none must be found several times.
    let mut without = 0;
    for _ in 0..5000 {
        let mut tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        without = if tasks.any(closes) { 0 } else { without + 1 };
        if without == 3 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the descriptors that are open now, except for those that the library is about to close.
pub fn open_descriptors() -> Descriptors {
    wait_for_closes();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).map(|path| path.display().to_string());
        if let (Ok(number), Ok(target)) = (entry.file_name().to_string_lossy().parse(), target) {
            found.insert(number, target);
        }
    }
    // The directory itself was open while it was read.
    found.retain(|_, target| !(target.starts_with("/proc/") && target.ends_with("/fd")));
    Descriptors(found)
}

impl Descriptors {
    /// Returns how many are open.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Checks that as many are open now.
    ///
    /// # Errors
    /// Names the descriptors that were left open or closed.
    pub fn require_same(&self, now: &Descriptors) -> Result<()> {
        let new = now.0.iter().filter(|(fd, _)| !self.0.contains_key(fd));
        let gone = self.0.iter().filter(|(fd, _)| !now.0.contains_key(fd));
        let (new, gone) =
            (new.take(NAMED).collect::<Vec<_>>(), gone.take(NAMED).collect::<Vec<_>>());
        ensure!(
            self.count() == now.count(),
            "{} descriptors before, {} after; new: {new:?}; gone: {gone:?}",
            self.count(),
            now.count()
        );
        Ok(())
    }
}

/// What this process has open and mapped.
#[derive(Clone, Debug)]
pub struct ProcessResources {
    /// Open descriptors.
    pub descriptors: Descriptors,
    /// Mappings of memory that a driver shares: memfds and the devices of GPUs.
    pub shared_mappings: usize,
    /// The size of these mappings in KiB.
    pub shared_kib: u64,
    /// The size of the whole address space in KiB.
    pub address_space_kib: u64,
}

/// NVIDIA's driver (580.159) keeps a mapping of 4 KiB for each semaphore that was released, and unmaps them
/// 512 at a time (1440 semaphores imported into OpenGL and dropped one by one: between 179 and 672 mappings).
pub const NVIDIA_UNMAPS_IN_BATCHES: usize = 512;

/// How much the heap, drivers included, may grow, in KiB: 32 MiB of use, and the 64 MiB of addresses that glibc
/// reserves for one more arena if a thread finds the others locked.
const HEAP_KIB: u64 = (32 + 64) << 10;

impl ProcessResources {
    /// Reads them from `/proc`.
    ///
    /// # Errors
    /// If `/proc` can't be read.
    pub fn now() -> Result<Self> {
        let (mut shared_mappings, mut shared_kib) = (0, 0);
        for line in fs::read_to_string("/proc/self/maps")?.lines() {
            if !(line.contains("/memfd:") || line.contains("/dev/nvidia")) {
                continue;
            }
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let (from, to) = range.with_context(|| format!("a mapping without ends: {line}"))?;
            let bytes = u64::from_str_radix(to, 16)? - u64::from_str_radix(from, 16)?;
            shared_mappings += 1;
            shared_kib += bytes >> 10;
        }
        let status = fs::read_to_string("/proc/self/status")?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let size = size.and_then(|text| text.trim().strip_suffix(" kB"));
        let address_space_kib = size.context("VmSize of /proc/self/status")?.parse()?;
        Ok(Self { descriptors: open_descriptors(), shared_mappings, shared_kib, address_space_kib })
    }

    /// Checks that as many descriptors are open and no more is mapped now. Less is allowed: NVIDIA's
    /// driver unmaps some of what it had mapped for itself.
    ///
    /// # Errors
    /// Names what has grown.
    pub fn require_same(&self, now: &Self) -> Result<()> {
        self.require_at_most(now, 0)
    }

    /// Same as [`require_same`](Self::require_same), with `more` mappings of a page.
    ///
    /// # Errors
    /// Names what has grown.
    pub fn require_at_most(&self, now: &Self, more: usize) -> Result<()> {
        self.descriptors.require_same(&now.descriptors)?;
        let before = (self.shared_mappings, self.shared_kib);
        let after = (now.shared_mappings, now.shared_kib);
        let is_more = after.0 > before.0 + more || after.1 > before.1 + 4 * more as u64;
        ensure!(!is_more, "shared mappings and KiB: {before:?} before, {after:?} after");
        let grown = now.address_space_kib.saturating_sub(self.address_space_kib);
        ensure!(grown <= HEAP_KIB, "the address space has grown by {grown} KiB: {self:?}");
        Ok(())
    }
}

/// Set in a child's environment to its role.
const VARIABLE: &str = "INTEROP_CHILD";

/// Returns a command that runs this binary again as a child with this role.
///
/// # Errors
/// If the binary's path can't be read.
pub fn child_arguments(role: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VARIABLE, role);
    Ok(command)
}

/// A child's role and what it does.
pub type Role = (&'static str, fn() -> Result<()>);

/// This process's role if it is a child.
pub(super) fn child_role() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Does what a role does.
pub(super) fn run_role(role: &str, roles: &[Role]) -> Result<()> {
    let (_, run) = roles
        .iter()
        .find(|(name, _)| *name == role)
        .with_context(|| format!("no child has the role '{role}'"))?;
    run()
}
