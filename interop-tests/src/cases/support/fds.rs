//! File descriptors: payloads around them, files that stand in for them, and checks that none is closed
//! twice or left open.

use std::fmt::Debug;
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use gpu_interop::vulkan::{self, BufferOptions};
use gpu_interop::{BufferDesc, BufferPayload, Error, ImportResult, MemoryPayload};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::harness::{TestGpu, open_descriptors};
use interop_gpu::oracle;

/// The size of most shared buffers: several pages.
pub(crate) const BYTES: u64 = 64 << 10;

/// A storage buffer of [`BYTES`] bytes.
pub(crate) fn desc() -> BufferDesc {
    BufferDesc::storage(BYTES)
}

/// Creates a buffer of [`desc`] on the suite's first device and exports it.
pub(crate) fn export(test_gpu: &TestGpu) -> Result<(vulkan::Buffer, BufferPayload)> {
    let endpoint = &test_gpu.vulkan().endpoint;
    let buffer = endpoint.create_buffer(&desc(), BufferOptions::default())?;
    let payload = buffer.export()?;
    Ok((buffer, payload))
}

/// The same payload around another descriptor.
pub(crate) fn with_fd(fd: impl Into<OwnedFd>, like: &BufferPayload) -> Result<BufferPayload> {
    let memory = MemoryPayload::new(fd.into(), like.memory().info().clone())?;
    Ok(BufferPayload::new(memory, like.offset(), *like.desc())?)
}

/// The number of a payload's descriptor.
pub(crate) fn number(payload: &BufferPayload) -> RawFd {
    payload.as_fd().as_raw_fd()
}

/// Checks that a payload came back with the descriptor `raw`, still open.
pub(crate) fn check_same_fd(payload: impl AsFd, raw: RawFd) -> Result<()> {
    let back = payload.as_fd().as_raw_fd();
    ensure!(back == raw, "descriptor {back} came back, not {raw}");
    ensure!(is_open(raw), "descriptor {raw} came back closed");
    Ok(())
}

/// Imports a payload that must be refused. Checks that it comes back with the same descriptor, still open,
/// which is closed once when the payload is dropped. Returns the error.
pub(crate) fn given_back<T: Debug, P: AsFd>(
    payload: P,
    import: impl FnOnce(P) -> ImportResult<T, P>,
) -> Result<Error> {
    let before = open_descriptors();
    let raw = payload.as_fd().as_raw_fd();
    let Err(refused) = import(payload).map(|imported| format!("{imported:?}")) else {
        bail!("it was imported");
    };
    let (payload, error) = refused.into_parts();
    check_same_fd(&payload, raw)?;
    before.require_same(&open_descriptors())?;
    drop(payload);
    ensure!(open_descriptors().count() + 1 == before.count(), "it was not closed");
    Ok(error)
}

/// Runs `work` and checks that as many descriptors are open as before.
pub(crate) fn leaves_nothing_open(work: impl FnMut() -> Result<()>) -> Result<()> {
    leave_nothing_open(1, work)
}

/// Runs `work` `times` times and checks that as many descriptors are open as before. It runs once more at
/// the start, for what a driver opens once and keeps.
pub(crate) fn leave_nothing_open(times: u32, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    work()?;
    let before = open_descriptors();
    for _ in 0..times {
        work()?;
    }
    before.require_same(&open_descriptors())
}

/// What the number refers to, if it is open.
fn file(raw: RawFd) -> Option<Metadata> {
    std::fs::metadata(format!("/proc/self/fd/{raw}")).ok()
}

pub(crate) fn is_open(raw: RawFd) -> bool {
    std::fs::symlink_metadata(format!("/proc/self/fd/{raw}")).is_ok()
}

/// Whether FD_CLOEXEC is set.
pub(crate) fn closes_on_exec(fd: impl AsFd) -> Result<bool> {
    Ok(fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC))
}

/// A file in memory, filled with a hash.
pub(crate) fn memfd(bytes: usize) -> Result<File> {
    let mut file = File::from(memfd_create("junk", MemfdFlags::CLOEXEC)?);
    file.write_all(&oracle::filled(bytes, 0x0b5e55ed))?;
    Ok(file)
}

/// A file in memory of `bytes` zeros, with these seals.
pub(crate) fn sealed_memfd(bytes: u64, seals: SealFlags) -> Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("sealed", flags)?);
    file.set_len(bytes)?;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// An event counter: a descriptor that belongs to no file system, as a GPU's may.
pub(crate) fn event_counter() -> Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// Unrelated files at all the numbers that are free.
///
/// A descriptor that is closed twice, or that a driver owns already, closes one of these.
pub(crate) struct Bystanders(Vec<(File, u64)>);

impl Bystanders {
    /// Opens files until each number up to `highest` is taken, and some more.
    pub(crate) fn fill(highest: RawFd) -> Result<Self> {
        let mut files = Vec::new();
        let mut above = 0;
        while above < 16 {
            let file = memfd(1)?;
            above += usize::from(file.as_raw_fd() > highest);
            let inode = file.metadata()?.ino();
            files.push((file, inode));
        }
        Ok(Self(files))
    }

    /// Whether one of them has the number.
    pub(crate) fn include(&self, raw: RawFd) -> bool {
        self.0.iter().any(|(file, _)| file.as_raw_fd() == raw)
    }

    /// Checks that each is still open and the file it was.
    pub(crate) fn check(&self) -> Result<()> {
        for (bystander, inode) in &self.0 {
            let raw = bystander.as_raw_fd();
            let now = file(raw).with_context(|| format!("an unrelated file, {raw}, was closed"))?;
            ensure!(now.ino() == *inode, "{raw} was closed and is another file now");
        }
        Ok(())
    }
}

/// Runs `work` while another thread opens and closes files of its own as fast as it can: code that closes
/// a number which a driver has closed already closes one of those sooner or later.
pub(crate) fn closes_no_other_file(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| open_and_close_files(&is_over));
        let worked = work();
        is_over.store(true, Ordering::Relaxed);
        other.join().map_err(|_| anyhow!("the other thread panicked"))??;
        worked
    })
}

/// Opens several at once, so that each number that gets free is taken immediately.
fn open_and_close_files(is_over: &AtomicBool) -> Result<()> {
    let file = memfd(1)?;
    let inode = file.metadata()?.ino();
    while !is_over.load(Ordering::Relaxed) {
        let duplicates = (0..16).map(|_| file.try_clone()).collect::<Result<Vec<_>, _>>()?;
        for duplicate in duplicates {
            if !duplicate.metadata().is_ok_and(|now| now.ino() == inode) {
                // The number is closed, or belongs to another file: it must not be closed here.
                bail!("an unrelated file, {}, was closed", duplicate.into_raw_fd());
            }
        }
    }
    Ok(())
}
