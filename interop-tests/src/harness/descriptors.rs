//! Which file descriptors this process has open.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::RawFd;

use anyhow::{Result, ensure};

/// How many are named where the number is wrong.
const NAMED: usize = 16;

/// Open descriptors and what they refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptors(BTreeMap<RawFd, String>);

/// The descriptors that are open now, without the one that looks.
pub fn open_descriptors() -> Descriptors {
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
    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Checks that as many are open now, and names those that are new where not.
    ///
    /// # Errors
    /// With the descriptors that were left open or closed.
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
