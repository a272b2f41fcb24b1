//! Family B: the limit of open descriptors is reached.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use gpu_interop::vulkan::BufferOptions;
use gpu_interop::{Error, SemaphoreKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cases::support::fds::{self, check_same_fd, is_open, leaves_nothing_open, number};
use crate::cases::support::importers::{
    Exportable, for_each_exporter, for_each_importer, for_each_semaphore,
};
use crate::cases::support::views::{AnyContext, Semaphore, View, check_aliases, check_signals};
use crate::harness::{Case, TestGpu};

pub(in crate::cases) fn cases() -> Vec<Case> {
    let mut cases = for_each_exporter("exported_at_the_limit/20", exported);
    cases.extend(for_each_importer("buffer/imported_at_the_limit/20a", imported_buffer));
    cases.extend(for_each_semaphore("imported_at_the_limit/20b", imported_semaphore));
    cases.push(Case::new("vulkan/opaque_fd/buffer/created_at_the_limit/20c", created));
    cases
}

/// No descriptor can be opened while this lives.
struct Limit(Rlimit);

impl Limit {
    /// Lowers the limit to the lowest number that is free.
    fn reached() -> Result<Self> {
        let lowest = File::open("/dev/null")?.as_raw_fd();
        let before = getrlimit(Resource::Nofile);
        let limit = Self(before);
        setrlimit(Resource::Nofile, Rlimit { current: Some(u64::try_from(lowest)?), ..before })?;
        ensure!(File::open("/dev/null").is_err(), "a file could be opened all the same");
        Ok(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Only the soft limit was lowered: it can always be raised again.
        let _ = setrlimit(Resource::Nofile, self.0);
    }
}

/// Runs `work` at the limit.
fn at_the_limit<T>(work: impl FnOnce() -> T) -> Result<T> {
    let limit = Limit::reached()?;
    let result = work();
    drop(limit);
    Ok(result)
}

/// An error of the kernel or a driver names the call, and that descriptors are lacking.
fn check_driver_error<T>(result: Result<T, &Error>) -> Result<()> {
    match result {
        Err(Error::Driver(driver)) => {
            ensure!(!driver.call.is_empty() && driver.code != 0, "{driver:?}");
            ensure!(driver.help.as_ref().is_some_and(|h| h.contains("RLIMIT_NOFILE")), "{driver}");
            Ok(())
        }
        Err(other) => bail!("{other:?}"),
        Ok(_) => bail!("it succeeded without a descriptor"),
    }
}

fn exported(object: &Exportable) -> Result<()> {
    leaves_nothing_open(|| {
        let payload = object.export()?;
        let (export, clone) = at_the_limit(|| (object.export(), payload.try_clone()))?;
        check_driver_error(export.as_ref()).context("export")?;
        check_driver_error(clone.as_ref()).context("try_clone")?;
        ensure!(is_open(payload.as_fd().as_raw_fd()), "the payload was closed");
        object.export()?;
        payload.try_clone()?;
        Ok(())
    })
}

/// The payload comes back, and can be imported once descriptors are free again. An API that needs none for
/// the import may succeed at once.
fn imported_buffer(test_gpu: &TestGpu, peer: &dyn AnyContext) -> Result<()> {
    leaves_nothing_open(|| {
        let (exported, payload) = fds::export(test_gpu)?;
        let raw = number(&payload);
        let mut view = match at_the_limit(|| peer.import_buffer(payload))? {
            Ok(view) => view,
            Err(refused) => {
                check_driver_error::<()>(Err(refused.error()))?;
                let payload = refused.into_payload();
                check_same_fd(&payload, raw)?;
                peer.import_buffer(payload)?
            }
        };
        check_aliases(&mut View::new(test_gpu.vulkan(), exported), &mut view)
    })
}

/// [`imported_buffer`] for a semaphore.
fn imported_semaphore(
    test_gpu: &TestGpu,
    peer: &dyn AnyContext,
    kind: SemaphoreKind,
) -> Result<()> {
    leaves_nothing_open(|| {
        let exported = test_gpu.vulkan().endpoint.create_semaphore(kind)?;
        let payload = exported.export()?;
        let raw = payload.as_fd().as_raw_fd();
        let imported = match at_the_limit(|| peer.import_semaphore(payload))? {
            Ok(imported) => imported,
            Err(refused) => {
                check_driver_error::<()>(Err(refused.error()))?;
                let payload = refused.into_payload();
                check_same_fd(&payload, raw)?;
                peer.import_semaphore(payload)?
            }
        };
        check_signals(&Semaphore::new(test_gpu.vulkan(), exported), &imported, kind, 1)?;
        // Submits have kept the semaphores, and some drivers hold a descriptor for each.
        drop(imported);
        test_gpu.free_finished();
        Ok(())
    })
}

/// A driver whose memory is a file needs a descriptor for it; others may not.
fn created(test_gpu: &TestGpu) -> Result<()> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let create = || endpoint.create_buffer(&fds::desc(), BufferOptions::default());
    leaves_nothing_open(|| {
        let made = at_the_limit(create)?;
        if made.is_err() || !test_gpu.is_hardware() {
            check_driver_error(made.as_ref())?;
        }
        create()?.export()?;
        Ok(())
    })
}
