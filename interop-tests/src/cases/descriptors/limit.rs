//! Group B: the limit of open descriptors is reached.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Error, SemaphoreKind};

use crate::cases::descriptors::{self, is_open, leaves_nothing_open, number};
use crate::cases::support::exporters::{Exportable, for_each_exporter};
use crate::cases::support::importers::{
    Peer, Semaphore, View, check_aliases, check_signals, for_each_importer, for_each_semaphore,
};
use crate::harness::{Case, TestGpu};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = for_each_exporter("exported_at_the_limit/20", exported);
    cases.extend(for_each_importer("buffer/imported_at_the_limit/20a", imported_buffer));
    cases.extend(for_each_semaphore("imported_at_the_limit/20b", imported_semaphore));
    cases.push(Case::new("vulkan/opaque_fd/buffer/created_at_the_limit/20c", created));
    cases
}

/// No descriptor can be opened while this lives.
struct Limit(libc::rlimit);

impl Limit {
    /// Lowers the limit to the lowest number that is free.
    fn reached() -> Result<Self> {
        let lowest = File::open("/dev/null")?.as_raw_fd();
        let mut before = MaybeUninit::uninit();
        // SAFETY: the structure is writable.
        let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, before.as_mut_ptr()) };
        ensure!(got == 0, "getrlimit: {}", std::io::Error::last_os_error());
        // SAFETY: filled by getrlimit, which returned 0.
        let before: libc::rlimit = unsafe { before.assume_init() };
        let now = libc::rlimit { rlim_cur: u64::try_from(lowest)?, ..before };
        let limit = Self(before);
        limit.set(&now)?;
        ensure!(File::open("/dev/null").is_err(), "a file could be opened all the same");
        Ok(limit)
    }

    fn set(&self, to: &libc::rlimit) -> Result<()> {
        // SAFETY: the structure is valid; what is open stays open, whatever its number.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, to) };
        ensure!(set == 0, "setrlimit: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Only the soft limit was lowered: it can always be raised again.
        let _ = self.set(&self.0);
    }
}

/// Runs `work` at the limit.
fn at_the_limit<T>(work: impl FnOnce() -> T) -> Result<T> {
    let limit = Limit::reached()?;
    let result = work();
    drop(limit);
    Ok(result)
}

/// The kernel's or a driver's no, with the name of the call.
fn check_driver_error<T>(result: Result<T, &Error>) -> Result<()> {
    match result {
        Err(Error::Driver(driver)) => {
            ensure!(!driver.call.is_empty() && driver.code != 0, "{driver:?}");
            Ok(())
        }
        Err(other) => bail!("{other:?}"),
        Ok(_) => bail!("it went well, without a descriptor"),
    }
}

fn exported(object: &Exportable) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = object.export()?;
        let (export, clone) = at_the_limit(|| (object.export(), payload.try_clone()))?;
        check_driver_error(export.as_ref()).context("export")?;
        check_driver_error(clone.as_ref()).context("try_clone")?;
        ensure!(is_open(payload.number()), "the payload was closed");
        object.export()?;
        payload.try_clone()?;
        Ok(())
    })
}

/// The payload comes back, and is imported when there is room again. An API that needs no descriptor
/// for it may import at once.
fn imported_buffer(machine: &TestGpu, peer: Peer<'_>) -> Result<()> {
    leaves_nothing_open(|| {
        let (exported, payload) = descriptors::export(machine)?;
        let raw = number(&payload);
        let mut view = match at_the_limit(|| peer.import_buffer(payload))? {
            Ok(view) => view,
            Err(refused) => {
                check_driver_error::<()>(Err(refused.error()))?;
                let payload = refused.into_payload();
                ensure!(number(&payload) == raw && is_open(raw), "another came back");
                peer.import_buffer(payload)?
            }
        };
        check_aliases(&mut View::Vulkan(machine.vulkan(), exported), &mut view)
    })
}

/// As [`imported_buffer`], for a semaphore.
fn imported_semaphore(machine: &TestGpu, peer: Peer<'_>, kind: SemaphoreKind) -> Result<()> {
    leaves_nothing_open(|| {
        let exported = machine.vulkan().endpoint.create_semaphore(kind)?;
        let payload = exported.export()?;
        let raw = payload.as_fd().as_raw_fd();
        let imported = match at_the_limit(|| peer.import_semaphore(payload))? {
            Ok(imported) => imported,
            Err(refused) => {
                check_driver_error::<()>(Err(refused.error()))?;
                let payload = refused.into_payload();
                ensure!(payload.as_fd().as_raw_fd() == raw && is_open(raw), "another came back");
                peer.import_semaphore(payload)?
            }
        };
        check_signals(&Semaphore::Vulkan(machine.vulkan(), exported), &imported, kind, 1)
    })
}

/// A driver whose memory is a file needs a descriptor for it; others may do without.
fn created(machine: &TestGpu) -> Result<()> {
    let endpoint = &machine.vulkan().endpoint;
    let create = || endpoint.create_buffer(&descriptors::desc(), BufferOptions::default());
    leaves_nothing_open(|| {
        let made = at_the_limit(create)?;
        if made.is_err() || !machine.is_hardware() {
            check_driver_error(made.as_ref())?;
        }
        create()?.export()?;
        Ok(())
    })
}
