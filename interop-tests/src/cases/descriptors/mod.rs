//! Group B: the life of a file descriptor. What its cases share.

pub(crate) mod exports;
pub(crate) mod foreign;
pub(crate) mod imports;
pub(crate) mod inherited;
pub(crate) mod limit;
pub(crate) mod refused;

use std::fs::{File, Metadata};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use gpu_interop::vulkan::{self, BufferOptions};
use gpu_interop::{BufferDesc, BufferPayload, MemoryPayload};

use crate::harness::{TestGpu, open_descriptors};
use interop_gpu::oracle;

/// What most cases of this group share: enough for several pages.
pub(crate) const BYTES: u64 = 64 << 10;

pub(crate) fn desc() -> BufferDesc {
    BufferDesc::storage(BYTES)
}

/// A buffer of the machine's first device.
pub(crate) fn export(machine: &TestGpu) -> Result<(vulkan::Buffer, BufferPayload)> {
    let endpoint = &machine.vulkan().endpoint;
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
    payload.memory().as_fd().as_raw_fd()
}

/// Runs `work` and checks that it leaves as many descriptors open as there were.
pub(crate) fn leaves_nothing_open(work: impl FnMut() -> Result<()>) -> Result<()> {
    leave_nothing_open(1, work)
}

/// Runs `work` so many times and checks that together they leave as many descriptors open as there
/// were. It is run once more before, for what a driver opens once and keeps.
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
pub(crate) fn closes_on_exec(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: F_GETFD reads the flags of a descriptor that is open while it is borrowed.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    ensure!(flags >= 0, "F_GETFD: {}", std::io::Error::last_os_error());
    Ok(flags & libc::FD_CLOEXEC != 0)
}

/// A file in memory, filled with a hash.
pub(crate) fn memfd(bytes: usize) -> Result<File> {
    // SAFETY: the name ends in a NUL; the result is checked before it is used.
    let raw = unsafe { libc::memfd_create(c"junk".as_ptr(), libc::MFD_CLOEXEC) };
    ensure!(raw >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(raw) });
    file.write_all(&oracle::filled(bytes, 0x0b5e55ed))?;
    Ok(file)
}

/// A counter of events: a file that is none in any file system, as a GPU's descriptors may be.
pub(crate) fn eventfd() -> Result<OwnedFd> {
    // SAFETY: eventfd takes two numbers; the result is checked before it is used.
    let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    ensure!(raw >= 0, "eventfd: {}", std::io::Error::last_os_error());
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Files that have nothing to do with sharing, each another one, at all the numbers that are free.
///
/// Who closes a descriptor twice, or one that is a driver's, closes one of these.
pub(crate) struct Bystanders(Vec<(File, u64)>);

impl Bystanders {
    /// As many that each number up to `highest` is taken, and some more.
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
    pub(crate) fn sit_at(&self, raw: RawFd) -> bool {
        self.0.iter().any(|(file, _)| file.as_raw_fd() == raw)
    }

    /// Checks that each is still open and the file it was.
    pub(crate) fn check(&self) -> Result<()> {
        for (bystander, inode) in &self.0 {
            let raw = bystander.as_raw_fd();
            let now = file(raw).with_context(|| format!("somebody closed {raw}, not his"))?;
            ensure!(now.ino() == *inode, "{raw} was closed and is another file now");
        }
        Ok(())
    }
}

/// Runs `work` while another thread opens and closes a file of its own, as fast as it can: who closes
/// a number that a driver has closed already, closes one of those sooner or later.
pub(crate) fn closes_nobody_elses_file(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| opens_and_closes(&is_over));
        let worked = work();
        is_over.store(true, Ordering::Relaxed);
        other.join().map_err(|_| anyhow!("the other thread panicked"))??;
        worked
    })
}

/// Several at once, so that whatever number gets free is taken at once.
fn opens_and_closes(is_over: &AtomicBool) -> Result<()> {
    let file = memfd(1)?;
    let inode = file.metadata()?.ino();
    while !is_over.load(Ordering::Relaxed) {
        let duplicates = (0..16).map(|_| file.try_clone()).collect::<Result<Vec<_>, _>>()?;
        for duplicate in duplicates {
            if !duplicate.metadata().is_ok_and(|now| now.ino() == inode) {
                // The number is nobody's any more, or another's: not to be closed here.
                bail!("somebody closed {}, not his", duplicate.into_raw_fd());
            }
        }
    }
    Ok(())
}
